// A small curve beside a number: the last while, without axes. The number says the same in words.

const WIDTH = 100
const HEIGHT = 28

const SLOTS_MIN = 16

/** `values` from old to new, at most `most`; null is a gap. A short past stands on the right and soon fills the width. */
export function Spark({ values, most }: { values: readonly (number | null)[]; most: number }) {
  const shown = values.slice(-most)
  const slots = Math.max(SLOTS_MIN, shown.length)
  const known = shown.filter((value) => value !== null)
  if (known.length < 2) return <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} aria-hidden="true" />
  const [low, high] = [Math.min(...known), Math.max(...known)]
  // What hardly moves shall look so: the span is at least a tenth of the value.
  const span = Math.max(high - low, Math.abs(high) * 0.1, 1e-9)
  const middle = (low + high) / 2
  const x = (index: number): number => WIDTH - ((shown.length - 1 - index) * WIDTH) / (slots - 1)
  const y = (value: number): number => HEIGHT / 2 - ((value - middle) / span) * (HEIGHT - 6)
  const runs: string[][] = [[]]
  shown.forEach((value, index) => {
    if (value === null) runs.push([])
    else runs[runs.length - 1]?.push(`${x(index).toFixed(1)},${y(value).toFixed(1)}`)
  })
  const drawn = runs.filter((run) => run.length > 1)
  return (
    <svg class="spark" viewBox={`0 0 ${WIDTH} ${HEIGHT}`} preserveAspectRatio="none" aria-hidden="true">
      {drawn.map((run) => (
        <>
          <polygon points={`${run[0]?.split(',')[0]},${HEIGHT} ${run.join(' ')} ${run.at(-1)?.split(',')[0]},${HEIGHT}`} />
          <polyline points={run.join(' ')} />
        </>
      ))}
    </svg>
  )
}
