// How long ago something was: words that change by themselves, so that nothing round them is drawn again.

import { computed } from '@preact/signals'
import { useMemo } from 'preact/hooks'
import { ago } from './format'
import { now } from './store'

/** For lists, where the clock would draw every row each second. */
export function Ago({ time }: { time: string | null }) {
  const words = useMemo(() => computed(() => ago(time, now.value)), [time])
  return <>{words}</>
}
