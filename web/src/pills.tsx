// A word with a colour: how something does.

import type { Health } from './types'

const HEALTH_WORDS: Record<Health, string> = {
  healthy: 'healthy',
  warning: 'warning',
  critical: 'critical',
  unhealthy: 'unhealthy',
  unknown: 'unknown',
}

export function Pill({ tone, text, title }: { tone: string; text: string; title?: string | undefined }) {
  return (
    <span class={`pill ${tone}`} title={title}>
      <span class="dot" aria-hidden="true" />
      {text}
    </span>
  )
}

export const HealthPill = ({ health, title }: { health: Health; title?: string }) => (
  <Pill tone={`health-${health}`} text={HEALTH_WORDS[health] ?? health} title={title} />
)
