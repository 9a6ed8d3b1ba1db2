// What happens goes on: which of two tellings of it is the newer.

import type { Action } from './types'

/** An instant in microseconds, as the node tells it; never is before all. A text with a fraction does not sort as a text. */
export function micros(time: string | null | undefined): number {
  if (time == null) return -Infinity
  const fraction = /\.\d+/.exec(time)?.[0] ?? ''
  return Date.parse(time.replace(fraction, '')) * 1000 + Math.round(Number(`0${fraction}`) * 1e6)
}

export const newestFirst = (a: Action, b: Action): number =>
  micros(b.created_at) - micros(a.created_at) || (a.action_id < b.action_id ? 1 : -1)

const stage = ({ status }: Action): number => (status === 'pending' ? 0 : status === 'running' ? 1 : 2)

/** Of two tellings of one action the later one, unless it is behind: what has ended never runs again. */
export const further = <T extends Action>(former: T | undefined, next: T): T =>
  former === undefined ? next : stage(next) < stage(former) ? { ...next, ...former } : { ...former, ...next }
