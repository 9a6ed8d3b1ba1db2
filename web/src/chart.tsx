// A live chart: uPlot draws it, this file feeds it, keeps it moving and marks the actions on it.

import { effect, useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { clock, label, quantity } from './format'
import { History } from './history'
import { toggle } from './metrics'
import { actions, epoch, nodeTime, now } from './store'
import type { Action, System } from './types'

const HEIGHT = 168
const SHORTEST_S = 60
const TONES: Record<string, string> = { success: '--good', pending: '--muted', running: '--accent', partial: '--warn' }

const css = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim()

export interface Hover {
  time: number
  value: number | null
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
const WHOLE = [1, 2, 5, 10, 20, 50, 100, 200, 500, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9]

function increments(unit: string | null): Pick<uPlot.Axis, 'incrs'> {
  if (unit?.startsWith('By')) return { incrs: POWERS }
  if (unit === '{process}' || unit === '{cpu}') return { incrs: WHOLE }
  return {}
}

function markActions(plot: uPlot, systemId: string): void {
  const { ctx, bbox } = plot
  const ratio = devicePixelRatio
  for (const action of actions.peek()) {
    const time = Date.parse(action.started_at ?? action.created_at) / 1000
    if (action.target_system !== systemId || !within(plot, time)) continue
    const x = Math.round(plot.valToPos(time, 'x', true))
    ctx.save()
    ctx.strokeStyle = ctx.fillStyle = toneOf(action)
    ctx.lineWidth = ratio
    ctx.globalAlpha = 0.75
    ctx.setLineDash([3 * ratio, 3 * ratio])
    ctx.beginPath()
    ctx.moveTo(x, bbox.top)
    ctx.lineTo(x, bbox.top + bbox.height)
    ctx.stroke()
    ctx.globalAlpha = 1
    ctx.beginPath()
    ctx.moveTo(x - 4 * ratio, bbox.top)
    ctx.lineTo(x + 4 * ratio, bbox.top)
    ctx.lineTo(x, bbox.top + 6 * ratio)
    ctx.fill()
    ctx.restore()
  }
}

const toneOf = (action: Action): string => css(TONES[action.status] ?? '--bad')

function within(plot: uPlot, time: number): boolean {
  const { min, max } = plot.scales.x ?? {}
  return typeof min === 'number' && typeof max === 'number' && time >= min && time <= max
}

function options(system: System, metric: string, width: number, hover: (found: Hover | null) => void): uPlot.Options {
  const reading = system.metrics[metric]
  const unit = reading?.unit ?? null
  const name = reading?.name ?? metric
  const axis = { stroke: () => css('--muted'), font: '11px system-ui, sans-serif' }
  return {
    width,
    height: HEIGHT,
    padding: [8, 6, 0, 0],
    legend: { show: false },
    cursor: { sync: { key: 'charts' }, y: false, drag: { x: false, y: false }, points: { size: 7 } },
    scales: { x: { time: true }, y: { range: (_, low, high) => valueRange(unit, low, high) } },
    axes: [
      {
        ...axis,
        size: 26,
        space: 70,
        grid: { show: false },
        ticks: { stroke: () => css('--line'), width: 1, size: 4 },
        values: (_, splits, _axis, _space, step) =>
          splits.map((split) => (step < 60 ? clock(split * 1000) : clock(split * 1000).slice(0, 5))),
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
    series: [
      {},
      {
        stroke: () => css('--curve'),
        fill: () => css('--curve-fill'),
        width: 1.75,
        points: { show: (plot, _, first, last) => last - first < plot.bbox.width / 30 && last - first < 30, size: 4 },
      },
    ],
    hooks: {
      draw: [(plot) => markActions(plot, system.system_id)],
      setCursor: [
        (plot) => {
          const index = plot.cursor.left !== undefined && plot.cursor.left >= 0 ? plot.cursor.idx : null
          const time = index == null ? undefined : plot.data[0][index]
          hover(index == null || time === undefined ? null : { time, value: plot.data[1]?.[index] ?? null })
        },
      ],
    },
  }
}

/** Where the chart begins: with the range, but while there is less history than that, with the first point. */
function beginning(first: number | undefined, end: number, rangeS: number): number {
  return first === undefined ? end - rangeS : Math.max(end - rangeS, Math.min(first, end - SHORTEST_S))
}

/** Draws at most once a frame, and once a second so that time moves even when no data come. */
function run(host: HTMLElement, system: System, metric: string, rangeS: number, set: Setters): () => void {
  const plot = new uPlot(options(system, metric, Math.max(host.clientWidth, 120), set.hover), [[], []], host)
  let frame = 0
  const draw = (): void => {
    frame = 0
    const end = nodeTime() / 1000
    const { xs, ys } = history.curve
    plot.batch(() => {
      plot.setData([xs, ys], false)
      plot.setScale('x', { min: beginning(xs[0], end, rangeS), max: end })
    })
    set.state(history.failed ? 'failed' : !history.loaded ? 'loading' : ys.some((y) => y !== null) ? 'shown' : 'empty')
  }
  const schedule = (): void => {
    frame ||= requestAnimationFrame(draw)
  }
  const history = new History(system.system_id, metric, rangeS, schedule)
  const resized = new ResizeObserver(() => plot.setSize({ width: Math.max(host.clientWidth, 120), height: HEIGHT }))
  resized.observe(host)
  const scheme = matchMedia('(prefers-color-scheme: dark)')
  const repaint = (): void => plot.redraw(false)
  scheme.addEventListener('change', repaint)
  const stops = [
    effect(() => {
      void epoch.value
      void history.load()
    }),
    effect(() => {
      void now.value
      void actions.value
      schedule()
    }),
  ]
  return () => {
    stops.forEach((stop) => stop())
    scheme.removeEventListener('change', repaint)
    resized.disconnect()
    cancelAnimationFrame(frame)
    history.close()
    plot.destroy()
  }
}

type State = 'loading' | 'shown' | 'empty' | 'failed'

interface Setters {
  hover: (found: Hover | null) => void
  state: (state: State) => void
}

const WORDS: Record<State, string> = {
  loading: 'Loading its history …',
  shown: '',
  empty: 'No values in this range yet',
  failed: 'Its history could not be read; trying again with the next connection',
}

export function Chart({ system, metric, rangeS }: { system: System; metric: string; rangeS: number }) {
  const host = useRef<HTMLDivElement>(null)
  const hover = useSignal<Hover | null>(null)
  const state = useSignal<State>('loading')
  const reading = system.metrics[metric]
  const unit = reading?.unit ?? null
  const name = reading?.name ?? metric

  useEffect(() => {
    if (!host.current) return
    const set: Setters = {
      hover: (found) => {
        hover.value = found
      },
      state: (next) => {
        state.value = next
      },
    }
    return run(host.current, system, metric, rangeS, set)
  }, [system.system_id, metric, rangeS, unit])

  const shown = hover.value ? hover.value.value : (reading?.value ?? null)
  const text = quantity(shown, unit, name)
  return (
    <figure class="chart card" data-metric={metric}>
      <figcaption>
        <span class="chart-name" title={metric}>
          {label(metric)}
        </span>
        {hover.value ? <span class="chart-when">{clock(hover.value.time * 1000)}</span> : null}
        <span class={`chart-value ${shown === null ? 'absent' : ''}`} data-value>
          {shown === null ? 'missing' : text}
        </span>
        <button type="button" class="icon" aria-label={`Remove the chart of ${metric}`} onClick={() => toggle(system, metric)}>
          ×
        </button>
      </figcaption>
      <div
        class="plot"
        ref={host}
        role="img"
        aria-label={`${label(metric)} over time, now ${text}`}
        data-state={state.value}
      >
        {state.value === 'shown' ? null : <p class="overlay">{WORDS[state.value]}</p>}
      </div>
    </figure>
  )
}
