// The state of everything in a few numbers: health, what flows, what was done.

import type { ComponentChildren } from 'preact'
import { ago, rate } from './format'
import { HealthPill, Pill } from './pills'
import { link } from './route'
import { Spark } from './spark'
import { actionCount, actions, connection, node, now, paced, rates, RATES_KEPT } from './store'
import { isStale } from './systems'
import { messageRates } from './traffic'
import type { Health } from './types'

const SLOTS = 60

export function Tiles() {
  const fresh = connection.value === 'live'
  const facts = fresh ? node.value : null
  const past = rates.value.slice(-RATES_KEPT)
  return (
    <section class="tiles" aria-label="At a glance">
      <Healths />
      <Rate name="Telemetry" value={facts?.rates.samples_per_s} past={past.map(({ samples }) => samples)} noun="samples" />
      <Rate name="Values" value={facts?.rates.values_per_s} past={past.map(({ values }) => values)} noun="values stored" />
      <Rate
        name="Messages"
        value={fresh ? messageRates.value.at(-1) : null}
        past={messageRates.value}
        noun="published and received"
      />
      <Done />
    </section>
  )
}

interface TileProps {
  name: string
  children: ComponentChildren
  href?: string
  beside?: ComponentChildren
}

function Tile({ name, children, href, beside }: TileProps) {
  return (
    <div class="tile card">
      <div class="row">
        <h2>{href === undefined ? name : <a href={href}>{name}</a>}</h2>
        {beside}
      </div>
      {children}
    </div>
  )
}

interface RateProps {
  name: string
  value: number | null | undefined
  past: readonly (number | null)[]
  noun: string
}

function Rate({ name, value, past, noun }: RateProps) {
  return (
    <Tile name={name}>
      <p class="big" data-rate={name.toLowerCase()}>
        {rate(value)}
      </p>
      <p class="small muted clip">{noun}</p>
      <Spark values={past} most={SLOTS} />
    </Tile>
  )
}

const ORDER = ['healthy', 'warning', 'critical', 'unhealthy', 'stale', 'unknown'] as const
type Kind = (typeof ORDER)[number]

function Healths() {
  const facts = node.value
  const counts = new Map<Kind, number>()
  for (const system of paced.value.values()) {
    const kind: Kind = isStale(system) ? 'stale' : system.health_status
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  const total = paced.value.size
  const shown = ORDER.filter((kind) => counts.has(kind))
  const health: Health = connection.value === 'live' && facts ? facts.health_status : 'unknown'
  let from = 0
  return (
    <Tile name="Health" href={link('node')} beside={<HealthPill health={health} title={facts?.message ?? ''} />}>
      <p class="big">
        {counts.get('healthy') ?? 0} <span class="of">of {total}</span>
      </p>
      <p class="small muted clip">
        {total === 0 ? 'none managed yet' : ['systems healthy', ...told(counts)].join(', ')}
      </p>
      <svg class="shares" viewBox="0 0 100 6" preserveAspectRatio="none" aria-hidden="true">
        {shown.map((kind) => {
          const width = ((counts.get(kind) ?? 0) / total) * 100
          const x = from
          from += width
          return <rect key={kind} class={kind === 'stale' ? 'stale-pill' : `health-${kind}`} x={x} y="0" width={width} height="6" />
        })}
      </svg>
    </Tile>
  )
}

const told = (counts: ReadonlyMap<Kind, number>): string[] =>
  [...counts].filter(([kind]) => kind !== 'healthy').map(([kind, count]) => `${count} ${kind}`)

function Done() {
  const all = actions.value
  const last = all[0]
  return (
    <Tile
      name="Adaptations"
      href={link('adaptations')}
      beside={last ? <Pill tone={`status-${last.status}`} text={last.status} /> : null}
    >
      <p class="big">{actionCount.value}</p>
      {last ? (
        <>
          <p class="small muted clip" title={`${last.action_type} on ${last.target_system}`}>
            {last.action_type} on {last.target_system}
          </p>
          <p class="small muted end">{ago(last.created_at, now.value)}</p>
        </>
      ) : (
        <p class="small muted">none so far</p>
      )}
    </Tile>
  )
}
