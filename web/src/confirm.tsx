// A dialog before every change: what will be done, the token where it is not known yet, and what the node said to it.

import { useSignal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { hasToken, keepToken, Refused } from './changes'

interface Props {
  title: string
  verb: string
  children: ComponentChildren
  run: () => Promise<unknown>
  close: () => void
}

export function Confirm({ title, verb, children, run, close }: Props) {
  const dialog = useRef<HTMLDialogElement>(null)
  const token = useSignal('')
  const said = useSignal('')
  const busy = useSignal(false)

  useEffect(() => {
    const shown = dialog.current
    shown?.showModal()
    return () => shown?.close()
  }, [])

  async function submit(event: Event): Promise<void> {
    event.preventDefault()
    if (busy.value) return
    if (!hasToken.value) keepToken(token.value.trim())
    busy.value = true
    said.value = ''
    try {
      await run()
      close()
    } catch (error) {
      said.value = error instanceof Refused ? error.message : String(error)
    } finally {
      busy.value = false
    }
  }

  return (
    <dialog ref={dialog} class="confirm" aria-labelledby="confirm-title" onClose={close}>
      <form onSubmit={submit}>
        <h2 id="confirm-title">{title}</h2>
        {children}
        {hasToken.value ? null : (
          <label class="field">
            Token of the node <span class="small muted">from http.token in its data folder</span>
            <input
              type="password"
              autoComplete="off"
              required
              value={token.value}
              onInput={(event) => {
                token.value = event.currentTarget.value
              }}
            />
          </label>
        )}
        {said.value ? (
          <p class="error" role="alert">
            {said.value}
          </p>
        ) : null}
        <div class="row end">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="primary" disabled={busy.value}>
            {busy.value ? 'Asking …' : verb}
          </button>
        </div>
      </form>
    </dialog>
  )
}
