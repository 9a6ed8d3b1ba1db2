// A list that comes in pages, newest first: bounded, loaded again when something may have been missed, followed on wish.

import { effect, signal } from '@preact/signals'
import { useEffect, useMemo, useRef } from 'preact/hooks'
import { connection, epoch } from './store'

export interface Page<T> {
  items: T[]
  /** Where the next page goes on, null at the end. */
  next: string | null
}

export const NONE_KNOWN = '–'
export const ITEMS_MAX = 1000

export type Ask<T> = (cursor: string | null, signal: AbortSignal) => Promise<Page<T>>

export class Paged<T> {
  readonly items = signal<readonly T[]>([])
  readonly state = signal<'loading' | 'ready' | 'failed'>('loading')
  /** Where older items go on; null at the end. */
  readonly next = signal<string | null>(null)
  /** Whether older items are being fetched. */
  readonly busy = signal(false)
  /** What went wrong with the last question, empty when nothing did. */
  readonly trouble = signal('')
  private aborter = new AbortController()

  constructor(
    private readonly ask: Ask<T>,
    private readonly keyOf: (item: T) => string,
    /** What to keep of an item that is told anew. */
    private readonly merged: (former: T | undefined, next: T) => T = (_, next) => next,
    /** The order; without one, what is taken in comes above. */
    private readonly order?: (a: T, b: T) => number,
  ) {}

  get full(): boolean {
    return this.items.value.length >= ITEMS_MAX
  }

  /** Read the first page (again). What is known stays when the page reaches down to it, and is dropped otherwise. */
  async load(): Promise<void> {
    this.aborter.abort()
    this.aborter = new AbortController()
    this.busy.value = false
    const { signal } = this.aborter
    try {
      const page = await this.ask(null, signal)
      if (signal.aborted) return
      const known = new Set(this.items.peek().map(this.keyOf))
      if (page.items.some((item) => known.has(this.keyOf(item)))) this.add(page.items)
      else {
        this.items.value = page.items
        this.next.value = page.next
      }
      this.settled()
    } catch (error) {
      this.failed(error, signal)
    }
  }

  async older(): Promise<void> {
    const { signal } = this.aborter
    const cursor = this.next.peek()
    if (cursor === null || this.busy.peek() || this.full) return
    this.busy.value = true
    try {
      const page = await this.ask(cursor, signal)
      if (signal.aborted) return
      const known = new Set(this.items.peek().map(this.keyOf))
      this.items.value = [...this.items.peek(), ...page.items.filter((item) => !known.has(this.keyOf(item)))]
      this.next.value = page.next
      this.settled()
    } catch (error) {
      this.failed(error, signal)
    }
    if (!signal.aborted) this.busy.value = false
  }

  /** Take in items that are newer than what is known, or take its place. */
  add(fresh: readonly T[]): void {
    if (fresh.length === 0) return
    const known = new Map(this.items.peek().map((item) => [this.keyOf(item), item]))
    const above = fresh.map((item) => this.merged(known.get(this.keyOf(item)), item))
    for (const item of fresh) known.delete(this.keyOf(item))
    const all = [...above, ...known.values()]
    this.items.value = (this.order ? all.sort(this.order) : all).slice(0, ITEMS_MAX)
  }

  /** What the stream told since: new items come above, known ones change; older ones come only by asking. */
  takeIn(live: readonly T[], wanted: (item: T) => boolean): void {
    if (this.state.value !== 'ready') return
    const known = new Map(this.items.value.map((item) => [this.keyOf(item), item]))
    const last = this.next.value !== null || this.full ? this.items.peek().at(-1) : undefined
    const news = live.filter((item) => {
      const former = known.get(this.keyOf(item))
      if (former) return !same(former, this.merged(former, item))
      return wanted(item) && !(last && this.order && this.order(item, last) > 0)
    })
    if (news.length === 0) return
    this.add(news)
    if (!this.items.peek().every(wanted)) this.items.value = this.items.peek().filter(wanted)
  }

  close(): void {
    this.aborter.abort()
  }

  private settled(): void {
    this.state.value = 'ready'
    this.trouble.value = ''
  }

  private failed(error: unknown, signal: AbortSignal): void {
    if (signal.aborted) return
    this.trouble.value = error instanceof Error ? error.message : String(error)
    if (this.state.peek() === 'loading') this.state.value = 'failed'
  }
}

const same = <T,>(a: T, b: T): boolean => (Object.keys(b as object) as (keyof T)[]).every((name) => a[name] === b[name])

export const usePaged = <T>(ask: Ask<T>, keyOf: (item: T) => string, key: string): Paged<T> =>
  useList(() => new Paged(ask, keyOf), key)

/** A list for as long as `key` stays: loaded when the node is there, and again when something may have been missed. */
export function useList<T>(make: () => Paged<T>, key: string): Paged<T> {
  const list = useMemo(make, [key])
  useEffect(() => {
    const stop = effect(() => {
      if (epoch.value > 0) void list.load()
    })
    return () => {
      stop()
      list.close()
    }
  }, [list])
  return list
}

/** Look again and again while the page is seen and the node is there; never twice at a time. */
export function useEvery(ms: number, on: boolean, look: () => Promise<unknown>): void {
  const latest = useRef(look)
  latest.current = look
  useEffect(() => {
    if (!on) return
    let busy = false
    const turn = async (): Promise<void> => {
      if (busy || document.hidden || connection.peek() !== 'live') return
      busy = true
      try {
        await latest.current()
      } catch {
        // The next turn asks again; that the node is away is told above the view.
      } finally {
        busy = false
      }
    }
    const timer = setInterval(() => void turn(), ms)
    const seen = (): void => void turn()
    document.addEventListener('visibilitychange', seen)
    return () => {
      clearInterval(timer)
      document.removeEventListener('visibilitychange', seen)
    }
  }, [on, ms])
}
