// Numbers, units and times in a form that people read.

import type { Scalar } from './types'

const NONE = '–'

function digits(value: number, places: number): string {
  return value.toLocaleString('en', { minimumFractionDigits: 0, maximumFractionDigits: places })
}

/** About three significant digits, without exponents for everyday sizes. */
export function number(value: number): string {
  const size = Math.abs(value)
  if (size !== 0 && (size >= 1e15 || size < 1e-4)) return value.toExponential(2)
  if (size >= 1e6) return scaled(value, 1000, ['', 'k', 'M', 'G', 'T'])
  return digits(value, size >= 1000 ? 0 : size >= 100 ? 0 : size >= 10 ? 1 : size >= 1 ? 2 : 3)
}

function scaled(value: number, base: number, names: string[]): string {
  let step = 0
  while (Math.abs(value) >= base && step < names.length - 1) {
    value /= base
    step += 1
  }
  const size = Math.abs(value)
  const name = names[step] ?? ''
  return `${digits(value, step === 0 || size >= 100 ? 0 : size >= 10 ? 1 : 2)}${name.length > 1 ? ' ' : ''}${name}`
}

/** How much a second; nothing known is a dash. */
export const rate = (value: number | null | undefined): string => (value == null ? NONE : `${number(value)} /s`)

export const bytes = (value: number): string => scaled(value, 1024, ['B ', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']).trimEnd()

/** A duration as measured: `250 µs`, `3.4 ms`, `1.25 s`, `4 min 10 s`. */
export function seconds(value: number): string {
  const size = Math.abs(value)
  if (size === 0) return '0 s'
  if (size < 1e-3) return `${number(value * 1e6)} µs`
  if (size < 1) return `${number(value * 1e3)} ms`
  if (size < 120) return `${number(value)} s`
  return span(value)
}

/** A long duration in its two largest parts: `3 d 4 h`, `5 min 2 s`. */
export function span(value: number): string {
  const whole = Math.max(0, Math.round(value))
  const parts: [number, string][] = [
    [Math.floor(whole / 86_400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ]
  const first = parts.findIndex(([count]) => count > 0)
  if (first < 0) return '0 s'
  return parts
    .slice(first, first + 2)
    .filter(([count]) => count > 0)
    .map(([count, unit]) => `${count} ${unit}`)
    .join(' ')
}

/** How long ago: `now`, `3 s ago`, `2 h ago`. */
export function ago(time: string | null, nowMs: number): string {
  if (time === null) return 'never'
  const age = (nowMs - Date.parse(time)) / 1000
  if (age < -5) return `${span(-age)} ahead`
  if (age < 1) return 'now'
  if (age < 60) return `${Math.floor(age)} s ago`
  if (age < 3600) return `${Math.floor(age / 60)} min ago`
  if (age < 86_400) return `${Math.floor(age / 3600)} h ago`
  return `${Math.floor(age / 86_400)} d ago`
}

/** Whether a number of this unit and name is an instant and not a duration. */
const isInstant = (name: string, unit: string | null): boolean => unit === 's' && /(boot|start|end)_time$/.test(name)

/** Whether a number without dimension is a share of a whole. */
const isShare = (name: string): boolean => /utilization|utilisation|ratio|fraction|share|percent/.test(name)

const NOUNS: Record<string, string> = { request: 'req', operation: 'op', packet: 'pkt', thread: '', cpu: '', process: '' }

/** A value with its unit (UCUM, as OpenTelemetry uses it). */
export function quantity(value: Scalar, unit: string | null, name = ''): string {
  if (value === null) return NONE
  if (typeof value === 'boolean') return value ? 'yes' : 'no'
  if (typeof value === 'string') return value
  if (isInstant(name, unit)) return new Date(value * 1000).toLocaleString([], { dateStyle: 'medium', timeStyle: 'short' })
  switch (unit) {
    case null:
    case '':
      return number(value)
    case '1':
      return isShare(name) ? `${digits(value * 100, Math.abs(value) < 0.1 ? 1 : 0)} %` : number(value)
    case '%':
      return `${digits(value, Math.abs(value) < 10 ? 1 : 0)} %`
    case 'By':
      return bytes(value)
    case 'By/s':
      return `${bytes(value)}/s`
    case 's':
      return seconds(value)
    case 'ms':
      return seconds(value / 1e3)
    case 'us':
      return seconds(value / 1e6)
    case 'ns':
      return seconds(value / 1e9)
    case 'Cel':
      return `${number(value)} °C`
    case '1/s':
    case 'Hz':
      return `${number(value)} /s`
  }
  const noun = /^\{(.+?)\}(\/.+)?$/.exec(unit)
  if (noun) {
    const word = NOUNS[noun[1] ?? ''] ?? noun[1] ?? ''
    return `${number(value)} ${word}${noun[2] ?? ''}`.trimEnd()
  }
  return `${number(value)} ${unit}`
}

/** What to call a metric on the page: its name without the words that all of its kind share. */
export function label(name: string): string {
  const [, stem = name, thing] = /^(.*?)(?:\[(.*)\])?$/.exec(name) ?? []
  const short = stem
    .replace(/^(system|service|host)\./, '')
    .replace(/\.io\.(\w+)\.rate$/, '.$1')
    .replaceAll(/[._]/g, ' ')
    .replace(/^cpu/, 'CPU')
  const text = short.charAt(0).toUpperCase() + short.slice(1)
  return thing ? `${text} ${thing}` : text
}

export function clock(ms: number): string {
  return new Date(ms).toLocaleTimeString([], { hour12: false })
}
