// Everything the page knows, as signals; views read them and nothing else.

import { batch, computed, effect, signal } from '@preact/signals'
import { ACTIONS_SHOWN } from './api'
import { route } from './route'
import type { Action, Component, NodeFacts, Sample, System } from './types'
import { further, micros, newestFirst } from './unfolding'

const PACE_MS = 250
export const RATES_KEPT = 90

export type Connection = 'connecting' | 'live' | 'reconnecting'

export const connection = signal<Connection>('connecting')
export const node = signal<NodeFacts | null>(null)
export const systems = signal<ReadonlyMap<string, System>>(new Map())
export const actions = signal<readonly Action[]>([])
/** How many actions there are, in words: the node may know, else as many as were read. */
export const actionCount = computed<string>(() => {
  const told = node.value?.actions
  const read = actions.value.length
  return told == null ? `${read}${read >= ACTIONS_SHOWN ? '+' : ''}` : told.toLocaleString('en')
})
export const components = signal<readonly Component[]>([])
/** Goes up whenever history may have been missed: charts then load theirs again. */
export const epoch = signal(0)
/** Whether the first full state has arrived. */
export const loaded = signal(false)
/** The node's clock minus this one's, in milliseconds. */
const skew = signal(0)
const tick = signal(Date.now())
/** The node's time in milliseconds, moving once a second. */
export const now = computed(() => tick.value + skew.value)
/** The node's day. */
export const today = computed(() => new Date(now.value).toDateString())

setInterval(() => {
  tick.value = Date.now()
}, 1000)

/** The systems, but at most four times a second: for views that draw all of them. */
export const paced = signal<ReadonlyMap<string, System>>(new Map())
let pacing = false

effect(() => {
  const next = systems.value
  if (pacing) return
  paced.value = next
  pacing = true
  setTimeout(() => {
    pacing = false
    paced.value = systems.peek()
  }, PACE_MS)
})

export interface Rates {
  at: number
  samples: number | null
  values: number | null
}

/** What flowed through the node in the last minutes, as its stream told. */
export const rates = signal<readonly Rates[]>([])

export const nodeTime = (): number => Date.now() + skew.peek()

export const selected = computed<System | null>(() => {
  const known = systems.value
  const wanted = route.value.view === 'system' ? route.value.id : null
  if (wanted !== null) return known.get(wanted) ?? null
  // Without a choice, a system that can be adapted: there something happens.
  return [...known.values()].find((system) => system.supported_actions.length > 0) ?? first(known)
})

const first = (known: ReadonlyMap<string, System>): System | null => known.values().next().value ?? null

type Listener = (sample: Sample) => void
const listeners = new Set<Listener>()

/** Hear every sample as it comes; returns the function that ends it. */
export function onSample(listener: Listener): () => void {
  listeners.add(listener)
  return () => listeners.delete(listener)
}

export function takeNode(facts: NodeFacts): void {
  skew.value = Date.parse(facts.now) - Date.now()
  node.value = facts
  const { samples_per_s, values_per_s } = facts.rates
  const next = { at: Date.parse(facts.now), samples: samples_per_s, values: values_per_s }
  const former = rates.peek().filter(({ at }) => at < next.at)
  rates.value = [...former, next].slice(-RATES_KEPT)
}

/** While the whole state is being read, what was told meanwhile: the reading may have been made before. */
let told: Set<string> | null = null

/** From here on the whole state is being read. */
export function beginReading(): void {
  told = new Set()
}

export function takeAll(facts: NodeFacts, all: System[], recent: Action[], parts: Component[]): void {
  batch(() => {
    if (!told?.has('node')) takeNode(facts)
    const read = new Map(all.map((system) => [system.system_id, newer(systems.peek().get(system.system_id), system)]))
    systems.value = sorted(withTold('system', read, systems.peek()))
    const known = byKey(actions.peek(), ({ action_id }) => action_id)
    const seen = byKey(recent.map((action) => further(known.get(action.action_id), action)), ({ action_id }) => action_id)
    actions.value = newest(withTold('action', seen, known, further))
    const named = ({ name }: Component): string => name
    components.value = [...withTold('component', byKey(parts, named), byKey(components.peek(), named)).values()]
    told = null
    loaded.value = true
    epoch.value += 1
  })
}

const byKey = <T>(all: readonly T[], keyOf: (one: T) => string): Map<string, T> =>
  new Map(all.map((one) => [keyOf(one), one]))

/** What was read, and in its place what the stream told meanwhile. */
function withTold<T>(
  kind: string,
  read: Map<string, T>,
  known: ReadonlyMap<string, T>,
  later: (read: T | undefined, heard: T) => T = (_, heard) => heard,
): Map<string, T> {
  for (const [key, one] of known) if (told?.has(`${kind} ${key}`)) read.set(key, later(read.get(key), one))
  return read
}

const sorted = (all: ReadonlyMap<string, System>): ReadonlyMap<string, System> =>
  new Map([...all].sort(([a], [b]) => (a < b ? -1 : 1)))

const newest = (all: ReadonlyMap<string, Action>): readonly Action[] =>
  [...all.values()].sort(newestFirst).slice(0, ACTIONS_SHOWN)

/** A sample that came by the stream while the state was being read may be newer than the state. */
function newer(former: System | undefined, read: System): System {
  const ahead = micros(former?.last_sample_at) > micros(read.last_sample_at)
  return former && ahead ? { ...former, connector: read.connector, supported_actions: read.supported_actions } : read
}

export function takeSystem(system: System): void {
  const next = new Map(systems.peek())
  const isNew = !next.has(system.system_id)
  next.set(system.system_id, newer(next.get(system.system_id), system))
  systems.value = isNew ? sorted(next) : next
}

/** The facts of a system as the stream told them. */
export function hearSystem(system: System): void {
  told?.add(`system ${system.system_id}`)
  takeSystem(system)
}

export function hearNode(facts: NodeFacts): void {
  told?.add('node')
  takeNode(facts)
}

/** Apply a sample; returns false when it tells of something whose facts are not known: a new system, metric or health. */
export function takeSample(sample: Sample): boolean {
  for (const listener of listeners) listener(sample)
  const system = systems.peek().get(sample.system_id)
  if (!system) return false
  if (micros(system.last_sample_at) > micros(sample.timestamp)) return true
  const sameHealth = system.health_status === sample.health_status
  let complete = sameHealth
  const metrics = { ...system.metrics }
  for (const [key, value] of Object.entries(sample.values)) {
    const reading = metrics[key]
    complete &&= reading !== undefined
    metrics[key] = {
      name: reading?.name ?? key,
      unit: reading?.unit ?? null,
      tags: reading?.tags ?? {},
      value,
      quality: sample.qualities[key] ?? 'ok',
      timestamp: sample.timestamp,
    }
  }
  const next = new Map(systems.peek())
  next.set(sample.system_id, {
    ...system,
    metrics,
    health_status: sample.health_status,
    message: sameHealth ? system.message : '',
    last_sample_at: sample.timestamp,
    stale: false,
  })
  systems.value = next
  return complete
}

export function takeAction(action: Action): void {
  told?.add(`action ${action.action_id}`)
  const known = byKey(actions.peek(), ({ action_id }) => action_id)
  actions.value = newest(known.set(action.action_id, further(known.get(action.action_id), action)))
}

export function takeComponent(component: Component): void {
  told?.add(`component ${component.name}`)
  const former = components.peek()
  components.value = former.some((other) => other.name === component.name)
    ? former.map((other) => (other.name === component.name ? component : other))
    : [...former, component]
}
