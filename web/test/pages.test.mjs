// The pages in a real Chromium, as the real program serves them, from the event to the row on the screen.
import assert from "node:assert/strict";
import { mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, before, test } from "node:test";
import { SHAPES, browse, keeps, open, pause, start, tiles, until } from "./support.mjs";

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
  // What only the reader finds unusable: a collector would refuse it.
  writeFileSync(join(folder, "bad.jsonl"), "not an event\n");
  await start(["append", join(folder, "bad.jsonl"), "--data", join(folder, "data")]).ended;
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
  // Scrolls to it first: else that would count as time the row takes.
  await tile.click({ trial: true });
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
  await until("its places", async () => page.locator("#places canvas").isVisible());
  await page.click("#found details summary");
  assert.match(await page.locator("#epochs tr").first().innerText(), /\d+ % \([\d.]+–[\d.]+\)\s+\d+\s+may grow/);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a row with its numbers, for who is responsible for it", async () => {
  const { context, page, wrong } = await open(browser, `${base}/row?name=popular`);
  await until("the row", async () => (await page.locator("#items tr").count()) === TITLES.length);
  await page.locator("#items summary").first().click();
  await until("why", async () => (await page.locator("#items details p").first().innerText()).includes("is number 1 of popular"));
  assert.match(await page.locator("#items tr").first().innerText(), /\d %\s+±/);
  await page.selectOption("#name", "loved");
  await until("another row", async () => page.url().includes("name=loved"));
  assert.deepEqual(wrong, []);
  await context.close();
});

test("the pipeline's page says how old the row is, and appends dead letters again", async () => {
  const { context, page, wrong } = await open(browser, `${base}/pipeline`);
  await until("dead letters", async () => (await page.locator("#letters").innerText()).startsWith("1 dead letters: 1 not-json."));
  assert.ok((await page.locator("#newest").innerText()).includes("not an event"));
  await page.click("#count");
  await until("tried", async () => (await page.locator("#replayed").innerText()).startsWith("0 could be used"));
  await page.click("#again");
  await until("appended", async () => (await page.locator("#replayed").innerText()).startsWith("0 were appended"));
  await until("it balances", async () => (await page.locator("#balance").innerText()).endsWith("it balances."));
  // A play of a title that nobody has played for a while is measured on its way to the row.
  await open(browser, `${base}/`).then(async ({ context: other, page: rows }) => {
    await until("rows", async () => (await tiles(rows, "popular")).length > 5);
    await pause(5500);
    const { request_id } = await (await fetch(`${base}/v1/rows/popular?limit=1`)).json();
    const of = { request_id, video_id: "v11", timestamp: Date.now() };
    await send([{ kind: "impression", ...of }, { kind: "play", ...of }]);
    await until("the age", async () => /^[\d,]+ ms$/.test(await page.locator("#age").innerText()), 20);
    await other.close();
  });
  assert.deepEqual(wrong, []);
  await context.close();
});

test("the pipeline's page says what an entry of the books is made of", async () => {
  const { context, page, wrong } = await open(browser, `${base}/`);
  const counts = { read: 2105, counted: 1000, waiting: 180, expired: 900, filtered: 4, dead: 6, duplicate: 7, late: 3, capped: 0, gap: 5 };
  const books = { ...counts, expired_plays: 12, spilled: 10, checkpoint: "1", created_ms: Date.now(), watermark_ms: null, state_bytes: 1, balances: true,
    dead_by_reason: { "not-json": 6, "no-kind": 0 }, filtered_by_rule: { "user=bot": 4 }, late_by_age: { "0-1h": 3 } };
  await page.route("**/v1/pipeline", (route) => route.fulfill({ json: { newest_checkpoint: books, lag: 0, partitions: [], row_age_ms: null } }));
  await page.goto(`${base}/pipeline`);
  await until("the books balance", async () => (await page.locator("#balance").innerText()).endsWith("it balances."));
  const entries = await page.locator("#entries").innerText();
  for (const made of [/expired\s+900\s.*: 888 impressions, 12 plays/, /waiting\s+180\s.*: 10 requests on disk/, /dead\s+6\s.*: 6 not-json\n/,
    /filtered\s+4\s.*: 4 user=bot/, /late\s+3\s.*: 3 0-1h/, /duplicate\s+7\s.*delivered again\n/, /gap\s+5\s.*declared lost/]) assert.match(entries, made);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a page that follows what happens can be paused", async () => {
  for (const [path, asked, button] of [["/row", "**/inspect?*", "Pause changes of the row"], ["/pipeline", "**/v1/pipeline", "Pause changes of this page"]]) {
    const { context, page } = await open(browser, "about:blank");
    let looks = 0;
    await page.route(asked, (route) => { looks++; return route.continue(); });
    await page.goto(base + path);
    await until("it looks again", () => looks >= 2);
    const pauses = page.getByRole("button", { name: button });
    await pauses.click();
    assert.equal(await pauses.getAttribute("aria-pressed"), "true");
    const then = looks;
    await pause(3500);
    assert.equal(looks, then, path);
    await pauses.click();
    await until("it goes on at once", () => looks === then + 1, 1);
    await context.close();
  }
});

test("what goes wrong is said once, not at every look", async () => {
  const { context, page } = await open(browser, "about:blank");
  await page.route("**/v1/dead-letters?*", (route) => route.fulfill({ status: 503, json: { detail: "the disk is away" } }));
  await page.goto(`${base}/pipeline`);
  await until("it is said", async () => (await page.locator("#failed").innerText()) === "the disk is away");
  await page.evaluate(() => {
    window.written = 0;
    new MutationObserver((changes) => { window.written += changes.length; })
      .observe(document.getElementById("failed"), { attributes: true, childList: true, characterData: true, subtree: true });
  });
  await pause(5000);
  assert.equal(await page.locator("#failed").innerText(), "the disk is away");
  // That it is there is set again, to what it is.
  assert.equal(await page.evaluate(() => window.written), 0);
  await page.unroute("**/v1/dead-letters?*");
  await until("it is taken back", async () => page.locator("#failed").isHidden());
  await context.close();
});

test("the curve of the pipeline's page is a table too", async () => {
  const { context, page } = await open(browser, `${base}/pipeline`);
  await page.locator("#rates canvas").waitFor();
  assert.equal(await page.getByRole("img", { name: "records appended and read a second" }).count(), 1);
  await page.click("#rates-found summary");
  assert.match(await page.locator("#minutes tr").first().innerText(), /^\d\d:\d\d\s+[\d,]+/);
  await context.close();
});

test("where one can write or choose stands out from the page, three to one", async () => {
  for (const scheme of ["light", "dark"]) {
    for (const path of ["/row", "/title?id=v1"]) {
      const { context, page } = await open(browser, base + path, { scheme });
      const ratios = await page.evaluate(() => {
        const light = (colour) => {
          const [r, g, b] = colour.match(/\d+/g).map((n) => (n / 255 <= 0.04045 ? n / 255 / 12.92 : ((n / 255 + 0.055) / 1.055) ** 2.4));
          return 0.2126 * r + 0.7152 * g + 0.0722 * b + 0.05;
        };
        const ratio = (one, other) => Math.max(light(one) / light(other), light(other) / light(one));
        return [...document.querySelectorAll("input, select, button")].map((of) => {
          const { borderTopColor: edge, backgroundColor: inside } = getComputedStyle(of);
          return Math.min(ratio(edge, inside), ratio(edge, getComputedStyle(document.body).backgroundColor));
        });
      });
      assert.ok(ratios.length >= 3 && Math.min(...ratios) >= 3, `${path} ${scheme}: ${ratios}`);
      await context.close();
    }
  }
});

test("an editor pins a title on its page, and ends the rule", async () => {
  const { context, page, wrong } = await open(browser, `${base}/title?id=v9`);
  await page.locator("#chart canvas").waitFor();
  await page.fill("#note", "for the festival");
  await page.selectOption("#in-row", "popular");
  await page.click("#rule button");
  await until("the rule", async () => (await page.locator("#rules").innerText()).includes("It stands at place 1 in popular for everyone until"));
  assert.ok((await page.locator("#rules").innerText()).includes("for the festival"));
  const first = async () => (await (await fetch(`${base}/v1/rows/popular?limit=1`)).json()).items[0].video_id;
  await until("it stands there", async () => (await first()) === "v9");
  await until("why says so", async () => (await page.locator("#why").innerText()).includes("a person pinned it"));
  await page.click("#rules button");
  await until("it is ended", async () => (await page.locator("#no-rules").isVisible()) && (await first()) !== "v9");
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
  ["/row?name=popular", (page) => page.locator("#items details").first().waitFor()],
  ["/pipeline", async (page) => {
    await page.locator("#rates canvas").waitFor();
    await until("the books balance", async () => (await page.locator("#balance").innerText()).endsWith("it balances."));
    await page.locator("#newest tr").first().waitFor();
  }],
  ["/docs", (page) => page.locator("section").first().waitFor()],
];
for (const shape of SHAPES) {
  test(`axe finds nothing, ${shape.scheme}, ${shape.width} wide`, async () => {
    for (const [path, ready] of PAGES) await keeps(browser, base + path, shape, ready);
  });
}
