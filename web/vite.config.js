import { defineConfig } from 'vite'

const NOT_DRAWN = ['(paths.stepped = stepped);', '(paths.bars    = bars);', '(paths.spline  = monotoneCubic);', 'uPlot.join = join;']

/** Leaves out what uPlot can draw and the page does not: nothing that is not referred to gets into the bundle. */
const plotOfLines = {
  name: 'plot-of-lines',
  transform(code, id) {
    if (!id.endsWith('uPlot.esm.js')) return null
    for (const line of NOT_DRAWN) {
      if (!code.includes(line)) throw new Error(`uPlot has changed: ${line} is not there`)
      code = code.replace(line, '')
    }
    return { code, map: null }
  },
}

// The output depends on the sources and the locked tools only: no dates, no paths, names by content.
export default defineConfig({
  base: './',
  plugins: [plotOfLines],
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  build: {
    outDir: process.env.POLARIS_PAGE_OUT ?? '../src/polaris/dashboard/static',
    emptyOutDir: true,
    target: 'es2022',
    sourcemap: false,
    cssCodeSplit: false,
    assetsInlineLimit: 0,
    modulePreload: false,
    reportCompressedSize: false,
  },
})
