// What belonged together, and how long each part of it took.

import '../styles/traces.css'

export function TracesView() {
  return <h2>Traces</h2>
}
