// Spans below each other as bars on one axis of time, to be walked through with the arrow keys.

import { useSignal } from '@preact/signals'
import { useEffect, useRef } from 'preact/hooks'
import { seconds } from './format'
import { endOf, OF, startOf, told, type Span } from './recollection'
import { errorOf, familyOf, isError, rowsOf, type Node, type Tree } from './spans'

const TICKS = [0, 0.25, 0.5, 0.75, 1]

interface Props {
  tree: Tree
  chosen: string
  choose: (spanId: string) => void
}

export function Waterfall({ tree, chosen, choose }: Props) {
  const closed = useSignal<ReadonlySet<string>>(new Set())
  const box = useRef<HTMLDivElement>(null)
  /** Which span the keyboard has gone to: it gets the focus once it is there. */
  const wanted = useRef('')
  const rows = rowsOf(tree.roots, closed.value)

  useEffect(() => {
    if (wanted.current !== chosen) return
    wanted.current = ''
    box.current?.querySelector<HTMLElement>('[aria-selected="true"]')?.focus()
  }, [chosen])

  const fold = (node: Node, shut: boolean): void => {
    const next = new Set(closed.value)
    if (shut) next.add(node.span.span_id)
    else next.delete(node.span.span_id)
    closed.value = next
  }

  function walk(event: KeyboardEvent): void {
    const index = rows.findIndex((node) => node.span.span_id === chosen)
    const here = rows[index]
    if (!here || event.altKey || event.ctrlKey || event.metaKey) return
    const shut = closed.value.has(here.span.span_id)
    let next: Node | undefined
    switch (event.key) {
      case 'ArrowDown':
        next = rows[index + 1]
        break
      case 'ArrowUp':
        next = rows[index - 1]
        break
      case 'Home':
        next = rows[0]
        break
      case 'End':
        next = rows.at(-1)
        break
      case 'ArrowRight':
        if (shut) fold(here, false)
        else next = here.children[0]
        break
      case 'ArrowLeft':
        if (!shut && here.children.length > 0) fold(here, true)
        else next = rows.find((node) => node.children.includes(here))
        break
      default:
        return
    }
    event.preventDefault()
    if (!next) return
    wanted.current = next.span.span_id
    choose(next.span.span_id)
  }

  const length = tree.end - tree.begin
  return (
    <div class="waterfall card">
      <div class="axis small muted" aria-hidden="true">
        <span>Span</span>
        <div class="ticks">
          {TICKS.map((share) => (
            <span key={share} style={{ left: `${share * 100}%` }}>
              {share === 0 ? '0' : seconds((share * length) / 1000)}
            </span>
          ))}
        </div>
      </div>
      <div role="tree" aria-label="Spans by time" ref={box} onKeyDown={walk}>
        {rows.map((node) => (
          <Row
            key={node.span.span_id}
            node={node}
            tree={tree}
            current={node.span.span_id === chosen}
            shut={closed.value.has(node.span.span_id)}
            choose={choose}
            fold={fold}
          />
        ))}
      </div>
    </div>
  )
}

interface RowProps {
  node: Node
  tree: Tree
  current: boolean
  shut: boolean
  choose: (spanId: string) => void
  fold: (node: Node, shut: boolean) => void
}

function Row({ node, tree, current, shut, choose, fold }: RowProps) {
  const { span } = node
  const length = tree.end - tree.begin
  const left = (startOf(span) - tree.begin) / length
  const width = (endOf(span) - startOf(span)) / length
  const early = left + width < 0.75
  const parts = node.children.length
  return (
    <div
      role="treeitem"
      class={`fall ${current ? 'current' : ''} ${isError(span) ? 'failed' : ''} ${node.linked ? 'linked' : ''}`}
      aria-level={node.depth + 1}
      aria-selected={current}
      aria-expanded={parts > 0 ? !shut : undefined}
      tabIndex={current ? 0 : -1}
      data-span={span.span_id}
      onClick={() => choose(span.span_id)}
    >
      <span class="name" style={{ paddingLeft: `${Math.min(node.depth, 12) * 14}px` }}>
        <span
          class={`fold ${parts > 0 ? '' : 'leaf'}`}
          aria-hidden="true"
          onClick={(event) => {
            if (parts === 0) return
            event.stopPropagation()
            choose(span.span_id)
            fold(node, !shut)
          }}
        >
          {parts === 0 ? '' : shut ? '▸' : '▾'}
        </span>
        <span class="clip" title={span.name}>
          {titleOf(span)}
        </span>{' '}
        {isError(span) ? <span class="flag">error</span> : null} {node.linked ? <span class="tag">batch</span> : null}
      </span>{' '}
      <span class="lane">
        <span class={`fall-bar of-${familyOf(span)}`} style={{ left: `${left * 100}%`, width: `${Math.max(width * 100, 0.15)}%` }} />
        <span
          class="took"
          style={early ? { left: `${(left + width) * 100}%` } : { right: `${(1 - left) * 100}%` }}
        >
          {seconds(span.duration_s)}
        </span>
      </span>
      <span class="unseen">{spoken(node, tree)}</span>
    </div>
  )
}

/** The name, and which one of several: several subscriptions may see the same message. */
const titleOf = (span: Span): string => [span.name, told(span, OF.attempt) ?? told(span, OF.group) ?? ''].join(' ').trimEnd()

/** What the bar shows to those who see it. */
function spoken(node: Node, tree: Tree): string {
  const error = errorOf(node.span)
  const after = seconds((startOf(node.span) - tree.begin) / 1000)
  return ` after ${after}${error ? `, error: ${error}` : ''}${node.linked ? ', of another trace' : ''}`
}
