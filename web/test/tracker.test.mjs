// The tracker and <trending-row> in a real Chromium, against a collector that remembers.
import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { createServer } from "node:http";
import { after, before, beforeEach, test } from "node:test";
import { chromium } from "playwright-core";

const file = (name) => readFileSync(new URL(`../../crates/uptake-serve/src/assets/built/${name}`, import.meta.url));
const tile = (id) => `<a href="#${id}" data-uptake-video="${id}" style="display:block;height:200px">${id}</a>`;
const PAGE = `<!doctype html><title>a shop</title><script src="/tracker.js" defer></script>
  <div data-uptake-request="R" data-uptake-row="trending">${tile("v1")}</div>
  <div style="height:3000px"></div><div data-uptake-request="R">${tile("below")}</div>`;

let server, browser, base, events, batches, away, row, streams;

before(async () => {
  server = createServer((request, answer) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/v1/events") {
      let text = "";
      request.on("data", (part) => { text += part; });
      request.on("end", () => {
        if (away) return answer.writeHead(503).end();
        const body = JSON.parse(text);
        batches.push(body);
        events.push(...body.events);
        answer.writeHead(202).end("{}");
      });
    } else if (pathname.endsWith(".js")) {
      answer.writeHead(200, { "content-type": "text/javascript" }).end(file(pathname.slice(1)));
    } else if (pathname === "/v1/rows/trending/stream") {
      answer.writeHead(200, { "content-type": "text/event-stream" });
      streams.push(answer);
      answer.write(`event: row\ndata: ${JSON.stringify(row)}\n\n`);
    } else if (pathname === "/row") {
      answer.writeHead(200, { "content-type": "text/html" }).end(`<!doctype html><title>row</title>
        <script src="/trending-row.js" defer></script><trending-row label="Trending now" limit="3"></trending-row>
        <p id="after">after</p>`);
    } else if (pathname === "/consent") {
      answer.writeHead(200, { "content-type": "text/html" }).end(PAGE.replace("defer", 'data-consent="required" defer'));
    } else {
      answer.writeHead(200, { "content-type": "text/html" }).end(PAGE);
    }
  });
  await new Promise((done) => server.listen(0, "127.0.0.1", done));
  base = `http://127.0.0.1:${server.address().port}`;
  browser = await chromium.launch({ executablePath: "/usr/bin/chromium", args: ["--no-sandbox"] });
});
after(async () => {
  await browser?.close();
  server?.closeAllConnections();
  server?.close();
});
beforeEach(() => {
  [events, batches, streams, away] = [[], [], [], false];
  row = { request_id: "S1", row: "trending", items: ["a", "b", "c"].map((video_id) => ({ video_id, plays: 1, impressions: 2 })) };
});

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (what, is) => {
  for (let n = 0; n < 200 && !(await is()); n++) await pause(50);
  assert.ok(await is(), what);
};
const open = async (path = "/") => {
  const context = await browser.newContext({ viewport: { width: 800, height: 600 } });
  const page = await context.newPage();
  await page.goto(base + path);
  return { context, page };
};
const flush = (page) => page.evaluate(() => window.uptake.flush());
const names = () => events.map((event) => `${event.kind} ${event.video_id}`).sort();

test("half a second is no impression, a second is one, and only once", async () => {
  const { context, page } = await open("/");
  await page.evaluate(() => scrollTo(0, 1500));
  await pause(300);
  events.length = 0;
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
  await pause(500);
  await page.evaluate(() => scrollTo(0, 1500));
  await pause(800);
  await flush(page);
  assert.ok(!names().includes("impression below"), "0.5 s");
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
  await pause(1250);
  await flush(page);
  assert.deepEqual(names().filter((name) => name.endsWith("below")), ["impression below"], "1.2 s");
  await page.evaluate(() => scrollTo(0, 1500));
  await pause(100);
  await page.evaluate(() => scrollTo(0, document.body.scrollHeight));
  await pause(1250);
  await flush(page);
  assert.deepEqual(names().filter((name) => name.endsWith("below")), ["impression below"], "seen again");
  assert.ok(events.every((event) => event.request_id === "R" && event.since_row_ms >= 1000));
  await context.close();
});

test("a click is a play, and rows that come later are watched too", async () => {
  const { context, page } = await open();
  await page.click('[data-uptake-video="v1"]');
  await page.click('[data-uptake-video="v1"]');
  await until("the play arrived", () => names().includes("play v1"));
  await page.evaluate(() => {
    history.pushState({}, "", "/next");
    document.body.insertAdjacentHTML("afterbegin",
      '<div data-uptake-request="R2"><p data-uptake-video="v9" style="height:50px">v9</p></div>');
  });
  await until("the new row was seen", () => names().includes("impression v9"));
  assert.equal(events.find((event) => event.video_id === "v9").request_id, "R2");
  assert.equal(names().filter((name) => name === "play v1").length, 1);
  await context.close();
});

test("what happens while the network or the collector is away arrives later, with its ids", async () => {
  const { context, page } = await open();
  await context.setOffline(true);
  await page.click('[data-uptake-video="v1"]');
  await pause(1300);
  assert.equal(events.length, 0);
  await context.setOffline(false);
  await until("both arrived", () => names().join() === "impression v1,play v1");
  away = true;
  await page.evaluate(() => {
    document.body.insertAdjacentHTML("afterbegin", '<div data-uptake-request="R3"><p data-uptake-video="v3">v3</p></div>');
  });
  await page.click('[data-uptake-video="v3"]');
  await pause(300);
  const stored = await page.evaluate(() => Object.values(localStorage).join());
  assert.ok(stored.includes('"v3"'), "kept for the next page");
  // The page dies; the next one of the site sends it.
  await page.goto("about:blank");
  away = false;
  await page.goto(base);
  await until("it arrived", () => names().includes("play v3"));
  await context.close();
});

test("closing the tab sends the last batch", async () => {
  const { context, page } = await open();
  await pause(1250);
  assert.equal(events.length, 0, "it waits for others");
  await page.close({ runBeforeUnload: true });
  await until("it arrived", () => names().join() === "impression v1");
  await context.close();
});

test("two tabs and the way back do not double", async () => {
  const { context, page } = await open();
  const other = await context.newPage();
  await other.goto(base);
  await page.bringToFront();
  await pause(1300);
  await other.bringToFront();
  await pause(1300);
  await flush(other);
  await page.bringToFront();
  await flush(page);
  await page.goto(base + "/other");
  await page.goBack();
  await pause(1500);
  await flush(page);
  await pause(200);
  const distinct = new Set(events.map((e) => [e.kind, e.request_id, e.video_id, e.timestamp].join()));
  assert.equal(distinct.size, events.length, "no event twice");
  // Two tabs, and the page that was left for a while: each saw it once at most.
  assert.ok(events.length >= 2 && events.length <= 4, String(events.length));
  await context.close();
});

test("without consent nothing is kept or sent", async () => {
  const { context, page } = await open("/consent");
  await page.click('[data-uptake-video="v1"]');
  await pause(1300);
  await flush(page);
  assert.equal(events.length, 0);
  await page.evaluate(() => { window.uptake.consent(true); });
  await until("from now on", () => names().includes("impression v1"));
  await page.evaluate(() => window.uptake.consent(false));
  assert.equal(await page.evaluate(() => localStorage.length), 0);
  await context.close();
});

test("many events go in batches below 64 KiB", async () => {
  const { context, page } = await open();
  await page.evaluate(() => {
    const long = "x".repeat(900);
    const rows = Array.from({ length: 150 }, (_, n) => `<i data-uptake-video="m${n}${long}" style="display:inline-block;width:2px;height:2px"></i>`);
    document.body.insertAdjacentHTML("afterbegin", `<div data-uptake-request="M" style="overflow:hidden;height:40px">${rows.join("")}</div>`);
    for (const video of document.querySelectorAll('[data-uptake-request="M"] i')) window.uptake.play(video);
  });
  await until("all arrived", () => events.filter((event) => event.kind === "play").length === 150);
  assert.ok(batches.every((batch) => JSON.stringify(batch).length < 65_536));
  await context.close();
});

test("a row is labelled, moves nothing under a pointer, can be paused, and is tracked", async () => {
  const { context, page } = await open("/row");
  const titles = () => page.evaluate(() => [...document.querySelector("trending-row").shadowRoot.querySelectorAll("b")].map((b) => b.textContent).join(""));
  const place = await page.evaluate(() => document.getElementById("after").offsetTop);
  await until("it is filled", async () => (await titles()) === "abc");
  assert.equal(await page.evaluate(() => document.getElementById("after").offsetTop), place, "nothing shifted");
  assert.equal(await page.getByRole("region", { name: "Trending now" }).count(), 1);
  const tell = (items, request) => {
    row = { ...row, request_id: request, items: [...items].map((video_id) => ({ video_id, plays: 1, impressions: 2 })) };
    streams.forEach((stream) => stream.write(`event: row\ndata: ${JSON.stringify(row)}\n\n`));
  };
  await page.getByRole("button", { name: "b" }).hover();
  tell("cba", "S2");
  await pause(300);
  assert.equal(await titles(), "abc", "under a pointer");
  await page.mouse.move(700, 500);
  await until("now it may", async () => (await titles()) === "cba");
  await page.getByRole("button", { name: "Pause changes of Trending now" }).click();
  tell("bca", "S3");
  await pause(300);
  assert.equal(await titles(), "cba", "paused");
  await page.getByRole("button", { name: "Pause changes of Trending now" }).click();
  await until("it goes on", async () => (await titles()) === "bca");
  await page.getByRole("button", { name: "b", exact: true }).focus();
  await page.keyboard.press("ArrowRight");
  await page.keyboard.press("Enter");
  await until("the play of the keyboard arrived", () => names().includes("play c"));
  assert.equal(events.find((event) => event.kind === "play").request_id, "S3");
  await page.evaluate(() => window.uptake.flush());
  await until("what was seen too", () => events.some((event) => event.kind === "impression"));
  await context.close();
});
