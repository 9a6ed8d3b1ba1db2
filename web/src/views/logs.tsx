// What the node said, newest first, followed as it comes.

import { Choice, Follow, Listed, Search } from '../narrowing'
import { LogList } from '../loglist'
import { ITEMS_MAX, useEvery, usePaged, type Paged } from '../paged'
import { asked, narrow, recollection, type LogRecord } from '../recollection'
import { link } from '../route'
import '../styles/logs.css'

const PAGE = 100
const EVERY_MS = 2000
/** Nodes that share a store write a little later than each other: so much is looked at once more. */
const LATE_MS = 5000
const QUESTIONS_MAX = 5

const LEVELS = [
  ['', 'All levels'],
  ['info', 'Info and above'],
  ['warning', 'Warning and above'],
  ['error', 'Error and above'],
  ['critical', 'Critical only'],
] as const

export function LogsView() {
  const level = asked('level')
  const about = asked('about')
  const following = asked('follow') !== 'off'
  const list = usePaged<LogRecord>(
    (cursor, signal) => recollection.logs({ level, about, cursor }, PAGE, signal),
    (record) => record.log_id,
    `${level}\n${about}`,
  )
  useEvery(EVERY_MS, following, () => follow(list, level, about))
  const shown = list.items.value
  return (
    <section class="logs" aria-labelledby="logs-title">
      <div class="view-head">
        <h2 class="title" id="logs-title">
          Logs
        </h2>
        <span class="muted" role="status">
          {following ? 'new records appear within 2 s' : 'new records do not appear by themselves'}
        </span>
        <div class="filters push" role="group" aria-label="Narrow the list">
          <Search label="Correlation or trace id" />
          <Choice label="Level" name="level" options={LEVELS} />
          <Follow on={following} every="2 s" what="records" />
        </div>
      </div>
      {about ? <About about={about} /> : null}
      <Listed list={list as Paged<unknown>} shown={shown.length} empty={<Empty about={about} level={level} />}>
        <LogList records={shown} label="Log records, newest first" />
      </Listed>
    </section>
  )
}

/** Ask for what was kept since the newest that is known; too much of it at once, and the list begins anew. */
async function follow(list: Paged<LogRecord>, level: string, about: string): Promise<void> {
  if (list.state.peek() !== 'ready') return
  const known = list.items.peek()
  if (known.length === 0) return list.load()
  const settled = Date.parse(known[0]?.timestamp ?? '') - LATE_MS
  const after = (known.find((record) => Date.parse(record.timestamp) < settled) ?? known.at(-1))?.log_id
  const fresh: LogRecord[] = []
  let cursor: string | null = null
  for (let question = 0; question < QUESTIONS_MAX; question += 1) {
    const page = await recollection.logs({ level, about, after, cursor }, PAGE)
    fresh.push(...page.items)
    cursor = page.next
    if (cursor === null) break
  }
  if (cursor !== null) return list.load()
  const ids = new Set(list.items.peek().map((record) => record.log_id))
  const unknown = fresh.filter((record) => !ids.has(record.log_id))
  if (unknown.length > 0)
    list.items.value = [...unknown, ...list.items.peek()].sort((a, b) => (a.log_id < b.log_id ? 1 : -1)).slice(0, ITEMS_MAX)
}

function About({ about }: { about: string }) {
  return (
    <p class="about-id small">
      <span class="muted">Only what belongs to</span> <code>{about}</code>{' '}
      <a href={link('traces', null, { about })}>its traces</a>{' '}
      <button type="button" class="button quiet" onClick={() => narrow({ about: null })}>
        Show all
      </button>
    </p>
  )
}

function Empty({ about, level }: { about: string; level: string }) {
  if (about || level)
    return (
      <>
        <h3>Nothing fits</h3>
        <p>
          {about
            ? 'No record that is kept has this id. The oldest records go first, by number and by age.'
            : 'No record that is kept is so severe. That is good news.'}{' '}
          <a href={link('logs')}>Show all</a>
        </p>
      </>
    )
  return (
    <>
      <h3>Nothing was said yet</h3>
      <p>
        What the node logs appears here, as far as it is as severe as <code>logging.level</code> in its configuration.
      </p>
    </>
  )
}
