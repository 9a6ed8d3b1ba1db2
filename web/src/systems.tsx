// The managed systems in a list, each with its health and what matters most of it.

import { ago, label, quantity } from './format'
import { keyMetrics } from './metrics'
import { HealthPill, Pill } from './pills'
import { link } from './route'
import { loaded, now, selected, systems } from './store'
import './styles/systems.css'
import type { System } from './types'

/** Whether the last sample is too old, by the node's clock: no event tells that nothing came. */
export function isStale(system: System): boolean {
  if (system.stale || system.last_sample_at === null || system.stale_after_s === null) return system.stale
  return now.value - Date.parse(system.last_sample_at) > system.stale_after_s * 1000
}

/** A system that went silent is not healthy because it was so when last heard. */
export function SystemPill({ system }: { system: System }) {
  if (!isStale(system)) return <HealthPill health={system.health_status} title={system.message} />
  return <Pill tone="stale-pill" text="stale" title={`${system.health_status} when last heard`} />
}

export function freshness(system: System): string {
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

function SystemCard({ system, current }: { system: System; current: boolean }) {
  const stale = isStale(system)
  return (
    <li>
      <a
        class={`system card ${current ? 'current' : ''}`}
        href={link('system', system.system_id)}
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

export function Value({ system, metric }: { system: System; metric: string }) {
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
