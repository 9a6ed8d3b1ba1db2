// What became of everything that the node published, and what its subscriptions do.

import { signal } from '@preact/signals'
import { More } from './more'
import { Pill } from './pills'
import { bus } from './traffic'
import type { BusFacts } from './types'

type Published = BusFacts['published'][number]
type Subscription = BusFacts['subscriptions'][number]

const REASONS: Record<string, string> = {
  unconfirmed: 'not confirmed in time',
  buffer_full: 'buffer full',
  expired: 'waited too long',
  away: 'bus away',
  ended: 'bus ended',
  too_large: 'too large',
  refused: 'refused by the broker',
  rejected: 'rejected before sending',
  cancelled: 'given up by the publisher',
  not_sent: 'not come to',
}

export function Account() {
  const all = bus.value?.published ?? []
  return (
    <section class="panel card account" aria-labelledby="account-title">
      <header>
        <h2 id="account-title">Published by this node</h2>
        <span class="small muted">published = confirmed + waiting + dropped</span>
      </header>
      <div class="body">
        {all.length === 0 ? <p class="muted">Nothing is known yet.</p> : all.map((one) => <Kind key={one.kind} account={one} />)}
      </div>
    </section>
  )
}

function Kind({ account }: { account: Published }) {
  const dropped = Object.entries(account.dropped).filter(([, count]) => count > 0)
  const lost = dropped.reduce((sum, [, count]) => sum + count, 0)
  return (
    <div class="kind" data-published={account.kind}>
      <h3>{account.kind === 'telemetry' ? 'Telemetry' : account.kind === 'control' ? 'Control' : account.kind}</h3>
      <Bar parts={[account.confirmed, account.waiting, lost]} />
      <dl class="numbers">
        <Figure name="Published" value={account.published} />
        <Figure name="Confirmed" value={account.confirmed} tone="good" />
        <Figure name="Waiting" value={account.waiting} tone="warn" />
        <Figure name="Dropped" value={lost} tone="bad" />
      </dl>
      {dropped.length === 0 ? null : (
        <p class="small muted">
          Dropped, each with an error to its publisher:{' '}
          {dropped.map(([reason, count]) => `${whole(count)} ${REASONS[reason] ?? reason}`).join(', ')}
        </p>
      )}
    </div>
  )
}

const TONES = ['good', 'warn', 'bad']

/** The shares of a whole, side by side. What the numbers below say, so nobody has to see it. */
function Bar({ parts }: { parts: number[] }) {
  const sum = parts.reduce((total, part) => total + part, 0)
  return (
    <div class="bar" aria-hidden="true">
      {parts.map((part, index) =>
        part === 0 ? null : <span key={index} class={TONES[index] ?? ''} style={{ flexGrow: Math.max(part / sum, 0.01) }} />,
      )}
    </div>
  )
}

/** Counts are told to the last one: they are to add up. */
export const whole = (count: number): string => count.toLocaleString('en')

/** A number with its name below it. */
export function Figure({ name, value, tone }: { name: string; value: number | string; tone?: string }) {
  return (
    <div class={value === 0 ? 'none' : (tone ?? '')}>
      <dt>{name}</dt>
      <dd data-count={name.toLowerCase()}>{typeof value === 'number' ? whole(value) : value}</dd>
    </div>
  )
}

const SHOWN = 25
const wanted = signal('')
const shownMax = signal(SHOWN)

/** Counts that are worth a word when they are not zero. */
const NOTED = [
  ['failed', 'failed'],
  ['dead_lettered', 'put aside'],
  ['retried', 'handed back'],
  ['redelivered', 'redelivered'],
  ['missed', 'missed'],
  ['lost', 'lost'],
  ['unsettled', 'not settled'],
  ['reattached', 'attached anew'],
  ['stale', 'too old'],
  ['conflated', 'conflated'],
] as const
const BAD = new Set(['failed', 'dead_lettered', 'lost', 'missed'])

export function Subscriptions() {
  const all = bus.value?.subscriptions ?? []
  const text = wanted.value.trim().toLowerCase()
  const fitting = text ? all.filter(({ name, pattern }) => `${name} ${pattern}`.toLowerCase().includes(text)) : all
  const shown = fitting.slice(0, shownMax.value)
  return (
    <section class="panel card" aria-labelledby="subscriptions-title">
      <header>
        <h2 id="subscriptions-title">
          Subscriptions of this node <span class="count">{all.length}</span>
        </h2>
        {all.length > 8 ? (
          <div class="filters">
            <input
              type="search"
              aria-label="Show only subscriptions whose name contains this"
              placeholder="Name or topic"
              value={wanted.value}
              onInput={(event) => {
                wanted.value = event.currentTarget.value
              }}
            />
          </div>
        ) : null}
      </header>
      {shown.length === 0 ? (
        <p class="body muted">{text ? 'None has such a name.' : 'This node subscribes to nothing.'}</p>
      ) : (
        <div class="table-box" tabIndex={0} role="group" aria-labelledby="subscriptions-title">
          <table class="table">
            <thead>
              <tr>
                <th scope="col">Name</th>
                <th scope="col" class="num">
                  Received
                </th>
                <th scope="col" class="num">
                  Handled
                </th>
                <th scope="col" class="num">
                  In flight
                </th>
                <th scope="col">What went otherwise</th>
                <th scope="col">State</th>
              </tr>
            </thead>
            <tbody>
              {shown.map((one) => (
                <Line key={one.name} subscription={one} />
              ))}
            </tbody>
          </table>
        </div>
      )}
      <More hidden={fitting.length - shown.length} more={() => (shownMax.value += 4 * SHOWN)} />
    </section>
  )
}

function Line({ subscription }: { subscription: Subscription }) {
  const { counts } = subscription
  const noted = NOTED.filter(([name]) => (counts[name] ?? 0) > 0)
  return (
    <tr data-subscription={subscription.name}>
      <td>
        <span class="strong">{subscription.name}</span>
        <br />
        <code class="muted">{subscription.pattern}</code>
      </td>
      <td class="num" data-count="received">
        {whole(counts['received'] ?? 0)}
      </td>
      <td class="num" data-count="handled">
        {whole(counts['handled'] ?? 0)}
      </td>
      <td class="num">{whole(subscription.in_flight)}</td>
      <td>
        {noted.length === 0 ? (
          <span class="muted">nothing</span>
        ) : (
          noted.map(([name, words]) => (
            <span key={name} class={`noted ${BAD.has(name) ? 'error' : 'muted'}`}>
              {whole(counts[name] ?? 0)} {words}
            </span>
          ))
        )}
      </td>
      <td>
        {subscription.paused ? <Pill tone="stale-pill" text="paused" /> : <Pill tone="health-healthy" text="active" />}
      </td>
    </tr>
  )
}
