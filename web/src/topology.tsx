// The systems and what they need of each other, from left to right; every box leads to its system.

import { computed, useSignal } from '@preact/signals'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import { boxesOf, BOXES_MAX, type Box, type Boxes, type Edge } from './boxes'
import { dependencies, LOOK_EVERY_MS, lookAtDependencies, words } from './dependencies'
import { label } from './format'
import { plan, type Point, type Size, type Way } from './layers'
import { useLook } from './look'
import { keyMetrics } from './metrics'
import { link } from './route'
import { loaded, paced } from './store'
import './styles/topology.css'
import { isStale, SystemPill, toneOf, Value } from './systems'
import type { System } from './types'

const ROOMY: Size = { width: 196, height: 58 }
const CLOSE: Size = { width: 150, height: 30 }
const CLOSE_FROM = 14
const CELL = 24
const CELLS_A_ROW = 7
const MEMBERS_SHOWN = 63
const KINDS_TOLD_APART = 5
const HEIGHT_MAX = 600

/** How wide the picture can be beside the list of what happened; what needs more takes the whole width. */
const besideTheList = (): number => Math.min(innerWidth, 1680) - 410

/** Changes only when systems come or go, so that the picture is not planned anew with every sample. */
const ids = computed(() => [...paced.value.keys()].sort().join('\n'))
const urgent = computed(() =>
  [...paced.value.values()]
    .filter((system) => ['critical', 'unhealthy'].includes(system.health_status))
    .map((system) => system.system_id)
    .join('\n'),
)

export function Topology() {
  useLook(lookAtDependencies, LOOK_EVERY_MS)
  const all = dependencies.value
  const known = ids.value
  const pressing = (all?.dependencies.length ?? 0) > BOXES_MAX ? urgent.value : ''
  const content = useMemo(
    () => (all ? boxesOf(known ? known.split('\n') : [], all.dependencies, new Set(pressing.split('\n'))) : null),
    [all, known, pressing],
  )
  if (content === null || !loaded.value) return null
  if (content.boxes.length === 0) return <Nothing systems={content.loose.length} />
  const cut = content.left.length > 0 || all?.truncated
  return (
    <>
      <Picture content={content} />
      {cut ? (
        <p class="note small muted">
          Shown are the {content.boxes.length} boxes with the most connections; {content.left.length} further systems have
          fewer{all?.truncated ? ', and the node knows more dependencies than the page asks for' : ''}.
        </p>
      ) : null}
      <Cells title="Too many to draw" ids={content.left} />
      <Cells title="Without dependencies" ids={content.loose} />
    </>
  )
}

function Nothing({ systems }: { systems: number }) {
  if (systems < 2) return null
  return (
    <p class="note small muted">
      No dependency between the systems is known. What <code>depends_on</code> of a system names in the configuration is drawn
      here.
    </p>
  )
}

function sizeOf(box: Box, close: boolean): Size {
  if (box.members.length === 1) return close ? CLOSE : ROOMY
  const rows = Math.ceil(Math.min(box.members.length, MEMBERS_SHOWN) / CELLS_A_ROW)
  return { width: CELLS_A_ROW * CELL + 16, height: 34 + rows * CELL }
}

function Picture({ content }: { content: Boxes }) {
  const host = useRef<HTMLDivElement>(null)
  const width = useSignal(900)
  useEffect(() => {
    if (!host.current) return
    const resized = new ResizeObserver(([entry]) => {
      width.value = Math.round(entry?.contentRect.width ?? width.peek())
    })
    resized.observe(host.current)
    return () => resized.disconnect()
  }, [])
  const close = content.boxes.length >= CLOSE_FROM
  const drawn = useMemo(() => {
    const sizes = new Map(content.boxes.map((box) => [box.id, sizeOf(box, close)]))
    const gap = close ? 56 : 72
    const place = Math.min(width.value, besideTheList())
    const small = plan(sizes, content.edges, place, gap)
    const large = small.width > place || small.height > HEIGHT_MAX
    return { sizes, large, ...(large ? plan(sizes, content.edges, width.value, gap) : small) }
  }, [content, close, width.value])
  const kinds = [...new Set(content.edges.flatMap((edge) => [...edge.kinds.keys()]))].sort()
  const around = new Map<string, Edge[]>()
  for (const edge of content.edges) around.set(edge.source, [...(around.get(edge.source) ?? []), edge])
  return (
    <>
      <div class={`topology ${drawn.large ? 'large' : ''}`} role="group" aria-label="Dependencies of the systems" tabIndex={0} ref={host}>
        <div class="sheet" style={{ width: px(drawn.width), height: px(drawn.height) }}>
          <svg width={drawn.width} height={drawn.height} aria-hidden="true">
            {drawn.ways.map((way) => (
              <Line key={`${way.arc.source}\r${way.arc.target}`} way={way} kinds={kinds} />
            ))}
          </svg>
          {content.boxes.map((box) => {
            const place = drawn.places.get(box.id)
            const size = drawn.sizes.get(box.id)
            if (!place || !size) return null
            const needs = (around.get(box.id) ?? []).map(({ target, kinds: how }) => `${target.trim()} (${[...how.keys()].map(words).join(', ')})`)
            return (
              <div key={box.id} class="place" style={placed(place, size)}>
                {box.members.length > 1 ? <Group box={box} /> : <SystemBox id={box.id} close={close} needs={needs} />}
              </div>
            )
          })}
        </div>
      </div>
      <ul class="legend small" aria-label="Kinds of dependencies">
        {kinds.map((kind, index) => (
          <li key={kind}>
            <svg width="28" height="8" class={`kind-${Math.min(index, KINDS_TOLD_APART)}`} aria-hidden="true">
              <path class="line" d="M0 4H28" />
            </svg>
            {words(kind)}
          </li>
        ))}
      </ul>
    </>
  )
}

const px = (length: number): string => `${Math.round(length)}px`

const placed = ({ x, y }: Point, { width, height }: Size): Record<string, string> => ({
  left: px(x),
  top: px(y),
  width: px(width),
  height: px(height),
})

const HEAD = 6

function Line({ way, kinds }: { way: Way<Edge>; kinds: readonly string[] }) {
  const points = way.points.map(({ x, y }) => ({ x, y }))
  const [first, last] = [points[0], points.at(-1)]
  if (!first || !last) return null
  // The head takes the end of the line.
  if (way.against) first.x += HEAD
  else last.x -= HEAD
  const parts = points.slice(1).map((to, index) => {
    const from = points[index] ?? to
    const bend = (to.x - from.x) / 2
    return index % 2 === 1 ? `L${to.x} ${to.y}` : `C${from.x + bend} ${from.y} ${to.x - bend} ${to.y} ${to.x} ${to.y}`
  })
  const tip = way.against ? { x: first.x - HEAD, y: first.y, back: HEAD } : { x: last.x + HEAD, y: last.y, back: -HEAD }
  const head = `M${tip.x} ${tip.y}l${tip.back} -3.5v7z`
  const [kind, strength] = [...way.arc.kinds][0] ?? ['', 0.5]
  const names = [...way.arc.kinds].map(([name, how]) => `${words(name)} (${how})`).join(', ')
  return (
    <g class={`kind-${Math.min(kinds.indexOf(kind), KINDS_TOLD_APART)}`}>
      <title>{`${way.arc.source.trim()} → ${way.arc.target.trim()}: ${names}`}</title>
      <path class="line" d={`M${first.x} ${first.y}${parts.join('')}`} style={{ strokeWidth: String(1 + strength) }} />
      <path class="head" d={head} />
    </g>
  )
}

function SystemBox({ id, close, needs }: { id: string; close: boolean; needs: string[] }) {
  const system = paced.value.get(id)
  const metric = system && keyMetrics(system)[0]
  return (
    <a class={`box ${close ? 'close' : ''} ${toneOf(system)}`} href={link('system', id)} data-box={id}>
      <span class="row">
        <strong class="clip" title={id}>
          {id}
        </strong>
        {system && !close ? <SystemPill system={system} /> : null}
        {system && metric !== undefined && close ? <Value system={system} metric={metric} /> : null}
      </span>
      {close ? <span class="unseen">{system ? healthWord(system) : 'no telemetry'}</span> : null}
      {close ? null : system && metric !== undefined ? (
        <span class="row small">
          <span class="muted clip">{label(metric)}</span>
          <Value system={system} metric={metric} />
        </span>
      ) : (
        <span class="small muted">no telemetry</span>
      )}
      {needs.length > 0 ? <span class="unseen">needs {needs.join(', ')}</span> : null}
    </a>
  )
}

const healthWord = (system: System): string => (isStale(system) ? 'stale' : system.health_status)

function Group({ box }: { box: Box }) {
  const shown = box.members.slice(0, MEMBERS_SHOWN)
  return (
    <div class="box group" data-box={box.members[0]}>
      <span class="small">
        <strong>{box.members.length}</strong> <span class="muted">systems alike</span>
      </span>
      <ul class="cells" aria-label={`${box.members.length} systems with the same dependencies`}>
        {shown.map((id) => (
          <Cell key={id} id={id} />
        ))}
      </ul>
    </div>
  )
}

const CELLS_SHOWN = 300

function Cells({ title, ids: all }: { title: string; ids: readonly string[] }) {
  if (all.length === 0) return null
  return (
    <div class="loose">
      <h3 class="small muted">
        {title} <span class="count">{all.length}</span>
      </h3>
      {all.length <= 8 ? (
        <ul class="names">
          {all.map((id) => (
            <li key={id}>
              <SystemBox id={id} close needs={[]} />
            </li>
          ))}
        </ul>
      ) : (
        <ul class="cells">
          {all.slice(0, CELLS_SHOWN).map((id) => (
            <Cell key={id} id={id} />
          ))}
          {all.length > CELLS_SHOWN ? <li class="small muted">and {all.length - CELLS_SHOWN} more</li> : null}
        </ul>
      )}
    </div>
  )
}

function Cell({ id }: { id: string }) {
  const system = paced.value.get(id)
  const text = `${id}: ${system ? healthWord(system) : 'no telemetry'}`
  return (
    <li>
      <a class={`cell ${toneOf(system)}`} href={link('system', id)} title={text} aria-label={text} />
    </li>
  )
}
