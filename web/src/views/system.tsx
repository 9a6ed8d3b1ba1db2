// One system: its charts, what it can be asked to do, and all that it measures.

import { useSignal } from '@preact/signals'
import { Act } from '../act'
import { Chart } from '../chart'
import { CHARTS_MAX, charted, isNumeric, toggle } from '../metrics'
import { loaded, selected } from '../store'
import '../styles/system.css'
import { Actions } from '../actions'
import { freshness, isStale, Systems, Value } from '../systems'
import type { System } from '../types'

function Waiting() {
  const text = loaded.value
    ? 'No managed system yet. One appears here with its first sample: from a connector in the configuration, or from any program that publishes telemetry on the bus.'
    : `Waiting for the node at ${location.host} to answer …`
  return <p class="waiting card large">{text}</p>
}

export function SystemView() {
  return (
    <div class="columns">
      <Systems />
      <Detail />
      <aside class="side" aria-label="What happened">
        <Actions />
      </aside>
    </div>
  )
}

const RANGES: [string, number][] = [
  ['5 min', 300],
  ['15 min', 900],
  ['1 h', 3600],
  ['6 h', 21_600],
  ['24 h', 86_400],
]

function Detail() {
  const range = useSignal(900)
  const system = selected.value
  if (!system)
    return (
      <section class="detail" aria-label="System">
        <Waiting />
      </section>
    )
  const shown = charted(system)
  return (
    <section class="detail" aria-labelledby="detail-title">
      <div class="row wrap">
        <h2 id="detail-title" class="clip" title={system.system_id}>
          {system.system_id}
        </h2>
        <span class="muted about clip" title={system.supported_actions.join(', ')}>
          {system.connector} · <span class={isStale(system) ? 'stale' : ''}>{freshness(system)}</span>
          {system.supported_actions.length > 0 ? ` · can ${system.supported_actions.join(', ')}` : ''}
        </span>
        <div class="ranges" role="group" aria-label="Time range of the charts">
          {RANGES.map(([text, length]) => (
            <button
              key={length}
              type="button"
              aria-pressed={range.value === length}
              onClick={() => {
                range.value = length
              }}
            >
              {text}
            </button>
          ))}
        </div>
      </div>
      {shown.length === 0 ? <p class="waiting card">{emptyCharts(system)}</p> : null}
      <div class="charts">
        {shown.map((metric) => (
          <Chart key={`${system.system_id}\n${metric}`} system={system} metric={metric} rangeS={range.value} />
        ))}
      </div>
      <Act key={system.system_id} system={system} />
      <Readings system={system} shown={shown} />
    </section>
  )
}

const emptyCharts = (system: System): string =>
  system.last_sample_at === null
    ? `Waiting for the first sample of ${system.system_id}.`
    : 'No chart chosen: pick metrics below.'

function Readings({ system, shown }: { system: System; shown: string[] }) {
  const keys = Object.keys(system.metrics)
  if (keys.length === 0) return null
  return (
    <details class="readings card">
      <summary>
        All {keys.length} metrics <span class="muted small">choose up to {CHARTS_MAX} to draw</span>
      </summary>
      <ul>
        {keys.map((key) => (
          <li key={key}>
            <label class={isNumeric(system, key) ? '' : 'fixed'}>
              <input
                type="checkbox"
                checked={shown.includes(key)}
                disabled={!isNumeric(system, key)}
                onChange={() => toggle(system, key)}
              />
              <span class="clip" title={key}>
                {key}
              </span>
              <Value system={system} metric={key} />
            </label>
          </li>
        ))}
      </ul>
    </details>
  )
}
