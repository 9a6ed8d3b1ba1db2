// The actions of one system: from the node page by page, and new ones as they happen.

import { computed, effect, signal } from '@preact/signals'
import { actionList } from './actionlist'
import { get } from './api'
import type { Page, Paged } from './paged'
import { actions, selected } from './store'
import type { Action } from './types'

const PAGE = 100
/** To mark a stretch long past, at most so many pages are read by themselves. */
const PAGES_BY_ITSELF = 5

interface Known {
  id: string
  list: Paged<Action>
}

const known = signal<Known | null>(null)

effect(() => {
  const here = known.value
  here?.list.takeIn(actions.value, (action) => action.target_system === here.id)
})

/** Of the selected system, newest first: what was read, and what the stream told since. */
export const doings = computed<readonly Action[]>(() => {
  const id = selected.value?.system_id
  const here = known.value
  if (here?.id === id && here?.list.state.value === 'ready') return here.list.items.value
  return actions.value.filter((action) => action.target_system === id)
})

/** Whether the node has older ones. */
export const hasOlder = computed<boolean>(() => {
  const here = known.value
  return here !== null && here.id === selected.value?.system_id && here.list.next.value !== null && !here.list.full
})

/** Read the newest of a system, and on until those since `start` are known. */
export async function readDoings(id: string, start: number): Promise<void> {
  if (known.peek()?.id !== id) {
    known.peek()?.list.close()
    known.value = { id, list: actionList((cursor, signal) => page(id, cursor, signal)) }
  }
  await known.peek()?.list.load()
  await reachBack(id, start)
}

async function page(id: string, cursor: string | null, signal: AbortSignal): Promise<Page<Action>> {
  const query = { system: id, limit: PAGE, ...(cursor === null ? {} : { cursor }) }
  const answer = await get<{ actions: Action[]; next_cursor: string | null }>('actions', query, signal)
  return { items: answer.actions, next: answer.next_cursor }
}

/** Read on until those since `start` are known; not for ever, what is left comes when asked for. */
export async function reachBack(id: string, start: number): Promise<void> {
  for (let pages = 1; pages < PAGES_BY_ITSELF && known.peek()?.id === id; pages += 1) {
    const last = known.peek()?.list.items.peek().at(-1)
    if (!last || Date.parse(last.created_at) / 1000 < start || !(await older())) return
  }
}

/** Read one page more; false when there is none, or it cannot be read. */
export async function older(): Promise<boolean> {
  const list = known.peek()?.list
  const cursor = list?.next.peek()
  await list?.older()
  return cursor != null && list?.next.peek() !== cursor
}
