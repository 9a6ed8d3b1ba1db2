// The page of a node: what it manages, how that does, and what was done about it.

import { render } from 'preact'
import { DeadLetters } from './deadletters'
import { start } from './live'
import { Actions, Components, Detail, Footer, Header, Systems } from './parts'
import { connection, node } from './store'
import './style.css'

function App() {
  return (
    <>
      <a class="skip" href="#main">
        Skip to the charts
      </a>
      <Header />
      {connection.value === 'reconnecting' ? (
        <p class="banner" role="alert">
          The node does not answer. What you see is from before; trying to reconnect …
        </p>
      ) : node.value?.message ? (
        <p class="banner" role="status">
          {node.value.message}
        </p>
      ) : null}
      <main>
        <Systems />
        <div class="middle" id="main" tabIndex={-1}>
          <Detail />
        </div>
        <aside class="side" aria-label="What happened">
          <Actions />
          <Components />
          <DeadLetters />
        </aside>
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
