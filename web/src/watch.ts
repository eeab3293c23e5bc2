// The viewer's page: the three rows, live, and beside them what this page has reported of itself.

import { find } from "./page";
import { showRows, titleOf } from "./rows";
import type { UptakeEvent } from "./tracker";
import type { RowItem } from "./trending-row";

/** The most events that the list shows. */
const SHOWN = 50;

showRows(find("rows"), new URLSearchParams(location.search).get("segment"));

document.addEventListener("uptake-play", (event) => {
  const { video_id } = (event as CustomEvent<RowItem>).detail;
  const title = titleOf(video_id);
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
  const title = titleOf(event.video_id);
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
