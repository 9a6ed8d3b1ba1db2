// One metric's curve over a stretch of time: its past from the API, its present from the stream, its gaps as gaps.
// Few points are shown as they are; many as the average of buckets, with the least and the greatest value around it.

import { api } from './api'
import type { Stretch } from './stretch'
import { nodeTime, onSample } from './store'
import type { Scalar } from './types'

export interface Curve {
  /** Seconds since the epoch, ascending. */
  xs: number[]
  ys: (number | null)[]
  lows: (number | null)[]
  highs: (number | null)[]
}

/** Up to this length every point is shown, so that what is live moves with every sample. */
const CLOSE_S = 900
const CLOSE_POINTS_MAX = 5_000
const RAW_POINTS_MAX = 1_500
/** Where no point is left there may still be the summaries that are kept longer, of this length at least. */
const SUMMARY_S = 60
/** How far apart the points of a system usually are, where that is known: saves asking for too many in vain. */
const usualS = new Map<string, number>()
const TAIL_EVERY_S = 10
/** A bucket is at least so many pixels wide. */
const BUCKET_PX = 2.5
const BUCKETS_S = [
  1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400, 21_600, 43_200, 86_400, 172_800, 604_800, 2_592_000,
]

const numeric = (value: Scalar | undefined): number | null => (typeof value === 'number' ? value : null)
const none = (): Curve => ({ xs: [], ys: [], lows: [], highs: [] })

export class History {
  curve: Curve = none()
  failed = false
  loaded = false
  /** Length of a bucket; null where single points are shown. */
  bucketS: number | null = null
  private bucketMinS = 0
  private gapS = 15
  private tailAt = 0
  private early: [number, number | null][] = []
  private aborter = new AbortController()
  private readonly unsubscribe: () => void

  constructor(
    private readonly systemId: string,
    private readonly metric: string,
    private readonly stretch: Stretch,
    private readonly widthPx: number,
    private readonly changed: () => void,
  ) {
    this.unsubscribe =
      stretch.end !== null
        ? () => undefined
        : onSample((sample) => {
            if (sample.system_id !== systemId || !(metric in sample.values)) return
            if (this.bucketS === null) this.append(Date.parse(sample.timestamp) / 1000, numeric(sample.values[metric]))
            else void this.tail()
          })
  }

  /** Read the whole stretch (again). */
  async load(): Promise<void> {
    this.aborter.abort()
    this.aborter = new AbortController()
    const { signal } = this.aborter
    this.loaded = false
    try {
      const start = this.stretch.start ?? nodeTime() / 1000 - this.stretch.lengthS
      const raw = await this.raw(start, signal)
      const curve = raw ?? (await this.buckets(start, signal))
      if (signal.aborted) return
      this.bucketS = raw ? null : this.bucketLength()
      this.curve = curve
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

  private bucketLength(): number {
    const least = Math.max(this.bucketMinS, (this.stretch.lengthS / Math.max(this.widthPx, 100)) * BUCKET_PX)
    return BUCKETS_S.find((length) => length >= least) ?? BUCKETS_S.at(-1) ?? least
  }

  /** The points themselves; null when there are so many that buckets tell more. */
  private async raw(start: number, signal: AbortSignal): Promise<Curve | null> {
    const most = this.stretch.lengthS <= CLOSE_S ? CLOSE_POINTS_MAX : RAW_POINTS_MAX
    this.bucketMinS = 0
    if (this.stretch.lengthS / (usualS.get(this.systemId) ?? Infinity) > most * 1.5) return null
    const series = await api.series(this.systemId, this.metric, start, most, signal, this.stretch.end)
    const times = series.timestamps.map((time) => Date.parse(time) / 1000)
    this.gapS = gapOf(times)
    if (times.length > 2) usualS.set(this.systemId, this.gapS / 3)
    if (series.truncated) return null
    if (times.length === 0 && this.stretch.end !== null && this.stretch.lengthS > 2 * SUMMARY_S) {
      this.bucketMinS = SUMMARY_S
      return null
    }
    const curve = none()
    times.forEach((x, index) => push(curve, x, [numeric(series.values[index]), null, null], this.gapS))
    return curve
  }

  private async buckets(start: number, signal: AbortSignal): Promise<Curve> {
    const bucket = this.bucketLength()
    const first = Math.floor(start / bucket) * bucket
    const end = (Math.ceil((this.stretch.end ?? nodeTime() / 1000) / bucket) + (this.stretch.end === null ? 1 : 0)) * bucket
    const [averages, lows, highs] = await Promise.all(
      (['avg', 'min', 'max'] as const).map((how) =>
        api.aggregates(this.systemId, this.metric, how, first, end, bucket, signal),
      ),
    )
    const low = new Map(lows?.starts.map((time, index) => [time, lows.values[index] ?? null]))
    const high = new Map(highs?.starts.map((time, index) => [time, highs.values[index] ?? null]))
    const curve = none()
    averages?.starts.forEach((time, index) => {
      // A value stands in the middle of what it sums up.
      const x = Date.parse(time) / 1000 + bucket / 2
      push(curve, x, [averages.values[index] ?? null, low.get(time) ?? null, high.get(time) ?? null], bucket * 1.5)
    })
    this.tailAt = Date.now()
    return curve
  }

  /** Read the last buckets again: the newest one grows, and late samples may have changed the one before. */
  private async tail(): Promise<void> {
    const bucket = this.bucketS ?? 1
    if (!this.loaded || document.hidden || Date.now() - this.tailAt < Math.max(TAIL_EVERY_S, bucket / 4) * 1000) return
    this.tailAt = Date.now()
    const { xs, ys, lows, highs } = this.curve
    const { signal } = this.aborter
    try {
      const start = Math.max((xs.at(-2) ?? 0) - bucket / 2 + 1e-3, nodeTime() / 1000 - this.stretch.lengthS)
      const fresh = await this.buckets(start, signal)
      if (signal.aborted) return
      const from = fresh.xs[0]
      if (from !== undefined) {
        while (xs.length > 0 && (xs.at(-1) ?? 0) >= from) for (const column of [xs, ys, lows, highs]) column.pop()
        fresh.xs.forEach((x, index) =>
          push(
            this.curve,
            x,
            [fresh.ys[index] ?? null, fresh.lows[index] ?? null, fresh.highs[index] ?? null],
            bucket * 1.5,
          ),
        )
      }
      this.trim()
      this.changed()
    } catch {
      // The curve stays as it is; the next sample tries again.
    }
  }

  private append(x: number, y: number | null): void {
    if (!this.loaded) {
      this.early = [...this.early.slice(-CLOSE_POINTS_MAX), [x, y]]
      return
    }
    if (this.bucketS !== null) return
    const last = this.curve.xs.at(-1)
    if (last !== undefined && x <= last) return
    if (this.curve.xs.length >= 3 && this.curve.xs.length % 32 === 0) this.gapS = gapOf(this.curve.xs)
    push(this.curve, x, [y, null, null], this.gapS)
    this.trim()
    this.changed()
  }

  private trim(): void {
    const { xs, ys, lows, highs } = this.curve
    const oldest = nodeTime() / 1000 - this.stretch.lengthS * 1.1
    let count = 0
    while (count < xs.length && (xs[count] ?? 0) < oldest) count += 1
    // Rarely and many at once: removing from the front copies the rest.
    if (count > 100) for (const column of [xs, ys, lows, highs]) column.splice(0, count)
  }
}

type Point = [y: number | null, low: number | null, high: number | null]

/** Put a point at the end; after a silence, a break first, so that the line does not bridge what nobody measured. */
function push(curve: Curve, x: number, [y, low, high]: Point, gapS: number): void {
  const last = curve.xs.at(-1)
  if (last !== undefined && x - last > gapS && curve.ys.at(-1) !== null) {
    curve.xs.push(last + gapS / 2)
    for (const column of [curve.ys, curve.lows, curve.highs]) column.push(null)
  }
  curve.xs.push(x)
  curve.ys.push(y)
  curve.lows.push(low)
  curve.highs.push(high)
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
