// <trending-row>: a row of videos that follows what trends, without moving under anybody's pointer.
//
//   <trending-row name="trending" label="Trending now" limit="8"></trending-row>
//
// Attributes: name (popular, loved, trending), segment, limit, label, endpoint, and empty: what to say where
// there is nothing to show. A page says what a
// video looks like with `element.describe = (item) => ({ title, image, href })`, and hears of
// plays as the event `uptake-play`. What is seen and played in it is reported once the page's tracker runs.

import type {} from "./tracker.js";

export interface RowItem {
  video_id: string;
  plays: number;
  impressions: number;
  /** What the server's catalogue calls it, if it has one. */
  title?: string;
  year?: number;
  genres?: string[];
}

export interface Description {
  title: string;
  image?: string;
  href?: string;
}

interface Row {
  request_id: string;
  row: string;
  items: RowItem[];
}

/** Other videos come at most so often: to be seen takes a second, and a row that never rests is not read. */
const STAY_MS = 5000;
/** A row that does not change keeps its request for so long. A play counts if its impression is no older than
 * `join.horizon`, so this is well below it. */
const REQUEST_MS = 30 * 60_000;

const STYLE = `
:host { display: block; font: inherit; color: inherit; }
header { display: flex; align-items: baseline; gap: .75rem; }
h2 { font-size: 1.1em; margin: 0 0 .5rem; }
ol { display: grid; grid-auto-flow: column; grid-auto-columns: var(--trending-row-tile, 10rem); gap: .75rem;
  overflow-x: auto; list-style: none; margin: 0; padding: .25rem; min-height: var(--trending-row-height, 7.5rem);
  overflow-anchor: none; }
li { display: flex; min-width: 0; }
li > * { flex: 1; display: flex; flex-direction: column; gap: .35rem; justify-content: flex-start; min-width: 0; font: inherit; color: inherit; text-align: left; text-decoration: none; padding: .5rem;
  border: 1px solid color-mix(in srgb, currentColor 25%, transparent); border-radius: .5rem; background: transparent;
  overflow: hidden; cursor: pointer; }
li.empty { display: block; grid-column: 1 / -1; width: max-content; max-width: 100%; align-items: center; opacity: .8; }
img { display: block; width: 100%; aspect-ratio: 16 / 9; object-fit: cover; border-radius: .25rem; }
b { display: block; font-weight: 600; overflow: hidden; text-overflow: ellipsis; white-space: nowrap; }
:focus-visible { outline: 2px solid currentColor; outline-offset: 2px; }
header button { font: inherit; font-size: .85em; color: inherit; background: none; border: 1px solid; border-radius: 1em; padding: .1em .8em; }
header button[aria-pressed="true"] { box-shadow: inset 0 0 0 1px; }
`;

export class TrendingRow extends HTMLElement {
  /** The server of rows that name none. */
  static endpoint = location.origin;
  /** What a video looks like. */
  describe: (item: RowItem) => Description = (item) => ({ title: item.title ?? item.video_id });
  private list = document.createElement("ol");
  private pause = document.createElement("button");
  private heading = document.createElement("h2");
  private source?: EventSource;
  private poll = 0;
  private timer = 0;
  private waiting?: Row;
  private items: RowItem[] = [];
  /** Which tiles stand there, and since when they do for this request. */
  private shown?: string;
  private since = 0;
  private isBusy = false;
  private isBuilt = false;
  private isReported = false;

  connectedCallback(): void {
    if (!this.isBuilt) this.build();
    document.addEventListener("uptake-start", this.report);
    this.report();
    const endpoint = this.getAttribute("endpoint") ?? TrendingRow.endpoint;
    const query = new URLSearchParams({ limit: this.getAttribute("limit") ?? "8" });
    const segment = this.getAttribute("segment");
    if (segment) query.set("segment", segment);
    const url = `${endpoint}/v1/rows/${this.getAttribute("name") ?? "trending"}`;
    this.source = new EventSource(`${url}/stream?${query}`);
    this.source.addEventListener("row", (event) => this.take(JSON.parse(event.data as string) as Row));
    this.source.onerror = () => {
      // Where no more streams are to be had, asking now and then does.
      if (this.source?.readyState !== EventSource.CLOSED || this.poll) return;
      // What a cache has was another request.
      const ask = () => fetch(`${url}?${query}`, { cache: "no-store" }).then((a) => (a.ok ? a.json() : undefined))
        .then((row: Row | undefined) => row && this.take(row)).catch(() => undefined);
      void ask();
      this.poll = window.setInterval(ask, 30_000);
    };
  }

  disconnectedCallback(): void {
    document.removeEventListener("uptake-start", this.report);
    this.source?.close();
    clearTimeout(this.timer);
    clearInterval(this.poll);
    this.poll = 0;
  }

  private build(): void {
    this.isBuilt = true;
    const label = this.getAttribute("label") ?? "Trending";
    const root = this.attachShadow({ mode: "open" });
    // Also where a page's policy forbids styles in the text.
    const style = new CSSStyleSheet();
    style.replaceSync(STYLE);
    root.adoptedStyleSheets = [style];
    const region = document.createElement("section");
    region.setAttribute("aria-label", label);
    this.heading.textContent = label;
    this.pause.type = "button";
    this.pause.textContent = "Pause";
    this.pause.setAttribute("aria-pressed", "false");
    this.pause.setAttribute("aria-label", `Pause changes of ${label}`);
    this.pause.onclick = () => {
      const paused = this.pause.getAttribute("aria-pressed") !== "true";
      this.pause.setAttribute("aria-pressed", String(paused));
      this.settle();
    };
    const header = document.createElement("header");
    header.append(this.heading, this.pause);
    region.append(header, this.list);
    root.append(region);
    // While somebody points at a tile, or is on it with the keyboard, no tile moves.
    for (const [name, busy] of [["pointerenter", true], ["pointerleave", false], ["focusin", true], ["focusout", false]] as const) {
      this.list.addEventListener(name, () => {
        this.isBusy = busy || this.list.matches(":hover") || this.list.matches(":focus-within");
        // Focus has not arrived yet when it leaves.
        setTimeout(() => this.settle());
      });
    }
    this.list.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
      if (!step) return;
      const tiles = [...this.list.querySelectorAll<HTMLElement>("[data-uptake-video]")];
      const next = tiles[tiles.indexOf(root.activeElement as HTMLElement) + step];
      next?.focus();
      if (next) event.preventDefault();
    });
  }

  /** A page may start its tracker when its rows are there already. */
  private report = (): void => {
    if (this.isReported || !window.uptake) return;
    this.isReported = true;
    window.uptake.observe(this.list);
  };

  private take(row: Row): void {
    this.waiting = row;
    this.settle();
  }

  private settle(): void {
    const held = this.isBusy && (this.list.matches(":hover") || this.list.matches(":focus-within"));
    const row = this.waiting;
    if (!row || held || (this.pause.getAttribute("aria-pressed") === "true" && this.list.childElementCount)) return;
    const looks = row.items.map((item) => this.describe(item));
    const shown = JSON.stringify(row.items.map(({ video_id }, n) => [video_id, Boolean(looks[n]?.href)]));
    const age = performance.now() - this.since;
    const isSame = shown === this.shown;
    clearTimeout(this.timer);
    if (!isSame && this.items.length && age < STAY_MS) {
      this.timer = window.setTimeout(() => this.settle(), STAY_MS - age);
      return;
    }
    this.waiting = undefined;
    this.isBusy = false;
    this.items = row.items;
    if (!isSame) this.fill(looks);
    this.shown = shown;
    this.list.querySelectorAll<HTMLElement>("[data-uptake-video]").forEach((tile, n) => {
      const look = looks[n];
      if (look) paint(tile, look);
    });
    // The same videos in the same order are what was asked for before: only numbers have changed.
    if (isSame && age < REQUEST_MS) return;
    this.since = performance.now();
    this.list.dataset.uptakeRow = row.row;
    this.list.dataset.uptakeRequest = row.request_id;
  }

  /** Puts tiles for other videos, or in another order. */
  private fill(looks: Description[]): void {
    const tiles = this.items.map(({ video_id }, n) => {
      const tile = document.createElement(looks[n]?.href ? "a" : "button");
      if (tile instanceof HTMLButtonElement) tile.type = "button";
      tile.dataset.uptakeVideo = video_id;
      tile.dataset.uptakePosition = String(n + 1);
      tile.addEventListener("click", () => {
        this.dispatchEvent(new CustomEvent("uptake-play", { detail: this.items[n], bubbles: true, composed: true }));
      });
      const entry = document.createElement("li");
      entry.append(tile);
      return entry;
    });
    const empty = this.getAttribute("empty");
    if (!tiles.length && empty) {
      const entry = document.createElement("li");
      entry.className = "empty";
      entry.textContent = empty;
      tiles.push(entry);
    }
    this.list.replaceChildren(...tiles);
  }
}

/** Gives a tile its picture and name, and touches nothing that it has already. */
const paint = (tile: HTMLElement, { title, image, href }: Description): void => {
  if (tile instanceof HTMLAnchorElement && href) tile.href = href;
  const name = tile.querySelector("b") ?? tile.appendChild(document.createElement("b"));
  if (name.textContent !== title) name.textContent = title;
  const there = tile.querySelector("img");
  if (image === there?.getAttribute("src")) return;
  there?.remove();
  if (!image) return;
  const picture = document.createElement("img");
  picture.alt = "";
  picture.loading = "lazy";
  picture.src = image;
  tile.prepend(picture);
};
