// A row for who is responsible for it: each title with its numbers and why, now and half an hour ago.

import { failed } from "./admin";
import { find, grouped, hour, make, repeat, set } from "./page";

interface Numbers {
  rate: number;
  rate_sd: number;
  lift: number;
  lift_lower: number;
  recent_plays: number;
  recent_expected: number;
}

interface Placed {
  item: { video_id: string; title?: string; plays: number; impressions: number; pinned: boolean };
  place_before: number | null;
  numbers: Numbers | null;
  words: string | null;
}

interface Inspected {
  row: string;
  segment: string;
  at: number;
  before_at: number | null;
  segments: string[];
  items: Placed[];
}

const LOOK_EVERY = 3000;
const query = new URLSearchParams(location.search);
const name = find<HTMLSelectElement>("name");
const segment = find<HTMLSelectElement>("segment");
name.value = query.get("name") ?? "trending";
let wanted = query.get("segment") ?? "";

const percent = (n: number): string => `${(100 * n).toFixed(n < 0.1 ? 1 : 0)} %`;

const moved = (place: number, before: number | null, known: boolean): string => {
  if (!known) return "";
  if (before === null) return "new";
  return before === place ? "–" : before > place ? `↑ ${before - place}` : `↓ ${place - before}`;
};

/** A rate with its interval, as a bar from 0 to `most`. */
const bar = (numbers: Numbers, most: number): HTMLElement => {
  const box = make("span", "");
  box.className = "interval";
  const [low, high] = [Math.max(0, numbers.rate - 2 * numbers.rate_sd), numbers.rate + 2 * numbers.rate_sd];
  const range = make("i", "", box);
  range.style.left = `${(100 * low) / most}%`;
  range.style.width = `${(100 * (Math.min(high, most) - low)) / most}%`;
  const at = make("b", "", box);
  at.style.left = `${(100 * numbers.rate) / most}%`;
  return box;
};

const open = new Set<string>();
const show = (found: Inspected): void => {
  const options = ["", ...found.segments.filter((of) => of)];
  if (segment.options.length !== options.length) {
    segment.replaceChildren(...options.map((of) => new Option(of || "everyone", of)));
    segment.value = found.segment;
  }
  const most = Math.max(0.001, ...found.items.map(({ numbers }) => (numbers ? numbers.rate + 2 * numbers.rate_sd : 0)));
  const known = found.before_at !== null;
  set("when", `at ${hour(found.at)} UTC${known ? `, places compared with ${hour(found.before_at ?? 0)}` : ", how it stood before is not known yet"}`);
  find("empty").hidden = found.items.length > 0;
  find("items").replaceChildren(...found.items.map(({ item, place_before, numbers, words }, n) => {
    const line = make("tr", "");
    make("td", String(n + 1), line).className = "number";
    make("td", moved(n + 1, place_before, known), line);
    const title = make("th", "", line);
    title.setAttribute("scope", "row");
    (make("a", item.title ?? item.video_id, title) as HTMLAnchorElement).href = `/title?id=${encodeURIComponent(item.video_id)}${found.segment ? `&segment=${encodeURIComponent(found.segment)}` : ""}`;
    if (item.pinned) make("small", " pinned", title);
    make("td", grouped(item.plays), line).className = "number";
    make("td", grouped(item.impressions), line).className = "number";
    const rate = make("td", "", line);
    if (numbers) {
      rate.append(bar(numbers, most), ` ${percent(numbers.rate)} ± ${percent(2 * numbers.rate_sd)}`);
      make("td", `${numbers.lift.toFixed(1)} × (at least ${numbers.lift_lower.toFixed(1)})`, line);
    } else {
      make("td", "", line);
    }
    const why = make("td", "", line);
    if (words) {
      const more = make("details", "", why) as HTMLDetailsElement;
      const [first = "", ...rest] = words.replace(item.video_id, item.title ?? item.video_id).split("\n").filter((of) => of);
      make("summary", "Why", more);
      [first, ...rest].forEach((of) => make("p", of, more));
      more.open = open.has(item.video_id);
      more.addEventListener("toggle", () => { if (more.open) open.add(item.video_id); else open.delete(item.video_id); });
    }
    return line;
  }));
};

const look = async (): Promise<void> => {
  const of = wanted ? `&segment=${encodeURIComponent(wanted)}` : "";
  const answer = await fetch(`/v1/rows/${encodeURIComponent(name.value)}/inspect?limit=20${of}`);
  const body = (await answer.json()) as Inspected & { detail?: string };
  if (!answer.ok) throw new Error(body.detail ?? `the server answers ${answer.status}`);
  // A list that somebody moves through by keyboard is not taken away.
  if (!find("items").contains(document.activeElement)) show(body);
};

const begin = (): void => void look().then(() => failed(undefined), failed);
const change = (): void => {
  wanted = segment.value;
  history.replaceState(null, "", `/row?name=${name.value}${wanted ? `&segment=${encodeURIComponent(wanted)}` : ""}`);
  begin();
};
name.addEventListener("change", change);
segment.addEventListener("change", change);
begin();
repeat(begin, LOOK_EVERY);
