// The actions of one system: from the node page by page, and new ones as they happen.

import { computed, signal } from '@preact/signals'
import { get } from './api'
import { actions, selected } from './store'
import type { Action } from './types'

const PAGE = 100
/** To mark a stretch long past, at most so many pages are read by themselves. */
const PAGES_BY_ITSELF = 5

interface Known {
  id: string
  read: readonly Action[]
  cursor: string | null
}

interface Answer {
  actions: Action[]
  next_cursor: string | null
}

const known = signal<Known | null>(null)

/** Of the selected system, newest first: what was read, and what the stream told since. */
export const doings = computed<readonly Action[]>(() => {
  const id = selected.value?.system_id
  const here = known.value?.id === id ? known.value : null
  const all = new Map((here?.read ?? []).map((action) => [action.action_id, action]))
  for (const action of actions.value) if (action.target_system === id) all.set(action.action_id, action)
  return [...all.values()].sort((a, b) => (a.created_at < b.created_at ? 1 : -1))
})

/** Whether the node has older ones. */
export const hasOlder = computed<boolean>(() => known.value?.id === selected.value?.system_id && known.value?.cursor != null)

async function page(id: string, cursor: string | null): Promise<Answer> {
  return get<Answer>('actions', { system: id, limit: PAGE, ...(cursor === null ? {} : { cursor }) })
}

/** Read the newest of a system, and on until those since `start` are known. */
export async function readDoings(id: string, start: number): Promise<void> {
  const next = await page(id, null)
  if (selected.peek()?.system_id !== id) return
  known.value = { id, read: next.actions, cursor: next.next_cursor }
  await reachBack(id, start)
}

/** Read on until those since `start` are known; not for ever, what is left comes when asked for. */
export async function reachBack(id: string, start: number): Promise<void> {
  for (let pages = 1; pages < PAGES_BY_ITSELF && known.peek()?.id === id; pages += 1) {
    const last = known.peek()?.read.at(-1)
    if (!last || Date.parse(last.created_at) / 1000 < start || !(await older())) return
  }
}

/** Read one page more; false when there is none, or another system was chosen meanwhile. */
export async function older(): Promise<boolean> {
  const here = known.peek()
  if (!here || here.cursor === null) return false
  const next = await page(here.id, here.cursor)
  if (known.peek() !== here) return false
  known.value = { ...here, read: [...here.read, ...next.actions], cursor: next.next_cursor }
  return true
}
