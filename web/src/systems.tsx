// The managed systems in a list, each with its health and what matters most of it.

import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { ago, label, quantity } from './format'
import { keyMetrics } from './metrics'
import { HealthPill, Pill } from './pills'
import { begin, begun, PULSE_POINTS, pulseOf } from './pulse'
import { link } from './route'
import { Spark } from './spark'
import { loaded, now, paced, selected, systems } from './store'
import './styles/systems.css'
import type { System } from './types'

/** Whether the last sample is too old, by the node's clock: no event tells that nothing came. */
export function isStale(system: System): boolean {
  if (system.stale || system.last_sample_at === null || system.stale_after_s === null) return system.stale
  return now.value - Date.parse(system.last_sample_at) > system.stale_after_s * 1000
}

/** The class that gives a box or a cell the colour of its system's health. */
export function toneOf(system: System | undefined): string {
  if (!system) return ''
  return isStale(system) ? 'stale-pill' : `health-${system.health_status}`
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

const FILTERED_FROM = 13
const CARDS_FIRST = 24
const ROWS_FIRST = 60
const TERSE_FROM = 7

/** All systems with what matters most of them, to be narrowed by a word; more of them only when asked for. */
export function SystemCards() {
  return (
    <section class="systems" aria-labelledby="systems-title">
      <Listed first={CARDS_FIRST} terse={false} current={null} />
    </section>
  )
}

/** The same as a narrow list, with one of them chosen. */
export function SystemList() {
  const chosen = selected.value?.system_id ?? null
  return (
    <nav class="systems narrow" aria-labelledby="systems-title">
      <Listed first={ROWS_FIRST} terse={systems.value.size >= TERSE_FROM} current={chosen} />
    </nav>
  )
}

function fits(system: System, words: string[]): boolean {
  const health = isStale(system) ? 'stale' : system.health_status
  const text = `${system.system_id} ${system.connector} ${health} ${system.message}`.toLowerCase()
  return words.every((word) => text.includes(word))
}

interface ListedProps {
  first: number
  terse: boolean
  current: string | null
}

function Listed({ first, terse, current }: ListedProps) {
  const wanted = useSignal('')
  const most = useSignal(first)
  const all = [...paced.value.values()]
  const words = wanted.value.toLowerCase().split(/\s+/).filter(Boolean)
  const found = words.length > 0 ? all.filter((system) => fits(system, words)) : all
  const shown = found.slice(0, most.value)
  // The chosen one is always there, however far down it would be.
  const chosen = found.findIndex(({ system_id }) => system_id === current)
  if (chosen >= most.value && found[chosen]) shown.push(found[chosen])
  const ids = terse ? '' : shown.map(({ system_id }) => system_id).join('\n')
  useEffect(() => begin(ids.split('\n')), [ids])
  return (
    <>
      <div class="row wrap head">
        <h2 id="systems-title">
          Systems {all.length > 0 ? <span class="count">{all.length}</span> : null}
        </h2>
        {all.length >= FILTERED_FROM ? (
          <input
            type="search"
            class="input"
            placeholder="Name, connector, health …"
            aria-label="Show only systems with these words"
            value={wanted.value}
            onInput={(event) => {
              wanted.value = event.currentTarget.value
            }}
          />
        ) : null}
      </div>
      {all.length === 0 ? <p class="waiting card">{loaded.value ? 'None yet.' : 'Waiting for the node …'}</p> : null}
      {all.length > 0 && found.length === 0 ? <p class="waiting card">No system has all of these words.</p> : null}
      <ul class={terse ? 'card terse' : ''}>
        {shown.map((system) =>
          terse ? (
            <SystemRow key={system.system_id} system={system} current={system.system_id === current} />
          ) : (
            <SystemCard key={system.system_id} system={system} current={system.system_id === current} />
          ),
        )}
      </ul>
      {found.length > shown.length ? (
        <div class="older">
          <button
            type="button"
            class="button"
            onClick={() => {
              most.value += 2 * first
            }}
          >
            More of {found.length}
          </button>
        </div>
      ) : null}
    </>
  )
}

interface OneProps {
  system: System
  current: boolean
}

function SystemCard({ system, current }: OneProps) {
  const stale = isStale(system)
  const keys = keyMetrics(system)
  void begun.value
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
        {keys[0] === undefined ? null : <Spark values={pulseOf(system.system_id, keys[0])} most={PULSE_POINTS} />}
        <span class="keys">
          {keys.map((key) => (
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

function SystemRow({ system, current }: OneProps) {
  const key = keyMetrics(system)[0]
  return (
    <li class={current ? 'current' : ''}>
      <a
        href={link('system', system.system_id)}
        aria-current={current ? 'true' : undefined}
        data-system={system.system_id}
        title={system.message}
      >
        <span class="row">
          <strong class="clip" title={system.system_id}>
            {system.system_id}
          </strong>
          <SystemPill system={system} />
        </span>
        {key === undefined ? null : (
          <span class="row small muted">
            <span class="clip">{label(key)}</span>
            <Value system={system} metric={key} />
          </span>
        )}
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
