// The viewer's page: the three rows, live, and beside them what this page has reported of itself.

import "./trending-row";
import type { UptakeEvent } from "./tracker";
import type { RowItem, TrendingRow } from "./trending-row";
import { poster } from "./poster";

const ROWS = [
  ["trending", "Trending now", "Nothing is played more than usual right now."],
  ["loved", "Loved by those who see it", "Nothing was shown yet."],
  ["popular", "Popular", "Nothing was played yet."],
] as const;

/** The most events that the list shows. */
const SHOWN = 50;

const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;
const titles = new Map<string, string>();

const describe = (item: RowItem) => {
  const title = item.title ?? item.video_id;
  titles.set(item.video_id, title);
  return { title, image: poster(item.video_id, title) };
};

const segment = new URLSearchParams(location.search).get("segment");
for (const [name, label, empty] of ROWS) {
  const row = document.createElement("trending-row") as TrendingRow;
  row.describe = describe;
  for (const [key, value] of Object.entries({ name, label, empty, limit: "12", ...(segment ? { segment } : {}) })) {
    row.setAttribute(key, value);
  }
  find("rows").append(row);
}

document.addEventListener("uptake-play", (event) => {
  const { video_id } = (event as CustomEvent<RowItem>).detail;
  const title = titles.get(video_id) ?? video_id;
  find("playing").hidden = false;
  find("playing-title").textContent = title;
  find<HTMLAnchorElement>("playing-why").href = `/title?id=${encodeURIComponent(video_id)}`;
});

// ---- What was reported

const list = find("events");
const lines = new Map<string, HTMLElement>();
const key = (event: UptakeEvent) => `${event.kind} ${event.request_id} ${event.video_id}`;

document.addEventListener("uptake-event", (heard) => {
  const event = (heard as CustomEvent<UptakeEvent>).detail;
  const line = document.createElement("tr");
  const title = titles.get(event.video_id) ?? event.video_id;
  const place = event.row ? `${event.row}${event.position ? `, ${event.position}` : ""}` : "";
  for (const text of [new Date(event.timestamp).toLocaleTimeString(), event.kind, title, place, "waits"]) {
    const cell = document.createElement("td");
    cell.textContent = text;
    line.append(cell);
  }
  list.prepend(line);
  lines.set(key(event), line);
  while (list.childElementCount > SHOWN) {
    const last = list.lastElementChild;
    for (const [name, of] of lines) if (of === last) lines.delete(name);
    last?.remove();
  }
  find("no-events").hidden = true;
});

interface Sent {
  events: UptakeEvent[];
  status: number;
  verdicts: { items?: { status: string; reason?: string }[] } | null;
}

document.addEventListener("uptake-sent", (heard) => {
  const { events, status, verdicts } = (heard as CustomEvent<Sent>).detail;
  events.forEach((event, n) => {
    const said = verdicts?.items?.[n];
    const cell = lines.get(key(event))?.lastElementChild;
    if (cell) cell.textContent = said ? (said.reason ?? said.status) : `answered ${status}`;
  });
});
