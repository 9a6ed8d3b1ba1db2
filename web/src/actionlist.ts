// Lists of actions: pages of the node, and what its stream told since.

import { Paged, type Ask } from './paged'
import type { Action } from './types'
import { further, newestFirst } from './unfolding'

/** The pages of actions that the node gives. */
export const actionList = <T extends Action>(ask: Ask<T>): Paged<T> =>
  new Paged(ask, (action) => action.action_id, further, newestFirst)

/** What the stream told since: new actions come above, known ones change; older ones come only by asking. */
export function takeIn<T extends Action>(list: Paged<T>, live: readonly T[], wanted: (action: T) => boolean): void {
  if (list.state.value !== 'ready') return
  const known = new Map(list.items.value.map((action) => [action.action_id, action]))
  const last = list.next.value !== null || list.full ? list.items.peek().at(-1) : undefined
  const news: T[] = []
  for (const action of live) {
    const former = known.get(action.action_id)
    if (former ? same(former, further(former, action)) : !wanted(action) || (last && newestFirst(action, last) > 0)) continue
    news.push(action)
  }
  if (news.length === 0) return
  list.add(news)
  if (list.items.peek().some((action) => !wanted(action))) list.items.value = list.items.peek().filter(wanted)
}

const same = <T extends object>(a: T, b: T): boolean => (Object.keys(b) as (keyof T)[]).every((name) => a[name] === b[name])
