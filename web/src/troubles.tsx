// Lists of what was not well: of the whole node, and of one system beside its charts.

import { effect } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { Choice, Listed, SystemChoice } from './narrowing'
import { type Paged, useList } from './paged'
import { course, ofSystem, periodList, readPeriods, takeHeard } from './periods'
import { HealthPill } from './pills'
import { asked, whole } from './recollection'
import { link } from './route'
import { epoch, now, nodeTime } from './store'
import { stretch } from './stretch'
import type { Period, System } from './types'

const STATES = [
  ['', 'Over or not'],
  ['lasting', 'Only what lasts'],
] as const
const SHOWN = 8
const LATELY_MS = 3_600_000
const LATELY_SHOWN = 4

export function History() {
  const system = asked('system')
  const state = asked('state')
  const key = `${system}\n${state}`
  const list = useList(() => periodList({ ...(system ? { system } : {}), ...(state ? { state } : {}) }), key)
  const wanted = (period: Period): boolean =>
    (!system || period.system_id === system) && (!state || period.until === null)
  useEffect(() => effect(() => takeHeard(list, wanted)), [list])
  const all = list.items.value
  return (
    <section aria-labelledby="history-title">
      <div class="row wrap head">
        <h2 id="history-title">What was not well, newest first</h2>
        <div class="filters" role="group" aria-label="Narrow the list">
          <SystemChoice />
          <Choice label="State" name="state" options={STATES} />
        </div>
      </div>
      <Listed list={list as Paged<unknown>} shown={all.length} empty={<Empty narrowed={Boolean(system || state)} />}>
        <ol class="card list parts">
          {all.map((period) => (
            <Row key={period.period_id} period={period} />
          ))}
        </ol>
      </Listed>
    </section>
  )
}

const Empty = ({ narrowed }: { narrowed: boolean }) =>
  narrowed ? (
    <>
      <h3>Nothing fits</h3>
      <p>
        As far as is remembered, all was well with it. <a href={link('node', 'history')}>Show all</a>
      </p>
    </>
  ) : (
    <>
      <h3>Nothing to tell</h3>
      <p>When a part of the node or a system is not well, it is noted here: from when to when, why, and what to do.</p>
    </>
  )

function Row({ period }: { period: Period }) {
  const { component, system_id } = period
  const name = component ?? system_id
  return (
    <li data-period={period.period_id} data-of={name}>
      <div class="row wrap">
        <h3 class="clip">{system_id === null ? name : <a class="plain" href={link('system', system_id)}>{name}</a>}</h3>
        <span class="push since">
          <When period={period} />
          <HealthPill health={period.status} />
        </span>
      </div>
      {period.message ? <p class={period.until === null ? 'cause' : 'muted'}>{period.message}</p> : null}
      {period.remedy && period.until === null ? (
        <p class="remedy">
          <span class="strong">What to do:</span> {period.remedy}
        </p>
      ) : null}
    </li>
  )
}

const When = ({ period }: { period: Period }) => (
  <time class="small muted" dateTime={period.since} title={whole(period.since)}>
    {course(period, now.value / 1000)}
  </time>
)

/** What was not well with a system in the time that its charts show. */
export function Troubles({ system: { system_id } }: { system: System }) {
  const { start, end, lengthS } = stretch.value
  useEffect(() => {
    // What cannot be read now is read with the next connection.
    readPeriods(system_id, start ?? nodeTime() / 1000 - lengthS, end).catch(() => undefined)
  }, [system_id, start, end, lengthS, epoch.value])
  const all = ofSystem.value
  if (all.length === 0) return null
  return (
    <section class="troubles" aria-labelledby="troubles-title">
      <div class="row head">
        <h2 id="troubles-title">Not well</h2>
        <a class="small" href={link('node', 'history', { system: system_id })}>
          All of this system
        </a>
      </div>
      <ol class="card list">
        {all.slice(0, SHOWN).map((period) => (
          <li key={period.period_id} data-period={period.period_id}>
            <span class="row">
              <When period={period} />
              <HealthPill health={period.status} />
            </span>
            <span class="small clip" title={period.message}>
              {period.component === null ? '' : 'connector: '}
              {period.message}
            </span>
          </li>
        ))}
      </ol>
    </section>
  )
}

/** What was not well in the last hour and is over: who comes late for a fault sees that there was one. */
export function Lately() {
  const list = useList(() => periodList({ start: new Date(nodeTime() - LATELY_MS).toISOString() }), '')
  useEffect(() => effect(() => takeHeard(list, () => true)), [list])
  const since = now.value - LATELY_MS
  const over = list.items.value.filter(({ until }) => until !== null && Date.parse(until) > since)
  if (over.length === 0) return null
  return (
    <section class="lately" aria-labelledby="lately-title">
      <div class="row head">
        <h2 id="lately-title">Not well in the last hour</h2>
        <a class="small" href={link('node', 'history')}>
          History
        </a>
      </div>
      <ol class="card list">
        {over.slice(0, LATELY_SHOWN).map((period) => (
          <li key={period.period_id} data-over={period.period_id}>
            <span class="row">
              <strong class="clip">{period.component ?? period.system_id}</strong>
              <HealthPill health={period.status} />
            </span>
            <When period={period} />
            <span class="small clip" title={period.message}>
              {period.message}
            </span>
          </li>
        ))}
      </ol>
    </section>
  )
}
