// A live tap: an endless answer that is read as it comes. Only while somebody looks; what is shown is bounded.

import { computed, effect, signal } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import type { Tapped } from './inspection'
import { connection } from './store'

export const KEPT_MAX = 200
export const PATTERN = 'polaris.>'
const AGAIN_MS = 3_000

export interface Row extends Tapped {
  key: number
  /** What a text filter looks at, made when it is first asked for. */
  text?: string
}

type State = 'opening' | 'open' | 'closed' | 'refused'

export class Tap {
  readonly state = signal<State>('opening')
  /** What the node said when it refused. */
  readonly said = signal('')
  readonly rows = signal<readonly Row[]>([])
  readonly paused = signal(false)
  /** Messages that neither this page nor the node for it could keep up with. */
  readonly dropped = signal(0)
  /** Events that passed while the list stood still. */
  readonly passed = signal(0)
  readonly seen = signal(0)
  readonly filter = signal('')
  readonly shown = computed(() => {
    const wanted = this.filter.value.trim().toLowerCase()
    return wanted ? this.rows.value.filter((row) => textOf(row).includes(wanted)) : this.rows.value
  })
  private aborter = new AbortController()
  private again: ReturnType<typeof setTimeout> | undefined

  constructor(readonly pattern: string) {}

  async open(): Promise<void> {
    this.close()
    const aborter = (this.aborter = new AbortController())
    this.state.value = 'opening'
    try {
      const answer = await fetch(`api/v1/tap?${new URLSearchParams({ pattern: this.pattern })}`, { signal: aborter.signal })
      if (!answer.ok || !answer.body) {
        const problem = (await answer.json().catch(() => ({}))) as { detail?: string; title?: string }
        this.said.value =
          answer.status === 503 && problem.title ? `${problem.title}.` : (problem.detail ?? `The node answered ${answer.status}.`)
        this.state.value = 'refused'
        // A wrong pattern stays wrong; a place may become free.
        if (answer.status === 503) this.later(aborter)
        return
      }
      await this.read(answer.body)
    } catch {
      // The node went away, or whoever looked did.
    }
    if (aborter.signal.aborted) return
    this.state.value = 'closed'
    this.later(aborter)
  }

  close(): void {
    clearTimeout(this.again)
    this.aborter.abort()
    this.state.value = 'closed'
  }

  clear(): void {
    this.rows.value = []
    this.passed.value = this.dropped.value = 0
  }

  pause(on: boolean): void {
    this.paused.value = on
    this.passed.value = 0
  }

  private later(aborter: AbortController): void {
    this.again = setTimeout(() => {
      if (!aborter.signal.aborted && connection.peek() === 'live') void this.open()
    }, AGAIN_MS)
  }

  private async read(body: ReadableStream<Uint8Array>): Promise<void> {
    const reader = body.pipeThrough(new TextDecoderStream() as TransformStream<Uint8Array, string>).getReader()
    let rest = ''
    for (;;) {
      const { done, value } = await reader.read()
      if (done) return
      const frames = (rest + value).split('\n\n')
      rest = frames.pop() ?? ''
      this.take(frames)
    }
  }

  /** The frames of one write together, so that the page is drawn once for them. */
  private take(frames: string[]): void {
    const fresh: Row[] = []
    for (const frame of frames) {
      const [, kind, data] = /^event: (\w+)\ndata: (.*)$/s.exec(frame) ?? []
      if (kind === 'hello') this.state.value = 'open'
      else if (kind === 'dropped') this.dropped.value += (JSON.parse(data ?? '{}') as { count: number }).count
      else if (kind === 'event') {
        this.seen.value += 1
        if (this.paused.peek()) this.passed.value += 1
        else fresh.unshift({ ...(JSON.parse(data ?? '{}') as Tapped), key: this.seen.peek() })
      }
    }
    if (fresh.length > 0) this.rows.value = [...fresh, ...this.rows.peek()].slice(0, KEPT_MAX)
  }
}

function textOf(row: Row): string {
  row.text ??= `${row.topic} ${row.type ?? ''} ${row.id ?? ''} ${row.problem ?? ''} ${JSON.stringify(row.event ?? row.hex)}`.toLowerCase()
  return row.text
}

/** Open while the view is shown, the tab is seen and the node is there. */
export function useTap(tap: Tap): void {
  useEffect(() => {
    const look = (): void => {
      if (document.hidden || connection.peek() !== 'live') tap.close()
      else void tap.open()
    }
    const stop = effect(() => {
      void connection.value
      look()
    })
    document.addEventListener('visibilitychange', look)
    return () => {
      stop()
      document.removeEventListener('visibilitychange', look)
      tap.close()
    }
  }, [tap])
}
