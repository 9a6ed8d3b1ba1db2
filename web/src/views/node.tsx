// How its parts do, and how it is configured.

import { Configuration, Facts } from '../configuration'
import { Health } from '../health'
import { link, route } from '../route'
import { History } from '../troubles'
import '../styles/node.css'

const PARTS = [
  [null, 'Health'],
  ['history', 'History'],
  ['configuration', 'Configuration'],
] as const

export function NodeView() {
  const part = PARTS.find(([id]) => id === route.value.id)?.[0] ?? null
  return (
    <div class="node">
      <div class="view-head">
        <h2 class="title">Node</h2>
      </div>
      <nav class="tabs" aria-label="Parts of the node">
        {PARTS.map(([id, name]) => (
          <a key={name} href={link('node', id)} aria-current={id === part ? 'page' : undefined}>
            {name}
          </a>
        ))}
      </nav>
      <div class="node-columns">
        <div>{part === 'configuration' ? <Configuration /> : part === 'history' ? <History /> : <Health />}</div>
        <aside aria-label="About this node">
          <Facts />
        </aside>
      </div>
    </div>
  )
}
