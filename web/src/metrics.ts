// Which metrics of a system to show first, and what the reader chose instead.

import { signal } from '@preact/signals'
import type { System } from './types'

const CHARTS_FIRST = 4
export const CHARTS_MAX = 12

/** By connector; of a group only the first that the system has. */
const FAVOURITES: Record<string, (string | string[])[]> = {
  host: [
    'system.cpu.utilization',
    'system.memory.utilization',
    'system.cpu.load_average.1m',
    'system.network.io.receive.rate',
    'system.disk.io.write.rate',
  ],
  gunicorn: [
    // What clients wait, where the service tells it; the time in a worker leaves the queue out.
    ['service.response_time.p95', 'service.request.duration.p95'],
    'service.workers',
    'service.request.rate',
    'service.cpu.utilization',
    'service.request.errors.rate',
  ],
}

/** Metrics that say little as a curve. */
const DULL = /(boot_time|uptime|\.limit|\.count|limit)$/

export const isNumeric = (system: System, key: string): boolean => {
  const value = system.metrics[key]?.value
  return typeof value === 'number' || value === null || value === undefined
}

/** The favourites of the system's connector, then whatever else has numbers. */
function ranked(system: System): string[] {
  const known = Object.keys(system.metrics)
  const liked = (FAVOURITES[system.connector] ?? Object.values(FAVOURITES).flat())
    .map((wish) => [wish].flat().find((key) => key in system.metrics))
    .filter((key) => key !== undefined)
  const rest = known.filter((key) => !liked.includes(key) && typeof system.metrics[key]?.value === 'number')
  return [...liked, ...rest.filter((key) => !DULL.test(key)), ...rest.filter((key) => DULL.test(key))]
}

const KEY = 'polaris.charts'
const chosen = signal<Record<string, string[]>>(read())

function read(): Record<string, string[]> {
  try {
    const stored: unknown = JSON.parse(localStorage.getItem(KEY) ?? '{}')
    return stored !== null && typeof stored === 'object' ? (stored as Record<string, string[]>) : {}
  } catch {
    return {}
  }
}

export function charted(system: System): string[] {
  const own = chosen.value[system.system_id]
  return Array.isArray(own) ? own.filter((key) => key in system.metrics) : ranked(system).slice(0, CHARTS_FIRST)
}

export function toggle(system: System, key: string): void {
  const former = charted(system)
  const next = former.includes(key) ? former.filter((other) => other !== key) : [...former, key].slice(-CHARTS_MAX)
  chosen.value = { ...chosen.value, [system.system_id]: next }
  try {
    localStorage.setItem(KEY, JSON.stringify(chosen.value))
  } catch {
    // Storage may be off or full: the choice then lasts as long as the page.
  }
}

export const keyMetrics = (system: System): string[] => ranked(system).slice(0, 3)
