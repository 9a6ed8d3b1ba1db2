// One system: its charts over any stretch of time, what it can be asked to do, what was done, and all that it tells.

import { useEffect } from 'preact/hooks'
import { Act } from '../act'
import { ActionRow } from '../actions'
import { api, SYSTEMS_MAX } from '../api'
import { Chart } from '../chart'
import { dependencies, LOOK_EVERY_MS, lookAtDependencies, words } from '../dependencies'
import { doings, hasOlder, older, reachBack, readDoings } from '../doings'
import { useLook } from '../look'
import { CHARTS_MAX, charted, isNumeric, toggle } from '../metrics'
import { moment } from '../plot'
import { link, route } from '../route'
import { epoch, loaded, nodeTime, selected, systems, takeSystem } from '../store'
import { live, RANGES, shift, show, stretch } from '../stretch'
import '../styles/system.css'
import { Troubles } from '../troubles'
import { freshness, isStale, SystemList, SystemPill, Value } from '../systems'
import type { Dependency, System } from '../types'
import { NoSystems } from './overview'

export function SystemView() {
  return (
    <div class="columns">
      <SystemList />
      <Detail />
      <aside class="side" aria-label="About the system">
        {selected.value ? <Troubles system={selected.value} /> : null}
        {selected.value ? <Doings system={selected.value} /> : null}
        {selected.value ? <Facts system={selected.value} /> : null}
      </aside>
    </div>
  )
}

function Detail() {
  const system = selected.value
  useEffect(() => {
    const back = (event: KeyboardEvent): void => {
      if (event.key === 'Escape' && stretch.peek().end !== null && !document.querySelector('dialog[open]')) live()
    }
    addEventListener('keydown', back)
    return () => removeEventListener('keydown', back)
  }, [])
  if (!system)
    return (
      <section class="detail" aria-label="System">
        {loaded.value ? systems.value.size > 0 ? <NotKnown /> : <NoSystems /> : <p class="waiting card large">Waiting for the node at {location.host} to answer …</p>}
      </section>
    )
  const shown = charted(system)
  return (
    <section class="detail" aria-labelledby="detail-title">
      <div class="view-head">
        <h2 id="detail-title" class="title clip" title={system.system_id}>
          {system.system_id}
        </h2>
        <SystemPill system={system} />
        <span class="muted">
          {system.connector} · <span class={isStale(system) ? 'stale' : ''}>{freshness(system)}</span>
        </span>
      </div>
      {system.message ? <p class="said message">{system.message}</p> : null}
      <Time />
      {shown.length === 0 ? <p class="waiting card">{emptyCharts(system)}</p> : null}
      <div class="charts">
        {shown.map((metric) => (
          <Chart key={`${system.system_id}\n${metric}`} system={system} metric={metric} stretch={stretch.value} />
        ))}
      </div>
      <Act key={system.system_id} system={system} />
      <Readings system={system} shown={shown} />
    </section>
  )
}

/** The address names a system that is not there: another one in its place would be taken for it. */
function NotKnown() {
  const id = route.value.id ?? ''
  // Of very many systems the page reads the first: this may be another.
  const isCut = systems.value.size >= SYSTEMS_MAX
  useEffect(() => {
    if (isCut) api.system(id).then(takeSystem, () => undefined)
  }, [id, isCut, epoch.value])
  return (
    <div class="empty card">
      <h2 class="title">System not known</h2>
      <p>
        This node manages no system <code>{id}</code>. Its name may be misspelt, or it is no longer configured and has sent
        nothing since the node started. <a href={link('adaptations', null, { system: id })}>Its adaptations</a> may still be
        known.
      </p>
    </div>
  )
}

const emptyCharts = (system: System): string =>
  system.last_sample_at === null
    ? `Waiting for the first sample of ${system.system_id}.`
    : 'No chart chosen: pick metrics below.'

/** Which stretch of time the charts show. */
function Time() {
  const { start, end, lengthS } = stretch.value
  return (
    <div class="time" role="group" aria-label="Time range of the charts">
      <div class="segments">
        {RANGES.map(([text, length]) => (
          <button
            key={length}
            type="button"
            aria-pressed={end === null && lengthS === length}
            onClick={() => show({ start: null, end: null, lengthS: length })}
          >
            {text}
          </button>
        ))}
      </div>
      <button type="button" class="button" aria-label="Earlier" title="Earlier" onClick={() => shift(-1)}>
        ←
      </button>
      <button type="button" class="button" aria-label="Later" title="Later" disabled={end === null} onClick={() => shift(1)}>
        →
      </button>
      {start === null || end === null ? (
        <span class="small muted hint">Drag over a chart to look closer.</span>
      ) : (
        <>
          <button type="button" class="button primary" onClick={live}>
            Live
          </button>
          <span class="small" data-stretch>
            {moment(start)} – {moment(end)}
          </span>
        </>
      )}
    </div>
  )
}

const LISTED = 'doings-title'

/** What was done to the system, newest first. */
function Doings({ system }: { system: System }) {
  const { system_id } = system
  const { start, lengthS } = stretch.value
  const since = start ?? nodeTime() / 1000 - lengthS
  // What cannot be read now is read with the next connection.
  useEffect(() => void readDoings(system_id, since).catch(() => undefined), [system_id, epoch.value])
  useEffect(() => void reachBack(system_id, since).catch(() => undefined), [start, lengthS])
  const all = doings.value
  return (
    <section class="actions" aria-labelledby={LISTED}>
      <div class="row head">
        <h2 id={LISTED}>Adaptations</h2>
        <a class="small" href={link('adaptations', null, { system: system_id })}>
          All of this system
        </a>
      </div>
      {all.length === 0 ? (
        <p class="waiting card">
          {system.supported_actions.length > 0
            ? 'No action yet. When a controller asks this system to change, it appears here with its outcome.'
            : 'No action yet, and its connector offers none.'}
        </p>
      ) : (
        <div class="card">
          <ol class="list scrolled" tabIndex={0} aria-labelledby={LISTED}>
            {all.map((action) => (
              <ActionRow key={action.action_id} action={action} alone />
            ))}
          </ol>
          {hasOlder.value ? (
            <div class="older">
              <button type="button" class="button" onClick={() => void older().catch(() => undefined)}>
                Older
              </button>
            </div>
          ) : null}
        </div>
      )}
    </section>
  )
}

const METADATA_MAX = 40

/** What else is known of the system: where it stands, what it can, what it says of itself. */
function Facts({ system }: { system: System }) {
  useLook(lookAtDependencies, LOOK_EVERY_MS)
  const known = dependencies.value?.dependencies ?? []
  const needs = known.filter(({ source_system }) => source_system === system.system_id)
  const serves = known.filter(({ target_system }) => target_system === system.system_id)
  // Why a system is ill is said beside its health, which changes with every sample; what is known here is older.
  const metadata = Object.entries(system.metadata ?? {}).filter(([name]) => name !== 'health.reasons')
  const books = system.samples
  return (
    <section class="facts-of-system" aria-labelledby="facts-title">
      <h2 id="facts-title">About</h2>
      <dl class="kv card">
        <dt>Connector</dt>
        <dd>{system.connector}</dd>
        {system.supported_actions.length > 0 ? (
          <>
            <dt>Actions</dt>
            <dd>{system.supported_actions.join(', ')}</dd>
          </>
        ) : null}
        {system.stale_after_s === null ? null : (
          <>
            <dt>Stale after</dt>
            <dd>{system.stale_after_s} s</dd>
          </>
        )}
        {books ? (
          <>
            <dt>Samples</dt>
            <dd>
              {books.confirmed.toLocaleString('en')} confirmed
              {books.waiting > 0 ? `, ${books.waiting} waiting` : ''}
              {books.dropped > 0 ? <span class="error">, {books.dropped} dropped</span> : null}
            </dd>
          </>
        ) : null}
        <Related name="Needs" all={related(needs, 'target_system')} />
        <Related name="Needed by" all={related(serves, 'source_system')} />
        {metadata.slice(0, METADATA_MAX).map(([name, value]) => (
          <>
            <dt>{name}</dt>
            <dd data-metadata={name}>{typeof value === 'string' ? value : JSON.stringify(value)}</dd>
          </>
        ))}
      </dl>
    </section>
  )
}

const RELATED_MAX = 20

/** Each system once, with all kinds of its dependency. */
function related(all: readonly Dependency[], end: 'source_system' | 'target_system'): [id: string, types: string][] {
  const types = new Map<string, string[]>()
  for (const each of all) types.set(each[end], [...(types.get(each[end]) ?? []), words(each.dependency_type)])
  return [...types].map(([id, kinds]) => [id, kinds.join(', ')])
}

function Related({ name, all }: { name: string; all: [id: string, types: string][] }) {
  if (all.length === 0) return null
  return (
    <>
      <dt>{name}</dt>
      <dd>
        {all.slice(0, RELATED_MAX).map(([id, types]) => (
          <div key={id}>
            <a href={link('system', id)}>{id}</a> <span class="muted">{types}</span>
          </div>
        ))}
        {all.length > RELATED_MAX ? <span class="muted">and {all.length - RELATED_MAX} more</span> : null}
      </dd>
    </>
  )
}

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
