// The spans of a trace as a tree on one axis of time.

import { endOf, OF, startOf, told, type Span, type Trace } from './recollection'

export interface Node {
  span: Span
  depth: number
  children: Node[]
  /** Of another trace, which only links to this one. */
  linked: boolean
}

export interface Tree {
  roots: Node[]
  /** Milliseconds since the epoch, of the first start and the last end. */
  begin: number
  end: number
}

const byStart = (a: Node, b: Node): number => startOf(a.span) - startOf(b.span) || b.span.duration_s - a.span.duration_s

/** What has no parent here is a root; a span of a batch hangs below the span that it links to. A circle is cut. */
export function treeOf(trace: Trace): Tree {
  const all: Node[] = [
    ...trace.spans.map((span) => ({ span, depth: 0, children: [], linked: false })),
    ...trace.linked.map((span) => ({ span, depth: 0, children: [], linked: true })),
  ]
  const byId = new Map(all.map((node) => [node.span.span_id, node]))
  const parents = new Map<Node, Node>()
  const roots: Node[] = []
  for (const node of all) {
    const parent = parentOf(node, trace.trace_id, byId)
    if (parent === undefined || isAbove(node, parent, parents)) roots.push(node)
    else {
      parents.set(node, parent)
      parent.children.push(node)
    }
  }
  roots.sort(byStart)
  for (const node of all) node.children.sort(byStart)
  deepen(roots, 0)
  const spans = all.map((node) => node.span)
  const begin = Math.min(...spans.map(startOf))
  return { roots, begin, end: Math.max(begin + 0.001, ...spans.map(endOf)) }
}

function parentOf(node: Node, traceId: string, byId: Map<string, Node>): Node | undefined {
  const parent = byId.get(node.span.parent_id ?? '')
  if (parent || !node.linked) return parent
  const link = node.span.links?.find((one) => one.trace_id === traceId && byId.has(one.span_id))
  return link && byId.get(link.span_id)
}

function isAbove(node: Node, other: Node, parents: Map<Node, Node>): boolean {
  for (let one: Node | undefined = other; one; one = parents.get(one)) if (one === node) return true
  return false
}

function deepen(nodes: Node[], depth: number): void {
  for (const node of nodes) {
    node.depth = depth
    deepen(node.children, depth + 1)
  }
}

/** The nodes from top to bottom, without what is below the closed ones. */
export function rowsOf(nodes: Node[], closed: ReadonlySet<string>): Node[] {
  return nodes.flatMap((node) => [node, ...(closed.has(node.span.span_id) ? [] : rowsOf(node.children, closed))])
}

export const isError = (span: Span): boolean => span.status === 'error'

/** What an error is, in the words there are for it. */
export const errorOf = (span: Span): string | null =>
  isError(span) ? (span.message ?? told(span, OF.error) ?? 'failed') : null

const FAMILIES: [RegExp, string][] = [
  [/^collect/, 'sense'],
  [/^decide/, 'decide'],
  [/action$/, 'act'],
  [/^store/, 'store'],
]

/** Which kind of work a span is, for its colour. */
export const familyOf = (span: Span): string => FAMILIES.find(([name]) => name.test(span.name))?.[1] ?? 'bus'
