// The last adaptation actions and what came of them.

import { ago, seconds } from './format'
import { Pill } from './pills'
import { link } from './route'
import { actions, loaded, now } from './store'
import type { Action } from './types'

const SHOWN = 10

/** The newest few of all systems; each leads to its story. */
export function Actions() {
  const all = actions.value.slice(0, SHOWN)
  return (
    <section class="actions" aria-labelledby="actions-title">
      <div class="row head">
        <h2 id="actions-title">Last adaptations</h2>
        {all.length > 0 ? (
          <a class="small" href={link('adaptations')}>
            All
          </a>
        ) : null}
      </div>
      {all.length === 0 ? (
        <p class="waiting card">
          {loaded.value
            ? 'No action yet. When a controller asks a system to change, it appears here with its outcome.'
            : 'Waiting for the node …'}
        </p>
      ) : (
        <ol class="card list">
          {all.map((action) => (
            <ActionRow key={action.action_id} action={action} />
          ))}
        </ol>
      )}
    </section>
  )
}

/** `alone`: in a list of one system, which need not be named each time. */
export function ActionRow({ action, alone = false }: { action: Action; alone?: boolean }) {
  const parameters = Object.entries(action.parameters)
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(', ')
  return (
    <li data-action={action.action_id}>
      <span class="row">
        <a class="plain strong clip" href={link('adaptations', action.action_id)} title={action.action_id}>
          {action.action_type}
        </a>
        <Pill tone={`status-${action.status}`} text={action.status} />
      </span>
      <span class="row small muted">
        <span class="clip">
          {alone ? null : <a href={link('system', action.target_system)}>{action.target_system}</a>}
          {[alone ? '' : ' ', parameters, action.source ?? ''].filter(Boolean).join(' · ')}
        </span>
        <span class="fixed">
          {action.duration_s === null ? '' : `${seconds(action.duration_s)} · `}
          <time dateTime={action.created_at} title={new Date(action.created_at).toLocaleString()}>
            {ago(action.created_at, now.value)}
          </time>
        </span>
      </span>
      {action.error_message ? <span class="small error">{action.error_message}</span> : null}
    </li>
  )
}
