// The demo in a real Chromium: the loop, what is done to it, and its books.
import assert from "node:assert/strict";
import { after, before, test } from "node:test";
import { mkdirSync } from "node:fs";
import { join } from "node:path";
import { PICTURES, SHAPES, browse, keeps, open, start, tiles, until } from "./support.mjs";

let program, browser, address;

before(async () => {
  // Pictures show what one gets who asks for nothing else; the tests need less of a crowd.
  const crowd = PICTURES ? [] : ["--speed", "600", "--visits-per-second", "60"];
  program = start(["demo", "--listen", "127.0.0.1:0", "--moment", "awards", ...crowd]);
  address = await until("it serves", () => /Open (http:\S+)/.exec(program.said())?.[1], 120);
  browser = await browse();
});
after(async () => {
  await browser?.close();
  await program?.end();
});

const text = (page, id) => page.locator(`#${id}`).innerText();
const state = async () => (await fetch(address + "/state")).json();

test("the crowd comes, rows fill, and the books balance", async () => {
  const { context, page, wrong } = await open(browser, address);
  await until("rows", async () => (await tiles(page, "popular")).length > 5, 60);
  await until("visits", async () => Number((await text(page, "visits")).replaceAll(",", "")) > 50, 60);
  await until("the ledger", async () => (await text(page, "balance")) === "It balances.", 60);
  await until("tallies are compared", async () => /^[\d,]+ tallies equal/.test(await text(page, "check")), 60);
  assert.match(await text(page, "date"), /^Monday 27 February 2012|^Monday, 27 February 2012/);
  // Something rises within the first hours of the night, and the curve is drawn.
  await until("a rise", async () => (await page.locator("#rises tr").count()) > 0, 120);
  await until("the curve", async () => page.locator("#regret canvas").isVisible(), 120);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("time stands still, goes on, and the pipeline comes back when it is killed", async () => {
  const { context, page, wrong } = await open(browser, address);
  await page.click("#pause");
  await until("paused", async () => (await text(page, "pause")) === "Go on");
  const at = (await state()).now;
  assert.equal((await state()).now, at);
  await page.click("#pause");
  await until("it goes on", async () => (await state()).now > at);
  await page.selectOption("#speed", "300");
  await until("slower", async () => (await state()).speed === 300);
  for (const id of ["twice", "held", "clocks"]) {
    await page.click(`#${id}`);
    await until(id, async () => (await page.getAttribute(`#${id}`, "aria-pressed")) === "true");
  }
  await page.click("#kill");
  await until("it started again", async () => (await text(page, "starts")) === "2", 30);
  await until("the story says so", async () => (await text(page, "story")).includes("The pipeline was killed"));
  await page.click("#locked");
  await until("locked", async () => (await page.getAttribute("#locked", "aria-pressed")) === "true");
  await until("free", async () => (await page.getAttribute("#locked", "aria-pressed")) === "false", 60);
  assert.deepEqual(wrong, []);
  await context.close();
});

test("a click of one's own is a play like any other", async () => {
  const { context, page } = await open(browser, address);
  const plays = async (id) => {
    const { epochs = [] } = await (await fetch(new URL(`/v1/videos/${id}`, address))).json();
    return epochs.reduce((sum, epoch) => sum + epoch.plays, 0);
  };
  const sent = page.waitForResponse((answer) => answer.url().endsWith("/v1/events") && answer.request().postData()?.includes("play"), { timeout: 120_000 });
  // The crowd moves the row all the time: a title that left it before it could be clicked is not waited for.
  const { id, before } = await until("a tile is clicked", async () => {
    const [id] = await tiles(page, "popular");
    if (!id) return false;
    const before = await plays(id);
    const tile = page.locator(`trending-row[name=popular] [data-uptake-video="${id}"]`);
    return tile.click({ timeout: 3000 }).then(() => ({ id, before }), () => false);
  }, 60);
  assert.equal((await (await sent).json()).refused, 0);
  await until("it is counted", async () => (await plays(id)) > before, 30);
  await context.close();
});

test("a moment of one's own", async () => {
  const { context, page, wrong } = await open(browser, address);
  await until("the time", async () => (await page.inputValue("#when")).startsWith("2012-02-2"));
  await page.fill("#when", "2012-02-26T23:30");
  await page.click("#seek button");
  await until("it is there", async () => /26 February 2012/.test(await text(page, "date")) && (await text(page, "preparing")) === "", 90);
  await until("the story", async () => (await text(page, "story")).includes("It is 26 February, 23:30."), 30);
  assert.deepEqual(wrong, []);
  await context.close();
});

// Kept where UPTAKE_PICTURES says: `npm run pictures` makes that of the README.
test("the picture of the README", async () => {
  const { context, page, wrong } = await open(browser, address, { width: 1400, height: 1000 });
  const trending = async () => {
    const { loop } = await state();
    return loop?.rises.some((rise) => ["The Artist", "Hugo"].includes(rise.title) && rise.trending);
  };
  await until("an awarded title is trending", trending, 180);
  await until("the curve", async () => page.locator("#regret canvas").isVisible(), 120);
  if (PICTURES) await until("much has happened", async () => (await state()).now > Date.UTC(2012, 1, 27, 5), 300);
  await until("tallies are compared", async () => /^[\d,]+ tallies equal/.test(await text(page, "check")), 60);
  await until("posters", async () => (await tiles(page, "popular")).length > 5, 60);
  if (PICTURES) mkdirSync(PICTURES, { recursive: true });
  const picture = await page.screenshot({ fullPage: true, ...(PICTURES ? { path: join(PICTURES, "demo.png") } : {}) });
  assert.ok(picture.length > 50_000, "there is something on it");
  assert.deepEqual(wrong, []);
  await context.close();
});

for (const shape of SHAPES) {
  test(`axe finds nothing in the demo, ${shape.scheme}, ${shape.width} wide`, async () => {
    await keeps(browser, address, shape, async (page) => {
      await until("rows", async () => (await tiles(page, "popular")).length > 5, 60);
      await until("the books", async () => (await text(page, "balance")) !== "", 30);
      await until("the curve", async () => page.locator("#regret canvas").isVisible(), 120);
    });
  });
}
