// Log records, each to be opened: its fields, its error with the stack, and the ways to what it belongs to.

import { Fact } from './facts'
import { moment, plain, whole, type LogRecord } from './recollection'
import { link } from './route'

export function LogList({ records, label, within = null }: { records: readonly LogRecord[]; label: string; within?: string | null }) {
  return (
    <ol class="card loglist" aria-label={label}>
      {records.map((record) => (
        <Line key={record.log_id} record={record} within={within} />
      ))}
    </ol>
  )
}

/** `within` is the trace that is shown already. */
function Line({ record, within }: { record: LogRecord; within: string | null }) {
  const level = record.level.toLowerCase()
  return (
    <li data-log={record.log_id} data-level={level}>
      <details>
        <summary>
          <time class="mono muted" dateTime={record.timestamp} title={whole(record.timestamp)}>
            {moment(record.timestamp, true)}
          </time>
          <span class={`level ${level}`}>{level}</span>
          <span class="said">
            {record.message}
            {brief(record)}
          </span>
          <span class="logger small muted clip">{record.logger}</span>
        </summary>
        <div class="opened">
          <Facts record={record} within={within} />
          {record.exception ? <Exception exception={record.exception} /> : null}
        </div>
      </details>
    </li>
  )
}

/** The fields in one line, for those who skim. */
function brief({ fields, exception }: LogRecord) {
  const told = Object.entries(fields).filter(([, value]) => value !== null && value !== '')
  const [short, long] = [told.filter(([name]) => !isLong(name)), told.filter(([name]) => isLong(name))]
  return (
    <span class="small muted">
      {exception ? <span class="error"> {plain(exception['type'])}</span> : null}
      {short.map(([name, value]) => ` ${name}=${plain(value)}`)}
      <span class="ids">{long.map(([name, value]) => ` ${name}=${plain(value)}`)}</span>
    </span>
  )
}

/** Ids come last: they are long, and say little at a glance. */
const isLong = (name: string): boolean => name.endsWith('_id') && name !== 'system_id'

function Facts({ record, within }: { record: LogRecord; within: string | null }) {
  const { correlation_id, trace_id, span_id, fields } = record
  return (
    <dl class="kv">
      {Object.entries(fields).map(([name, value]) => (
        <Fact key={name} name={name}>
          {value === null ? (
            <span class="muted">none</span>
          ) : name === 'action_id' && typeof value === 'string' ? (
            <a href={link('adaptations', value)}>{value}</a>
          ) : name === 'system_id' && typeof value === 'string' ? (
            <a href={link('system', value)}>{value}</a>
          ) : typeof value === 'object' ? (
            <code>{plain(value)}</code>
          ) : (
            plain(value)
          )}
        </Fact>
      ))}
      <Fact name="logger">{record.logger}</Fact>
      <Fact name="time">{record.timestamp}</Fact>
      {correlation_id ? (
        <Fact name="correlation id">
          <a class="mono" href={link('logs', null, { about: correlation_id })}>
            {correlation_id}
          </a>
        </Fact>
      ) : null}
      {trace_id ? (
        <Fact name="trace">
          <a class="mono" href={link('traces', trace_id, { span: span_id })}>
            {trace_id === within ? `span ${span_id ?? ''}` : trace_id}
          </a>
        </Fact>
      ) : null}
    </dl>
  )
}

function Exception({ exception }: { exception: Record<string, unknown> }) {
  const { type, code, message, context, stack, ...more } = exception
  const frames = Array.isArray(stack) ? stack.map(plain) : stack ? [plain(stack)] : []
  const rest = { ...(context && Object.keys(context).length > 0 ? { context } : {}), ...more }
  return (
    <div class="exception">
      <p>
        <strong class="error">{plain(type ?? 'Error')}</strong> {code ? <span class="tag">{plain(code)}</span> : null}
      </p>
      <p class="error">{plain(message ?? '')}</p>
      {Object.keys(rest).length > 0 ? <pre class="code">{JSON.stringify(rest, null, 2)}</pre> : null}
      {frames.length > 0 ? (
        <pre class="code" tabIndex={0} aria-label="Stack, the innermost call last">
          {frames.join('\n')}
        </pre>
      ) : null}
    </div>
  )
}
