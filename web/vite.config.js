import { defineConfig } from 'vite'

// The output depends on the sources and the locked tools only: no dates, no paths, names by content.
export default defineConfig({
  base: './',
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
