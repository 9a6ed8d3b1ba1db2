// What was asked of the systems, and why.

import '../styles/adaptations.css'

export function AdaptationsView() {
  return <h2>Adaptations</h2>
}
