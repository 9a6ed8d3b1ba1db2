// The parts of the page around the charts.

import { useSignal } from '@preact/signals'
import { Act } from './act'
import { ago, label, number, quantity, seconds, span } from './format'
import { Chart } from './chart'
import { CHARTS_MAX, charted, isNumeric, keyMetrics, toggle } from './metrics'
import { actions, components, connection, loaded, node, now, selected, systemLink, systems } from './store'
import type { Action, Health, System } from './types'

const HEALTH_WORDS: Record<Health, string> = {
  healthy: 'healthy',
  warning: 'warning',
  critical: 'critical',
  unhealthy: 'unhealthy',
  unknown: 'unknown',
}

function Pill({ tone, text, title }: { tone: string; text: string; title?: string | undefined }) {
  return (
    <span class={`pill ${tone}`} title={title}>
      <span class="dot" aria-hidden="true" />
      {text}
    </span>
  )
}

const HealthPill = ({ health, title }: { health: Health; title?: string }) => (
  <Pill tone={`health-${health}`} text={HEALTH_WORDS[health] ?? health} title={title} />
)

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
        <Fact name="Values" value={rate(fresh?.rates.values_per_s)} />
        {facts?.rates.messages_per_s == null ? null : (
          <Fact name="Messages" value={rate(fresh?.rates.messages_per_s)} />
        )}
        <Fact name="Uptime" value={fresh ? span((now.value - Date.parse(fresh.started_at)) / 1000) : '–'} />
      </dl>
      <span class="connection" role="status" data-connection={connection.value}>
        <Pill tone={`connection-${connection.value}`} text={CONNECTION_WORDS[connection.value]} />
      </span>
    </header>
  )
}

const rate = (value: number | null | undefined): string => (value == null ? '–' : `${number(value)} /s`)

function Fact({ name, value }: { name: string; value: string }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{value}</dd>
    </div>
  )
}

/** Whether the last sample is too old, by the node's clock: no event tells that nothing came. */
function isStale(system: System): boolean {
  if (system.stale || system.last_sample_at === null || system.stale_after_s === null) return system.stale
  return now.value - Date.parse(system.last_sample_at) > system.stale_after_s * 1000
}

/** A system that went silent is not healthy because it was so when last heard. */
function SystemPill({ system }: { system: System }) {
  if (!isStale(system)) return <HealthPill health={system.health_status} title={system.message} />
  return <Pill tone="stale-pill" text="stale" title={`${system.health_status} when last heard`} />
}

function freshness(system: System): string {
  if (system.last_sample_at === null) return 'waiting for the first sample'
  return `last sample ${ago(system.last_sample_at, now.value)}`
}

export function Systems() {
  const all = [...systems.value.values()]
  return (
    <nav class="systems" aria-labelledby="systems-title">
      <h2 id="systems-title">Systems</h2>
      {all.length === 0 ? <p class="waiting card">{loaded.value ? 'None yet.' : 'Waiting for the node …'}</p> : null}
      <ul>
        {all.map((system) => (
          <SystemCard key={system.system_id} system={system} current={system === selected.value} />
        ))}
      </ul>
    </nav>
  )
}

function Waiting() {
  const text = loaded.value
    ? 'No managed system yet. One appears here with its first sample: from a connector in the configuration, or from any program that publishes telemetry on the bus.'
    : `Waiting for the node at ${location.host} to answer …`
  return <p class="waiting card large">{text}</p>
}

function SystemCard({ system, current }: { system: System; current: boolean }) {
  const stale = isStale(system)
  return (
    <li>
      <a
        class={`system card ${current ? 'current' : ''}`}
        href={systemLink(system.system_id)}
        aria-current={current ? 'true' : undefined}
        data-system={system.system_id}
      >
        <span class="row">
          <strong class="clip" title={system.system_id}>
            {system.system_id}
          </strong>
          <SystemPill system={system} />
        </span>
        <span class={`small ${stale ? 'stale' : 'muted'}`}>
          {system.connector} · {freshness(system)}
        </span>
        {system.message ? <span class="small message">{system.message}</span> : null}
        <span class="keys">
          {keyMetrics(system).map((key) => (
            <span key={key}>
              <span class="small muted clip" title={key}>
                {label(key)}
              </span>
              <Value system={system} metric={key} />
            </span>
          ))}
        </span>
      </a>
    </li>
  )
}

function Value({ system, metric }: { system: System; metric: string }) {
  const reading = system.metrics[metric]
  const missing = reading === undefined || reading.value === null
  const text = missing ? 'missing' : quantity(reading.value, reading.unit, reading.name)
  return (
    <span class={`value ${missing ? 'absent' : ''}`} title={reading?.quality === 'stale' ? 'carried over from earlier' : undefined}>
      {text}
      {reading?.quality === 'stale' ? ' (old)' : ''}
    </span>
  )
}

const RANGES: [string, number][] = [
  ['5 min', 300],
  ['15 min', 900],
  ['1 h', 3600],
  ['6 h', 21_600],
  ['24 h', 86_400],
]

export function Detail() {
  const range = useSignal(900)
  const system = selected.value
  if (!system)
    return (
      <section class="detail" aria-label="System">
        <Waiting />
      </section>
    )
  const shown = charted(system)
  return (
    <section class="detail" aria-labelledby="detail-title">
      <div class="row wrap">
        <h2 id="detail-title" class="clip" title={system.system_id}>
          {system.system_id}
        </h2>
        <span class="muted about clip" title={system.supported_actions.join(', ')}>
          {system.connector} · <span class={isStale(system) ? 'stale' : ''}>{freshness(system)}</span>
          {system.supported_actions.length > 0 ? ` · can ${system.supported_actions.join(', ')}` : ''}
        </span>
        <div class="ranges" role="group" aria-label="Time range of the charts">
          {RANGES.map(([text, length]) => (
            <button
              key={length}
              type="button"
              aria-pressed={range.value === length}
              onClick={() => {
                range.value = length
              }}
            >
              {text}
            </button>
          ))}
        </div>
      </div>
      {shown.length === 0 ? <p class="waiting card">{emptyCharts(system)}</p> : null}
      <div class="charts">
        {shown.map((metric) => (
          <Chart key={`${system.system_id}\n${metric}`} system={system} metric={metric} rangeS={range.value} />
        ))}
      </div>
      <Act key={system.system_id} system={system} />
      <Readings system={system} shown={shown} />
    </section>
  )
}

const emptyCharts = (system: System): string =>
  system.last_sample_at === null
    ? `Waiting for the first sample of ${system.system_id}.`
    : 'No chart chosen: pick metrics below.'

function Readings({ system, shown }: { system: System; shown: string[] }) {
  const keys = Object.keys(system.metrics)
  if (keys.length === 0) return null
  return (
    <details class="readings card">
      <summary>
        All {keys.length} metrics <span class="muted small">choose up to {CHARTS_MAX} to draw</span>
      </summary>
      <ul>
        {keys.map((key) => (
          <li key={key}>
            <label class={isNumeric(system, key) ? '' : 'fixed'}>
              <input
                type="checkbox"
                checked={shown.includes(key)}
                disabled={!isNumeric(system, key)}
                onChange={() => toggle(system, key)}
              />
              <span class="clip" title={key}>
                {key}
              </span>
              <Value system={system} metric={key} />
            </label>
          </li>
        ))}
      </ul>
    </details>
  )
}

export function Actions() {
  const all = actions.value
  return (
    <section class="actions" aria-labelledby="actions-title">
      <h2 id="actions-title">Actions</h2>
      {all.length === 0 ? (
        <p class="waiting card">
          {loaded.value
            ? 'No action yet. When a controller asks a system to change, it appears here with its outcome.'
            : 'Waiting for the node …'}
        </p>
      ) : (
        <ol class="card list" tabIndex={0} aria-labelledby="actions-title">
          {all.map((action) => (
            <ActionRow key={action.action_id} action={action} />
          ))}
        </ol>
      )}
    </section>
  )
}

function ActionRow({ action }: { action: Action }) {
  const parameters = Object.entries(action.parameters)
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(', ')
  return (
    <li data-action={action.action_id}>
      <span class="row">
        <strong class="clip">{action.action_type}</strong>
        <Pill tone={`status-${action.status}`} text={action.status} />
      </span>
      <span class="row small muted">
        <span class="clip">
          <a href={systemLink(action.target_system)}>{action.target_system}</a>
          {parameters ? ` · ${parameters}` : ''}
        </span>
        <span class="fixed">
          {action.duration_s === null ? '' : `${seconds(action.duration_s)} · `}
          <time dateTime={action.created_at} title={new Date(action.created_at).toLocaleString()}>
            {ago(action.created_at, now.value)}
          </time>
        </span>
      </span>
      {action.error_message ? <span class="small error">{action.error_message}</span> : null}
    </li>
  )
}

export function Components() {
  const all = components.value
  return (
    <section class="components" aria-labelledby="components-title">
      <h2 id="components-title">Components</h2>
      {all.length === 0 ? (
        <p class="waiting card">{loaded.value ? 'The node reports no components.' : 'Waiting for the node …'}</p>
      ) : (
        <ul class="card list">
          {all.map((component) => (
            <li key={component.name} data-component={component.name}>
              <span class="row">
                <strong class="clip">{component.name}</strong>
                <HealthPill health={component.status} />
              </span>
              <span class="row small muted">
                <span>{component.message || (component.status === 'healthy' ? 'works' : '')}</span>
                {component.since ? <span class="fixed">for {span((now.value - Date.parse(component.since)) / 1000)}</span> : null}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
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
