// What the broker holds, and how far everybody is with it.

import { signal } from '@preact/signals'
import { Figure, whole } from './account'
import { ago, bytes, span } from './format'
import { inspection, type Consumer, type Stream, type Streams as Answer } from './inspection'
import { useLook } from './look'
import { Pill } from './pills'
import { now } from './store'

const EVERY_MS = 3_000
const CONSUMERS_SHOWN = 6

const answer = signal<Answer | null>(null)
/** What was said instead of an answer, at the last look. */
const trouble = signal('')
const opened = signal<ReadonlySet<string>>(new Set())

async function look(): Promise<void> {
  try {
    answer.value = await inspection.streams()
    trouble.value = ''
  } catch (error) {
    trouble.value = error instanceof Error && error.message.endsWith(' 503') ? 'The broker does not answer.' : 'The streams could not be read.'
  }
}

export function Streams() {
  useLook(look, EVERY_MS)
  const known = answer.value
  return (
    <section class="streams" aria-labelledby="streams-title">
      <div class="row head wrap">
        <h2 id="streams-title">
          Streams of the broker {known ? <span class="count">{known.streams_total}</span> : null}
        </h2>
        {known && !trouble.value ? <span class="small muted">asked {ago(known.asked_at, now.value)}</span> : null}
      </div>
      {trouble.value ? (
        <p class="card notice" role="status">
          {trouble.value}{' '}
          {known ? `What you see is of ${ago(known.asked_at, now.value)}.` : 'What it holds is not known; this page goes on asking.'}
        </p>
      ) : null}
      {known === null ? (
        trouble.value ? null : (
          <p class="card waiting">Asking the broker …</p>
        )
      ) : known.streams.length === 0 ? (
        <div class="card empty">
          <h3>No streams</h3>
          <p>The node makes its streams when it starts; the broker holds none at present.</p>
        </div>
      ) : (
        <ul class="stream-list">
          {known.streams.map((stream) => (
            <OneStream key={stream.name} stream={stream} />
          ))}
        </ul>
      )}
      {known && known.streams_total > known.streams.length ? (
        <p class="small muted">{known.streams_total - known.streams.length} more streams are not listed.</p>
      ) : null}
    </section>
  )
}

function OneStream({ stream }: { stream: Stream }) {
  const open = opened.value.has(stream.name)
  // Who is furthest behind comes first.
  const sorted = [...stream.consumers].sort((a, b) => lag(b) - lag(a) || (a.name < b.name ? -1 : 1))
  const shown = open ? sorted : sorted.slice(0, CONSUMERS_SHOWN)
  const title = `stream-${stream.name}`
  return (
    <li class="card panel stream" data-stream={stream.name}>
      <header>
        <div class="names">
          <h3 id={title}>{stream.name}</h3>
          <code class="muted clip" title={stream.subjects.join(' ')}>
            {stream.subjects.join(' ')}
          </code>
        </div>
        <dl class="numbers">
          <Figure name="Messages" value={stream.messages} />
          <Figure name="Size" value={stream.bytes_max ? `${bytes(stream.bytes)} of ${bytes(stream.bytes_max)}` : bytes(stream.bytes)} />
          <Figure name="Oldest" value={age(stream.first_at, stream.age_max_s)} />
          <Figure name="Newest" value={stream.last_at ? ago(stream.last_at, now.value) : '–'} />
        </dl>
      </header>
      {stream.bytes_max ? <Fill share={stream.bytes / stream.bytes_max} /> : null}
      {shown.length === 0 ? (
        <p class="body small muted">Nobody has a position in it.</p>
      ) : (
        <div class="table-box" tabIndex={0} role="group" aria-labelledby={title}>
          <table class="table">
            <thead>
              <tr>
                <th scope="col">Consumer</th>
                <th scope="col" class="num" title="Stored and not yet delivered">
                  Lag
                </th>
                <th scope="col" class="num">
                  Unacknowledged
                </th>
                <th scope="col" class="num">
                  Redelivered
                </th>
                <th scope="col">Last active</th>
                <th scope="col">State</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((consumer) => (
                <Line key={consumer.name} consumer={consumer} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      {sorted.length > CONSUMERS_SHOWN ? (
        <div class="older">
          <button type="button" class="button quiet" aria-expanded={open} onClick={() => toggle(stream.name)}>
            {open ? 'Show fewer' : `Show all ${sorted.length}`}
          </button>
        </div>
      ) : null}
      {stream.consumers_total > sorted.length ? (
        <p class="body small muted">{stream.consumers_total - sorted.length} more consumers are not listed.</p>
      ) : null}
    </li>
  )
}

const lag = (consumer: Consumer): number => consumer.pending + consumer.unacknowledged

function toggle(name: string): void {
  const next = new Set(opened.peek())
  if (!next.delete(name)) next.add(name)
  opened.value = next
}

function age(first: string | null, limit: number | null): string {
  if (first === null) return limit === null ? '–' : `kept ${span(limit)}`
  const old = span((now.value - Date.parse(first)) / 1000)
  return limit === null ? old : `${old} of ${span(limit)}`
}

/** How full it is; the numbers say the same. */
function Fill({ share }: { share: number }) {
  return (
    <div class="fill" aria-hidden="true">
      <span style={{ width: `${Math.min(100, share * 100)}%` }} class={share > 0.9 ? 'full' : ''} />
    </div>
  )
}

function Line({ consumer }: { consumer: Consumer }) {
  return (
    <tr data-consumer={consumer.name}>
      <td>
        <span class="strong">{consumer.name}</span>
        {consumer.durable ? null : <span class="tag">ephemeral</span>}
        <br />
        <code class="muted">{consumer.patterns.join(' ') || 'everything'}</code>
      </td>
      <td class="num" data-count="lag">
        {whole(consumer.pending)}
      </td>
      <td class="num">{whole(consumer.unacknowledged)}</td>
      <td class="num">{whole(consumer.redelivered)}</td>
      <td class="nowrap">{ago(consumer.last_active_at, now.value)}</td>
      <td>
        <State consumer={consumer} />
      </td>
    </tr>
  )
}

function State({ consumer }: { consumer: Consumer }) {
  const full = consumer.in_flight_max !== null && consumer.unacknowledged >= consumer.in_flight_max
  if (consumer.paused) return <Pill tone="stale-pill" text="paused" />
  if (full) return <Pill tone="stale-pill" text="has its hands full" title="As many are unacknowledged as may be" />
  if (consumer.pending > 0) return <Pill tone="status-running" text="behind" />
  return <Pill tone="health-healthy" text="up to date" />
}
