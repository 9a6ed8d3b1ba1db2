// What was not well, from when to when: of all for the history of the node, of one system for its charts.

import { computed, signal } from '@preact/signals'
import { get } from './api'
import { span } from './format'
import { Paged } from './paged'
import { moment } from './recollection'
import { selected } from './store'
import type { Health, Period } from './types'
import { micros } from './unfolding'

const PAGE = 50
const OF_STRETCH = 500
const HEARD_MAX = 200

/** What the stream told lately. */
const heard = signal<readonly Period[]>([])
/** Of which system what was read. */
const read = signal<{ id: string; periods: readonly Period[] } | null>(null)

const keyOf = ({ period_id }: Period): string => period_id
/** What is over lasts again only when it has come back: what the node has stored is behind what it has told. */
const later = (former: Period | undefined, next: Period): Period =>
  former && (former.times > next.times || (former.times === next.times && former.until && !next.until)) ? former : next
const newestFirst = (a: Period, b: Period): number => micros(b.since) - micros(a.since) || (keyOf(a) < keyOf(b) ? 1 : -1)

export function hear(period: Period): void {
  heard.value = [period, ...heard.peek().filter((other) => keyOf(other) !== keyOf(period))].slice(0, HEARD_MAX)
}

type Narrowed = Record<string, string | number>

const ask = (query: Narrowed, signal?: AbortSignal) =>
  get<{ periods: Period[]; next_cursor: string | null }>('health/history', query, signal)

/** The pages that the node gives, narrowed; `takeIn(heard)` keeps it true. */
export const periodList = (by: Narrowed): Paged<Period> =>
  new Paged(
    async (cursor, signal) => {
      const { periods, next_cursor } = await ask({ ...by, limit: PAGE, ...(cursor ? { cursor } : {}) }, signal)
      return { items: periods, next: next_cursor }
    },
    keyOf,
    later,
    newestFirst,
  )

export const takeHeard = (list: Paged<Period>, wanted: (period: Period) => boolean): void => list.takeIn(heard.value, wanted)

/** Of the system that is shown, its connector included, newest first: what was read, and what the stream told since. */
export const ofSystem = computed<readonly Period[]>(() => {
  const id = selected.value?.system_id
  const all = new Map<string, Period>()
  for (const period of [...(read.value?.id === id ? (read.value?.periods ?? []) : []), ...heard.value])
    if (period.system_id === id) all.set(keyOf(period), later(all.get(keyOf(period)), period))
  return [...all.values()].sort(newestFirst)
})

/** Read what fell into a stretch of time, in seconds; it may go on to now. */
export async function readPeriods(id: string, start: number, end: number | null): Promise<void> {
  const at = (time: number): string => new Date(time * 1000).toISOString()
  const until = end === null ? {} : { end: at(end) }
  read.value = { id, periods: (await ask({ system: id, start: at(start), ...until, limit: OF_STRETCH })).periods }
}

export const begin = ({ since }: Period): number => micros(since) / 1e6
/** Of what lasts: now. */
export const end = ({ until }: Period, now: number): number => (until === null ? now : micros(until) / 1e6)

export const TONES: Partial<Record<Health, string>> = { warning: '--warn', unknown: '--muted' }

/** From when to when, how long, and how often. */
export function course(period: Period, now: number): string {
  const { since, until, times, cut_off } = period
  const length = span(end(period, now) - begin(period))
  const parts = [
    until === null ? `since ${moment(since)}` : `${moment(since)} – ${cut_off ? 'stop of the node' : moment(until)}`,
    cut_off ? `at most ${length}` : length,
    times > 1 ? `${times} times` : '',
  ]
  return parts.filter(Boolean).join(' · ')
}
