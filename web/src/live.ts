// The connection to the node: follows its event stream, notices when it is dead, and comes back by itself.

import { batch } from '@preact/signals'
import { api } from './api'
import { hear } from './periods'
import { beginReading, connection, hearNode, hearSystem, takeAction, takeAll, takeComponent, takeSample, takeSystem } from './store'
import type { Action, Component, NodeFacts, Period, Sample, System } from './types'

const BACKOFF_MIN_MS = 500
const BACKOFF_MAX_MS = 5_000
/** The node sends a heartbeat every 5 s; three missed ones mean a dead connection. */
const SILENCE_MAX_MS = 15_000
const LEARN_EVERY_MS = 5_000
const ILL_ASKED_MAX = 8

let source: EventSource | null = null
let lastEventId = ''
let lastHeard = 0
let attempt = 0
let retryTimer: ReturnType<typeof setTimeout> | undefined
let reading = false
let readAgain = false
/** Systems asked for lately, and whether there was a reason to ask again since. */
const asked = new Map<string, boolean>()

export function start(): void {
  open()
  setInterval(() => {
    if (source && Date.now() - lastHeard > SILENCE_MAX_MS) lost()
  }, 1000)
  // A machine that wakes up or gets its network back does not wait for the backoff.
  addEventListener('online', hurry)
  document.addEventListener('visibilitychange', () => {
    if (document.visibilityState === 'visible') hurry()
  })
}

function hurry(): void {
  if (source) return
  clearTimeout(retryTimer)
  open()
}

function open(): void {
  lastHeard = Date.now()
  const query = lastEventId ? `?last_event_id=${encodeURIComponent(lastEventId)}` : ''
  const opened = new EventSource(`api/v1/stream${query}`)
  source = opened
  const on = <T>(kind: string, take: (value: T) => void): void => {
    opened.addEventListener(kind, (event: MessageEvent<string>) => {
      if (source !== opened) return
      lastHeard = Date.now()
      if (event.lastEventId) lastEventId = event.lastEventId
      take(JSON.parse(event.data) as T)
    })
  }
  on<{ resumed: boolean }>('hello', ({ resumed }) => {
    attempt = 0
    if (resumed) connection.value = 'live'
    else void readAll()
  })
  on<Sample>('sample', (sample) =>
    queue(() => {
      if (!takeSample(sample) || hasNewWords(sample)) learn(sample.system_id)
    }),
  )
  on<Action>('action', (action) => queue(() => takeAction(action)))
  on<Component>('component', (component) => queue(() => takeComponent(component)))
  on<System>('system', (system) => queue(() => hearSystem(system)))
  on<Period>('health', (period) => queue(() => hear(period)))
  on<NodeFacts>('node', (facts) => queue(() => hearNode(facts)))
  on('dropped', () => void readAll())
  on('heartbeat', () => undefined)
  opened.onerror = () => {
    if (source === opened) lost()
  }
}

// The events of one write of the node arrive as many small tasks: apply them together, once a frame.
let waiting: (() => void)[] = []

function queue(apply: () => void): void {
  waiting.push(apply)
  if (waiting.length === 1) setTimeout(flush, 16)
}

function flush(): void {
  const ready = waiting
  waiting = []
  batch(() => ready.forEach((apply) => apply()))
}

function lost(): void {
  source?.close()
  source = null
  if (connection.peek() === 'live') connection.value = 'reconnecting'
  const ceiling = Math.min(BACKOFF_MAX_MS, BACKOFF_MIN_MS * 2 ** Math.min(attempt, 8))
  attempt += 1
  clearTimeout(retryTimer)
  retryTimer = setTimeout(open, ceiling * (0.5 + Math.random() / 2))
}

/** Read the whole state; only then is the page live. One reading at a time, and once more if asked meanwhile. */
async function readAll(): Promise<void> {
  if (reading) {
    readAgain = true
    return
  }
  reading = true
  try {
    do {
      readAgain = false
      // What was told before is part of what is read now.
      flush()
      beginReading()
      takeAll(...(await Promise.all([api.node(), api.systems(), api.actions(), api.components()])))
    } while (readAgain)
    if (source) connection.value = 'live'
  } catch {
    // The stream was there and the state was not: begin again, with the whole state.
    lastEventId = ''
    lost()
  } finally {
    reading = false
  }
}

/** While a system is ill the words why change with every sample, which does not carry them: kept true for a few. */
const hasNewWords = (sample: Sample): boolean =>
  ['warning', 'critical', 'unhealthy'].includes(sample.health_status) && !document.hidden && asked.size < ILL_ASKED_MAX

/** Ask for the facts of a system that a sample told of: at most once in five seconds, and never the last time in vain. */
function learn(id: string): void {
  const resting = asked.has(id)
  asked.set(id, resting)
  if (resting) return
  api.system(id).then(takeSystem, () => undefined)
  setTimeout(() => {
    const again = asked.get(id) === true
    asked.delete(id)
    if (again && source) learn(id)
  }, LEARN_EVERY_MS)
}
