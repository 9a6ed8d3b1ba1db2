// The steps of an adaptation in their order, from its trace where there is one, from the ledger otherwise.

import { seconds } from './format'
import { endOf, OF, startOf, told, type Span, type Trace, type WholeAction } from './recollection'
import { errorOf } from './spans'

export interface Chapter {
  kind: 'sample' | 'decision' | 'arrival' | 'attempt' | 'outcome' | 'announcement'
  title: string
  /** Milliseconds since the epoch, null when it is not known. */
  at: number | null
  /** Seconds. */
  took?: number
  words?: string
  error?: string
  data?: Record<string, unknown>
  tone?: string
}

export function chaptersOf(action: WholeAction, trace: Trace | null): Chapter[] {
  const spans = (trace?.spans ?? []).filter((span) => belongs(span, action))
  return [
    ...cause(action, spans, trace !== null),
    decision(action, spans),
    ...arrivals(spans),
    ...attempts(action, spans),
    ...outcome(action),
    ...announcement(spans),
  ]
}

/** A trace may hold several actions: what is of another one does not belong here. */
function belongs(span: Span, action: WholeAction): boolean {
  const id = told(span, OF.action)
  return id === null || id === action.action_id
}

const named = (spans: readonly Span[], name: RegExp): Span[] => spans.filter((span) => name.test(span.name))

function cause(action: WholeAction, spans: readonly Span[], traced: boolean): Chapter[] {
  const sample = named(spans, /^collect/)[0]
  const at = sample ? startOf(sample) : action.caused_at ? Date.parse(action.caused_at) : null
  if (at !== null)
    return [{ kind: 'sample', title: `A sample of ${(sample && told(sample, OF.system)) ?? action.target_system}`, at, words: 'led to it, as its correlation id tells.' }]
  const words = traced
    ? 'It was asked for without one, or whoever asked does not hand on the correlation id of the sample.'
    : 'The trace would tell.'
  return [{ kind: 'sample', title: 'No sample is known that led to it', at: null, words, tone: 'absent' }]
}

function decision(action: WholeAction, spans: readonly Span[]): Chapter {
  const decided = named(spans, /^decide/)[0]
  const who = action.source ?? 'Somebody'
  const chapter: Chapter = { kind: 'decision', title: `${who} asked for ${action.action_type}`, at: Date.parse(action.created_at) }
  const after = decided?.duration_s ?? 0
  if (decided) chapter.at = endOf(decided)
  if (after > 0) chapter.words = `${seconds(after)} after the sample was there.`
  return chapter
}

/** Deliveries of the request in which something was done; a second one is a redelivery. */
function arrivals(spans: readonly Span[]): Chapter[] {
  const busy = new Set(spans.map((span) => span.parent_id))
  return named(spans, /^process polaris\.adaptations/)
    .filter((span) => busy.has(span.span_id))
    .map((span, index) => {
      const chapter: Chapter = {
        kind: 'arrival',
        title: index === 0 ? 'The node took it from the bus' : 'The bus delivered it once more',
        at: startOf(span),
        words: `from ${told(span, OF.topic) ?? 'the bus'}; done with it after ${seconds(span.duration_s)}.`,
      }
      const error = errorOf(span)
      return error === null ? chapter : { ...chapter, error, tone: 'status-failed' }
    })
}

function attempts(action: WholeAction, spans: readonly Span[]): Chapter[] {
  const tries = named(spans, /^attempt/)
  if (tries.length > 0)
    return tries.map((span) => {
      const error = errorOf(span)
      const number = told(span, OF.attempt) ?? '?'
      const chapter: Chapter = {
        kind: 'attempt',
        title: tries.length === 1 ? `Carried out on ${action.target_system}` : `Attempt ${number} of ${tries.length} on ${action.target_system}`,
        at: startOf(span),
        took: span.duration_s,
      }
      return error === null ? { ...chapter, tone: 'status-success' } : { ...chapter, error, tone: 'status-failed' }
    })
  if (action.started_at === null || action.status === 'rejected') return []
  const chapter: Chapter = { kind: 'attempt', title: `Begun on ${action.target_system}`, at: Date.parse(action.started_at) }
  const count = action.attempts
  chapter.words = count === null ? 'How many attempts it took is not known.' : `${count} ${count === 1 ? 'attempt' : 'attempts'}.`
  return [chapter]
}

const ENDS: Record<string, string> = {
  success: 'Done',
  partial: 'Done in part',
  failed: 'Failed',
  timeout: 'Cut off: the time was up',
  rejected: 'Refused',
  cancelled: 'Cancelled',
  unknown: 'Broken off: whether it was done is not known',
}

function outcome(action: WholeAction): Chapter[] {
  const title = ENDS[action.status]
  if (title === undefined)
    return [{ kind: 'outcome', title: action.status === 'running' ? 'Being carried out …' : 'Waiting …', at: null, tone: 'status-running' }]
  const chapter: Chapter = {
    kind: 'outcome',
    title,
    at: action.completed_at === null ? null : Date.parse(action.completed_at),
    data: action.result_data,
    tone: `status-${action.status}`,
  }
  if (action.error_message) chapter.error = action.error_message
  return [chapter]
}

function announcement(spans: readonly Span[]): Chapter[] {
  const write = named(spans, /^store write/).filter((span) => told(span, OF.collection) === 'action_ledger').at(-1)
  const publish = named(spans, /^publish polaris\.executions/).at(-1)
  const last = publish ?? write
  if (!last) return []
  const stored = write ? `stored in ${seconds(write.duration_s)}` : ''
  const announced = publish ? `announced on ${told(publish, OF.topic) ?? 'the bus'}` : ''
  const error = errorOf(last)
  const chapter: Chapter = { kind: 'announcement', title: 'The result was told', at: startOf(last), words: `${[stored, announced].filter(Boolean).join(', ')}.` }
  return [error === null ? chapter : { ...chapter, error, tone: 'status-failed' }]
}
