// What the node remembers of what happened: actions, traces and log records, and how to ask for them.

import { get, segment } from './api'
import { NONE_KNOWN, type Page } from './paged'
import { route, link } from './route'
import type { Action } from './types'

/** An action as its own page shows it. */
export interface WholeAction extends Action {
  priority: number
  timeout_seconds: number | null
  correlation_id: string | null
  caused_at: string | null
}

export interface Span {
  span_id: string
  parent_id?: string | null
  name: string
  kind: string
  start: string
  duration_s: number
  status?: 'ok' | 'error'
  message?: string | null
  attributes?: Record<string, unknown>
  links?: { trace_id: string; span_id: string }[]
  service?: string
}

export interface TraceSummary {
  trace_id: string
  name: string
  start: string
  duration_s: number
  spans: number
  errors: number
  systems: string[]
  actions: string[]
  correlation_ids: string[]
}

export interface Trace {
  trace_id: string
  spans: Span[]
  linked: Span[]
  spans_left_out: number
}

export interface LogRecord {
  log_id: string
  timestamp: string
  level: string
  logger: string
  message: string
  correlation_id: string | null
  trace_id: string | null
  span_id: string | null
  fields: Record<string, unknown>
  exception: Record<string, unknown> | null
}

export interface Narrowed {
  about?: string | undefined
  system?: string | undefined
  status?: string | undefined
  level?: string | undefined
  action_id?: string | undefined
  trace_id?: string | undefined
  after?: string | undefined
  cursor?: string | null
}

/** Only what was asked for: an empty filter is none. */
function given(wanted: Narrowed): Record<string, string> {
  return Object.fromEntries(Object.entries(wanted).filter((pair): pair is [string, string] => Boolean(pair[1])))
}

async function page<T>(kind: string, wanted: Narrowed, limit: number, signal?: AbortSignal): Promise<Page<T>> {
  const found = await get<Record<string, unknown>>(kind, { ...given(wanted), limit }, signal)
  return { items: found[kind] as T[], next: found['next_cursor'] as string | null }
}

type Pages<T> = (wanted: Narrowed, limit: number, signal?: AbortSignal) => Promise<Page<T>>

export const recollection = {
  actions: ((...asked) => page('actions', ...asked)) as Pages<WholeAction>,
  traces: ((...asked) => page('traces', ...asked)) as Pages<TraceSummary>,
  logs: ((...asked) => page('logs', ...asked)) as Pages<LogRecord>,
  action: (id: string, signal?: AbortSignal) => get<WholeAction>(`actions/${segment(id)}`, {}, signal),
  trace: (id: string, signal?: AbortSignal) => get<Trace>(`traces/${segment(id)}`, {}, signal),
}

/** Whether the node answered that it does not have what was asked for. */
export const isUnknown = (error: unknown): boolean => error instanceof Error && error.message.endsWith(' 404')

/** The attributes by which spans tell what they are about. */
export const OF = {
  system: 'polaris.system.id',
  action: 'polaris.action.id',
  attempt: 'polaris.action.attempt',
  status: 'polaris.action.status',
  source: 'polaris.source',
  correlation: 'messaging.message.conversation_id',
  group: 'messaging.consumer.group.name',
  topic: 'messaging.destination.name',
  collection: 'db.collection.name',
  derived: 'polaris.span.derived',
  error: 'error.type',
} as const

export const told = (span: Span, name: string): string | null => {
  const value = span.attributes?.[name]
  return value === undefined || value === null ? null : plain(value)
}

/** A value as a line of text: texts as they are, the rest as JSON. */
export const plain = (value: unknown): string => (typeof value === 'string' ? value : (JSON.stringify(value) ?? NONE_KNOWN))

export const startOf = (span: Span): number => Date.parse(span.start) + sub(span.start)
export const endOf = (span: Span): number => startOf(span) + span.duration_s * 1000

/** The part of a time below the millisecond, which `Date` leaves out. */
const sub = (time: string): number => Number(/\.\d{3}(\d{1,6})/.exec(time)?.[1]?.padEnd(6, '0') ?? 0) / 1e6

// Made once: a thousand rows would each make their own, which takes longer than to draw them.
const CLOCK = new Intl.DateTimeFormat('en-GB', { hour: '2-digit', minute: '2-digit', second: '2-digit' })
const DAY = new Intl.DateTimeFormat('en-GB', { day: 'numeric', month: 'short' })
const WHOLE = new Intl.DateTimeFormat([], { dateStyle: 'full', timeStyle: 'long' })

/** A moment of the clock, with its day when that is not today. */
export function moment(time: string, withMs = false): string {
  const date = new Date(time)
  const at = clock(date) + (withMs ? `.${String(date.getMilliseconds()).padStart(3, '0')}` : '')
  return date.toDateString() === new Date().toDateString() ? at : `${day(date)} ${at}`
}

export const clock = (date: Date): string => CLOCK.format(date)
export const day = (date: Date): string => DAY.format(date)
export const whole = (time: string): string => WHOLE.format(new Date(time))

/** Narrow the view that is shown; what is empty does not narrow. */
export function narrow(by: Record<string, string | null>): void {
  const { view, id, query } = route.peek()
  location.hash = link(view, id, { ...Object.fromEntries(query), ...by })
}

export const asked = (name: string): string => route.value.query.get(name) ?? ''
