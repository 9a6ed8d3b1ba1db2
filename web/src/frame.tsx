// What is around every view: who the node is and how it does, the ways to the views, the documents.

import { number, rate, span } from './format'
import { HealthPill, Pill } from './pills'
import { link, route, type View } from './route'
import { connection, node, now, systems } from './store'

const CONNECTION_WORDS = { connecting: 'connecting', live: 'live', reconnecting: 'reconnecting' } as const

export function Header() {
  const facts = node.value
  // While the node does not answer nobody knows how it does; what is shown here must not look like news.
  const fresh = connection.value === 'live' ? facts : null
  return (
    <header class="top">
      <a class="brand" href="#/" aria-label="POLARIS, to the start">
        <svg viewBox="0 0 32 32" width="26" height="26" aria-hidden="true">
          <path d="M16 2c1 9 4.500 12.500 14 14-9.500 1.500-13 5-14 14-1-9-4.500-12.500-14-14 9.500-1.500 13-5 14-14Z" />
        </svg>
        <span>POLARIS</span>
      </a>
      <h1 class="node-name">
        {facts ? facts.name : 'node'}
        {facts ? <HealthPill health={fresh?.health_status ?? 'unknown'} title={fresh?.message ?? ''} /> : null}
      </h1>
      <dl class="facts" aria-label="Node">
        <Fact name="Systems" value={facts ? number(systems.value.size) : '–'} />
        <Fact name="Samples" value={rate(fresh?.rates.samples_per_s)} />
        <Fact name="Uptime" value={fresh ? span((now.value - Date.parse(fresh.started_at)) / 1000) : '–'} />
      </dl>
      <span class="connection" role="status" data-connection={connection.value}>
        <Pill tone={`connection-${connection.value}`} text={CONNECTION_WORDS[connection.value]} />
      </span>
    </header>
  )
}

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  )
}

const VIEWS: [View, string][] = [
  ['overview', 'Overview'],
  ['system', 'Systems'],
  ['adaptations', 'Adaptations'],
  ['bus', 'Bus'],
  ['traces', 'Traces'],
  ['logs', 'Logs'],
  ['node', 'Node'],
]

export function Ways() {
  const shown = route.value.view
  const letters = node.value?.dead_letters ?? 0
  return (
    <nav class="ways" aria-label="Views">
      {VIEWS.map(([view, name]) => (
        <a key={view} href={link(view)} aria-current={view === shown ? 'page' : undefined}>
          {name}
          {view === 'bus' && letters > 0 ? (
            <span class="badge" title={`${letters} dead letters wait`}>
              {letters}
              <span class="unseen"> dead letters</span>
            </span>
          ) : null}
        </a>
      ))}
    </nav>
  )
}

export function Footer() {
  const facts = node.value
  return (
    <footer class="muted small">
      <span>POLARIS {facts?.version ?? ''}</span>
      <a href="api/v1/systems">JSON</a>
      <a href="openapi.json">OpenAPI</a>
      <a href="metrics">Metrics</a>
      <a href="readyz">Readiness</a>
      <a href="THIRD_PARTY.txt">Licences</a>
    </footer>
  )
}
