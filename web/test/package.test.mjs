// What a user of the npm package gets: packed, unpacked elsewhere, type-checked, bundled, and run in a browser.
import assert from "node:assert/strict";
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { createServer } from "node:http";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { test } from "node:test";
import { build } from "esbuild";
import { browse, until } from "./support.mjs";

const web = fileURLToPath(new URL("..", import.meta.url));
const SCRIPT = `
import { start, type Uptake } from "uptake-web";
import { TrendingRow } from "uptake-web/trending-row";
const uptake: Uptake = start({ endpoint: location.origin, key: "K", member: "m1", consent: "required" });
document.addEventListener("agreed", () => uptake.consent(true));
document.title = String(customElements.get("trending-row") === TrendingRow && start({}) === uptake);
`;
/** As a page loads a bundle. What the tag of a bundle says is not said to the tracker. */
const TAGS = { esm: '<script type="module" src="/main.js"></script>', iife: '<script src="/main.js" data-key="OTHER" data-member="m2" defer></script>' };
const ROW = { request_id: "T", row: "trending", items: [{ video_id: "v2", plays: 1, impressions: 2 }] };

for (const format of Object.keys(TAGS)) test(`the npm package types, bundles as ${format} and reports`, { timeout: 60_000 }, async () => {
  const place = mkdtempSync(join(tmpdir(), "uptake-package-"));
  const [events, keys] = [[], new Set()];
  let server, browser;
  try {
    execFileSync("npm", ["pack", "--silent", "--pack-destination", place], { cwd: web, stdio: ["ignore", "ignore", "inherit"] });
    const into = join(place, "node_modules/uptake-web");
    mkdirSync(into, { recursive: true });
    execFileSync("sh", ["-c", `tar xzf ${place}/uptake-web-*.tgz -C ${into} --strip-components=1`]);
    writeFileSync(join(place, "main.ts"), SCRIPT);
    const options = { strict: true, noEmit: true, module: "esnext", moduleResolution: "bundler", target: "es2020", lib: ["es2020", "dom"], types: [] };
    writeFileSync(join(place, "tsconfig.json"), JSON.stringify({ compilerOptions: options, files: ["main.ts"] }));
    execFileSync(join(web, "node_modules/.bin/tsc"), ["--project", place], { stdio: "inherit" });
    const bundle = await build({ entryPoints: [join(place, "main.ts")], bundle: true, write: false, format, logLevel: "error" });
    const page = `<!doctype html>${TAGS[format]}<trending-row></trending-row>
      <div data-uptake-request="R" data-uptake-row="home"><a href="#v1" data-uptake-video="v1" data-uptake-position="1">v1</a></div>`;
    server = createServer((request, answer) => {
      if (request.url === "/v1/events") {
        let text = "";
        request.on("data", (part) => { text += part; });
        request.on("end", () => {
          const body = JSON.parse(text);
          events.push(...body.events);
          keys.add(body.key);
          answer.writeHead(202).end("{}");
        });
      } else if (request.url.startsWith("/v1/rows/trending/stream")) {
        answer.writeHead(200, { "content-type": "text/event-stream" }).write(`event: row\ndata: ${JSON.stringify(ROW)}\n\n`);
      } else if (request.url === "/main.js") {
        answer.writeHead(200, { "content-type": "text/javascript" }).end(bundle.outputFiles[0].text);
      } else {
        answer.writeHead(200, { "content-type": "text/html" }).end(page);
      }
    }).listen(0, "127.0.0.1");
    await new Promise((then) => server.once("listening", then));
    browser = await browse();
    const shown = await browser.newPage();
    await shown.goto(`http://127.0.0.1:${server.address().port}/`);
    assert.equal(await shown.title(), "true", "the element is defined, and there is one tracker");
    await shown.click("a");
    await shown.getByRole("button", { name: "v2" }).click();
    await shown.waitForTimeout(300);
    assert.deepEqual(events, [], "nothing before consent");
    await shown.evaluate(() => document.dispatchEvent(new Event("agreed")));
    await shown.click("a");
    await shown.getByRole("button", { name: "v2" }).click();
    await until("both plays", () => events.filter((event) => event.kind === "play").length === 2);
    assert.deepEqual(events.map((event) => [event.kind, event.request_id, event.video_id, event.position, event.member_id].join(" ")).sort(),
      ["impression R v1 1 m1", "impression T v2 1 m1", "play R v1 1 m1", "play T v2 1 m1"]);
    assert.deepEqual([...keys], ["K"]);
  } finally {
    await browser?.close();
    server?.closeAllConnections();
    server?.close();
    rmSync(place, { recursive: true, force: true });
  }
});
