import { defineConfig } from 'vite'

const NOT_DRAWN = [
  '(paths.stepped = stepped);',
  '(paths.bars    = bars);',
  '(paths.spline  = monotoneCubic);',
  'uPlot.join = join;',
  // Scales that are not linear, and times in words: the page writes its own.
  'sc.distr == 3 ? logAxisSplits : sc.distr == 4 ? asinhAxisSplits : ',
  'sc.distr >= 3 && sc.log == 10 ? log10AxisValsFilt : sc.distr == 3 && sc.log == 2 ? log2AxisValsFilt : ',
  'isTime ? (isStr(sv) ? timeSeriesVal(_tzDate, timeSeriesStamp(sv, _fmtDate)) : sv || _timeSeriesVal) : ',
  ' || _timeAxisVals',
  /^.*const _timeAxisVals .*$/m,
  /^.*const _timeSeriesVal .*$/m,
  /^.*uPlot\.fmtDate = fmtDate;$/m,
  /timeAxisVals(?=\(_tzDate, timeAxisStamps\(av)/,
  /timeAxisStamps(?=\(av, _fmtDate\))/,
  /timeAxisVal(?=\(_tzDate, av\))/,
  /^\s*(sc\.)?distr == (3|4|100)\s*\? .*:$/gm,
  'sc.distr == 3 ? snapLogX : sc.distr == 4 ? snapAsinhX : ',
  'sc.distr == 3 ? snapLogY : sc.distr == 4 ? snapAsinhY : ',
  /distr == 3 \? log10\(sc\.m..\) : .*\.fwd\(sc\.m..\) : /g,
  /if \(xScaleDistr == 3\)\s.*rangeLog.*\s.*== 4\)\s.*rangeAsinh.*\s*else /,
  /^uPlot\.range(Log|Asinh) = .*$/gm,
  // Series and bands that come and go.
  /^\tself\.((add|del)(Series|Band)|setBand) = .*$/gm,
]
/** Whether there is a legend, and one of many columns. */
const LEGEND = /(?<=const showLegend = |multiValLegend = )(legend\.show|getMultiVals != null)(?=;)/g
/** The rules for a legend. */
const NOT_STYLED = /\.u-(legend|inline|series|title)[^{}]*\{[^}]*\}/g

/** Leaves out what uPlot can draw and the page does not: nothing that is not referred to gets into the bundle. */
const plotOfLines = {
  name: 'plot-of-lines',
  enforce: 'pre',
  transform(code, id) {
    if (id.endsWith('uPlot.min.css')) return { code: code.replaceAll(NOT_STYLED, ''), map: null }
    if (!id.endsWith('uPlot.esm.js')) return null
    const changed = (part, into) => {
      const next = code.replace(part, into)
      if (next === code) throw new Error(`uPlot has changed: ${part} is not there`)
      code = next
    }
    NOT_DRAWN.forEach((part) => changed(part, ''))
    changed(LEGEND, 'false')
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
