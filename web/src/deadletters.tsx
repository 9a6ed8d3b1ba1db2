// Messages that were put aside: why, with their bytes, to be published once more or erased.

import { useSignal } from '@preact/signals'
import { Ago } from './ago'
import { changes } from './changes'
import { Confirm } from './confirm'
import { Fact } from './facts'
import { bytes } from './format'
import { Listed } from './narrowing'
import { useEvery, usePaged, type Paged } from './paged'
import { Pill } from './pills'
import { whole } from './recollection'
import { link } from './route'
import { node } from './store'
import type { DeadLetter, DeadLetterDetails } from './types'

const LOOK_EVERY_MS = 5_000
const SHOWN_BYTES_MAX = 4096

const REASONS: Record<string, string> = {
  undecodable: 'no valid event',
  unknown_type: 'unknown event type',
  refused: 'refused by its handler',
  exhausted: 'failed at every delivery',
  abandoned: 'never settled',
  given_up: 'given up by the broker',
}

export function DeadLetters() {
  const facts = node.value
  if (facts && !facts.takes_changes)
    return (
      <div class="card empty">
        <h3>Not shown here</h3>
        <p>
          This node takes no changes over HTTP. On its machine, <code>polaris dlq list</code> shows what was put aside.
        </p>
      </div>
    )
  return <Letters />
}

function Letters() {
  const list = usePaged<DeadLetter>(
    (cursor, signal) => changes.deadLetters(cursor, signal),
    (letter) => String(letter.sequence),
    '',
  )
  useEvery(LOOK_EVERY_MS, true, () => refresh(list))
  const shown = list.items.value
  return (
    <section class="dead-letters" aria-labelledby="dead-letters-title">
      <div class="row head wrap">
        <h2 id="dead-letters-title">Put aside, newest first</h2>
        <span class="small muted">
          A message that nobody could handle waits here, with its bytes, for as long as its stream keeps it.
        </span>
      </div>
      <Listed list={list as Paged<unknown>} shown={shown.length} empty={<Empty />}>
        <ul class="card list" aria-labelledby="dead-letters-title">
          {shown.map((letter) => (
            <Letter key={letter.sequence} letter={letter} gone={() => remove(list, letter)} />
          ))}
        </ul>
      </Listed>
    </section>
  )
}

const Empty = () => (
  <>
    <h3>No dead letters</h3>
    <p>
      Messages that are no valid event, of an unknown type, or that their handler refused at every delivery are put aside
      here with their bytes. Once the cause is mended they can be published again.
    </p>
  </>
)

/** The newest page anew: what is not on it any more, though it would have to be, was dealt with elsewhere. */
async function refresh(list: Paged<DeadLetter>): Promise<void> {
  if (list.state.peek() !== 'ready') return list.load()
  const page = await changes.deadLetters(null)
  const oldest = page.items.at(-1)?.sequence ?? Infinity
  const older = page.next === null ? [] : list.items.peek().filter(({ sequence }) => sequence < oldest)
  const same = [...page.items, ...older]
  const known = list.items.peek()
  if (same.length !== known.length || same.some(({ sequence }, index) => sequence !== known[index]?.sequence))
    list.items.value = same
  if (older.length === 0) list.next.value = page.next
}

function remove(list: Paged<DeadLetter>, letter: DeadLetter): void {
  list.items.value = list.items.peek().filter(({ sequence }) => sequence !== letter.sequence)
}

function Letter({ letter, gone }: { letter: DeadLetter; gone: () => void }) {
  const details = useSignal<DeadLetterDetails | null>(null)
  const trouble = useSignal('')
  const asking = useSignal<'replay' | 'drop' | null>(null)
  async function open(): Promise<void> {
    if (details.value !== null) return
    try {
      details.value = await changes.deadLetter(letter.sequence)
      trouble.value = ''
    } catch (error) {
      trouble.value = error instanceof Error ? error.message : String(error)
    }
  }
  return (
    <li data-dead-letter={letter.sequence}>
      <details
        onToggle={(event) => {
          if (event.currentTarget.open) void open()
        }}
      >
        <summary>
          <span class="row">
            <strong class="clip" title={letter.topic}>
              {letter.topic}
            </strong>
            <time class="small muted fixed" dateTime={letter.stored_at} title={whole(letter.stored_at)}>
              <Ago time={letter.stored_at} />
            </time>
          </span>
          <span class="row wrap why">
            <Pill tone="health-warning" text={REASONS[letter.reason] ?? letter.reason} />
            <span class="clip muted small grow" title={letter.error_message}>
              {letter.error_message}
            </span>
            <span class="small muted fixed">
              {letter.subscription} · {bytes(letter.payload_bytes)}
            </span>
          </span>
        </summary>
        <p class="small error">{letter.error_message}</p>
        {trouble.value ? <p class="small error">The bytes could not be read: {trouble.value}</p> : null}
        {details.value === null ? null : <Whole letter={details.value} />}
        <div class="row end">
          <button
            type="button"
            class="button"
            onClick={() => {
              asking.value = 'replay'
            }}
          >
            Replay …
          </button>
          <button
            type="button"
            class="button"
            onClick={() => {
              asking.value = 'drop'
            }}
          >
            Drop …
          </button>
        </div>
      </details>
      {asking.value === null ? null : (
        <Confirm
          title={asking.value === 'replay' ? `Publish number ${letter.sequence} once more?` : `Erase number ${letter.sequence}?`}
          verb={asking.value === 'replay' ? 'Replay' : 'Drop'}
          close={() => {
            asking.value = null
          }}
          run={async () => {
            await (asking.value === 'replay' ? changes.replay(letter.sequence) : changes.drop(letter.sequence))
            gone()
          }}
        >
          <p class="muted">
            {asking.value === 'replay'
              ? `It goes to ${letter.topic} again, under its own id; who handled it before knows it by that.`
              : 'Its bytes are gone then.'}
          </p>
        </Confirm>
      )}
    </li>
  )
}

function Whole({ letter }: { letter: DeadLetterDetails }) {
  const raw = Uint8Array.from(atob(letter.payload), (char) => char.charCodeAt(0))
  const text = textOf(raw)
  const asHex = useSignal(text === null)
  const headers = Object.entries(letter.headers)
  return (
    <>
      <dl class="kv">
        <Fact name="Error">
          <code>{letter.error_code}</code>
        </Fact>
        <Fact name="Deliveries">{letter.attempts}</Fact>
        <Fact name="First delivered">{whole(letter.first_at)}</Fact>
        <Fact name="Put aside">{whole(letter.failed_at)}</Fact>
        {letter.correlation_id ? (
          <Fact name="Correlation">
            <a class="mono" href={link('logs', null, { about: letter.correlation_id })}>
              {letter.correlation_id}
            </a>
          </Fact>
        ) : null}
        {headers.map(([name, value]) => (
          <Fact key={name} name={name}>
            <code>{value}</code>
          </Fact>
        ))}
      </dl>
      <div class="row bytes">
        <h3>
          {bytes(raw.length)}
          {raw.length > SHOWN_BYTES_MAX ? <span class="muted"> (the first {bytes(SHOWN_BYTES_MAX)})</span> : null}
        </h3>
        <span class="segments" role="group" aria-label="Show the bytes as">
          <button
            type="button"
            aria-pressed={!asHex.value}
            disabled={text === null}
            onClick={() => {
              asHex.value = false
            }}
          >
            Text
          </button>
          <button
            type="button"
            aria-pressed={asHex.value}
            onClick={() => {
              asHex.value = true
            }}
          >
            Hex
          </button>
        </span>
      </div>
      <pre class="code" tabIndex={0} aria-label="The bytes of the message">
        {asHex.value || text === null ? hexOf(raw) : text}
      </pre>
    </>
  )
}

/** The beginning of the bytes as text, JSON in a readable form; null where they are no text. */
function textOf(raw: Uint8Array): string | null {
  try {
    // A character that is cut in two at the end is no reason to call it no text.
    const text = new TextDecoder('utf-8', { fatal: true }).decode(raw.subarray(0, SHOWN_BYTES_MAX), { stream: true })
    if (/[\u0000-\u0008\u000e-\u001f]/.test(text)) return null
    if (raw.length > SHOWN_BYTES_MAX) return `${text} …`
    return JSON.stringify(JSON.parse(text), null, 2)
  } catch (error) {
    return error instanceof SyntaxError ? new TextDecoder().decode(raw) : null
  }
}

const hexOf = (raw: Uint8Array): string =>
  [...raw.subarray(0, SHOWN_BYTES_MAX)].map((byte) => byte.toString(16).padStart(2, '0')).join(' ') +
  (raw.length > SHOWN_BYTES_MAX ? ' …' : '')
