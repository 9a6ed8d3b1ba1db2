// What passes on the bus, as it passes.

import { useSignal } from '@preact/signals'
import { useMemo, useRef } from 'preact/hooks'
import { bytes } from './format'
import type { Tapped } from './inspection'
import { Pill } from './pills'
import { asked, narrow } from './recollection'
import { KEPT_MAX, PATTERN, Tap, useTap, type Row } from './tap'

const PATTERNS = [
  [PATTERN, 'everything of POLARIS'],
  ['polaris.telemetry.>', 'telemetry of all systems'],
  ['polaris.adaptations.>', 'actions asked for'],
  ['polaris.executions.>', 'results of actions'],
  ['polaris.health.>', 'changes of health'],
  ['polaris.dead_letter.>', 'what is put aside'],
] as const

const STATES = {
  opening: ['connection-connecting', 'opening'],
  open: ['connection-live', 'live'],
  closed: ['connection-reconnecting', 'not open'],
  refused: ['health-unhealthy', 'refused'],
} as const

export function TapView() {
  const pattern = asked('pattern') || PATTERN
  const tap = useMemo(() => new Tap(pattern), [pattern])
  useTap(tap)
  const [tone, word] = STATES[tap.state.value]
  const shown = tap.shown.value
  const paused = tap.paused.value
  return (
    <section class="tap" aria-labelledby="tap-title">
      <div class="row head wrap">
        <h2 id="tap-title">
          What passes on <code>{pattern}</code>
        </h2>
        <span role="status" data-tap={tap.state.value}>
          <Pill tone={paused && tap.state.value === 'open' ? 'stale-pill' : tone} text={paused && tap.state.value === 'open' ? 'paused' : word} />
        </span>
      </div>
      <div class="filters" role="group" aria-label="What is shown">
        <Pattern pattern={pattern} />
        <input
          class="wide"
          type="search"
          aria-label="Show only what contains this text"
          placeholder="Contains …"
          value={tap.filter.value}
          onInput={(event) => {
            tap.filter.value = event.currentTarget.value
          }}
        />
        <button type="button" class="button" aria-pressed={paused} onClick={() => tap.pause(!paused)}>
          {paused ? 'Resume' : 'Pause'}
        </button>
        <button type="button" class="button" disabled={tap.rows.value.length === 0} onClick={() => tap.clear()}>
          Clear
        </button>
      </div>
      {tap.state.value === 'refused' ? (
        <p class="error" role="alert">
          {tap.said.value}
        </p>
      ) : null}
      <p class="small muted counts">{counts(tap, shown.length)}</p>
      {shown.length === 0 ? (
        <div class="card empty">
          <h3>{tap.rows.value.length > 0 ? 'Nothing that passed contains this' : 'Nothing has passed yet'}</h3>
          <p>
            {tap.rows.value.length > 0
              ? 'The filter looks at topic, type, id and content of the events above.'
              : 'Events appear as they pass from now on. Looking on takes nothing from anybody and changes nothing on the bus.'}
          </p>
        </div>
      ) : (
        <ul class="card list" aria-labelledby="tap-title">
          {shown.map((row) => (
            <Event key={row.key} row={row} />
          ))}
        </ul>
      )}
    </section>
  )
}

function counts(tap: Tap, shown: number): string {
  const parts = [`${tap.seen.value} seen`]
  if (tap.filter.value.trim()) parts.push(`${shown} of the last ${tap.rows.value.length} shown`)
  else if (tap.rows.value.length >= KEPT_MAX) parts.push(`the last ${KEPT_MAX} shown`)
  if (tap.passed.value > 0) parts.push(`${tap.passed.value} passed while paused`)
  if (tap.dropped.value > 0) parts.push(`${tap.dropped.value} messages left out, as more pass than can be shown`)
  return parts.join(' · ')
}

/** Which subjects; it goes into the address. */
function Pattern({ pattern }: { pattern: string }) {
  const box = useRef<HTMLInputElement>(null)
  return (
    <form
      class="wide"
      onSubmit={(event) => {
        event.preventDefault()
        const wanted = box.current?.value.trim() ?? ''
        narrow({ pattern: wanted === PATTERN ? null : wanted })
      }}
    >
      <input
        key={pattern}
        ref={box}
        class="mono"
        type="text"
        list="tap-patterns"
        aria-label="Pattern of the topics"
        spellcheck={false}
        autoComplete="off"
        maxLength={256}
        defaultValue={pattern}
      />
      <datalist id="tap-patterns">
        {PATTERNS.map(([value, words]) => (
          <option key={value} value={value}>
            {words}
          </option>
        ))}
      </datalist>
      <button type="submit" class="button">
        Look on
      </button>
    </form>
  )
}

function Event({ row }: { row: Row }) {
  const open = useSignal(false)
  return (
    <li data-tapped={row.topic}>
      <details
        onToggle={(event) => {
          open.value = event.currentTarget.open
        }}
      >
        <summary>
          <time class="mono muted fixed" dateTime={row.received_at}>
            {clockOf(row.received_at)}
          </time>
          <span class={`tag fixed ${row.problem && !row.event ? 'bad' : ''}`}>{kindOf(row)}</span>
          <span class="clip topic" title={row.topic}>
            {row.topic}
          </span>
          <span class="clip muted gist">{row.problem ?? gist(row)}</span>
          <span class="small muted fixed size">{bytes(row.bytes)}</span>
        </summary>
        {open.value ? <Whole row={row} /> : null}
      </details>
    </li>
  )
}

function Whole({ row }: { row: Row }) {
  return (
    <div class="whole">
      {row.problem ? <p class="error small">{row.problem}</p> : null}
      <pre class="code" tabIndex={0} aria-label={row.event ? 'The event as JSON' : 'The first bytes'}>
        {row.event ? JSON.stringify(row.event, null, 2) : spaced(row.hex ?? '')}
        {row.hex !== undefined && row.bytes > row.hex.length / 2 ? ' …' : ''}
      </pre>
    </div>
  )
}

const spaced = (hex: string): string => hex.replaceAll(/(..)(?=.)/g, '$1 ')

function clockOf(time: string): string {
  const date = new Date(time)
  return `${date.toLocaleTimeString('en-GB')}.${String(date.getMilliseconds()).padStart(3, '0')}`
}

const kindOf = ({ type, event }: Tapped): string => (type ? type.replace(/^polaris\./, '') : event ? 'no type' : 'unreadable')

/** In a few words what an event of a known type says. */
function gist({ event }: Tapped): string {
  const data = event?.['data'] as Record<string, any> | undefined
  const state = data?.['system_state']
  if (state?.metrics)
    return Object.entries(state.metrics as Record<string, { value?: unknown }>)
      .slice(0, 4)
      .map(([name, metric]) => `${name} ${shortly(metric?.value)}`)
      .join(', ')
  const action = data?.['action']
  if (action) return `${action.action_type} on ${action.target_system}`
  const result = data?.['result']
  if (result) return [result.status, result.error_message].filter(Boolean).join(': ')
  if (data?.['component']) return [data['component'], data['status'], data['message']].filter(Boolean).join(' ')
  return data === undefined ? '' : JSON.stringify(data)
}

const shortly = (value: unknown): string =>
  typeof value === 'number' ? String(Math.round(value * 1000) / 1000) : value === null || value === undefined ? '–' : String(value)
