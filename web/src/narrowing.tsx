// What lists of what happened have in common: how they are narrowed, what they say when nothing is there, and what is older.

import type { ComponentChildren } from 'preact'
import { useEffect, useRef } from 'preact/hooks'
import { NotFound } from './found'
import { ITEMS_MAX, type Paged } from './paged'
import { asked, narrow } from './recollection'
import { systems } from './store'

/** A box for an id, which goes into the address. */
export function Search({ label, name = 'about' }: { label: string; name?: string }) {
  const box = useRef<HTMLInputElement>(null)
  const shown = asked(name)
  useEffect(() => {
    if (box.current) box.current.value = shown
  }, [shown])
  const submit = (): void => {
    const wanted = box.current?.value.trim() ?? ''
    if (wanted !== shown) narrow({ [name]: wanted })
  }
  return (
    <form
      class="wide search"
      role="search"
      onSubmit={(event) => {
        event.preventDefault()
        submit()
      }}
    >
      <input
        ref={box}
        type="search"
        aria-label={label}
        placeholder={label}
        spellcheck={false}
        autoComplete="off"
        maxLength={256}
        defaultValue={shown}
        onChange={submit}
        onInput={(event) => {
          // Emptied, by its own button too: everything is shown again at once.
          if (event.currentTarget.value === '') submit()
        }}
      />
    </form>
  )
}

export function Choice({ label, name, options }: { label: string; name: string; options: readonly (readonly [string, string])[] }) {
  return (
    <select aria-label={label} value={asked(name)} onChange={(event) => narrow({ [name]: event.currentTarget.value })}>
      {options.map(([value, text]) => (
        <option key={value} value={value}>
          {text}
        </option>
      ))}
    </select>
  )
}

/** Which system; one that is in the address and unknown is still offered, as old things may tell of it. */
export function SystemChoice() {
  const known = [...systems.value.keys()]
  const wanted = asked('system')
  const all = wanted && !known.includes(wanted) ? [wanted, ...known] : known
  return <Choice label="System" name="system" options={[['', 'All systems'], ...all.map((id) => [id, id] as const)]} />
}

/** Whether new things come by themselves. */
export function Follow({ on, every, what }: { on: boolean; every: string; what: string }) {
  return (
    <button
      type="button"
      class="button follow"
      aria-pressed={on}
      title={on ? `Looks for new ${what} every ${every} while this tab is seen` : `New ${what} do not come by themselves now`}
      onClick={() => narrow({ follow: on ? 'off' : null })}
    >
      <span class="dot" aria-hidden="true" />
      {on ? 'Following' : 'Follow'}
    </button>
  )
}

interface ListProps {
  list: Paged<unknown>
  /** How many are shown, of what was loaded. */
  shown: number
  /** When there are none. */
  empty: ComponentChildren
  children: ComponentChildren
}

/** The list, or in words why there is none; below it the way to what is older. */
export function Listed({ list, shown, empty, children }: ListProps) {
  const trouble = list.trouble.value
  if (list.state.value !== 'ready') return <NotFound trouble={trouble} again={() => list.load()} />
  return (
    <>
      {shown === 0 ? <div class="card empty">{empty}</div> : children}
      {list.next.value === null || (shown === 0 && list.items.value.length === 0) ? null : list.full ? (
        <p class="older muted small">The newest {ITEMS_MAX} are shown; narrow the list to see older ones.</p>
      ) : (
        <div class="older">
          <button type="button" class="button" disabled={list.busy.value} onClick={() => void list.older()}>
            {list.busy.value ? 'Loading …' : 'Older'}
          </button>
        </div>
      )}
      {trouble ? (
        <p class="older small error" role="alert">
          {trouble}
        </p>
      ) : null}
    </>
  )
}
