// A system shortly before and after it was changed: its key metrics as small curves, and what they were on average.

import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { get, segment } from './api'
import { label, quantity } from './format'
import { charted, isNumeric } from './metrics'
import { useEvery } from './paged'
import { nodeTime, systems } from './store'
import type { AggregatesAnswer, SeriesAnswer, System } from './types'

const AROUND_MS = 90_000
const MEAN_MS = 30_000
const METRICS_MAX = 4
const POINTS_MAX = 2000
/** Longer ranges are asked for as averages. */
const RAW_MAX_MS = 900_000
const BUCKETS = 200
const EVERY_MS = 5000

export interface Seen {
  metric: string
  unit: string | null
  /** Milliseconds, ascending. */
  times: number[]
  values: (number | null)[]
}

export interface Around {
  begin: number
  end: number
  seen: Seen[]
}

async function ask(system: string, metric: string, begin: number, end: number): Promise<Seen> {
  const path = `systems/${segment(system)}/`
  const range = { metric, start: new Date(begin).toISOString(), end: new Date(end).toISOString() }
  const numeric = (value: unknown): number | null => (typeof value === 'number' ? value : null)
  if (end - begin <= RAW_MAX_MS) {
    const answer = await get<SeriesAnswer>(`${path}series`, { ...range, limit: POINTS_MAX })
    if (answer.values.length > 0)
      return { metric, unit: answer.unit, times: answer.timestamps.map(Date.parse), values: answer.values.map(numeric) }
  }
  // What is too old for single values is kept as averages for longer.
  const bucket_s = Math.max(1, Math.ceil((end - begin) / 1000 / BUCKETS))
  const answer = await get<AggregatesAnswer>(`${path}aggregates`, { ...range, aggregation: 'avg', bucket_s })
  return { metric, unit: answer.unit, times: answer.starts.map(Date.parse), values: answer.values }
}

/** The key metrics of a system around something that lasted from `from` to `to`; null while they are being read. */
export function useAround(system: System | undefined, from: number, to: number): Around | null {
  const found = useSignal<Around | null>(null)
  const begin = from - AROUND_MS
  const end = to + AROUND_MS
  const look = async (): Promise<void> => {
    if (!system) return
    const metrics = charted(system).filter((key) => isNumeric(system, key)).slice(0, METRICS_MAX)
    const seen = await Promise.all(metrics.map((metric) => ask(system.system_id, metric, begin, Math.min(end, nodeTime() + 1))))
    found.value = { begin, end, seen: seen.filter((one) => one.values.some((value) => value !== null)) }
  }
  useEffect(() => {
    look().catch(() => {
      found.value ??= { begin, end, seen: [] }
    })
  }, [system?.system_id, from, to])
  useEvery(EVERY_MS, nodeTime() < end + EVERY_MS, look)
  return found.value
}

const mean = (seen: Seen, begin: number, end: number): number | null => {
  const within = seen.values.filter((value, index) => {
    const time = seen.times[index] ?? 0
    return value !== null && time >= begin && time < end
  }) as number[]
  return within.length === 0 ? null : within.reduce((sum, value) => sum + value, 0) / within.length
}

/** The last value that was there at that time. */
export function valueAt(seen: Seen, time: number): number | null {
  let found: number | null = null
  seen.times.forEach((at, index) => {
    if (at <= time) found = seen.values[index] ?? null
  })
  return found
}

export function Glance({ around, system, from, to }: { around: Around | null; system: string; from: number; to: number }) {
  const known = systems.value.get(system)
  if (!known) return <p class="muted small">The node does not know this system now, so its values are not shown.</p>
  if (around === null) return <p class="muted small">Loading …</p>
  if (around.seen.length === 0)
    return <p class="muted small">No values of {system} are kept from that time.</p>
  return (
    <>
      <ul class="glance">
        {around.seen.map((seen) => (
          <li key={seen.metric}>
            <Small seen={seen} around={around} name={known.metrics[seen.metric]?.name ?? seen.metric} from={from} to={to} />
          </li>
        ))}
      </ul>
      <p class="row small muted glance-axis" aria-hidden="true">
        <span>{AROUND_MS / 1000} s before</span>
        <span>{AROUND_MS / 1000} s after</span>
      </p>
    </>
  )
}

const WIDTH = 300
const HEIGHT = 56

function Small({ seen, around, name, from, to }: { seen: Seen; around: Around; name: string; from: number; to: number }) {
  const before = mean(seen, from - MEAN_MS, from)
  // At first the change itself is in the values; where there is more, only what came after that.
  const late = mean(seen, to + AROUND_MS - MEAN_MS, to + AROUND_MS)
  const after = late ?? mean(seen, to, to + AROUND_MS)
  const text = (value: number | null): string => (value === null ? '?' : quantity(value, seen.unit, name))
  const x = (time: number): number => ((time - around.begin) / (around.end - around.begin)) * WIDTH
  return (
    <>
      <p class="row">
        <span class="clip" title={seen.metric}>
          {label(seen.metric)}
        </span>
        <span class="fixed">
          <span class="muted">{text(before)}</span> <span aria-label="then">→</span> <strong>{text(after)}</strong>
        </span>
      </p>
      <svg
        viewBox={`0 0 ${WIDTH} ${HEIGHT}`}
        preserveAspectRatio="none"
        role="img"
        aria-label={`${label(seen.metric)}: ${text(before)} before, ${text(after)} after`}
      >
        <rect class="during" x={x(from)} y="0" width={Math.max(1.5, x(to) - x(from))} height={HEIGHT} />
        <path class="curve" d={pathOf(seen, x)} />
      </svg>
    </>
  )
}

function pathOf(seen: Seen, x: (time: number) => number): string {
  const values = seen.values.filter((value) => value !== null)
  const low = Math.min(0, ...values)
  const high = Math.max(...values, low + 1e-9)
  let pen = 'M'
  return seen.times
    .map((time, index) => {
      const value = seen.values[index] ?? null
      if (value === null) {
        pen = 'M'
        return ''
      }
      const y = HEIGHT - 3 - ((value - low) / (high - low)) * (HEIGHT - 6)
      const step = `${pen}${x(time).toFixed(1)} ${y.toFixed(1)}`
      pen = 'L'
      return step
    })
    .join('')
}
