// The story of one adaptation: what was asked and why, each step of it, what came of it, and what was logged.

import type { ComponentChildren } from 'preact'
import { chaptersOf, type Chapter } from './chapters'
import { Data, Fact } from './facts'
import { label, quantity, seconds } from './format'
import { NotFound, useFound } from './found'
import { Glance, useAround, valueAt, type Around } from './glance'
import { LogList } from './loglist'
import { useEvery } from './paged'
import { Pill } from './pills'
import { moment, recollection, whole, type LogRecord, type Trace, type WholeAction } from './recollection'
import { link, route } from './route'
import { actions, nodeTime, systems } from './store'

const LOGS_SHOWN = 100
const EVERY_MS = 2500
/** So long after its end more of an adaptation may still be written down. */
const WRITTEN_AFTER_MS = 8000

interface Told {
  action: WholeAction
  /** Null: none is kept. */
  trace: Trace | null
  records: readonly LogRecord[]
}

async function ask(id: string, signal?: AbortSignal): Promise<Told> {
  const [action, traces] = await Promise.all([
    recollection.action(id, signal),
    recollection.traces({ action_id: id }, 1, signal),
  ])
  const summary = traces.items[0]
  const about = action.correlation_id ?? summary?.trace_id
  const [trace, logs] = await Promise.all([
    summary ? recollection.trace(summary.trace_id, signal).catch(() => null) : null,
    about ? recollection.logs({ about }, LOGS_SHOWN, signal) : { items: [] },
  ])
  return { action, trace, records: [...logs.items].reverse() }
}

const isOver = (action: WholeAction): boolean => action.status !== 'pending' && action.status !== 'running'

function maybeMore(told: Told | null): boolean {
  if (told === null) return false
  const end = Date.parse(told.action.completed_at ?? '')
  return !isOver(told.action) || nodeTime() - end < WRITTEN_AFTER_MS
}

export function Story({ id }: { id: string }) {
  // The stream tells of one that is not known yet, and of every change.
  const live = actions.value.find((action) => action.action_id === id)?.status
  const { value, trouble, look } = useFound((signal) => ask(id, signal), `${id}\n${live}`)
  useEvery(EVERY_MS, maybeMore(value), look)
  return (
    <section class="story" aria-labelledby="story-title">
      <p class="back small">
        <a href={link('adaptations', null, Object.fromEntries(route.value.query))}>← Adaptations</a>
      </p>
      {value ? (
        <Tale told={value} />
      ) : (
        <>
          <div class="view-head">
            <h2 class="title" id="story-title">
              Adaptation
            </h2>
          </div>
          <NotFound trouble={trouble} again={look}>
            <h3>The node knows no such action</h3>
            <p>
              Nothing with the id <code>{id}</code> was taken from the bus. An action that was just asked for appears here as
              soon as the node takes it.
            </p>
          </NotFound>
        </>
      )}
    </section>
  )
}

function Tale({ told: { action, trace, records } }: { told: Told }) {
  const from = Date.parse(action.created_at)
  const to = isOver(action) ? Date.parse(action.completed_at ?? action.created_at) : Math.max(from, nodeTime())
  const steady = isOver(action) ? to : from
  const system = systems.value.get(action.target_system)
  const around = useAround(system, from, steady)
  const chapters = chaptersOf(action, trace)
  const first = chapters.find((chapter) => chapter.at !== null)
  const span = (ms: number): string => new Date(ms).toISOString()
  return (
    <>
      <div class="view-head">
        <h2 class="title" id="story-title">
          {action.action_type} <span class="muted">on</span> {action.target_system}
        </h2>
        <Pill tone={`status-${action.status}`} text={action.status} />
        <nav class="filters push" aria-label="More of it">
          {trace ? (
            <a class="button" href={link('traces', trace.trace_id)}>
              Trace
            </a>
          ) : null}
          {action.correlation_id ? (
            <a class="button" href={link('logs', null, { about: action.correlation_id })}>
              Logs
            </a>
          ) : null}
          {system ? (
            <a class="button" href={link('system', action.target_system, { from: span(from - 300_000), to: span(to + 300_000) })}>
              Charts at that time
            </a>
          ) : null}
        </nav>
      </div>
      {action.error_message ? (
        <p class="verdict error" role="note">
          {action.error_message}
        </p>
      ) : null}
      <div class="tale">
        <div class="stack">
          <section class="card panel" aria-labelledby="steps-title">
            <header>
              <h3 id="steps-title">What happened</h3>
              <span class="small muted">times since the {first?.kind === 'sample' ? 'sample' : 'request'}</span>
            </header>
            {trace ? null : (
              <p class="body small muted untraced">
                No trace of it is kept: it is too old, or tracing is off. What the ledger knows is told.
              </p>
            )}
            <ol class="chapters">
              {chapters.map((chapter, index) => (
                <Step key={index} chapter={chapter} begin={first?.at ?? from}>
                  {chapter.kind === 'sample' ? <Values around={around} at={chapter.at} system={action.target_system} /> : null}
                </Step>
              ))}
            </ol>
          </section>
          <section>
            <h3>Logs</h3>
            {records.length === 0 ? (
              <p class="card waiting">
                {action.correlation_id || trace
                  ? 'Nothing that is kept was logged of it: it is too old, or the level of the log is higher.'
                  : 'It has no correlation id, so its log records cannot be found.'}
              </p>
            ) : (
              <LogList records={records} label="Log records of this adaptation, oldest first" within={trace?.trace_id ?? null} />
            )}
          </section>
        </div>
        <div class="stack">
          <section class="card panel" aria-labelledby="asked-title">
            <header>
              <h3 id="asked-title">What was asked</h3>
            </header>
            <div class="body">
              <Request action={action} />
            </div>
          </section>
          <section class="card panel" aria-labelledby="around-title">
            <header>
              <h3 id="around-title">Before and after</h3>
              <span class="small muted">averages of 30 s</span>
            </header>
            <div class="body">
              <Glance around={around} system={action.target_system} from={from} to={to} />
            </div>
          </section>
        </div>
      </div>
    </>
  )
}

function Request({ action }: { action: WholeAction }) {
  const facts: [string, ComponentChildren][] = [
    ['asked by', action.source ?? <span class="muted">not known</span>],
    [
      'asked at',
      <time dateTime={action.created_at} title={whole(action.created_at)}>
        {moment(action.created_at, true)}
      </time>,
    ],
    ['took', action.duration_s === null ? <span class="muted">not ended</span> : seconds(action.duration_s)],
    ['time limit', action.timeout_seconds === null ? <span class="muted">that of the node</span> : seconds(action.timeout_seconds)],
    ['priority', String(action.priority)],
    ['action id', <span class="mono">{action.action_id}</span>],
    ['correlation id', action.correlation_id ? <span class="mono">{action.correlation_id}</span> : <span class="muted">none</span>],
  ]
  const parameters = Object.entries(action.parameters)
  return (
    <>
      <dl class="kv">
        {facts.map(([name, value]) => (
          <Fact key={name} name={name}>
            {value}
          </Fact>
        ))}
      </dl>
      <h4>Parameters</h4>
      {parameters.length === 0 ? <p class="small muted">none</p> : <Data data={action.parameters} />}
    </>
  )
}

function Step({ chapter, begin, children }: { chapter: Chapter; begin: number; children: ComponentChildren }) {
  const { kind, title, at, took, error, words, data } = chapter
  return (
    <li class={`${kind} ${error === undefined ? '' : 'failed'}`} data-step={kind}>
      <span class="at small muted">{at === null ? '' : at <= begin ? moment(new Date(at).toISOString()) : `+ ${seconds((at - begin) / 1000)}`}</span>
      <span class={`knot ${chapter.tone ?? ''}`} aria-hidden="true" />
      <div class="what">
        <p class="row">
          <strong>{title}</strong>
          {took === undefined ? null : <span class="small muted fixed">took {seconds(took)}</span>}
        </p>
        {words ? <p class="small muted">{words}</p> : null}
        {error ? <p class="small error">{error}</p> : null}
        {data && Object.keys(data).length > 0 ? <Data data={data} /> : null}
        {children}
      </div>
    </li>
  )
}

/** What the sample said, of the metrics that matter most. */
function Values({ around, at, system }: { around: Around | null; at: number | null; system: string }) {
  if (around === null || at === null) return null
  const known = systems.value.get(system)
  const values = around.seen.map((seen) => [seen, valueAt(seen, at + 1)] as const).filter(([, value]) => value !== null)
  if (values.length === 0) return <p class="small muted">Its values are not kept any more.</p>
  return (
    <p class="values small">
      {values.map(([seen, value]) => (
        <span key={seen.metric} class="tag" title={seen.metric}>
          {label(seen.metric)} <strong>{quantity(value, seen.unit, known?.metrics[seen.metric]?.name ?? seen.metric)}</strong>
        </span>
      ))}
    </p>
  )
}
