// What the tests of pages share: the program, the browser, and what every page must keep to.
import assert from "node:assert/strict";
import { spawn } from "node:child_process";
import { mkdirSync, readFileSync } from "node:fs";
import { join } from "node:path";
import { chromium } from "playwright-core";

const UPTAKE = process.env.UPTAKE;
assert.ok(UPTAKE, "UPTAKE must say where the program is, as ../target/debug/uptake (cargo xtask test does)");
const AXE = readFileSync(new URL("../node_modules/axe-core/axe.min.js", import.meta.url), "utf8");
/** Where pictures of the pages are left to be looked at, if anywhere. */
export const PICTURES = process.env.UPTAKE_PICTURES;

export const pause = (ms) => new Promise((done) => setTimeout(done, ms));

/** Waits until something is there, at most `seconds`. */
export const until = async (what, is, seconds = 10) => {
  for (let n = 0; n < seconds * 40; n++) {
    const found = await is();
    if (found) return found;
    await pause(25);
  }
  assert.fail(what);
};

/** The program with these arguments; `said()` is what it has printed. */
export const start = (args) => {
  let text = "";
  const child = spawn(UPTAKE, args, { stdio: ["ignore", "pipe", "pipe"] });
  child.stdout.on("data", (part) => { text += part; });
  child.stderr.on("data", (part) => { text += part; });
  const ended = new Promise((done) => { child.on("exit", done); });
  const end = () => {
    child.kill("SIGTERM");
    return ended;
  };
  return { said: () => text, ended, end };
};

export const browse = () => chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });

/** A page, and what its console complains of. */
export const open = async (browser, address, { width = 1280, height = 900, scheme = "light" } = {}) => {
  const context = await browser.newContext({ viewport: { width, height }, colorScheme: scheme });
  const page = await context.newPage();
  const wrong = [];
  page.on("console", (message) => { if (["error", "warning"].includes(message.type())) wrong.push(message.text()); });
  page.on("pageerror", (error) => wrong.push(String(error)));
  await page.goto(address);
  return { context, page, wrong };
};

export const tiles = (page, row) => page.evaluate((name) => {
  const list = document.querySelector(`trending-row[name=${name}]`)?.shadowRoot?.querySelector("ol");
  return [...(list?.querySelectorAll("[data-uptake-video]") ?? [])].map((tile) => tile.dataset.uptakeVideo);
}, row);

/** In both themes and three widths: axe finds nothing, the console is silent, nothing is wider than the screen. */
export const SHAPES = ["light", "dark"].flatMap((scheme) => [360, 820, 1400].map((width) => ({ scheme, width })));
export const keeps = async (browser, address, shape, ready) => {
  const { context, page, wrong } = await open(browser, address, shape);
  await ready(page);
  const found = await page.evaluate(`${AXE}; axe.run().then(({ violations }) => violations.map(({ id, nodes }) => [id, ...nodes.map((node) => node.html.slice(0, 160))]))`);
  assert.deepEqual(found, [], address);
  const overflow = await page.evaluate(() => document.documentElement.scrollWidth - innerWidth);
  assert.ok(overflow <= 0, `${address} is ${overflow} px too wide`);
  assert.deepEqual(wrong, [], address);
  if (PICTURES) {
    mkdirSync(PICTURES, { recursive: true });
    const name = new URL(address).pathname.replace(/\W+/g, "") || "watch";
    await page.screenshot({ path: join(PICTURES, `${name}-${shape.scheme}-${shape.width}.png`), fullPage: true });
  }
  await context.close();
};
