// The page of a node: what it manages, how that does, and what was done about it.

import { render, type ComponentType } from 'preact'
import { Footer, Header, Ways } from './frame'
import { start } from './live'
import { route, type View } from './route'
import { connection, node } from './store'
import './styles/base.css'
import './styles/frame.css'
import { AdaptationsView } from './views/adaptations'
import { BusView } from './views/bus'
import { LogsView } from './views/logs'
import { NodeView } from './views/node'
import { OverviewView } from './views/overview'
import { SystemView } from './views/system'
import { TracesView } from './views/traces'

const VIEWS: Record<View, ComponentType> = {
  overview: OverviewView,
  system: SystemView,
  adaptations: AdaptationsView,
  bus: BusView,
  traces: TracesView,
  logs: LogsView,
  node: NodeView,
}

function App() {
  const { view } = route.value
  const Shown = VIEWS[view]
  return (
    <>
      <a class="skip" href="#main">
        Skip to the content
      </a>
      <Header />
      <Ways />
      {connection.value === 'reconnecting' ? (
        <p class="banner" role="alert">
          The node does not answer. What you see is from before; trying to reconnect …
        </p>
      ) : node.value?.message ? (
        <p class="banner" role="status">
          {node.value.message}
        </p>
      ) : null}
      <main id="main" tabIndex={-1} data-view={view}>
        <Shown />
      </main>
      <Footer />
    </>
  )
}

const host = document.getElementById('app')
if (host) {
  render(<App />, host)
  start()
}
