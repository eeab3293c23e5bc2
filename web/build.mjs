// Builds the scripts that the program holds, into the crates that hold them.
import { readFileSync } from "node:fs";
import { build } from "esbuild";

const { version } = JSON.parse(readFileSync(new URL("package.json", import.meta.url), "utf8"));

const SERVER = "../crates/uptake-serve/src/assets/built";
const shared = { bundle: true, minify: true, target: "es2020", format: "iife", logLevel: "warning", define: { __VERSION__: JSON.stringify(version) } };
const sources = (...names) => names.map((name) => `src/${name}.ts`);
/** Under the name that pages ask for. */
const scripts = (...names) => names.map((name) => ({ in: `src/${name}-script.ts`, out: name }));

await build({
  ...shared,
  entryPoints: scripts("tracker", "trending-row"),
  outdir: SERVER,
});
await build({
  ...shared,
  entryPoints: sources("watch", "title", "row", "pipeline"),
  outdir: SERVER,
});
await build({
  ...shared,
  entryPoints: sources("demo"),
  outdir: "../crates/uptake/src/commands/demo",
});
