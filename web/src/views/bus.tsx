// What goes through the bus, and what was put aside.

import { DeadLetters } from '../deadletters'
import '../styles/bus.css'

export function BusView() {
  return <DeadLetters />
}
