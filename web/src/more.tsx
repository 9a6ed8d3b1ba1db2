// The way to the rest of a list that is held in memory and too long to be drawn at once.

/** `hidden` is how many are left; with none there is nothing to click. */
export function More({ hidden, more }: { hidden: number; more: () => unknown }) {
  return hidden > 0 ? (
    <div class="older">
      <button type="button" class="button" onClick={more}>
        Show more ({hidden})
      </button>
    </div>
  ) : null
}
