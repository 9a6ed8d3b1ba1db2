// Lists of actions: pages of the node, and what its stream told since.

import { Paged, type Ask } from './paged'
import type { Action } from './types'
import { further, newestFirst } from './unfolding'

/** The pages of actions that the node gives. */
export const actionList = <T extends Action>(ask: Ask<T>): Paged<T> =>
  new Paged(ask, (action) => action.action_id, further, newestFirst)
