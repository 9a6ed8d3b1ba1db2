// Which system needs which, as the node's store has it.

import { signal } from '@preact/signals'
import { get } from './api'
import type { Dependency } from './types'

const DEPENDENCIES_MAX = 2000
export const LOOK_EVERY_MS = 15_000

interface Answer {
  dependencies: Dependency[]
  truncated: boolean
}

/** None before the first answer. */
export const dependencies = signal<Answer | null>(null)

export async function lookAtDependencies(): Promise<void> {
  const answer = await get<Answer>('dependencies', { limit: DEPENDENCIES_MAX })
  // The same answer is the same object: who draws it need not draw again.
  if (JSON.stringify(answer) !== JSON.stringify(dependencies.peek())) dependencies.value = answer
}

export const words = (type: string): string => type.replaceAll('_', ' ')
