// Ask a system to change, from the page.

import { useSignal } from '@preact/signals'
import { changes } from './changes'
import { Confirm } from './confirm'
import { node, takeAction } from './store'
import type { System } from './types'

/** 128 random bits. Over plain HTTP from elsewhere a browser has no `randomUUID`. */
const someId = (): string =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, '0')).join('')

/** The parameters as an object; an error text when they are none. */
function parametersOf(text: string): Record<string, unknown> | string {
  if (text.trim() === '') return {}
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as Record<string, unknown>
  } catch {
    // told below
  }
  return 'Parameters are a JSON object, such as {"count": 1}.'
}

export function Act({ system }: { system: System }) {
  const chosen = useSignal('')
  const text = useSignal('')
  const asking = useSignal<string | null>(null)
  if (!node.value?.takes_changes || system.supported_actions.length === 0) return null
  const action = system.supported_actions.includes(chosen.value) ? chosen.value : (system.supported_actions[0] ?? '')
  const parameters = parametersOf(text.value)
  const wrong = typeof parameters === 'string' ? parameters : ''

  return (
    <form
      class="act card"
      aria-label={`Ask ${system.system_id} to change`}
      onSubmit={(event) => {
        event.preventDefault()
        // One id for as long as the dialog is open: asking again after no answer does nothing twice.
        if (!wrong) asking.value = `page-${someId()}`
      }}
    >
      <label class="field">
        Action
        <select
          value={action}
          onChange={(event) => {
            chosen.value = event.currentTarget.value
          }}
        >
          {system.supported_actions.map((name) => (
            <option key={name} value={name}>
              {name}
            </option>
          ))}
        </select>
      </label>
      <label class="field wide">
        Parameters
        <input
          type="text"
          spellcheck={false}
          placeholder="{}"
          aria-invalid={wrong !== ''}
          value={text.value}
          onInput={(event) => {
            text.value = event.currentTarget.value
          }}
        />
      </label>
      <button type="submit" disabled={wrong !== ''}>
        Run …
      </button>
      {wrong ? (
        <p class="small error" role="alert">
          {wrong}
        </p>
      ) : null}
      {asking.value === null ? null : (
        <Confirm
          title={`${action} on ${system.system_id}?`}
          verb="Run"
          close={() => {
            asking.value = null
          }}
          run={async () => {
            const id = asking.value ?? ''
            takeAction(await changes.act(system.system_id, action, parameters, id))
          }}
        >
          <p class="muted">
            The node carries the action out once{text.value.trim() ? <> with <code>{text.value.trim()}</code></> : null}; its
            outcome appears under Actions.
          </p>
        </Confirm>
      )}
    </form>
  )
}
