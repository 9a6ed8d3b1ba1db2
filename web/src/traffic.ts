// What goes through the bus right now: messages a second, and what waits on which way.

import { computed, signal } from '@preact/signals'
import { get } from './api'
import { RATES_KEPT } from './store'
import type { BusFacts } from './types'

export const LOOK_EVERY_MS = 2_000

interface Look {
  /** When, on this machine's monotonic clock. */
  at: number
  messages: number
}

export const bus = signal<BusFacts | null>(null)
const looks = signal<readonly Look[]>([])

export async function lookAtBus(): Promise<void> {
  const facts = await get<BusFacts>('bus')
  const published = facts.published.reduce((sum, each) => sum + each.confirmed, 0)
  const received = facts.subscriptions.reduce((sum, each) => sum + (each.counts['received'] ?? 0), 0)
  const last = looks.peek().at(-1)
  const next = { at: performance.now(), messages: published + received }
  bus.value = facts
  // Counts that fall are those of a node that has begun anew.
  const former = last && last.messages > next.messages ? [] : looks.peek()
  looks.value = [...former, next].slice(-RATES_KEPT - 1)
}

/** Messages a second, published and received, between one look and the next. */
export const messageRates = computed<number[]>(() => {
  const all = looks.value
  return all.slice(1).map((look, index) => {
    const former = all[index] ?? look
    return (look.messages - former.messages) / Math.max((look.at - former.at) / 1000, 0.001)
  })
})

/** What the node has accepted for publishing and the bus has not confirmed yet. */
export const unconfirmed = computed<number | null>(
  () => bus.value?.published.reduce((sum, each) => sum + each.waiting, 0) ?? null,
)

/** Taken from the broker and not settled yet, of the subscriptions whose name begins so. */
export const inFlight = (name: string): number | null =>
  bus.value?.subscriptions.reduce((sum, each) => (each.name.startsWith(name) ? sum + each.in_flight : sum), 0) ?? null
