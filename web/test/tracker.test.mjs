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

const ROW = '<trending-row label="Trending now" limit="3"></trending-row>';

/** `away` is the status with which the collector refuses everything; `asked` how often it was. */
let server, browser, base, events, batches, away, asked, row, streams;

before(async () => {
  server = createServer((request, answer) => {
    const { pathname } = new URL(request.url, "http://localhost");
    if (pathname === "/v1/events") {
      let text = "";
      request.on("data", (part) => { text += part; });
      request.on("end", () => {
        asked++;
        if (away) return answer.writeHead(away).end();
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
        <script src="/trending-row.js" defer></script>${ROW}
        <p id="after">after</p>`);
    } else if (pathname === "/both") {
      answer.writeHead(200, { "content-type": "text/html" }).end(`<!doctype html><title>both</title>
        <script src="/trending-row.js" defer></script><script src="/tracker.js" data-consent="required" defer></script>${ROW}`);
    } else if (pathname === "/polled") {
      answer.writeHead(200, { "content-type": "text/html" }).end(`<!doctype html><title>polled</title>
        <script src="/trending-row.js" defer></script>${ROW.replace("label", 'name="polled" label')}`);
    } else if (pathname === "/v1/rows/polled") {
      streams.push(answer);
      answer.writeHead(200, { "content-type": "application/json", "cache-control": "private, max-age=60" });
      answer.end(JSON.stringify({ ...row, request_id: `P${streams.length}` }));
    } else if (pathname === "/v1/rows/polled/stream") {
      answer.writeHead(404).end();
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
  [events, batches, streams, away, asked] = [[], [], [], 0, 0];
  row = { request_id: "S1", row: "trending", items: ["a", "b", "c"].map((video_id) => ({ video_id, plays: 1, impressions: 2 })) };
});

const pause = (ms) => new Promise((done) => setTimeout(done, ms));
const until = async (what, is) => {
  for (let n = 0; n < 200 && !(await is()); n++) await pause(50);
  assert.ok(await is(), what);
};
const open = async (path = "/", before = async () => {}) => {
  const context = await browser.newContext({ viewport: { width: 800, height: 600 } });
  const page = await context.newPage();
  await before(page);
  await page.goto(base + path);
  return { context, page };
};
const flush = (page) => page.evaluate(() => window.uptake.flush());
/** Waits until all that was sent is answered: the collector has it before the page knows. */
const answered = (page) => until("it was answered", () => page.evaluate(
  () => !Object.keys(localStorage).some((key) => key.startsWith("uptake-queue-"))));
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
  away = 503;
  await page.evaluate(() => {
    document.body.insertAdjacentHTML("afterbegin", '<div data-uptake-request="R3"><p data-uptake-video="v3">v3</p></div>');
  });
  await page.click('[data-uptake-video="v3"]');
  await until("kept for the next page", () => page.evaluate(() => Object.values(localStorage).join().includes('"v3"')));
  // The page dies; the next one of the site sends it.
  await page.goto("about:blank");
  away = 0;
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
  await answered(other);
  await page.bringToFront();
  await flush(page);
  await answered(page);
  await page.goto(base + "/other");
  await page.goBack();
  await pause(1500);
  await flush(page);
  await answered(page);
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

test("consent that is withdrawn takes along what earlier pages left", async () => {
  const { context, page } = await open();
  const left = { kind: "play", request_id: "E", video_id: "earlier", timestamp: 1 };
  await page.evaluate((event) => {
    localStorage.setItem("uptake-queue-damaged", "{");
    localStorage.setItem("uptake-queue-earlier", JSON.stringify([event]));
    localStorage.setItem("another", "the shop's own");
    window.uptake.consent(false);
  }, left);
  assert.deepEqual(await page.evaluate(() => Object.keys(localStorage)), ["another"]);
  await page.evaluate(() => window.uptake.consent(true));
  await until("what is in view", () => names().includes("impression v1"));
  assert.ok(!names().includes("play earlier"));
  await answered(page);
  // On its way when consent was withdrawn, and refused: it is not taken up again.
  away = 503;
  await page.evaluate(() => {
    window.uptake.play(document.querySelector("[data-uptake-video]"));
    void window.uptake.flush();
    window.uptake.consent(false);
    window.uptake.consent(true);
  });
  await until("it was refused", () => asked > 1);
  away = 0;
  await pause(1500);
  assert.ok(!names().includes("play v1"));
  await context.close();
});

test("consent counts for a row that is in view, also beside the tag of trending-row.js", async () => {
  const { context, page } = await open("/both");
  await until("it is filled", () => page.evaluate(() => document.querySelector("trending-row").shadowRoot?.querySelector("b")));
  await page.getByRole("button", { name: "b" }).click();
  await page.mouse.move(700, 500);
  await pause(1500);
  await flush(page);
  assert.equal(asked, 0, "before consent");
  await page.evaluate(() => window.uptake.consent(true));
  await until("the row was seen", () => names().join() === "impression a,impression b,impression c");
  await context.close();
});

test("who sees something new all the time is reported meanwhile, and what failed is tried again", async () => {
  const { context, page } = await open();
  const keepOn = (what, every) => page.evaluate(([what, every]) => {
    let n = 0;
    window.busy = setInterval(() => {
      const id = `${what}${n++}`;
      document.body.insertAdjacentHTML("afterbegin", `<div data-uptake-request="N"><p data-uptake-video="${id}" style="height:9px;margin:0">${id}</p></div>`);
      if (what === "played") window.uptake.play(document.querySelector("[data-uptake-video]"));
    }, every);
  }, [what, every]);
  await keepOn("seen", 400);
  await pause(4500);
  assert.ok(names().includes("impression seen0"), "two seconds after the first");
  await page.evaluate(() => clearInterval(window.busy));
  await pause(1200);
  await flush(page);
  [away, asked] = [408, 0];
  await keepOn("played", 200);
  await until("it is tried again while more comes", () => asked >= 2);
  away = 0;
  await until("it arrived", () => names().includes("play played0"));
  await context.close();
});

test("what a tab that is put aside cannot send is sent later", async () => {
  const { context, page } = await open();
  await pause(1250);
  away = 503;
  await page.evaluate(() => {
    Object.defineProperty(document, "hidden", { value: true, configurable: true });
    document.dispatchEvent(new Event("visibilitychange"));
  });
  await until("it was tried", () => asked === 1);
  away = 0;
  await until("it arrived", () => names().join() === "impression v1");
  // The collector has it before the page knows.
  await until("and nothing is kept any longer", () => page.evaluate(() => !localStorage.length));
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

/** Another row comes to who follows it. */
const tell = (items, request, plays = 1) => {
  row = { ...row, request_id: request, items: [...items].map((video_id) => ({ video_id, plays, impressions: 2 * plays })) };
  streams.forEach((stream) => stream.write(`event: row\ndata: ${JSON.stringify(row)}\n\n`));
};
const shown = (page) => page.evaluate(() => {
  const list = document.querySelector("trending-row").shadowRoot?.querySelector("ol");
  return { request: list?.dataset.uptakeRequest, titles: [...(list?.querySelectorAll("b") ?? [])].map((b) => b.textContent).join("") };
});

test("a row is labelled, moves nothing under a pointer, can be paused, and is tracked", async () => {
  const { context, page } = await open("/row");
  const titles = () => page.evaluate(() => [...document.querySelector("trending-row").shadowRoot.querySelectorAll("b")].map((b) => b.textContent).join(""));
  const place = await page.evaluate(() => document.getElementById("after").offsetTop);
  await until("it is filled", async () => (await titles()) === "abc");
  assert.equal(await page.evaluate(() => document.getElementById("after").offsetTop), place, "nothing shifted");
  assert.equal(await page.getByRole("region", { name: "Trending now" }).count(), 1);
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

test("a row of which only numbers change is one request, and each title in it is seen once", async () => {
  const { context, page } = await open("/row");
  await until("it is filled", async () => (await shown(page)).titles === "abc");
  await page.evaluate(() => {
    const row = document.querySelector("trending-row");
    row.describe = ({ video_id, plays }) => ({ title: `${video_id}${plays}` });
    document.addEventListener("uptake-play", (event) => { window.played = event.detail.plays; });
    window.first = row.shadowRoot.querySelector("[data-uptake-video]");
  });
  for (let n = 2; n <= 20; n++) {
    tell("abc", `S${n}`, n);
    await pause(150);
  }
  assert.deepEqual(await shown(page), { request: "S1", titles: "a20b20c20" });
  await page.getByRole("button", { name: "a20" }).click();
  assert.equal(await page.evaluate(() => window.played), 20, "a play has the newest numbers");
  assert.ok(await page.evaluate(() => window.first.isConnected), "no tile was replaced");
  await flush(page);
  await until("they arrived", () => names().join() === "impression a,impression b,impression c,play a");
  assert.ok(events.every(({ request_id }) => request_id === "S1"));
  await context.close();
});

test("a row whose order changes all the time stays long enough to be seen", async () => {
  const { context, page } = await open("/row");
  await until("it is filled", async () => (await shown(page)).titles === "abc");
  const begun = Date.now();
  for (let n = 2; Date.now() - begun < 4000; n++) {
    tell(n % 2 ? "abc" : "cba", `S${n}`);
    await pause(150);
    assert.equal((await shown(page)).request, "S1");
  }
  tell("bca", "LAST");
  await until("the newest comes by itself", async () => (await shown(page)).titles === "bca");
  assert.equal((await shown(page)).request, "LAST");
  assert.ok(Date.now() - begun > 4500);
  await flush(page);
  await until("all were seen", () => names().join() === "impression a,impression b,impression c");
  assert.ok(events.every(({ request_id }) => request_id === "S1"));
  await context.close();
});

test("a row that stays for long becomes another request", async () => {
  const { context, page } = await open("/row", (page) => page.clock.install());
  await until("it is filled", async () => (await shown(page)).titles === "abc");
  await page.clock.fastForward("29:00");
  tell("abc", "S2", 2);
  await pause(300);
  assert.equal((await shown(page)).request, "S1");
  await page.clock.fastForward("02:00");
  tell("abc", "S3", 3);
  await until("another request", async () => (await shown(page)).request === "S3");
  await context.close();
});

test("a row that is asked for now and then is no row of a cache", async () => {
  const { context, page } = await open("/polled");
  await until("the first", async () => (await shown(page)).request === "P1");
  await page.goto(base + "/polled");
  await until("another", async () => (await shown(page)).request === "P2");
  await context.close();
});
