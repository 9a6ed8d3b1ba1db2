// Messages that were put aside: why, with their bytes, to be published once more or erased.

import { signal, useSignal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { changes, DEAD_LETTERS_SHOWN } from './changes'
import { Confirm } from './confirm'
import { ago, bytes } from './format'
import { connection, node, now } from './store'
import type { DeadLetter, DeadLetterDetails } from './types'

const LOOK_EVERY_MS = 10_000
const SHOWN_CHARS_MAX = 4096

const letters = signal<readonly DeadLetter[]>([])

async function look(): Promise<void> {
  if (document.hidden || connection.peek() !== 'live' || !node.peek()?.takes_changes) return
  try {
    letters.value = await changes.deadLetters()
  } catch {
    // The banner and the components tell what is wrong; the list stays as it was.
  }
}

const REASONS: Record<string, string> = {
  undecodable: 'no valid event',
  unknown_type: 'unknown event type',
  refused: 'refused by its handler',
  exhausted: 'failed at every delivery',
  abandoned: 'never settled',
  given_up: 'given up by the broker',
}

export function DeadLetters() {
  const possible = node.value?.takes_changes === true && connection.value === 'live'
  useEffect(() => {
    if (!possible) return
    void look()
    const timer = setInterval(() => void look(), LOOK_EVERY_MS)
    return () => clearInterval(timer)
  }, [possible])
  if (!node.value?.takes_changes) return null
  const all = letters.value
  return (
    <section class="dead-letters" aria-labelledby="dead-letters-title">
      <h2 id="dead-letters-title">Dead letters{all.length === 0 ? '' : ` (${count(all.length)})`}</h2>
      {all.length === 0 ? (
        <p class="waiting card">None. A message that cannot be handled is put aside here, with its bytes.</p>
      ) : (
        <ul class="card list" tabIndex={0} aria-labelledby="dead-letters-title">
          {all.map((letter) => (
            <Letter key={letter.sequence} letter={letter} />
          ))}
        </ul>
      )}
    </section>
  )
}

const count = (found: number): string => (found >= DEAD_LETTERS_SHOWN ? `newest ${found}` : String(found))

function Letter({ letter }: { letter: DeadLetter }) {
  const details = useSignal<DeadLetterDetails | null>(null)
  const asking = useSignal<'replay' | 'drop' | null>(null)
  return (
    <li data-dead-letter={letter.sequence}>
      <details
        onToggle={async (event) => {
          if (!event.currentTarget.open || details.value !== null) return
          details.value = await changes.deadLetter(letter.sequence).catch(() => null)
        }}
      >
        <summary>
          <span class="row">
            <strong class="clip" title={letter.topic}>
              {letter.topic}
            </strong>
            <span class="small muted fixed">
              <time dateTime={letter.stored_at} title={new Date(letter.stored_at).toLocaleString()}>
                {ago(letter.stored_at, now.value)}
              </time>
            </span>
          </span>
          <span class="small muted">
            {REASONS[letter.reason] ?? letter.reason} · {letter.subscription} · {bytes(letter.payload_bytes)}
          </span>
        </summary>
        <p class="small error">{letter.error_message}</p>
        {details.value === null ? null : <pre tabIndex={0}>{readable(details.value.payload)}</pre>}
        <div class="row end">
          <button
            type="button"
            onClick={() => {
              asking.value = 'replay'
            }}
          >
            Replay …
          </button>
          <button
            type="button"
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
            letters.value = letters.value.filter((other) => other.sequence !== letter.sequence)
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

/** The bytes as text where they are text, otherwise in hexadecimal. */
function readable(base64: string): string {
  const raw = Uint8Array.from(atob(base64), (char) => char.charCodeAt(0))
  const cut = raw.subarray(0, SHOWN_CHARS_MAX)
  const more = raw.length > cut.length ? '\n…' : ''
  try {
    const text = new TextDecoder('utf-8', { fatal: true }).decode(cut)
    if (!/[\u0000-\u0008\u000e-\u001f]/.test(text)) return text + more
  } catch {
    // not text
  }
  return [...cut].map((byte) => byte.toString(16).padStart(2, '0')).join(' ') + more
}
