// The last while of each system's first metric, for the small curves: from the stream, begun with what the node has.

import { signal } from '@preact/signals'
import { api } from './api'
import { keyMetrics } from './metrics'
import { nodeTime, onSample, systems } from './store'
import type { Scalar } from './types'

export const PULSE_POINTS = 60
const BEGUN_MAX = 12
const SYSTEMS_MAX = 400
const RANGE_S = 600

interface Pulse {
  metric: string
  values: (number | null)[]
}

const pulses = new Map<string, Pulse>()
/** Goes up when a past has arrived; single samples are drawn with the systems themselves. */
export const begun = signal(0)
const asked = new Set<string>()

const numeric = (value: Scalar | undefined): number | null => (typeof value === 'number' ? value : null)

onSample((sample) => {
  const system = systems.peek().get(sample.system_id)
  if (!system) return
  let pulse = pulses.get(sample.system_id)
  if (pulse === undefined) {
    const metric = keyMetrics(system)[0]
    if (metric === undefined || pulses.size >= SYSTEMS_MAX) return
    pulse = { metric, values: [] }
    pulses.set(sample.system_id, pulse)
  }
  if (!(pulse.metric in sample.values)) return
  pulse.values.push(numeric(sample.values[pulse.metric]))
  if (pulse.values.length > PULSE_POINTS) pulse.values.shift()
})

export const pulseOf = (id: string, metric: string): readonly (number | null)[] => {
  const pulse = pulses.get(id)
  return pulse?.metric === metric ? pulse.values : []
}

/** Ask for the past of these systems, once each and of few at a time: others begin with what comes. */
export function begin(ids: readonly string[]): void {
  for (const id of ids.slice(0, BEGUN_MAX)) {
    const system = systems.peek().get(id)
    const metric = system && keyMetrics(system)[0]
    if (metric === undefined || asked.has(id)) continue
    asked.add(id)
    api
      .series(id, metric, nodeTime() / 1000 - RANGE_S, PULSE_POINTS, AbortSignal.timeout(10_000))
      .then((series) => {
        pulses.set(id, { metric, values: series.values.map(numeric) })
        begun.value += 1
      })
      .catch(() => asked.delete(id))
  }
}
