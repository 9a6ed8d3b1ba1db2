// A name and its value, in a list of them.

import type { ComponentChildren } from 'preact'
import { plain } from './recollection'

export function Fact({ name, children }: { name: string; children: ComponentChildren }) {
  return (
    <>
      <dt>{name}</dt>
      <dd>{children}</dd>
    </>
  )
}

/** Named data; what is nested as JSON. */
export function Data({ data }: { data: Record<string, unknown> }) {
  return (
    <dl class="kv">
      {Object.entries(data).map(([name, value]) => (
        <Fact key={name} name={name}>
          {typeof value === 'object' && value !== null ? <code>{plain(value)}</code> : plain(value)}
        </Fact>
      ))}
    </dl>
  )
}
