// Asking the node again and again for what its stream does not tell: only while somebody looks and it answers.

import { effect } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { connection, epoch } from './store'

/** Ask at once, every `everyMs`, and when the tab is seen again or the node is back; never two questions at a time. */
export function useLook(ask: () => Promise<void>, everyMs: number): void {
  useEffect(() => {
    let asking = false
    const look = (): void => {
      if (asking || document.hidden || connection.peek() !== 'live') return
      asking = true
      // What is shown stays; the banner tells what is wrong, and the next look tries again.
      ask()
        .catch(() => undefined)
        .finally(() => {
          asking = false
        })
    }
    const timer = setInterval(look, everyMs)
    document.addEventListener('visibilitychange', look)
    const stop = effect(() => {
      void epoch.value
      if (connection.value === 'live') look()
    })
    return () => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', look)
      stop()
    }
  }, [])
}
