// The whole at a glance: the systems, how they depend on each other, and what happened.

import { Actions } from '../actions'
import { Components } from '../components'
import { Systems } from '../systems'
import '../styles/overview.css'

export function OverviewView() {
  return (
    <div class="columns">
      <Systems />
      <div />
      <aside class="side" aria-label="What happened">
        <Actions />
        <Components />
      </aside>
    </div>
  )
}
