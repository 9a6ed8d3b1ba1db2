// Which view is shown: the fragment of the address, so that every view can be linked to and the page works anywhere.

import { signal } from '@preact/signals'

const NAMES = ['overview', 'system', 'adaptations', 'bus', 'traces', 'logs', 'node'] as const
export type View = (typeof NAMES)[number]

export interface Route {
  view: View
  /** What the view is opened at: a system, an action, a trace. */
  id: string | null
  /** What the view is narrowed to, such as a correlation id. */
  query: ReadonlyMap<string, string>
}

/** `#/view/id?name=value`; what is not understood is the overview. */
function read(): Route {
  const [, name = '', id, query = ''] = /^#\/([a-z]*)(?:\/([^?]+))?(?:\?(.*))?$/.exec(location.hash) ?? []
  const view = NAMES.find((known) => known === name) ?? 'overview'
  return { view, id: decoded(id), query: new Map(new URLSearchParams(query)) }
}

/** What cannot be decoded stays as it is: it names something, though nothing that is known. */
function decoded(text: string | undefined): string | null {
  try {
    return text === undefined ? null : decodeURIComponent(text)
  } catch {
    return text ?? null
  }
}

export const route = signal<Route>(read())

addEventListener('hashchange', () => {
  // Other fragments are places on the page, such as that of the skip link.
  if (location.hash.startsWith('#/')) route.value = read()
})

/** The address of a view; `query` leaves out what is empty. */
export function link(view: View, id: string | null = null, query: Record<string, string | null> = {}): string {
  const wanted = Object.entries(query).filter((pair): pair is [string, string] => Boolean(pair[1]))
  const narrowed = new URLSearchParams(wanted).toString()
  const path = view === 'overview' ? '#/' : `#/${view}`
  return `${path}${id === null ? '' : `/${encodeURIComponent(id)}`}${narrowed ? `?${narrowed}` : ''}`
}
