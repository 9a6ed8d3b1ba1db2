// Changes: they need the node's token, which is asked for once and kept as long as the tab is open.

import { signal } from '@preact/signals'
import { segment } from './api'
import type { Page } from './paged'
import type { Action, DeadLetter, DeadLetterDetails } from './types'

const TIMEOUT_MS = 15_000
const KEPT_AS = 'polaris-token'
export const DEAD_LETTERS_SHOWN = 50

export const hasToken = signal(sessionStorage.getItem(KEPT_AS) !== null)

export function keepToken(token: string): void {
  sessionStorage.setItem(KEPT_AS, token)
  hasToken.value = true
}

function forgetToken(): void {
  sessionStorage.removeItem(KEPT_AS)
  hasToken.value = false
}

/** The node refused, in its own words. */
export class Refused extends Error {}

async function ask(method: string, path: string, body?: unknown, signal?: AbortSignal): Promise<Response> {
  const headers: Record<string, string> = {}
  const token = sessionStorage.getItem(KEPT_AS)
  if (token !== null) headers['Authorization'] = `Bearer ${token}`
  if (body !== undefined) headers['Content-Type'] = 'application/json'
  const content = body === undefined ? null : JSON.stringify(body)
  const signals = [AbortSignal.timeout(TIMEOUT_MS), ...(signal ? [signal] : [])]
  let answer: Response
  try {
    answer = await fetch(`api/v1/${path}`, { method, headers, body: content, signal: AbortSignal.any(signals) })
  } catch {
    throw new Refused('The node did not answer.')
  }
  if (answer.ok) return answer
  if (answer.status === 401) forgetToken()
  const problem = (await answer.json().catch(() => ({}))) as { title?: string; detail?: string }
  throw new Refused(problem.detail ?? problem.title ?? `The node answered ${answer.status}.`)
}

export const changes = {
  act: async (system: string, action_type: string, parameters: unknown, action_id: string) =>
    (await (
      await ask('POST', `systems/${segment(system)}/actions`, { action_type, parameters, action_id })
    ).json()) as Action,
  deadLetters: async (cursor: string | null, signal?: AbortSignal): Promise<Page<DeadLetter>> => {
    const query = new URLSearchParams({ limit: String(DEAD_LETTERS_SHOWN), ...(cursor ? { cursor } : {}) })
    const answer = await ask('GET', `dead-letters?${query}`, undefined, signal)
    const found = (await answer.json()) as { dead_letters: DeadLetter[]; next_cursor: string | null }
    return { items: found.dead_letters, next: found.next_cursor }
  },
  deadLetter: async (sequence: number) =>
    (await (await ask('GET', `dead-letters/${sequence}`)).json()) as DeadLetterDetails,
  replay: (sequence: number) => ask('POST', `dead-letters/${sequence}/replay`),
  drop: (sequence: number) => ask('DELETE', `dead-letters/${sequence}`),
}
