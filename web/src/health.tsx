// How the node and each of its parts do; of what is not well the cause and what to do.

import { signal } from '@preact/signals'
import { quantity, seconds, span } from './format'
import { inspection, type Breaker, type HealthReport } from './inspection'
import { useLook } from './look'
import { More } from './more'
import { HealthPill, Pill } from './pills'
import { link } from './route'
import { components, connection, loaded, now } from './store'
import type { Component, Health as Status } from './types'

const EVERY_MS = 3_000
const SHOWN = 60
const CONNECTOR = 'connector:'
const WORST_FIRST: Record<Status, number> = { critical: 0, unhealthy: 1, warning: 2, unknown: 3, healthy: 4 }

const report = signal<HealthReport | null>(null)
const shownMax = signal(SHOWN)

async function look(): Promise<void> {
  report.value = await inspection.health()
}

/** What the stream told last, with the facts of the last look: these come with no news of their own. */
function parts(): Component[] {
  const live = components.value
  const looked = new Map((report.value?.components ?? []).map((part) => [part.name, part]))
  const all = live.map((part) => ({ ...part, details: looked.get(part.name)?.details ?? part.details }))
  const places = new Map(all.map(({ name }, index) => [name, index]))
  return all.sort(
    (a, b) => WORST_FIRST[a.status] - WORST_FIRST[b.status] || (places.get(a.name) ?? 0) - (places.get(b.name) ?? 0),
  )
}

export function Health() {
  useLook(look, EVERY_MS)
  const all = parts()
  const breakers = report.value?.breakers ?? []
  return (
    <div class="stack">
      <Verdict all={all} />
      {breakers.length === 0 ? null : <Breakers all={breakers} />}
      <section aria-labelledby="parts-title">
        <div class="row head">
          <h2 id="parts-title">
            Parts of the node <span class="count">{all.length}</span>
          </h2>
        </div>
        {all.length === 0 ? (
          <p class="card waiting">{loaded.value ? 'The node reports no parts.' : 'Waiting for the node …'}</p>
        ) : (
          <ul class="card list parts">
            {all.slice(0, shownMax.value).map((part) => (
              <Part key={part.name} part={part} />
            ))}
          </ul>
        )}
        <More hidden={all.length - shownMax.value} more={() => (shownMax.value += 4 * SHOWN)} />
      </section>
    </div>
  )
}

const isWell = ({ status }: Component): boolean => status === 'healthy'

function Verdict({ all }: { all: Component[] }) {
  const known = connection.value === 'live' && all.length > 0
  const stopping = all.filter(({ essential, status }) => essential && status !== 'healthy' && status !== 'warning')
  const troubled = all.filter(({ status }) => status !== 'healthy' && status !== 'unknown')
  const tone = !known ? 'unknown' : stopping.length > 0 ? 'bad' : troubled.length > 0 ? 'warn' : 'good'
  return (
    <section class={`card node-verdict ${tone}`} aria-label="Verdict" role="status" data-verdict={tone}>
      <strong>
        {!known ? 'Nothing is known' : stopping.length > 0 ? 'Not ready' : troubled.length > 0 ? 'Ready, with trouble' : 'Ready'}
      </strong>
      <p>
        {!known
          ? 'The node does not answer, or has only just begun.'
          : stopping.length > 0
            ? `It cannot do its work without ${listed(stopping)}.`
            : troubled.length > 0
              ? `Its work is done; ${listed(troubled)} want${troubled.length > 1 ? '' : 's'} looking after.`
              : 'Every part does its work.'}
      </p>
    </section>
  )
}

const listed = (all: Component[]): string => {
  const names = all.slice(0, 3).map(({ name }) => name)
  return all.length > 3 ? `${names.join(', ')} and ${all.length - 3} more` : names.join(', ').replace(/, ([^,]+)$/, ' and $1')
}

function Part({ part }: { part: Component }) {
  const details = Object.entries(part.details)
  return (
    <li data-part={part.name}>
      <div class="row wrap">
        <h3 class="clip">
          {part.name.startsWith(CONNECTOR) ? (
            <a class="plain" href={link('system', part.name.slice(CONNECTOR.length))}>
              {part.name}
            </a>
          ) : (
            part.name
          )}
        </h3>
        {part.essential ? (
          <span class="tag" title="The node is not ready without it">
            essential
          </span>
        ) : null}
        <span class="push since">
          <span class="small muted">{part.since ? `for ${span((now.value - Date.parse(part.since)) / 1000)}` : ''}</span>
          <HealthPill health={part.status} />
        </span>
      </div>
      {part.message ? <p class={isWell(part) ? 'muted' : part.status === 'unknown' ? 'muted' : 'cause'}>{part.message}</p> : null}
      {part.remedy ? (
        <p class="remedy">
          <span class="strong">What to do:</span> {part.remedy}
        </p>
      ) : null}
      {details.length === 0 ? null : (
        <dl class="details small">
          {details.map(([name, value]) => (
            <div key={name}>
              <dt>{name.replaceAll('_', ' ').replace(/ s$/, '')}</dt>
              <dd>{name === 'pid' ? value : quantity(value, name.endsWith('_s') ? 's' : null)}</dd>
            </div>
          ))}
        </dl>
      )}
    </li>
  )
}

const STATES: Record<string, string> = { open: 'open', half_open: 'half open', isolated: 'isolated' }

function Breakers({ all }: { all: Breaker[] }) {
  return (
    <section aria-labelledby="breakers-title">
      <div class="row head">
        <h2 id="breakers-title">
          Breakers that refuse calls <span class="count">{all.length}</span>
        </h2>
      </div>
      <ul class="card list parts">
        {all.map((breaker) => (
          <li key={breaker.name} data-breaker={breaker.name}>
            <div class="row wrap">
              <h3 class="clip">{breaker.name}</h3>
              <span class="push small muted">
                {breaker.retry_after_s === null ? '' : `tries again in ${seconds(Math.ceil(breaker.retry_after_s))}`}
              </span>
              <Pill
                tone={breaker.state === 'half_open' ? 'health-warning' : 'health-unhealthy'}
                text={STATES[breaker.state] ?? breaker.state}
              />
            </div>
            <p class="cause">
              {breaker.consecutive_failures} failures in a row; {breaker.rejected_total} calls refused since the node began.
            </p>
            <p class="remedy">
              <span class="strong">What to do:</span> {breaker.remedy}
            </p>
          </li>
        ))}
      </ul>
    </section>
  )
}
