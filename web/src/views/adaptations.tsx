// What was asked of the systems, and why: a timeline, and the story of each.

import { effect } from '@preact/signals'
import { useEffect } from 'preact/hooks'
import { actionList } from '../actionlist'
import { Ago } from '../ago'
import { seconds } from '../format'
import { Choice, Listed, SystemChoice } from '../narrowing'
import { useList, type Page, type Paged } from '../paged'
import { Pill } from '../pills'
import { asked, clock, day, plain, recollection, whole, type WholeAction } from '../recollection'
import { link, route } from '../route'
import { actions, today } from '../store'
import { Story } from '../story'
import '../styles/adaptations.css'

const PAGE = 50
/** Outcomes cannot be asked for, only looked for: so many actions at a time, in so many questions. */
const LOOK_THROUGH = 500
const QUESTIONS_MAX = 4

const OUTCOMES = [
  ['', 'Any outcome'],
  ['bad', 'Not successful'],
  ['success', 'Success'],
  ['partial', 'Partial'],
  ['failed', 'Failed'],
  ['timeout', 'Timeout'],
  ['rejected', 'Rejected'],
  ['cancelled', 'Cancelled'],
  ['unknown', 'Unknown'],
  ['running', 'Running'],
] as const

const GOING_ON = new Set(['pending', 'running'])

function fits(action: WholeAction, outcome: string): boolean {
  if (outcome === '') return true
  if (outcome === 'running') return GOING_ON.has(action.status)
  if (outcome === 'bad') return action.status !== 'success' && !GOING_ON.has(action.status)
  return action.status === outcome
}

/** One page of what fits; where little fits, several pages of the node are looked through for it. */
async function ask(system: string, outcome: string, from: string | null, signal: AbortSignal): Promise<Page<WholeAction>> {
  const items: WholeAction[] = []
  let cursor = from
  for (let question = 0; question < (outcome ? QUESTIONS_MAX : 1); question += 1) {
    const page = await recollection.actions({ system, cursor }, outcome ? LOOK_THROUGH : PAGE, signal)
    items.push(...page.items.filter((action) => fits(action, outcome)))
    cursor = page.next
    if (cursor === null || items.length >= PAGE) break
  }
  return { items, next: cursor }
}

export function AdaptationsView() {
  const { id } = route.value
  return id === null ? <Timeline /> : <Story key={id} id={id} />
}

function Timeline() {
  const system = asked('system')
  const outcome = asked('outcome')
  const list = useList(
    () => actionList<WholeAction>((cursor, signal) => ask(system, outcome, cursor, signal)),
    `${system}\n${outcome}`,
  )
  const wanted = (action: WholeAction): boolean => (!system || action.target_system === system) && fits(action, outcome)
  useEffect(() => effect(() => list.takeIn(actions.value as readonly WholeAction[], wanted)), [list])
  const shown = list.items.value
  const query = Object.fromEntries(route.value.query)
  return (
    <section class="adaptations" aria-labelledby="adaptations-title">
      <div class="view-head">
        <h2 class="title" id="adaptations-title">
          Adaptations
        </h2>
        <span class="muted">what was asked of the systems, and what came of it</span>
        <div class="filters push" role="group" aria-label="Narrow the list">
          <SystemChoice />
          <Choice label="Outcome" name="outcome" options={OUTCOMES} />
        </div>
      </div>
      <Listed list={list as Paged<unknown>} shown={shown.length} empty={<Empty list={list} narrowed={Boolean(system || outcome)} />}>
        <ol class="card timeline" aria-labelledby="adaptations-title">
          {shown.map((action, index) => (
            <Row key={action.action_id} action={action} former={shown[index - 1]} query={query} />
          ))}
        </ol>
      </Listed>
    </section>
  )
}

function Empty({ list, narrowed }: { list: Paged<WholeAction>; narrowed: boolean }) {
  if (narrowed)
    return (
      <>
        <h3>Nothing fits</h3>
        <p>
          {list.next.value === null
            ? 'No adaptation of this system has this outcome.'
            : 'None of the last adaptations has this outcome. “Older” looks further back.'}{' '}
          <a href={link('adaptations')}>Show all</a>
        </p>
      </>
    )
  return (
    <>
      <h3>No adaptation yet</h3>
      <p>
        When a controller, or you on the page of a <a href={link('system')}>system</a>, asks a system to change, it appears
        here at once: what was asked, why, and what came of it.
      </p>
    </>
  )
}

interface RowProps {
  action: WholeAction
  former: WholeAction | undefined
  /** How the list is narrowed. */
  query: Record<string, string>
}

function Row({ action, former, query }: RowProps) {
  const at = new Date(action.created_at)
  const newDay = former === undefined || new Date(former.created_at).toDateString() !== at.toDateString()
  return (
    <li class={newDay ? 'new-day' : ''} data-adaptation={action.action_id} data-status={action.status}>
      {newDay ? <p class="day small muted">{at.toDateString() === today.value ? 'Today' : day(at)}</p> : null}
      <time class="at small muted" dateTime={action.created_at} title={whole(action.created_at)}>
        {clock(at)}
      </time>
      <span class={`knot status-${action.status}`} aria-hidden="true" />
      <div class="what">
        <p class="row">
          <span class="clip">
            <a class="opens" href={link('adaptations', action.action_id, query)}>
              {action.action_type}
            </a>{' '}
            <span class="muted">on</span> {action.target_system}
          </span>
          <Pill tone={`status-${action.status}`} text={action.status} />
        </p>
        <p class="row small muted">
          <span class="clip">
            {action.source ? `asked by ${action.source}` : 'nobody says who asked'}
            {Object.entries(action.parameters).map(([name, value]) => ` · ${name} ${plain(value)}`)}
          </span>
          <span class="fixed">
            {action.duration_s === null ? '' : `${seconds(action.duration_s)} · `}
            <Ago time={action.created_at} />
          </span>
        </p>
        {action.error_message ? <p class="small error clip">{action.error_message}</p> : null}
      </div>
    </li>
  )
}

