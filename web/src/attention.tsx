// What is not as it should be, worst first, each with the way to it. Nothing is shown while all is well.

import { ago } from './format'
import { Pill } from './pills'
import { link } from './route'
import { actions, components, connection, node, now, paced } from './store'
import { isStale } from './systems'
import type { Action, Health } from './types'

const SHOWN_MAX = 6
const RECENT_MS = 15 * 60_000
const FAILED = ['failed', 'timeout', 'rejected', 'unknown']
const GRAVITY: Record<Health, number> = { critical: 3, unhealthy: 3, warning: 2, unknown: 1, healthy: 0 }

interface Concern {
  key: string
  gravity: number
  name: string
  href: string
  words: string
  pill: { tone: string; text: string }
}

function concerns(): Concern[] {
  const found: Concern[] = []
  for (const part of components.value) {
    if (GRAVITY[part.status] === 0 || (part.status === 'unknown' && !part.message)) continue
    const words = [part.message, part.remedy].filter(Boolean).join('. ')
    found.push({ ...of(part.name, part.status), key: `part ${part.name}`, href: link('node'), words })
  }
  for (const system of paced.value.values()) {
    const stale = isStale(system)
    if (!stale && GRAVITY[system.health_status] < 2) continue
    const words = stale ? `Last heard ${ago(system.last_sample_at, now.value)}.` : system.message
    const concern = of(system.system_id, stale ? 'warning' : system.health_status)
    const pill = stale ? { tone: 'stale-pill', text: 'stale' } : concern.pill
    found.push({ ...concern, key: `system ${system.system_id}`, href: link('system', system.system_id), words, pill })
  }
  const letters = node.value?.dead_letters ?? 0
  if (letters > 0) {
    const words = 'Messages that nobody could handle. Look at them, then replay or drop them.'
    found.push({ ...of(`${letters} dead letter${letters > 1 ? 's' : ''}`, 'warning'), key: 'letters', href: link('bus', 'dead-letters'), words })
  }
  const last = lastFailed()
  if (last)
    found.push({
      key: 'action',
      gravity: 2,
      name: `${last.action_type} on ${last.target_system}`,
      href: link('adaptations', last.action_id),
      words: `${last.error_message ?? ''} (${ago(last.created_at, now.value)})`.trim(),
      pill: { tone: `status-${last.status}`, text: last.status },
    })
  return found.sort((a, b) => b.gravity - a.gravity)
}

/** The newest failed action, unless a later one of its kind succeeded on the same system, or it is long past. */
function lastFailed(): Action | undefined {
  const all = actions.value.filter(({ created_at }) => now.value - Date.parse(created_at) < RECENT_MS)
  const index = all.findIndex(({ status }) => FAILED.includes(status))
  const failed = all[index]
  const mended = all
    .slice(0, Math.max(index, 0))
    .some((later) => later.target_system === failed?.target_system && later.status === 'success')
  return mended ? undefined : failed
}

const of = (name: string, health: Health): Pick<Concern, 'gravity' | 'name' | 'pill'> => ({
  name,
  gravity: GRAVITY[health],
  pill: { tone: `health-${health}`, text: health },
})

export function Attention() {
  if (connection.value !== 'live') return null
  const all = concerns()
  if (all.length === 0) return null
  return (
    <section class="attention panel card" aria-labelledby="attention-title">
      <header>
        <h2 id="attention-title">
          Needs attention <span class="count">{all.length}</span>
        </h2>
      </header>
      <ul class="list">
        {all.slice(0, SHOWN_MAX).map((concern) => (
          <li key={concern.key}>
            <Pill {...concern.pill} />
            <a class="clip" href={concern.href}>
              {concern.name}
            </a>
            <span class="muted words">{concern.words}</span>
          </li>
        ))}
        {all.length > SHOWN_MAX ? <li class="muted">and {all.length - SHOWN_MAX} more</li> : null}
      </ul>
    </section>
  )
}
