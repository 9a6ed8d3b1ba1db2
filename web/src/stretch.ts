// Which stretch of time the charts show: the last while, or one between two instants. It is in the address.

import { computed } from '@preact/signals'
import { link, route } from './route'
import { nodeTime, selected } from './store'

export const RANGES: [string, number][] = [
  ['5 min', 300],
  ['15 min', 900],
  ['1 h', 3600],
  ['6 h', 21_600],
  ['24 h', 86_400],
  ['7 d', 604_800],
]
const RANGE_FIRST_S = 900
const RANGE_MIN_S = 2
const RANGE_MAX_S = 366 * 86_400

/** `start` and `end` in seconds since the epoch; both null: the last `lengthS` seconds, moving. */
export interface Stretch {
  start: number | null
  end: number | null
  lengthS: number
}

export const stretch = computed<Stretch>(() => {
  const { query } = route.value
  const [from, to] = [instant(query.get('from')), instant(query.get('to'))]
  if (from !== null && to !== null && to - from >= RANGE_MIN_S && to - from <= RANGE_MAX_S)
    return { start: from, end: to, lengthS: to - from }
  const asked = Number(query.get('range'))
  return { start: null, end: null, lengthS: asked >= RANGE_MIN_S && asked <= RANGE_MAX_S ? asked : RANGE_FIRST_S }
})

function instant(text: string | null | undefined): number | null {
  const time = Date.parse(text ?? '')
  return Number.isNaN(time) ? null : time / 1000
}

const iso = (time: number): string => new Date(Math.round(time * 1000)).toISOString()

/** The address of a system with its charts at this stretch; one that reaches the present is the moving one. */
export function linkTo(id: string, { start, end, lengthS }: Stretch): string {
  const moving = start === null || end === null || end >= nodeTime() / 1000
  if (!moving) return link('system', id, { from: iso(start), to: iso(end) })
  return link('system', id, { range: lengthS === RANGE_FIRST_S ? null : String(Math.round(lengthS)) })
}

/** Show this stretch. Each is a place in the browser's history, so Back returns. */
export function show(wanted: Stretch): void {
  const id = selected.peek()?.system_id
  if (id !== undefined) location.hash = linkTo(id, wanted)
}

/** A stretch chosen on a chart: as exact as asked, never shorter than can be told apart. */
export function zoom(from: number, to: number): void {
  const middle = (from + to) / 2
  const half = Math.max(to - from, RANGE_MIN_S) / 2
  show({ start: middle - half, end: middle + half, lengthS: half * 2 })
}

/** Back to the present, with the range it had: the nearest of those offered. */
export function live(): void {
  const { lengthS } = stretch.peek()
  const fitting = RANGES.find(([, length]) => length >= lengthS * 0.999)?.[1] ?? 86_400
  show({ start: null, end: null, lengthS: fitting })
}

/** Earlier (-1) or later (1) by half of what is shown. */
export function shift(direction: -1 | 1): void {
  const { start, end, lengthS } = stretch.peek()
  const last = end ?? nodeTime() / 1000
  const by = (direction * lengthS) / 2
  show({ start: (start ?? last - lengthS) + by, end: last + by, lengthS })
}
