// The actions on a chart: a mark where each began, that tells of it and leads to its story.

import type { Signal } from '@preact/signals'
import { clock, seconds } from './format'
import { link } from './route'
import type { Action } from './types'

const APART_PX = 10
const TOLD_MAX = 4

/** Marks that would cover each other are one. */
export interface Mark {
  left: number
  actions: Action[]
}

export const timeOf = (action: Action): number => Date.parse(action.started_at ?? action.created_at) / 1000

/** Where to mark the actions between two instants; `place` gives the position of an instant in pixels. */
export function marksOf(all: readonly Action[], from: number, to: number, place: (time: number) => number): Mark[] {
  const marks: Mark[] = []
  for (const action of all) {
    const time = timeOf(action)
    if (time < from || time > to) continue
    const left = Math.round(place(time))
    const near = marks.find((mark) => Math.abs(mark.left - left) < APART_PX)
    if (near) near.actions.push(action)
    else marks.push({ left, actions: [action] })
  }
  return marks
}

const GRAVE = ['failed', 'timeout', 'rejected', 'unknown', 'cancelled']

/** Of several the worst is shown. */
export const leading = ({ actions }: Mark): Action =>
  (actions.find(({ status }) => GRAVE.includes(status)) ?? actions[0]) as Action

export function Marks({ marks, width }: { marks: Signal<readonly Mark[]>; width: number }) {
  return (
    <div class="marks">
      {marks.value.map((mark) => {
        const action = leading(mark)
        return (
          <a
            key={action.action_id}
            class={`mark status-${action.status} ${mark.left > width / 2 ? 'to-left' : ''}`}
            href={link('adaptations', action.action_id)}
            style={{ left: `${mark.left}px` }}
            // The list beside the charts has the same ways; here they would stand in every chart.
            tabIndex={-1}
            data-mark={action.action_id}
            aria-label={`${action.action_type} ${action.status}`}
          >
            <span class="tip card">
              {mark.actions.slice(0, TOLD_MAX).map((each) => (
                <span key={each.action_id}>
                  <strong>{each.action_type}</strong> {each.status}
                  <span class="muted">
                    {' '}
                    {clock(timeOf(each) * 1000)}
                    {each.duration_s === null ? '' : ` · ${seconds(each.duration_s)}`}
                  </span>
                  {each.error_message ? <span class="error">{each.error_message}</span> : null}
                </span>
              ))}
              {mark.actions.length > TOLD_MAX ? <span class="muted">and {mark.actions.length - TOLD_MAX} more</span> : null}
            </span>
          </a>
        )
      })}
    </div>
  )
}
