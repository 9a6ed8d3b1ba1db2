// A live chart: uPlot draws it, this file feeds it, keeps it moving and puts the actions on it.

import { effect, useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import uPlot from 'uplot'
import 'uplot/dist/uPlot.min.css'
import { doings } from './doings'
import { label, quantity, span } from './format'
import { History } from './history'
import { type Mark, Marks, marksOf } from './marks'
import { toggle } from './metrics'
import { begin, end, ofSystem } from './periods'
import { HEIGHT, type Hover, moment, options } from './plot'
import type { Stretch } from './stretch'
import { epoch, nodeTime, now } from './store'
import type { System } from './types'

const SHORTEST_S = 60
const WIDTH_MIN = 120
/** What is moving is drawn anew so often that it moves by a pixel: hardly at all for a day. */
const PIXEL_STEP = 400

type State = 'loading' | 'shown' | 'empty' | 'failed'

interface Setters {
  hover: (found: Hover | null) => void
  state: (state: State, bucketS: number | null) => void
  marks: (marks: readonly Mark[]) => void
}

/** Where the chart begins: with the range, but while there is less history than that, with the first point. */
function beginning(first: number | undefined, end: number, rangeS: number): number {
  return first === undefined ? end - rangeS : Math.max(end - rangeS, Math.min(first, end - SHORTEST_S))
}

/** Draws at most once a frame, and as time goes by even when no data come. */
function run(host: HTMLElement, system: System, metric: string, stretch: Stretch, set: Setters): () => void {
  const width = Math.max(host.clientWidth, WIDTH_MIN)
  let frame = 0
  let drawnAt = 0
  const schedule = (): void => {
    frame ||= requestAnimationFrame(draw)
  }
  const history = new History(system.system_id, metric, stretch, width, schedule)
  const plot = new uPlot(
    options({
      reading: system.metrics[metric],
      metric,
      width,
      banded: () => history.bucketS !== null,
      hover: set.hover,
      ill: () => ofSystem.peek(),
      drawn: (drawn) => {
        const { min, max } = drawn.scales.x ?? {}
        const marks =
          min == null || max == null ? [] : marksOf(doings.peek(), min, max, (time) => drawn.valToPos(time, 'x'))
        set.marks(marks)
        return marks
      },
    }),
    [[], [], [], []],
    host,
  )
  function draw(): void {
    frame = 0
    drawnAt = Date.now()
    const end = stretch.end ?? nodeTime() / 1000
    const { xs, ys, lows, highs } = history.curve
    const start = stretch.start ?? beginning(xs[0], end, stretch.lengthS)
    plot.batch(() => {
      plot.setData([xs, ys, highs, lows], false)
      plot.setScale('x', { min: start, max: end })
    })
    const shown = ys.some((y, index) => y !== null && (xs[index] ?? 0) >= start)
    set.state(history.failed ? 'failed' : !history.loaded ? 'loading' : shown ? 'shown' : 'empty', history.bucketS)
  }
  const resized = new ResizeObserver(() => plot.setSize({ width: Math.max(host.clientWidth, WIDTH_MIN), height: HEIGHT }))
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
      void doings.value
      void ofSystem.value
      schedule()
    }),
    effect(() => {
      void now.value
      if (stretch.end === null && Date.now() - drawnAt > (stretch.lengthS / PIXEL_STEP) * 1000) schedule()
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

const WORDS: Record<State, string> = {
  loading: 'Loading its history …',
  shown: '',
  empty: 'No values in this range',
  failed: 'Its history could not be read; trying again with the next connection',
}

export function Chart({ system, metric, stretch }: { system: System; metric: string; stretch: Stretch }) {
  const host = useRef<HTMLDivElement>(null)
  const hover = useSignal<Hover | null>(null)
  const state = useSignal<State>('loading')
  const bucketS = useSignal<number | null>(null)
  const marks = useSignal<readonly Mark[]>([])
  const reading = system.metrics[metric]
  const unit = reading?.unit ?? null
  const name = reading?.name ?? metric

  useEffect(() => {
    if (!host.current) return
    state.value = 'loading'
    return run(host.current, system, metric, stretch, {
      hover: (found) => {
        hover.value = found
      },
      state: (next, length) => {
        state.value = next
        bucketS.value = length
      },
      marks: (next) => {
        if (told(next) !== told(marks.peek())) marks.value = next
      },
    })
  }, [system.system_id, metric, stretch, unit])

  const pointed = hover.value
  const past = stretch.end !== null && pointed === null
  const shown = pointed ? pointed.value : (reading?.value ?? null)
  const say = (value: number | null): string => quantity(value, unit, name)
  const text = shown === null ? 'missing' : quantity(shown, unit, name)
  const ill =
    pointed && ofSystem.value.find((one) => begin(one) <= pointed.time && pointed.time <= end(one, pointed.time))
  const averaged = bucketS.value === null ? '' : `average of ${span(bucketS.value)}, from least to greatest`
  return (
    <figure class="chart card" data-metric={metric} data-bucket={bucketS.value}>
      <figcaption>
        <span class="row">
          <span class="chart-name clip" title={metric}>
            {label(metric)}
          </span>
          <span class={`chart-value ${shown === null ? 'absent' : ''}`} data-value>
            {past ? <span class="small muted">now </span> : null}
            {text}
          </span>
        </span>
        <span class="row small muted chart-when">
          <span class="clip">
            {pointed ? moment(pointed.time) : averaged}
            {ill ? ` · ${ill.status}: ${ill.message}` : ''}
          </span>
          <span>{pointed && pointed.low !== null ? `${say(pointed.low)} – ${say(pointed.high)}` : ''}</span>
        </span>
        <button type="button" class="icon" aria-label={`Remove the chart of ${metric}`} onClick={() => toggle(system, metric)}>
          ×
        </button>
      </figcaption>
      <div class="frame">
        <div class="plot" ref={host} role="img" aria-label={`${label(metric)} over time, now ${say(numeric(reading?.value))}`} data-state={state.value}>
          {state.value === 'shown' ? null : <p class="overlay">{WORDS[state.value]}</p>}
        </div>
        <Marks marks={marks} width={host.current?.clientWidth ?? 0} />
      </div>
    </figure>
  )
}

const numeric = (value: unknown): number | null => (typeof value === 'number' ? value : null)

/** What of the marks can be seen: they are drawn anew only when that changes. */
const told = (marks: readonly Mark[]): string =>
  marks.map(({ left, actions }) => [left, ...actions.map(({ action_id, status }) => action_id + status)].join()).join('\n')
