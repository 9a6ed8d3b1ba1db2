// What is asked of the node about itself: its broker, what passes on the bus, its health and configuration.

import { get } from './api'
import type { Component, Health } from './types'

export interface Consumer {
  name: string
  patterns: string[]
  ack: string
  durable: boolean
  pending: number
  unacknowledged: number
  redelivered: number
  in_flight_max: number | null
  paused: boolean
  last_active_at: string | null
}

export interface Stream {
  name: string
  subjects: string[]
  messages: number
  bytes: number
  bytes_max: number | null
  messages_max: number | null
  age_max_s: number | null
  first_at: string | null
  last_at: string | null
  replicas: number
  consumers: Consumer[]
  consumers_total: number
}

export interface Streams {
  asked_at: string
  streams: Stream[]
  streams_total: number
}

export interface Breaker {
  name: string
  state: string
  consecutive_failures: number
  rejected_total: number
  retry_after_s: number | null
  remedy: string
}

export interface HealthReport {
  ready: boolean
  health_status: Health
  message: string
  components: Component[]
  breakers: Breaker[]
}

export interface Setting {
  key: string
  value: unknown
  source: string
  origin: string
  default: unknown
  is_secret: boolean
  description: string
}

export interface Configuration {
  settings: Setting[]
  left_out: number
  file: string | null
  facts: Record<string, string>
}

export interface Tapped {
  topic: string
  received_at: string
  bytes: number
  id?: string
  type?: string
  time?: string
  event?: Record<string, unknown>
  problem?: string
  hex?: string
}

export const inspection = {
  streams: () => get<Streams>('bus/streams'),
  health: () => get<HealthReport>('health'),
  configuration: () => get<Configuration>('configuration'),
}
