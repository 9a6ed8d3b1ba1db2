// What the node said.

import '../styles/logs.css'

export function LogsView() {
  return <h2>Logs</h2>
}
