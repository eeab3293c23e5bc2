// Opens three pages in a browser that answers itself instead of the servers, and writes down what the trackers send
// them: segment.ndjson, posthog.ndjson, and snowplow.json for enrich.py.
import fs from "node:fs";
import { chromium } from "playwright-core";

const PAGES = [[["v1", "v2", "v3"], "v1"], [["v1", "v2"], "v2"], [["v1", "v4"], undefined]];
const bundle = fs.readFileSync("bundle.js", "utf8");
const sent = { segment: [], posthog: [], snowplow: [] };

const browser = await chromium.launch({ executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium", args: ["--no-sandbox"] });
const context = await browser.newContext({ locale: "pt-BR" });
await context.route("**/*", async (route) => {
  const request = route.request();
  const { host, pathname } = new URL(request.url());
  if (host === "tv.example") {
    const page = "<!doctype html><title>Start</title><script src=/bundle.js></script>";
    return route.fulfill({ contentType: "text/html", body: pathname === "/bundle.js" ? bundle : page });
  }
  if (request.method() === "POST") sent[host.split(".")[0]].push(request.postData());
  const headers = {
    "access-control-allow-origin": "https://tv.example", "access-control-allow-credentials": "true",
    "access-control-allow-headers": "content-type", "access-control-allow-methods": "POST",
  };
  return route.fulfill({ headers, contentType: "application/json", body: "{}" });
});
for (const [number, [titles, played]] of PAGES.entries()) {
  const page = await context.newPage();
  await page.goto(`https://tv.example/start?n=${number + 1}`);
  await page.evaluate(([titles, played]) => window.measure(titles, played), [titles, played]);
  await page.close();
}
await browser.close();

const lines = (records) => records.map((record) => `${record}\n`).join("");
fs.writeFileSync("segment.ndjson", lines(sent.segment));
fs.writeFileSync("posthog.ndjson", lines(sent.posthog.flatMap((body) => JSON.parse(body).batch).map((event) => JSON.stringify(event))));
fs.writeFileSync("snowplow.json", JSON.stringify(sent.snowplow.flatMap((body) => JSON.parse(body).data)));
