// The pages in a real Chromium, as the real program serves them, from the event to the row on the screen.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SHAPES, browse, keeps, open, start, tiles, until } from "./support.mjs";

const TITLES = ["The Artist", "Hugo", "Downton Abbey", "The Walking Dead", "Drive", "Moneyball", "Homeland", "Melancholia",
  "The Descendants", "Sherlock", "Tinker Tailor Soldier Spy", "Midnight in Paris"];
let folder, program, browser, base;

const send = async (events) => {
  const answer = await fetch(`${base}/v1/events`, {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(events),
  });
  assert.equal(answer.status, 202);
  assert.equal((await answer.json()).refused, 0);
};

before(async () => {
  folder = mkdtempSync(join(tmpdir(), "uptake-pages-"));
  writeFileSync(join(folder, "titles.csv"), `id,title,year,genres\n${TITLES.map((title, n) => `v${n},${title},2011,Drama`).join("\n")}\n`);
  program = start(["run", "--serve", "127.0.0.1:0", "--data", join(folder, "data"),
    "--set", `rows.catalogue=${join(folder, "titles.csv")}`, "--set", "join.kind=left"]);
  base = await until("it serves", () => /serving on (http:\S+?);/.exec(program.said())?.[1]);
  const now = Date.now();
  const events = [];
  for (const [n] of TITLES.entries()) {
    for (let request = 0; request < 30; request++) {
      const of = { request_id: `seed-${n}-${request}`, video_id: `v${n}`, timestamp: now };
      events.push({ kind: "impression", ...of });
      // The first two are played alike, so one play decides.
      if (request < (n < 2 ? 20 : 18 - n)) events.push({ kind: "play", ...of });
    }
  }
  await send(events);
  // Else an order that is only there while they are counted would be taken for the one to be changed.
  for (const id of ["v0", "v1"]) {
    await until("the seed is counted", async () => {
      const { epochs = [] } = await (await fetch(`${base}/v1/videos/${id}`)).json();
      return epochs.reduce((sum, epoch) => sum + epoch.plays + epoch.impressions, 0) === 20 + 30;
    });
  }
  browser = await browse();
});
after(async () => {
  await browser?.close();
  await program?.end();
  rmSync(folder, { recursive: true, force: true });
});

test("a click is a play that the collector takes, and the row on the screen changes", async () => {
  const { context, page, wrong } = await open(browser, `${base}/`);
  await until("both stand first", async () => (await tiles(page, "popular")).slice(0, 2).join(" ") === "v0 v1");
  const tile = page.locator('trending-row[name=popular] [data-uptake-video="v1"]');
  await tile.scrollIntoViewIfNeeded();
  const begun = Date.now();
  await tile.click();
  await page.mouse.move(5, 5);
  await page.evaluate(() => document.activeElement?.blur());
  await until("the row has changed", async () => (await tiles(page, "popular")).slice(0, 2).join(" ") === "v1 v0");
  // A figure to be read, not judged: how long it takes depends on what else the machine does.
  console.log(`the row on the screen changed ${Date.now() - begun} ms after the click`);
  assert.equal(await page.locator("#playing-title").innerText(), "Hugo");
  await until("the page shows the verdict", async () => /play\s+Hugo\s+popular, 2\s+accepted/.test(await page.locator("#events").innerText()));
  await page.click("#playing-why");
  await until("the title's page", async () => (await page.locator("#name").innerText()) === "Hugo");
  await until("why", async () => (await page.locator("#why").innerText()).includes("Hugo is number 1 of popular"));
  assert.ok(await page.locator("#chart canvas").isVisible());
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a title that nobody has seen is said to be unknown", async () => {
  const { context, page } = await open(browser, `${base}/title?id=nothing`);
  await until("it is said", async () => (await page.locator("#failed").innerText()).includes("cannot be shown"));
  await context.close();
});

const PAGES = [
  ["/", async (page) => until("rows", async () => (await tiles(page, "popular")).length > 5)],
  ["/title?id=v1", (page) => page.locator("#chart canvas").waitFor()],
  ["/docs", (page) => page.locator("section").first().waitFor()],
];
for (const shape of SHAPES) {
  test(`axe finds nothing, ${shape.scheme}, ${shape.width} wide`, async () => {
    for (const [path, ready] of PAGES) await keeps(browser, base + path, shape, ready);
  });
}
