// How its parts do, and how it is configured.

import '../styles/node.css'

export function NodeView() {
  return <h2>Node</h2>
}
