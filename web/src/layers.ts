// Where to draw what depends on what: layers from left to right, few crossings, short ways (Sugiyama, Tagawa, Toda 1981).

export interface Arc {
  source: string
  target: string
}

export interface Size {
  width: number
  height: number
}

export interface Point {
  x: number
  y: number
}

export interface Way<A> {
  arc: A
  points: Point[]
  /** Whether the arc runs against the layers, because it closes a cycle: its head is then at the first point. */
  against: boolean
}

export interface Plan<A> extends Size {
  /** The upper left corner of every box. */
  places: Map<string, Point>
  ways: Way<A>[]
}

const BETWEEN_ROWS = 14
const BETWEEN_PARTS = 32
const SWEEPS = 12
const PORT_STEP_MAX = 9

interface Vertex {
  id: string
  size: Size
  layer: number
  y: number
  /** Where it stands in its layer. */
  rank: number
  before: Vertex[]
  after: Vertex[]
}

interface Chain<A> {
  arc: A
  against: boolean
  /** The boxes at both ends, and between them one place for each layer that is crossed. */
  stops: Vertex[]
}

/** A plan for the boxes of `sizes`, all of which have arcs; parts that are not connected stand side by side or below. */
export function plan<A extends Arc>(
  sizes: ReadonlyMap<string, Size>,
  arcs: readonly A[],
  widthMax: number,
  betweenLayers: number,
): Plan<A> {
  const known = arcs.filter(({ source, target }) => source !== target && sizes.has(source) && sizes.has(target))
  const parts = partsOf(sizes, known).map((ids) => {
    const own = new Set(ids)
    return planPart(
      new Map(ids.map((id) => [id, sizes.get(id) as Size])),
      known.filter(({ source }) => own.has(source)),
      betweenLayers,
    )
  })
  return beside(parts, widthMax)
}

function partsOf(sizes: ReadonlyMap<string, Size>, arcs: readonly Arc[]): string[][] {
  const near = new Map<string, string[]>([...sizes.keys()].map((id) => [id, []]))
  for (const { source, target } of arcs) {
    near.get(source)?.push(target)
    near.get(target)?.push(source)
  }
  const seen = new Set<string>()
  const parts: string[][] = []
  for (const start of near.keys()) {
    if (seen.has(start)) continue
    const part = [start]
    seen.add(start)
    for (let index = 0; index < part.length; index += 1) {
      for (const id of near.get(part[index] as string) ?? []) {
        if (seen.has(id)) continue
        seen.add(id)
        part.push(id)
      }
    }
    parts.push(part)
  }
  return parts.sort((a, b) => b.length - a.length)
}

function planPart<A extends Arc>(sizes: ReadonlyMap<string, Size>, arcs: readonly A[], betweenLayers: number): Plan<A> {
  const vertices = new Map<string, Vertex>()
  for (const [id, size] of sizes) vertices.set(id, { id, size, layer: 0, y: 0, rank: 0, before: [], after: [] })
  const chains = directed(vertices, arcs)
  assignLayers([...vertices.values()], chains)
  const layers = layered(vertices, chains)
  order(layers)
  settle(layers)
  return finish(layers, vertices, chains, betweenLayers)
}

/** Turns round what closes a cycle, found by walking in depth; each arc then leads on. */
function directed<A extends Arc>(vertices: ReadonlyMap<string, Vertex>, arcs: readonly A[]): Chain<A>[] {
  const out = new Map<string, A[]>()
  for (const arc of arcs) out.set(arc.source, [...(out.get(arc.source) ?? []), arc])
  const entered = new Map(arcs.map(({ target }) => [target, true]))
  const open = new Set<string>()
  const done = new Set<string>()
  const chains: Chain<A>[] = []
  // Where nothing leads to first, so that a cycle is turned where it is entered.
  const starts = [...vertices.keys()].sort((a, b) => Number(entered.has(a)) - Number(entered.has(b)))
  for (const start of starts) {
    const path: { id: string; next: number }[] = done.has(start) ? [] : [{ id: start, next: 0 }]
    while (path.length > 0) {
      const here = path[path.length - 1] as { id: string; next: number }
      open.add(here.id)
      const arc = out.get(here.id)?.[here.next]
      if (arc === undefined) {
        open.delete(here.id)
        done.add(here.id)
        path.pop()
        continue
      }
      here.next += 1
      const against = open.has(arc.target)
      const ends = [vertices.get(arc.source) as Vertex, vertices.get(arc.target) as Vertex]
      chains.push({ arc, against, stops: against ? ends.reverse() : ends })
      if (!against && !done.has(arc.target)) path.push({ id: arc.target, next: 0 })
    }
  }
  return chains
}

function assignLayers<A>(vertices: readonly Vertex[], chains: readonly Chain<A>[]): void {
  const incoming = new Map<Vertex, number>()
  const out = new Map<Vertex, Vertex[]>()
  for (const { stops } of chains) {
    const [from, to] = stops as [Vertex, Vertex]
    incoming.set(to, (incoming.get(to) ?? 0) + 1)
    out.set(from, [...(out.get(from) ?? []), to])
  }
  const first = vertices.filter((vertex) => !incoming.has(vertex))
  const ready = [...first]
  for (let vertex = ready.pop(); vertex; vertex = ready.pop()) {
    for (const next of out.get(vertex) ?? []) {
      next.layer = Math.max(next.layer, vertex.layer + 1)
      incoming.set(next, (incoming.get(next) ?? 0) - 1)
      if (incoming.get(next) === 0) ready.push(next)
    }
  }
  // What nothing needs stands right before the first thing that it needs itself.
  for (const vertex of first) {
    const next = (out.get(vertex) ?? []).map(({ layer }) => layer)
    if (next.length > 0) vertex.layer = Math.min(...next) - 1
  }
}

function layered<A>(vertices: ReadonlyMap<string, Vertex>, chains: readonly Chain<A>[]): Vertex[][] {
  const layers: Vertex[][] = []
  const put = (vertex: Vertex): void => {
    ;(layers[vertex.layer] ??= []).push(vertex)
  }
  vertices.forEach(put)
  for (const chain of chains) {
    const [from, to] = chain.stops as [Vertex, Vertex]
    const between: Vertex[] = []
    for (let layer = from.layer + 1; layer < to.layer; layer += 1) {
      const size = { width: from.size.width, height: 6 }
      const vertex: Vertex = { id: '', size, layer, y: 0, rank: 0, before: [], after: [] }
      between.push(vertex)
      put(vertex)
    }
    chain.stops = [from, ...between, to]
    chain.stops.slice(1).forEach((vertex, index) => {
      const former = chain.stops[index] as Vertex
      former.after.push(vertex)
      vertex.before.push(former)
    })
  }
  return layers
}

const mean = (numbers: readonly number[]): number => numbers.reduce((sum, each) => sum + each, 0) / numbers.length

/** Sort every layer by where its neighbours stand, there and back, and keep the order with the fewest crossings. */
function order(layers: Vertex[][]): void {
  layers.forEach(rank)
  let best = layers.map((layer) => [...layer])
  let fewest = crossings(layers)
  for (let sweep = 0; sweep < SWEEPS && fewest > 0; sweep += 1) {
    const forth = sweep % 2 === 0
    for (const layer of forth ? layers : [...layers].reverse()) {
      const weight = new Map(
        layer.map((vertex) => {
          const near = forth ? vertex.before : vertex.after
          return [vertex, near.length > 0 ? mean(near.map((other) => other.rank)) : vertex.rank]
        }),
      )
      layer.sort((a, b) => (weight.get(a) ?? 0) - (weight.get(b) ?? 0))
      rank(layer)
    }
    const count = crossings(layers)
    if (count >= fewest) continue
    fewest = count
    best = layers.map((layer) => [...layer])
  }
  best.forEach((layer, index) => {
    layers[index] = layer
    rank(layer)
  })
}

function rank(layer: Vertex[]): void {
  layer.forEach((vertex, index) => {
    vertex.rank = index
  })
}

function crossings(layers: readonly Vertex[][]): number {
  let count = 0
  for (const layer of layers) {
    const lines = layer.flatMap((vertex) => vertex.after.map((next) => [vertex.rank, next.rank] as const))
    lines.forEach(([from, to], index) => {
      for (let other = index + 1; other < lines.length; other += 1) {
        const [otherFrom, otherTo] = lines[other] as readonly [number, number]
        if ((from - otherFrom) * (to - otherTo) < 0) count += 1
      }
    })
  }
  return count
}

/** Bring every box as near to the middle of its neighbours as the order allows. */
function settle(layers: readonly Vertex[][]): void {
  for (const layer of layers) place(layer, layer.map((vertex) => vertex.rank * (vertex.size.height + BETWEEN_ROWS)))
  for (let sweep = 0; sweep < SWEEPS; sweep += 1) {
    const forth = sweep % 2 === 0
    for (const layer of forth ? layers : [...layers].reverse()) {
      const wishes = layer.map((vertex) => {
        const near = forth ? vertex.before : vertex.after
        return near.length > 0 ? mean(near.map(middle)) - vertex.size.height / 2 : vertex.y
      })
      place(layer, wishes)
    }
  }
}

const middle = (vertex: Vertex): number => vertex.y + vertex.size.height / 2

/** The least sum of squared ways from the wishes without overlap: regression by pooling adjacent violators. */
function place(layer: readonly Vertex[], wishes: readonly number[]): void {
  let offset = 0
  const offsets = layer.map((vertex) => {
    const own = offset
    offset += vertex.size.height + (vertex.id === '' ? 4 : BETWEEN_ROWS)
    return own
  })
  const pools: { sum: number; count: number }[] = []
  wishes.forEach((wish, index) => {
    pools.push({ sum: wish - (offsets[index] ?? 0), count: 1 })
    for (let last = pools.length - 1; last > 0; last -= 1) {
      const [upper, lower] = [pools[last - 1], pools[last]] as [(typeof pools)[0], (typeof pools)[0]]
      if (upper.sum / upper.count <= lower.sum / lower.count) break
      pools.splice(last - 1, 2, { sum: upper.sum + lower.sum, count: upper.count + lower.count })
    }
  })
  let index = 0
  for (const { sum, count } of pools) {
    for (let number = 0; number < count; number += 1, index += 1) {
      const vertex = layer[index]
      if (vertex) vertex.y = sum / count + (offsets[index] ?? 0)
    }
  }
}

function finish<A extends Arc>(
  layers: readonly Vertex[][],
  vertices: ReadonlyMap<string, Vertex>,
  chains: readonly Chain<A>[],
  betweenLayers: number,
): Plan<A> {
  const top = Math.min(...layers.flat().map(({ y }) => y))
  const columns: number[] = []
  let x = 0
  for (const layer of layers) {
    columns.push(x)
    x += Math.max(...layer.map(({ size }) => size.width)) + betweenLayers
  }
  const left = (vertex: Vertex): number => columns[vertex.layer] ?? 0
  const ports = portsOf(chains)
  const ways = chains.map((chain): Way<A> => {
    const points: Point[] = []
    chain.stops.forEach((vertex, index) => {
      const shift = ports.get(chain)?.[index === 0 ? 0 : 1] ?? 0
      const y = middle(vertex) - top + (vertex.id === '' ? 0 : shift)
      if (index > 0) points.push({ x: left(vertex), y })
      if (index < chain.stops.length - 1) points.push({ x: left(vertex) + vertex.size.width, y })
    })
    return { arc: chain.arc, points, against: chain.against }
  })
  const places = new Map([...vertices.values()].map((vertex) => [vertex.id, { x: left(vertex), y: vertex.y - top }]))
  const height = Math.max(...layers.flat().map((vertex) => vertex.y - top + vertex.size.height))
  return { places, ways, width: x - betweenLayers, height }
}

/** How far from the middle of its box's side each arc begins and ends, so that they do not meet in one point. */
function portsOf<A>(chains: readonly Chain<A>[]): Map<Chain<A>, [number, number]> {
  const ports = new Map<Chain<A>, [number, number]>(chains.map((chain) => [chain, [0, 0]]))
  const spread = (ofEnd: 0 | 1, end: (chain: Chain<A>) => Vertex, next: (chain: Chain<A>) => Vertex): void => {
    const beside = new Map<Vertex, Chain<A>[]>()
    for (const chain of chains) beside.set(end(chain), [...(beside.get(end(chain)) ?? []), chain])
    for (const [vertex, own] of beside) {
      const step = Math.min(PORT_STEP_MAX, (vertex.size.height - 14) / own.length)
      own.sort((a, b) => middle(next(a)) - middle(next(b)))
      own.forEach((chain, index) => {
        const port = ports.get(chain)
        if (port) port[ofEnd] = (index - (own.length - 1) / 2) * step
      })
    }
  }
  spread(0, ({ stops }) => stops[0] as Vertex, ({ stops }) => stops[1] as Vertex)
  spread(1, ({ stops }) => stops.at(-1) as Vertex, ({ stops }) => stops.at(-2) as Vertex)
  return ports
}

/** The parts in rows, as many beside each other as fit. */
function beside<A>(parts: readonly Plan<A>[], widthMax: number): Plan<A> {
  const whole: Plan<A> = { places: new Map(), ways: [], width: 0, height: 0 }
  let [x, y, rowHeight] = [0, 0, 0]
  for (const part of parts) {
    if (x > 0 && x + part.width > widthMax) {
      y += rowHeight + BETWEEN_PARTS
      x = rowHeight = 0
    }
    const shifted = (point: Point): Point => ({ x: point.x + x, y: point.y + y })
    part.places.forEach((point, id) => whole.places.set(id, shifted(point)))
    whole.ways.push(...part.ways.map((way) => ({ ...way, points: way.points.map(shifted) })))
    whole.width = Math.max(whole.width, x + part.width)
    rowHeight = Math.max(rowHeight, part.height)
    whole.height = Math.max(whole.height, y + rowHeight)
    x += part.width + BETWEEN_PARTS
  }
  return whole
}
