import { defineConfig } from "vitest/config";

// `base` is relative, so that the console also works behind a proxy that has it elsewhere.
export default defineConfig({
  base: "./",
  build: {
    outDir: "../.build/console",
    emptyOutDir: true,
    target: "es2023",
    assetsInlineLimit: 0, // The policy allows no data: URLs.
    modulePreload: { polyfill: false },
    license: { fileName: "assets/licences.txt" },
  },
  test: { include: ["test/**/*.test.ts"] },
});
