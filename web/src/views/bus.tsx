// What goes through the bus, what the broker holds of it, what passes just now, and what was put aside.

import { Account, Subscriptions } from '../account'
import { DeadLetters } from '../deadletters'
import { rate } from '../format'
import { useLook } from '../look'
import { Pill } from '../pills'
import { link, route } from '../route'
import { connection, node } from '../store'
import { Streams } from '../streams'
import '../styles/bus.css'
import { TapView } from '../tapview'
import { bus, LOOK_EVERY_MS, lookAtBus, messageRates } from '../traffic'

const PARTS = [
  [null, 'Traffic'],
  ['streams', 'Streams'],
  ['tap', 'Live tap'],
  ['dead-letters', 'Dead letters'],
] as const

export function BusView() {
  useLook(lookAtBus, LOOK_EVERY_MS)
  const wanted = route.value.id
  const part = PARTS.find(([id]) => id === wanted)?.[0] ?? null
  const letters = node.value?.dead_letters ?? 0
  return (
    <div class="bus">
      <div class="view-head">
        <h2 class="title">Bus</h2>
        <State />
        <span class="muted">{connection.value === 'live' ? `${rate(messageRates.value.at(-1))} messages` : ''}</span>
      </div>
      <nav class="tabs" aria-label="Parts of the bus">
        {PARTS.map(([id, name]) => (
          <a key={name} href={link('bus', id)} aria-current={id === part ? 'page' : undefined}>
            {name}
            {id === 'dead-letters' && letters > 0 ? <span class="badge">{letters}</span> : null}
          </a>
        ))}
      </nav>
      {part === 'tap' ? (
        <TapView />
      ) : part === 'dead-letters' ? (
        <DeadLetters />
      ) : part === 'streams' ? (
        <Streams />
      ) : (
        <div class="stack">
          <Account />
          <Subscriptions />
        </div>
      )}
    </div>
  )
}

const WORDS: Record<string, [tone: string, text: string]> = {
  connected: ['health-healthy', 'connected'],
  reconnecting: ['health-unhealthy', 'connection lost, reconnecting'],
  disconnected: ['health-unhealthy', 'not connected'],
  draining: ['health-warning', 'draining'],
  closed: ['health-unhealthy', 'closed'],
}

/** Of the node's own connection to its broker. */
function State() {
  const state = connection.value === 'live' ? (bus.value?.state ?? null) : null
  const [tone, text] = (state !== null && WORDS[state]) || ['health-unknown', 'not known']
  return (
    <span role="status" data-bus={state ?? 'unknown'}>
      <Pill tone={tone} text={text} />
    </span>
  )
}
