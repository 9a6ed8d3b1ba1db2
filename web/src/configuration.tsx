// The settings in effect, and where each comes from.

import { signal } from '@preact/signals'
import { Fact } from './facts'
import { span } from './format'
import { inspection, type Configuration as Answer, type Setting } from './inspection'
import { useLook } from './look'
import { More } from './more'
import { asked, narrow } from './recollection'
import { connection, node, now } from './store'

const EVERY_MS = 60_000
const SHOWN = 200

const answer = signal<Answer | null>(null)
const trouble = signal('')
const shownMax = signal(SHOWN)
const find = signal('')

async function look(): Promise<void> {
  try {
    answer.value = await inspection.configuration()
    trouble.value = ''
  } catch (error) {
    trouble.value = error instanceof Error ? error.message : String(error)
  }
}

const isDefault = ({ source }: Setting): boolean => source === 'default'

export function Configuration() {
  useLook(look, EVERY_MS)
  const known = answer.value
  const text = find.value
  const everything = asked('all') === 'yes'
  if (known === null)
    return (
      <div class="card empty" role="status">
        {trouble.value ? (
          <>
            <h3>The configuration could not be read</h3>
            <p>{trouble.value}</p>
          </>
        ) : (
          <p>Waiting for the node …</p>
        )}
      </div>
    )
  const fitting = known.settings.filter((setting) => (everything || text !== '' || !isDefault(setting)) && fits(setting, text))
  const shown = fitting.slice(0, shownMax.value)
  return (
    <section class="configuration" aria-labelledby="configuration-title">
      <div class="row head wrap">
        <h2 id="configuration-title">
          Settings in effect <span class="count">{fitting.length}</span>
        </h2>
        <div class="filters" role="group" aria-label="Narrow the list">
          <input
            class="wide"
            type="search"
            aria-label="Find a setting"
            placeholder="Find a setting"
            spellcheck={false}
            value={text}
            onInput={(event) => {
              find.value = event.currentTarget.value
            }}
          />
          <label class="check">
            <input type="checkbox" checked={everything} onChange={() => narrow({ all: everything ? null : 'yes' })} />
            Defaults too
          </label>
        </div>
      </div>
      <p class="small muted whence">
        {known.file === null ? 'No configuration file was read.' : <>Read from <code>{known.file}</code>.</>} A variable goes
        over the file, a flag over both. Changes take effect with the next start.
      </p>
      {shown.length === 0 ? (
        <div class="card empty">
          <h3>{text ? 'No setting fits' : 'Everything is at its default'}</h3>
          <p>
            {text ? 'Names, values, origins and descriptions are looked at.' : 'Nothing was set by file, variable or flag.'}
          </p>
        </div>
      ) : (
        <ul class="card list settings" aria-labelledby="configuration-title">
          {shown.map((setting) => (
            <Line key={setting.key} setting={setting} />
          ))}
        </ul>
      )}
      <More hidden={fitting.length - shown.length} more={() => (shownMax.value += 4 * SHOWN)} />
      {known.left_out > 0 ? <p class="small muted">{known.left_out} more settings are not listed.</p> : null}
    </section>
  )
}

function fits(setting: Setting, text: string): boolean {
  const wanted = text.trim().toLowerCase()
  if (!wanted) return true
  const { key, value, source, origin, description } = setting
  return `${key} ${JSON.stringify(value)} ${source} ${origin} ${description}`.toLowerCase().includes(wanted)
}

function Line({ setting }: { setting: Setting }) {
  return (
    <li data-setting={setting.key}>
      <code class="key">{setting.key}</code>
      <span class="value-and-origin">
        <code class={`shown ${setting.value === null ? 'muted' : ''}`} data-value>
          {shownOf(setting)}
        </code>
        <span class={`tag ${isDefault(setting) ? '' : 'set'}`} title={setting.origin} data-origin={setting.source}>
          {originOf(setting)}
        </span>
      </span>
      <span class="small muted about">
        {setting.description}
        {!isDefault(setting) && setting.default !== null && !setting.is_secret ? (
          <> Default: <code>{JSON.stringify(setting.default)}</code>.</>
        ) : null}
      </span>
    </li>
  )
}

function shownOf({ value, is_secret }: Setting): string {
  if (value === null) return 'not set'
  if (is_secret && typeof value === 'string') return '••••••'
  return typeof value === 'string' ? value : JSON.stringify(value)
}

function originOf({ source, origin }: Setting): string {
  if (source === 'environment') return origin
  if (source === 'file') return `file ${origin}`
  return source === 'secret file' ? `file ${origin}` : source
}

/** About the process, for those who have to find it. */
export function Facts() {
  useLook(look, EVERY_MS)
  const facts = node.value
  const fresh = connection.value === 'live'
  return (
    <section class="panel card facts-of-node" aria-labelledby="facts-title">
      <header>
        <h2 id="facts-title">About this node</h2>
      </header>
      <dl class="kv body">
        <Fact name="name">{facts?.name ?? '–'}</Fact>
        <Fact name="version">{facts?.version ?? '–'}</Fact>
        <Fact name="uptime">{facts && fresh ? span((now.value - Date.parse(facts.started_at)) / 1000) : '–'}</Fact>
        <Fact name="started">{facts ? new Date(facts.started_at).toLocaleString() : '–'}</Fact>
        {Object.entries(facts?.addresses ?? {}).map(([name, address]) => (
          <Fact key={name} name={name}>
            <code>{address}</code>
          </Fact>
        ))}
        {Object.entries(answer.value?.facts ?? {}).map(([name, value]) => (
          <Fact key={name} name={name}>
            <span class={/folder|store/.test(name) ? 'mono' : ''}>{value}</span>
          </Fact>
        ))}
      </dl>
    </section>
  )
}
