// The way of the data through the node: from the systems over the bus into the store, and actions back.

import { quantity, rate } from './format'
import { useLook } from './look'
import { link, type View } from './route'
import { actionCount, actions, components, connection, node, paced } from './store'
import './styles/flow.css'
import { bus, inFlight, LOOK_EVERY_MS, lookAtBus, messageRates, unconfirmed } from './traffic'
import type { Health } from './types'

export function Flow() {
  useLook(lookAtBus, LOOK_EVERY_MS)
  const fresh = connection.value === 'live'
  const facts = fresh ? node.value?.rates : null
  const running = actions.value.filter(({ status }) => status === 'running' || status === 'pending').length
  const flows = fresh && (facts?.samples_per_s ?? 0) > 0
  const letters = fresh ? (node.value?.dead_letters ?? null) : null
  return (
    <ol class={`flow ${flows ? 'flows' : ''}`} aria-label="The way through the node">
      <Station name="Systems" view="system" lines={[`${paced.value.size} managed`, connectors()]} health="healthy" />
      <Way text={`${rate(facts?.samples_per_s)} samples`} below={waits(unconfirmed.value)} />
      <Station name="Bus" view="bus" lines={[busState(), `${rate(messageRates.value.at(-1))} messages`]} health={health(/^bus/)} />
      <Way text={`${rate(facts?.values_per_s)} values`} below={waits(inFlight('store-'))} />
      <Station name="Store" view="node" lines={storeLines()} health={health(/^store|ingest/)} />
      <li class="loop">
        <span class="leg left small muted">{running > 0 ? `${running} running` : ''}</span>
        <Station tag="div" name="Actions" view="adaptations" lines={actionLines()} health={health(/^action/)} />
        <span class="leg right small muted">{waits(inFlight('execute-'))}</span>
      </li>
      <li class="aside">
        <span class="leg right small muted" />
        <Station
          tag="div"
          name="Dead letters"
          view="bus"
          at="dead-letters"
          lines={[letters === null ? 'not known' : letters === 0 ? 'none' : `${letters} put aside`]}
          health={letters === null ? 'unknown' : letters === 0 ? 'healthy' : 'warning'}
        />
      </li>
    </ol>
  )
}

const waits = (count: number | null): string => (count === null ? '' : `${count} waiting`)

function connectors(): string {
  const counts = new Map<string, number>()
  for (const { connector } of paced.value.values()) counts.set(connector, (counts.get(connector) ?? 0) + 1)
  const all = [...counts].sort((a, b) => b[1] - a[1]).map(([name, count]) => (count > 1 ? `${count} ${name}` : name))
  return all.length > 3 ? `${all.slice(0, 2).join(', ')} and ${all.length - 2} kinds more` : all.join(', ')
}

const busState = (): string => (connection.value === 'live' ? (bus.value?.state ?? '–') : 'not known')

function storeLines(): string[] {
  const store = components.value.find(({ name }) => name === 'store')
  const engine = store?.details['engine']
  const handled = bus.value?.subscriptions.find(({ name }) => name === 'store-telemetry')?.counts['handled']
  return [
    typeof engine === 'string' ? engine : store?.message || (store ? store.status : '–'),
    handled !== undefined ? `${quantity(handled, null)} samples stored` : '',
  ]
}

function actionLines(): string[] {
  const all = actions.value
  const failed = all.filter(({ status }) => ['failed', 'timeout', 'rejected', 'unknown'].includes(status)).length
  return [`${actionCount.value} in all`, all.length === 0 ? '' : failed === 0 ? 'none failed lately' : `${failed} of the last ${all.length} failed`]
}

const ORDER: Health[] = ['unhealthy', 'critical', 'warning', 'unknown', 'healthy']

/** The worst of the components whose name fits. */
function health(name: RegExp): Health {
  if (connection.value !== 'live') return 'unknown'
  const found = new Set(components.value.filter((each) => name.test(each.name)).map(({ status }) => status))
  return ORDER.find((status) => found.has(status)) ?? 'unknown'
}

interface StationProps {
  name: string
  view: View
  lines: string[]
  health: Health
  tag?: 'li' | 'div'
  at?: string
}

function Station({ name, view, lines, health: how, tag: Tag = 'li', at }: StationProps) {
  return (
    <Tag class="station">
      <a class={`box health-${how}`} href={link(view, at ?? null)}>
        <strong>{name}</strong>
        {lines.filter(Boolean).map((line) => (
          <span key={line} class="small muted clip" title={line}>
            {line}
          </span>
        ))}
        {how === 'healthy' ? null : <span class="unseen">{how}</span>}
      </a>
    </Tag>
  )
}

function Way({ text, below }: { text: string; below: string }) {
  return (
    <li class="way small">
      <span>{text}</span>
      <span class="shaft" />
      <span class="muted">{below}</span>
    </li>
  )
}
