// The parts of the node and how they do.

import { span } from './format'
import { HealthPill } from './pills'
import { link } from './route'
import { components, loaded, now } from './store'

export function Components() {
  const all = components.value
  return (
    <section class="components" aria-labelledby="components-title">
      <div class="row head">
        <h2 id="components-title">Components</h2>
        {all.length > 0 ? (
          <a class="small" href={link('node')}>
            Health
          </a>
        ) : null}
      </div>
      {all.length === 0 ? (
        <p class="waiting card">{loaded.value ? 'The node reports no components.' : 'Waiting for the node …'}</p>
      ) : (
        <ul class="card list">
          {all.map((component) => (
            <li key={component.name} data-component={component.name}>
              <span class="row">
                <strong class="clip">{component.name}</strong>
                <HealthPill health={component.status} />
              </span>
              <span class="row small muted">
                <span>{component.message || (component.status === 'healthy' ? 'works' : '')}</span>
                {component.since ? <span class="fixed">for {span((now.value - Date.parse(component.since)) / 1000)}</span> : null}
              </span>
            </li>
          ))}
        </ul>
      )}
    </section>
  )
}
