// The JSON API, by relative addresses: the page works behind any prefix.

import type { Action, AggregatesAnswer, Component, NodeFacts, SeriesAnswer, System } from './types'

/** An id within a path. `.` and `..` are steps there, percent-encoded too; with a tilde before them they are none. */
export const segment = (id: string): string => encodeURIComponent(id.replace(/^~*\.\.?$/, '~$&'))

const TIMEOUT_MS = 10_000
export const SYSTEMS_MAX = 1000
export const ACTIONS_SHOWN = 100

/** Ask for JSON below `api/v1/`. */
export async function get<T>(path: string, query: Record<string, string | number> = {}, signal?: AbortSignal): Promise<T> {
  const text = new URLSearchParams(Object.entries(query).map(([name, value]) => [name, String(value)])).toString()
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])]
  const answer = await fetch(`api/v1/${path}${text ? `?${text}` : ''}`, { signal: AbortSignal.any(signals) })
  if (!answer.ok) throw new Error(`the node answered ${answer.status}`)
  return (await answer.json()) as T
}

export const api = {
  node: () => get<NodeFacts>('node'),
  systems: async () => (await get<{ systems: System[] }>('systems', { limit: SYSTEMS_MAX })).systems,
  system: (id: string) => get<System>(`systems/${segment(id)}`),
  actions: async () => (await get<{ actions: Action[] }>('actions', { limit: ACTIONS_SHOWN })).actions,
  components: async () => (await get<{ components: Component[] }>('components')).components,
  /** The newest `limit` points from `start` on; times are seconds since the epoch. */
  series: (id: string, metric: string, start: number, limit: number, signal: AbortSignal, end: number | null = null) =>
    get<SeriesAnswer>(
      `systems/${segment(id)}/series`,
      { metric, start: new Date(start * 1000).toISOString(), end: end === null ? FAR : new Date(end * 1000).toISOString(), limit },
      signal,
    ),
  aggregates: (
    id: string,
    metric: string,
    aggregation: 'avg' | 'min' | 'max',
    start: number,
    end: number,
    bucket_s: number,
    signal: AbortSignal,
  ) =>
    get<AggregatesAnswer>(
      `systems/${segment(id)}/aggregates`,
      {
        metric,
        aggregation,
        bucket_s,
        start: new Date(start * 1000).toISOString(),
        end: new Date(end * 1000).toISOString(),
      },
      signal,
    ),
}

// Samples of a system whose clock runs a little ahead belong on the chart too.
const FAR = new Date(Date.now() + 86_400_000).toISOString()
