// One thing that is asked for by its id: there, on its way, unknown, or not to be had just now.

import { useSignal } from '@preact/signals'
import type { ComponentChildren } from 'preact'
import { useEffect } from 'preact/hooks'
import { isUnknown } from './recollection'
import { epoch, loaded } from './store'

interface Found<T> {
  value: T | null
  /** Why there is none: empty while it is on its way. */
  trouble: string
  look: () => Promise<void>
}

const UNKNOWN = 'unknown'

/** Asked for when the node is there, and again when something may have been missed or `key` changes. */
export function useFound<T>(ask: (signal?: AbortSignal) => Promise<T>, key: string): Found<T> {
  const found = useSignal<T | null>(null)
  const trouble = useSignal('')
  const look = async (signal?: AbortSignal): Promise<void> => {
    try {
      const value = await ask(signal)
      if (!signal?.aborted) found.value = value
    } catch (error) {
      if (!signal?.aborted) trouble.value = isUnknown(error) ? UNKNOWN : error instanceof Error ? error.message : String(error)
    }
  }
  const age = epoch.value
  useEffect(() => {
    if (age === 0) return
    const aborter = new AbortController()
    void look(aborter.signal)
    return () => aborter.abort()
  }, [key, age])
  return { value: found.value, trouble: trouble.value, look: () => look() }
}

/** In place of what is not there; `children` say what it means that the node does not know it. */
export function NotFound({ trouble, again, children }: { trouble: string; again: () => Promise<void>; children?: ComponentChildren }) {
  return (
    <div class="card empty" role="status">
      {trouble === UNKNOWN && children ? (
        children
      ) : trouble ? (
        <>
          <h3>It could not be read</h3>
          <p>{trouble}</p>
          <button type="button" class="button" onClick={() => void again()}>
            Try again
          </button>
        </>
      ) : (
        <p>{loaded.value ? 'Loading …' : 'Waiting for the node …'}</p>
      )}
    </div>
  )
}
