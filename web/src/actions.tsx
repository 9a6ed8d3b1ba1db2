// The last adaptation actions and what came of them.

import { ago, seconds } from './format'
import { Pill } from './pills'
import { link } from './route'
import { actions, loaded, now } from './store'
import type { Action } from './types'

export function Actions() {
  const all = actions.value
  return (
    <section class="actions" aria-labelledby="actions-title">
      <h2 id="actions-title">Actions</h2>
      {all.length === 0 ? (
        <p class="waiting card">
          {loaded.value
            ? 'No action yet. When a controller asks a system to change, it appears here with its outcome.'
            : 'Waiting for the node …'}
        </p>
      ) : (
        <ol class="card list" tabIndex={0} aria-labelledby="actions-title">
          {all.map((action) => (
            <ActionRow key={action.action_id} action={action} />
          ))}
        </ol>
      )}
    </section>
  )
}

function ActionRow({ action }: { action: Action }) {
  const parameters = Object.entries(action.parameters)
    .map(([name, value]) => `${name} ${typeof value === 'string' ? value : JSON.stringify(value)}`)
    .join(', ')
  return (
    <li data-action={action.action_id}>
      <span class="row">
        <strong class="clip">{action.action_type}</strong>
        <Pill tone={`status-${action.status}`} text={action.status} />
      </span>
      <span class="row small muted">
        <span class="clip">
          <a href={link('system', action.target_system)}>{action.target_system}</a>
          {parameters ? ` · ${parameters}` : ''}
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
