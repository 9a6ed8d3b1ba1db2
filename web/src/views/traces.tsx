// What belonged together, and how long each part of it took.

import { useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { Ago } from '../ago'
import { Fact } from '../facts'
import { number, seconds } from '../format'
import { NotFound, useFound } from '../found'
import { LogList } from '../loglist'
import { Follow, Listed, Search, SystemChoice } from '../narrowing'
import { useEvery, usePaged, type Paged } from '../paged'
import {
  asked,
  moment,
  narrow,
  OF,
  plain,
  recollection,
  startOf,
  told,
  whole,
  type LogRecord,
  type Span,
  type Trace,
  type TraceSummary,
} from '../recollection'
import { link, route } from '../route'
import { errorOf, isError, rowsOf, treeOf, type Tree } from '../spans'
import '../styles/traces.css'
import { Waterfall } from '../waterfall'

const PAGE = 50
const EVERY_MS = 5000
const LOGS_SHOWN = 100

export function TracesView() {
  const { id } = route.value
  return id === null ? <Traces /> : <OneTrace key={id} id={id} />
}

function Traces() {
  const wanted = { about: asked('about'), system: asked('system'), status: asked('errors') ? 'error' : '' }
  const following = asked('follow') !== 'off'
  const list = usePaged<TraceSummary>(
    (cursor, signal) => recollection.traces({ ...wanted, cursor }, PAGE, signal),
    (trace) => trace.trace_id,
    JSON.stringify(wanted),
  )
  useEvery(EVERY_MS, following, async () => {
    if (list.state.peek() === 'ready') await list.load()
  })
  const shown = list.items.value
  const most = longest(shown)
  const query = Object.fromEntries(route.value.query)
  return (
    <section class="traces" aria-labelledby="traces-title">
      <div class="view-head">
        <h2 class="title" id="traces-title">
          Traces
        </h2>
        <span class="muted" role="status">
          {following ? 'new traces appear within 5 s' : 'new traces do not appear by themselves'}
        </span>
        <div class="filters push" role="group" aria-label="Narrow the list">
          <Search label="Correlation, trace or action id" />
          <SystemChoice />
          <label class="check">
            <input
              type="checkbox"
              checked={wanted.status !== ''}
              onChange={(event) => narrow({ errors: event.currentTarget.checked ? 'only' : null })}
            />
            Errors only
          </label>
          <Follow on={following} every="5 s" what="traces" />
        </div>
      </div>
      <Listed list={list as Paged<unknown>} shown={shown.length} empty={<Empty narrowed={Object.values(wanted).some(Boolean)} />}>
        <div class="card table-box" tabIndex={0} role="region" aria-label="Traces, newest first">
          <table class="table">
            <thead>
              <tr>
                <th scope="col">Began</th>
                <th scope="col">Trace</th>
                <th scope="col">System</th>
                <th scope="col" class="num">
                  Spans
                </th>
                <th scope="col">Took</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((trace) => (
                <Row key={trace.trace_id} trace={trace} most={most} query={query} />
              ))}
            </tbody>
          </table>
        </div>
      </Listed>
    </section>
  )
}

const longest = (shown: readonly TraceSummary[]): number => Math.max(1e-6, ...shown.map((trace) => trace.duration_s))

/** Durations are from microseconds to minutes: a bar of their magnitude, so that the short ones are seen too. */
const magnitude = (length: number, most: number): number =>
  Math.max(0.02, Math.log10(1 + length * 1e4) / Math.log10(1 + most * 1e4))

function Row({ trace, most, query }: { trace: TraceSummary; most: number; query: Record<string, string> }) {
  return (
    <tr data-trace={trace.trace_id} class={trace.errors > 0 ? 'failed' : ''}>
      <td class="nowrap">
        <time dateTime={trace.start} title={whole(trace.start)}>
          {moment(trace.start, true)}
        </time>{' '}
        <span class="small muted ago">
          <Ago time={trace.start} />
        </span>
      </td>
      <td>
        <a class="opens" href={link('traces', trace.trace_id, query)}>
          {trace.actions.length > 0 ? 'adaptation' : trace.name}
        </a>{' '}
        {trace.errors > 0 ? <span class="flag">{trace.errors === 1 ? '1 error' : `${trace.errors} errors`}</span> : null}
        <span class="small muted mono short">{trace.trace_id}</span>
      </td>
      <td>{trace.systems.join(', ') || <span class="muted">–</span>}</td>
      <td class="num">{number(trace.spans)}</td>
      <td class="length nowrap">
        <span class="share" aria-hidden="true">
          <span style={{ width: `${magnitude(trace.duration_s, most) * 100}%` }} />
        </span>
        {seconds(trace.duration_s)}
      </td>
    </tr>
  )
}

function Empty({ narrowed }: { narrowed: boolean }) {
  if (narrowed)
    return (
      <>
        <h3>Nothing fits</h3>
        <p>
          No trace that is kept fits. The oldest go first, by number and by age; of telemetry only a part is recorded.{' '}
          <a href={link('traces')}>Show all</a>
        </p>
      </>
    )
  return (
    <>
      <h3>No trace yet</h3>
      <p>
        Every adaptation and every error is recorded, and a part of the telemetry (<code>tracing.ratio</code>). If nothing
        ever comes, tracing may be off.
      </p>
    </>
  )
}

interface Told {
  trace: Trace
  records: readonly LogRecord[]
}

async function ask(id: string, signal?: AbortSignal): Promise<Told> {
  const [trace, logs] = await Promise.all([
    recollection.trace(id, signal),
    recollection.logs({ trace_id: id }, LOGS_SHOWN, signal),
  ])
  return { trace, records: [...logs.items].reverse() }
}

function OneTrace({ id }: { id: string }) {
  const { value, trouble, look } = useFound((signal) => ask(id, signal), id)
  return (
    <section class="one-trace" aria-labelledby="trace-title">
      <p class="back small">
        <a href={link('traces', null, { ...Object.fromEntries(route.value.query), span: null })}>← Traces</a>
      </p>
      {value ? (
        <Whole {...value} />
      ) : (
        <>
          <div class="view-head">
            <h2 class="title" id="trace-title">
              Trace <span class="mono muted">{id}</span>
            </h2>
          </div>
          <NotFound trouble={trouble} again={look}>
            <h3>This trace is not kept</h3>
            <p>
              It was not recorded, as of telemetry only a part is, or it was too old. The log may still tell of it:{' '}
              <a href={link('logs', null, { about: id })}>log records of the trace</a>
            </p>
          </NotFound>
        </>
      )}
    </section>
  )
}

function Whole({ trace, records }: Told) {
  const tree = treeOf(trace)
  const all = rowsOf(tree.roots, new Set())
  const spans = all.map((node) => node.span)
  // The innermost error is where it went wrong; what is above only handed it on.
  const wrong = all.filter((node) => isError(node.span)).sort((a, b) => b.depth - a.depth)
  const first = wrong[0]?.span ?? spans[0]
  const [chosenId, choose] = useChosen(trace.trace_id)
  const chosen = spans.find((span) => span.span_id === chosenId) ?? first
  if (!chosen) return <p class="card empty">This trace has no spans.</p>
  const errors = spans.filter(isError).length
  const actions = namesIn(trace.spans, OF.action)
  const correlations = namesIn(trace.spans, OF.correlation)
  return (
    <>
      <div class="view-head">
        <h2 class="title" id="trace-title">
          {actions.length > 0 ? 'Adaptation' : (tree.roots[0]?.span.name ?? 'Trace')}{' '}
          <span class="mono muted short">{trace.trace_id}</span>
        </h2>
      </div>
      <dl class="card about-it">
        <Item name="Began">
          <time dateTime={spans[0]?.start ?? ''}>{moment(new Date(tree.begin).toISOString(), true)}</time>
        </Item>
        <Item name="Took">{seconds((tree.end - tree.begin) / 1000)}</Item>
        <Item name="Spans">
          {number(spans.length)}
          {errors > 0 ? <span class="flag">{errors === 1 ? '1 error' : `${errors} errors`}</span> : null}
        </Item>
        <Item name="System">
          {namesIn(trace.spans, OF.system).map((system) => (
            <a key={system} href={link('system', system)}>
              {system}
            </a>
          ))}
        </Item>
        {actions.length > 0 ? (
          <Item name={actions.length === 1 ? 'Adaptation' : 'Adaptations'}>
            {actions.map((action) => (
              <a key={action} class="clip" href={link('adaptations', action)} data-action-of-trace>
                {action}
              </a>
            ))}
          </Item>
        ) : null}
        {correlations.length > 0 ? (
          <Item name="Logs">
            {correlations.map((one) => (
              <a key={one} class="clip" href={link('logs', null, { about: one })}>
                by correlation id {one}
              </a>
            ))}
          </Item>
        ) : null}
      </dl>
      {trace.spans_left_out > 0 ? (
        <p class="small muted">{number(trace.spans_left_out)} more spans were left out: a trace keeps so many at most.</p>
      ) : null}
      <div class="falls">
        <Waterfall tree={tree} chosen={chosen.span_id} choose={choose} />
        <SpanDetails span={chosen} tree={tree} linked={all.some((node) => node.span === chosen && node.linked)} />
        <section class="logged">
          <h3>Logs</h3>
          {records.length === 0 ? (
            <p class="card waiting">Nothing was logged in this trace, or it is too old to be kept.</p>
          ) : (
            <LogList records={records} label="Log records of this trace, oldest first" within={trace.trace_id} />
          )}
        </section>
      </div>
    </>
  )
}

/** Which span is looked at: told by the address, which follows without a place in the history for each. */
function useChosen(traceId: string): [string, (spanId: string) => void] {
  const own = useSignal<string | null>(null)
  const { query } = route.value
  useEffect(() => {
    own.value = null
  }, [query])
  return [
    own.value ?? query.get('span') ?? '',
    (span) => {
      own.value = span
      history.replaceState(null, '', link('traces', traceId, { ...Object.fromEntries(query), span }))
    },
  ]
}

const namesIn = (spans: readonly Span[], name: string): string[] => [
  ...new Set(spans.map((span) => told(span, name)).filter((one) => one !== null)),
]

function Item({ name, children }: { name: string; children: preact.ComponentChildren }) {
  return (
    <div>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </div>
  )
}

function SpanDetails({ span, tree, linked }: { span: Span; tree: Tree; linked: boolean }) {
  const error = errorOf(span)
  const after = (startOf(span) - tree.begin) / 1000
  return (
    <section class="card panel span-details" aria-labelledby="span-title" data-details-of={span.span_id}>
      <header>
        <h3 id="span-title">{span.name}</h3>
        <span class="tag">{span.kind}</span>
      </header>
      <div class="body">
        {error === null ? null : <p class="error">{error}</p>}
        {linked ? (
          <p class="small muted">Of another trace, which did this for several at once and links to this one.</p>
        ) : null}
        {told(span, OF.derived) === null ? null : (
          <p class="small muted">Told afterwards by the node, from what the events say.</p>
        )}
        <dl class="kv">
          <Fact name="took">{seconds(span.duration_s)}</Fact>
          <Fact name="began">
            {moment(span.start, true)}, {after <= 0 ? 'first of all' : `${seconds(after)} after the first`}
          </Fact>
          {Object.entries(span.attributes ?? {}).map(([name, value]) => (
            <Attribute key={name} name={name} value={plain(value)} />
          ))}
          {span.service ? <Fact name="service">{span.service}</Fact> : null}
          <Fact name="span id">
            <span class="mono">{span.span_id}</span>
          </Fact>
        </dl>
        <Links span={span} />
      </div>
    </section>
  )
}

function Attribute({ name, value }: { name: string; value: string }) {
  const href =
    name === OF.action
      ? link('adaptations', value)
      : name === OF.system
        ? link('system', value)
        : name === OF.correlation
          ? link('logs', null, { about: value })
          : null
  return (
    <Fact name={name}>
      {href === null ? value : <a href={href}>{value}</a>}
    </Fact>
  )
}

const LINKS_SHOWN = 10

/** Of a batch: the traces that it was handled for. */
function Links({ span }: { span: Span }) {
  const links = span.links ?? []
  if (links.length === 0) return null
  return (
    <>
      <h4>Links to {links.length === 1 ? 'another trace' : `${links.length} other traces`}</h4>
      <ul class="links small">
        {links.slice(0, LINKS_SHOWN).map((one) => (
          <li key={one.trace_id + one.span_id}>
            <a class="mono" href={link('traces', one.trace_id, { span: one.span_id })}>
              {one.trace_id}
            </a>
          </li>
        ))}
      </ul>
    </>
  )
}
