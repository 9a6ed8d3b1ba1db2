// The whole at a glance: how all does, what flows, how the systems depend on each other, and what happened.

import { Actions } from '../actions'
import { Attention } from '../attention'
import { Components } from '../components'
import { Flow } from '../flow'
import { loaded, systems } from '../store'
import '../styles/overview.css'
import { SystemCards } from '../systems'
import { Tiles } from '../tiles'
import { Topology } from '../topology'
import { Lately } from '../troubles'

export function OverviewView() {
  return (
    <div class="overview">
      <div class="heads">
        <Attention />
        <Tiles />
      </div>
      <section class="panel card way-and-systems" aria-labelledby="topology-title">
        <header>
          <h2 id="topology-title">Topology</h2>
        </header>
        <div class="body stack">
          <Flow />
          <Topology />
        </div>
      </section>
      {loaded.value && systems.value.size === 0 ? <NoSystems /> : <SystemCards />}
      <aside class="side" aria-label="What happened">
        <Actions />
        <Lately />
        <Components />
      </aside>
    </div>
  )
}

/** What to do when nothing is managed yet. */
export function NoSystems() {
  return (
    <div class="empty card">
      <h2 class="title">No managed system yet</h2>
      <p>
        One appears here with its first sample: from a connector in the configuration, such as <code>[systems.web]</code>, or
        from any program that publishes telemetry on the bus.
      </p>
    </div>
  )
}
