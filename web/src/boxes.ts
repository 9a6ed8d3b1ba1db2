// What the topology shows as one box: a system, or systems that need the same and are needed by the same.

import type { Dependency } from './types'

/** More boxes than this are not a picture any more. */
export const BOXES_MAX = 60
/** So many systems alike become one box, sooner where there are many systems. */
const ALIKE_MIN = 9
const ALIKE_MIN_OF_MANY = 4
const MANY = 24

export interface Box {
  id: string
  members: string[]
}

export interface Edge {
  source: string
  target: string
  /** Each kind with its greatest strength. */
  kinds: Map<string, number>
}

export interface Boxes {
  boxes: Box[]
  edges: Edge[]
  /** Systems of boxes that were too many. */
  left: string[]
  /** Systems that need nothing and that nothing needs. */
  loose: string[]
}

/** `urgent` says which systems must be seen whatever is left out. */
export function boxesOf(ids: readonly string[], dependencies: readonly Dependency[], urgent: ReadonlySet<string>): Boxes {
  const bound = new Set(dependencies.flatMap((each) => [each.source_system, each.target_system]))
  const all = gather([...bound].sort(), dependencies)
  const boxOf = new Map(all.flatMap((box) => box.members.map((id) => [id, box.id] as const)))
  const edges = merge(dependencies, boxOf)
  const kept = new Set(most(all, edges, urgent).map((box) => box.id))
  return {
    boxes: all.filter((box) => kept.has(box.id)),
    edges: edges.filter(({ source, target }) => kept.has(source) && kept.has(target)),
    left: all.filter((box) => !kept.has(box.id)).flatMap((box) => box.members),
    loose: ids.filter((id) => !bound.has(id)),
  }
}

function gather(ids: readonly string[], dependencies: readonly Dependency[]): Box[] {
  const near = new Map<string, string[]>(ids.map((id) => [id, []]))
  for (const { source_system, target_system, dependency_type } of dependencies) {
    near.get(source_system)?.push(JSON.stringify(['needs', dependency_type, target_system]))
    near.get(target_system)?.push(JSON.stringify(['serves', dependency_type, source_system]))
  }
  const alike = new Map<string, string[]>()
  for (const [id, all] of near) {
    const key = [...new Set(all)].sort().join('\n')
    alike.set(key, [...(alike.get(key) ?? []), id])
  }
  const least = ids.length > MANY ? ALIKE_MIN_OF_MANY : ALIKE_MIN
  return [...alike.values()].flatMap((members) =>
    members.length >= least ? [{ id: `${members[0]}\n`, members }] : members.map((id) => ({ id, members: [id] })),
  )
}

function merge(dependencies: readonly Dependency[], boxOf: ReadonlyMap<string, string>): Edge[] {
  const edges = new Map<string, Edge>()
  for (const { source_system, target_system, dependency_type, strength } of dependencies) {
    const [source, target] = [boxOf.get(source_system) ?? '', boxOf.get(target_system) ?? '']
    if (source === target) continue
    const key = JSON.stringify([source, target])
    const edge = edges.get(key) ?? { source, target, kinds: new Map<string, number>() }
    edge.kinds.set(dependency_type, Math.max(edge.kinds.get(dependency_type) ?? 0, strength))
    edges.set(key, edge)
  }
  return [...edges.values()]
}

/** The boxes to draw: what is urgent first, then what has the most ways. */
function most(all: readonly Box[], edges: readonly Edge[], urgent: ReadonlySet<string>): readonly Box[] {
  if (all.length <= BOXES_MAX) return all
  const ways = new Map<string, number>()
  for (const { source, target } of edges) for (const id of [source, target]) ways.set(id, (ways.get(id) ?? 0) + 1)
  const weight = (box: Box): number => (box.members.some((id) => urgent.has(id)) ? 1e6 : 0) + (ways.get(box.id) ?? 0)
  return [...all].sort((a, b) => weight(b) - weight(a)).slice(0, BOXES_MAX)
}
