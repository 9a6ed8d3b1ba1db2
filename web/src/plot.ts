// How a chart looks: what uPlot is told about axes, curve, band, cursor and marks.

import type uPlot from 'uplot'
import { clock, quantity } from './format'
import { leading, type Mark } from './marks'
import { begin, end, TONES as OF_HEALTH } from './periods'
import { live, zoom } from './stretch'
import type { Period, Reading } from './types'

export const HEIGHT = 168
const DRAGGED_PX_MIN = 5
const TONES: Record<string, string> = { success: '--good', pending: '--muted', running: '--accent', partial: '--warn' }

const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

export interface Hover {
  time: number
  value: number | null
  low: number | null
  high: number | null
}

/** From zero where that is the truth, with a little air above; shares never above 100 %. */
function valueRange(unit: string | null, low: number | null, high: number | null): [number, number] {
  if (low === null || high === null) return [0, 1]
  const bottom = low >= 0 ? 0 : low * 1.1
  let top = high <= 0 ? 0 : high * 1.15
  if (unit === '1' && high <= 1) top = Math.min(1, Math.max(top, 0.1))
  if (unit?.startsWith('{') && !unit.endsWith('/s')) top = Math.max(top, Math.ceil(high) + 1)
  return [bottom, top > bottom ? top : bottom + 1]
}

const POWERS = Array.from({ length: 50 }, (_, power) => 2 ** power)
const TENTHS = [1e-6, 1e-5, 1e-4, 1e-3, 0.01, 0.1].flatMap((size) => [size, 2 * size, 5 * size])
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]

function increments(unit: string | null): Pick<uPlot.Axis, 'incrs'> {
  if (unit?.startsWith('By')) return { incrs: POWERS }
  // Above a minute by what clocks count.
  if (unit === 's') return { incrs: [...TENTHS, 1, 2, 5, 10, 20, 30, ...[1, 2, 5, 10, 20, 60, 120, 360, 1440, 7200].map((minutes) => minutes * 60)] }
  if (unit === '{process}' || unit === '{cpu}') return { incrs: WHOLE }
  return {}
}

const day = (ms: number): string => new Date(ms).toLocaleDateString([], { day: 'numeric', month: 'short' })

/** A time on the axis; the first of a day is the day. */
function instant(time: number, step: number): string {
  const ms = time * 1000
  const midnight = new Date(ms).getHours() === 0 && new Date(ms).getMinutes() === 0 && new Date(ms).getSeconds() === 0
  if (midnight || step >= 86_400) return day(ms)
  return step < 60 ? clock(ms) : clock(ms).slice(0, 5)
}

/** A time beside the value that is pointed at: with its day when that is not today. */
export function moment(time: number): string {
  const ms = time * 1000
  return day(ms) === day(Date.now()) ? clock(ms) : `${day(ms)} ${clock(ms)}`
}

export interface Wishes {
  reading: Reading | undefined
  metric: string
  width: number
  /** Whether the curve is one of averages, with a band around it. */
  banded: () => boolean
  hover: (found: Hover | null) => void
  drawn: (plot: uPlot) => readonly Mark[]
  /** When the system was not well. */
  ill: () => readonly Period[]
}

export function options({ reading, metric, width, banded, hover, drawn, ill }: Wishes): uPlot.Options {
  const unit = reading?.unit ?? null
  const name = reading?.name ?? metric
  const axis = { stroke: () => css('--muted'), font: '11px system-ui, sans-serif' }
  const edge: uPlot.Series = { width: 0, points: { show: false } }
  return {
    width,
    height: HEIGHT,
    padding: [8, 6, 0, 0],
    legend: { show: false },
    cursor: {
      sync: { key: 'charts' },
      y: false,
      drag: { x: true, y: false, setScale: false },
      bind: { dblclick: () => () => (live(), null) },
      points: { size: 7 },
    },
    scales: { x: { time: true }, y: { range: (_, low, high) => valueRange(unit, low, high) } },
    axes: [
      {
        ...axis,
        size: 26,
        space: 58,
        grid: { show: false },
        ticks: { stroke: () => css('--line'), width: 1, size: 4 },
        values: (_, splits, _axis, _space, step) => splits.map((split) => instant(split, step)),
      },
      {
        ...axis,
        size: 62,
        space: 34,
        gap: 6,
        ...increments(unit),
        grid: { stroke: () => css('--line'), width: 1 },
        ticks: { show: false },
        values: (_, splits) => splits.map((split) => quantity(split, unit, name)),
      },
    ],
    bands: [{ series: [2, 3], fill: () => css('--curve-band') }],
    series: [
      {},
      {
        stroke: () => css('--curve'),
        fill: () => (banded() ? 'transparent' : css('--curve-fill')),
        width: 1.75,
        points: { show: (plot, _, first, last) => last - first < plot.bbox.width / 30 && last - first < 30, size: 4 },
      },
      edge,
      edge,
    ],
    hooks: {
      drawClear: [(plot) => ill().forEach((period) => shade(plot, period))],
      draw: [(plot) => drawn(plot).forEach((mark) => line(plot, mark))],
      setSelect: [
        (plot) => {
          const { left, width: dragged } = plot.select
          if (dragged < DRAGGED_PX_MIN) return
          plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false)
          zoom(plot.posToVal(left, 'x'), plot.posToVal(left + dragged, 'x'))
        },
      ],
      setCursor: [
        (plot) => {
          const index = plot.cursor.left !== undefined && plot.cursor.left >= 0 ? plot.cursor.idx : null
          const time = index == null ? undefined : plot.data[0][index]
          const at = (series: number): number | null => plot.data[series]?.[index ?? 0] ?? null
          hover(index == null || time === undefined ? null : { time, value: at(1), low: at(3), high: at(2) })
        },
      ],
    },
  }
}

/** Behind the curve: how long it was not well, and at the foot how ill. */
function shade(plot: uPlot, period: Period): void {
  const { ctx, bbox } = plot
  const { min = 0, max = 0 } = plot.scales['x'] ?? {}
  const from = Math.max(begin(period), min ?? 0)
  const to = Math.min(end(period, max ?? 0), max ?? 0)
  if (to < from) return
  const x = plot.valToPos(from, 'x', true)
  const width = Math.max(plot.valToPos(to, 'x', true) - x, 2 * devicePixelRatio)
  const foot = 3 * devicePixelRatio
  ctx.save()
  ctx.fillStyle = css(OF_HEALTH[period.status] ?? '--bad')
  ctx.fillRect(x, bbox.top + bbox.height - foot, width, foot)
  ctx.globalAlpha = 0.08
  ctx.fillRect(x, bbox.top, width, bbox.height)
  ctx.restore()
}

function line(plot: uPlot, mark: Mark): void {
  const { ctx, bbox } = plot
  const ratio = devicePixelRatio
  const x = bbox.left + mark.left * ratio
  ctx.save()
  ctx.strokeStyle = css(TONES[leading(mark).status] ?? '--bad')
  ctx.lineWidth = ratio
  ctx.globalAlpha = 0.75
  ctx.setLineDash([3 * ratio, 3 * ratio])
  ctx.beginPath()
  ctx.moveTo(x, bbox.top)
  ctx.lineTo(x, bbox.top + bbox.height)
  ctx.stroke()
  ctx.restore()
}
