// One metric's curve: its past from the API, its present from the stream, and its gaps shown as gaps.

import { api } from './api'
import { nodeTime, onSample } from './store'
import type { Scalar } from './types'

export interface Curve {
  /** Seconds since the epoch, ascending. */
  xs: number[]
  ys: (number | null)[]
}

/** Up to this range single points are shown, above it averages. */
const RAW_RANGE_MAX_S = 900
const RAW_POINTS_MAX = 5_000
const BUCKETS = 360
const TAIL_EVERY_S = 10

const numeric = (value: Scalar | undefined): number | null => (typeof value === 'number' ? value : null)

export class History {
  readonly curve: Curve = { xs: [], ys: [] }
  failed = false
  loaded = false
  private gapS = 15
  private bucketS: number | null
  private tailAt = 0
  private early: [number, number | null][] = []
  private aborter = new AbortController()
  private readonly unsubscribe: () => void

  constructor(
    private readonly systemId: string,
    private readonly metric: string,
    private readonly rangeS: number,
    private readonly changed: () => void,
  ) {
    this.bucketS = rangeS <= RAW_RANGE_MAX_S ? null : Math.max(1, Math.ceil(rangeS / BUCKETS))
    this.unsubscribe = onSample((sample) => {
      if (sample.system_id !== systemId || !(metric in sample.values)) return
      if (this.bucketS === null) this.append(Date.parse(sample.timestamp) / 1000, numeric(sample.values[metric]))
      else void this.tail()
    })
  }

  /** Read the whole range (again). */
  async load(): Promise<void> {
    this.aborter.abort()
    this.aborter = new AbortController()
    const { signal } = this.aborter
    this.loaded = false
    try {
      const start = nodeTime() / 1000 - this.rangeS
      const curve = this.bucketS === null ? await this.raw(start, signal) : await this.buckets(start, signal)
      if (signal.aborted) return
      this.curve.xs = curve.xs
      this.curve.ys = curve.ys
      this.loaded = true
      this.failed = false
      const early = this.early
      this.early = []
      for (const [x, y] of early) this.append(x, y)
    } catch {
      if (signal.aborted) return
      this.failed = true
    }
    this.changed()
  }

  close(): void {
    this.aborter.abort()
    this.unsubscribe()
  }

  private async raw(start: number, signal: AbortSignal): Promise<Curve> {
    const series = await api.series(this.systemId, this.metric, start, RAW_POINTS_MAX, signal)
    const times = series.timestamps.map((time) => Date.parse(time) / 1000)
    this.gapS = gapOf(times)
    const curve: Curve = { xs: [], ys: [] }
    times.forEach((x, index) => push(curve, x, numeric(series.values[index]), this.gapS))
    return curve
  }

  private async buckets(start: number, signal: AbortSignal): Promise<Curve> {
    const bucket = this.bucketS ?? 1
    const first = Math.floor(start / bucket) * bucket
    const end = Math.ceil(nodeTime() / 1000 / bucket + 1) * bucket
    const answer = await api.aggregates(this.systemId, this.metric, first, end, bucket, signal)
    const curve: Curve = { xs: [], ys: [] }
    answer.starts.forEach((time, index) =>
      push(curve, Date.parse(time) / 1000, answer.values[index] ?? null, bucket * 1.5),
    )
    this.tailAt = Date.now()
    return curve
  }

  /** Read the last buckets again: the newest one grows, and late samples may have changed the one before. */
  private async tail(): Promise<void> {
    if (!this.loaded || Date.now() - this.tailAt < TAIL_EVERY_S * 1000) return
    this.tailAt = Date.now()
    const { xs, ys } = this.curve
    const { signal } = this.aborter
    try {
      const bucket = this.bucketS ?? 1
      const fresh = await this.buckets(Math.max((xs.at(-2) ?? 0) + 1e-3, nodeTime() / 1000 - this.rangeS), signal)
      if (signal.aborted) return
      const from = fresh.xs[0]
      if (from !== undefined) {
        while (xs.length > 0 && (xs.at(-1) ?? 0) >= from) {
          xs.pop()
          ys.pop()
        }
        fresh.xs.forEach((x, index) => push(this.curve, x, fresh.ys[index] ?? null, bucket * 1.5))
      }
      this.trim()
      this.changed()
    } catch {
      // The curve stays as it is; the next sample tries again.
    }
  }

  private append(x: number, y: number | null): void {
    if (!this.loaded) {
      this.early = [...this.early.slice(-RAW_POINTS_MAX), [x, y]]
      return
    }
    const last = this.curve.xs.at(-1)
    if (last !== undefined && x <= last) return
    if (this.curve.xs.length >= 3 && this.curve.xs.length % 32 === 0) this.gapS = gapOf(this.curve.xs)
    push(this.curve, x, y, this.gapS)
    this.trim()
    this.changed()
  }

  private trim(): void {
    const { xs, ys } = this.curve
    const oldest = nodeTime() / 1000 - this.rangeS * 1.1
    let count = 0
    while (count < xs.length && (xs[count] ?? 0) < oldest) count += 1
    // Rarely and many at once: removing from the front copies the rest.
    if (count > 100) {
      xs.splice(0, count)
      ys.splice(0, count)
    }
  }
}

/** Put a point at the end; after a silence, a break first, so that the line does not bridge what nobody measured. */
function push(curve: Curve, x: number, y: number | null, gapS: number): void {
  const last = curve.xs.at(-1)
  if (last !== undefined && x - last > gapS && curve.ys.at(-1) !== null) {
    curve.xs.push(last + gapS / 2)
    curve.ys.push(null)
  }
  curve.xs.push(x)
  curve.ys.push(y)
}

/** How long a silence must be to count as a gap: three times the usual distance of two points. */
function gapOf(times: readonly number[]): number {
  const recent = times.slice(-64)
  const distances = recent
    .slice(1)
    .map((time, index) => time - (recent[index] ?? time))
    .filter((distance) => distance > 0)
    .sort((a, b) => a - b)
  const median = distances[Math.floor(distances.length / 2)]
  return median === undefined ? 15 : Math.max(median * 3, 2.5)
}
