// The answers of the node's API, as /openapi.json describes them.

export type Health = 'healthy' | 'warning' | 'critical' | 'unhealthy' | 'unknown'
export type Quality = 'ok' | 'stale' | 'missing'
export type Scalar = number | string | boolean | null

export interface NodeFacts {
  name: string
  version: string
  started_at: string
  now: string
  health_status: Health
  message: string
  addresses: Record<string, string>
  rates: { samples_per_s: number | null; values_per_s: number | null; messages_per_s: number | null }
  systems: number
  actions: number | null
  dead_letters: number | null
  takes_changes: boolean
}

export interface Reading {
  name: string
  value: Scalar
  unit: string | null
  quality: Quality
  timestamp: string | null
  tags: Record<string, string>
}

export interface System {
  system_id: string
  connector: string
  health_status: Health
  message: string
  last_sample_at: string | null
  stale: boolean
  stale_after_s: number | null
  metrics: Record<string, Reading>
  metadata: Record<string, unknown>
  supported_actions: string[]
  samples: SampleBooks | null
}

/** Where the samples are that the node took: `sampled = confirmed + waiting + dropped`. */
export interface SampleBooks {
  sampled: number
  confirmed: number
  waiting: number
  dropped: number
}

export interface Sample {
  system_id: string
  timestamp: string
  health_status: Health
  values: Record<string, Scalar>
  qualities: Record<string, Quality>
}

export type Status =
  | 'pending'
  | 'running'
  | 'success'
  | 'partial'
  | 'failed'
  | 'rejected'
  | 'timeout'
  | 'cancelled'
  | 'unknown'

export interface Action {
  action_id: string
  action_type: string
  target_system: string
  created_at: string
  status: Status
  parameters: Record<string, unknown>
  source: string | null
  attempts: number | null
  result_data: Record<string, unknown>
  error_message: string | null
  started_at: string | null
  completed_at: string | null
  duration_s: number | null
}

export interface Component {
  name: string
  status: Health
  message: string
  since: string | null
  details: Record<string, Scalar>
  /** Whether the node is not ready without it. */
  essential?: boolean
  /** What to do about it; empty when all is well. */
  remedy?: string
}

/** A time in which a part of the node or a system was not well. */
export interface Period {
  period_id: string
  component: string | null
  system_id: string | null
  status: Health
  message: string
  remedy: string
  since: string
  /** Null while it lasts. */
  until: string | null
  /** How often it began: more where it was well for less than half a minute in between. */
  times: number
  /** Whether the node stopped meanwhile. */
  cut_off: boolean
}

export interface SeriesAnswer {
  unit: string | null
  timestamps: string[]
  values: Scalar[]
  truncated: boolean
}

export interface AggregatesAnswer {
  unit: string | null
  starts: string[]
  values: (number | null)[]
}

export interface DeadLetter {
  sequence: number
  stored_at: string
  topic: string
  subscription: string
  reason: string
  error_code: string
  error_message: string
  attempts: number
  first_at: string
  failed_at: string
  correlation_id: string | null
  payload_bytes: number
}

export interface DeadLetterDetails extends DeadLetter {
  payload: string
  headers: Record<string, string>
}

export interface Dependency {
  source_system: string
  target_system: string
  dependency_type: string
  strength: number
}

export interface BusFacts {
  state: string
  published: { kind: string; published: number; confirmed: number; waiting: number; dropped: Record<string, number> }[]
  subscriptions: { name: string; pattern: string; in_flight: number; paused: boolean; counts: Record<string, number> }[]
}
