// Builds the scripts that the program holds, into the crates that hold them.
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const { version } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));

const shared = { bundle: true, minify: true, target: "es2020", format: "iife", logLevel: "warning", define: { __VERSION__: JSON.stringify(version) } };
const sources = (...names) => names.map((name) => `src/${name}.ts`);

await build({
  ...shared,
  entryPoints: sources("tracker", "trending-row", "watch", "title", "row", "pipeline"),
  outdir: "../crates/uptake-serve/src/assets/built",
});
await build({
  ...shared,
  entryPoints: sources("demo"),
  outdir: "../crates/uptake/src/commands/demo",
});
