// A title: how it was shown and played, epoch by epoch, and why it stands where it does.

/*! With uPlot, https://github.com/leeoniya/uPlot. The MIT License (MIT). Copyright (c) 2022 Leon Sorokin.
Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions: The above copyright notice
and this permission notice shall be included in all copies or substantial portions of the Software. THE SOFTWARE IS
PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE WARRANTIES OF
MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR COPYRIGHT
HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR OTHERWISE, ARISING
FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE. */

import uPlot from "uplot";
import "uplot/dist/uPlot.min.css";
import { ask as admin, failed, onToken } from "./admin";
import { axis, colour, find, make, redraw, times } from "./page";
import { poster } from "./poster";

/** How an epoch was judged when it was over. */
interface Judged {
  start: string;
  rate: number;
  rate_low: number;
  rate_high: number;
  expected_plays: number;
  rising: boolean;
  place: number | null;
}

interface Epoch {
  start: string;
  plays: number;
  impressions: number;
  sealed: boolean;
}

interface Why {
  known: boolean;
  lacks?: string;
  rank?: Record<string, number | null>;
  words?: Record<string, string>;
}

const ROWS = ["trending", "loved", "popular"];

const query = new URLSearchParams(location.search);
const id = query.get("id") ?? "";
const segment = query.get("segment") ?? "";
const of = segment ? `?segment=${encodeURIComponent(segment)}` : "";

const ask = async <T>(path: string): Promise<T> => {
  const answer = await fetch(path + of);
  const body = (await answer.json()) as T & { detail?: string };
  if (!answer.ok) throw new Error(body.detail ?? `the server answers ${answer.status}`);
  return body;
};

let build: (() => void) | undefined;
const UTC = (seconds: number): Date => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC");

/** Draws what was counted, and how it was judged as far as that is known already. */
const draw = (epochs: Epoch[], judged: Judged[]): void => {
  const by = new Map(judged.map((one) => [one.start, one]));
  const of = <T>(pick: (one: Judged, epoch: Epoch) => T): (T | null)[] => epochs.map((epoch) => {
    const one = by.get(epoch.start);
    return one ? pick(one, epoch) : null;
  });
  const percent = (pick: (one: Judged) => number) => of((one, epoch) => (epoch.impressions ? 100 * pick(one) : null));
  const seconds = epochs.map((epoch) => Date.parse(epoch.start) / 1000);
  const [first = 0, last = 0] = [seconds[0], seconds[seconds.length - 1]];
  const points = { show: epochs.length < 60 };
  const lines: [uPlot.Series, (number | null)[]][] = [
    [{ label: "shown", stroke: colour("--soft"), fill: colour("--shade"), width: 1.5, points }, epochs.map((epoch) => epoch.impressions)],
    [{ label: "played", stroke: colour("--mark"), width: 2, points }, epochs.map((epoch) => epoch.plays)],
    [{ label: "usual plays", stroke: colour("--mark"), width: 1.5, dash: [2, 3], points: { show: false }, value: (_, value) => value?.toFixed(1) ?? "" }, of((one) => one.expected_plays)],
    [{ label: "rate, %", stroke: colour("--warm"), width: 1.5, dash: [5, 4], scale: "%", points: { show: false }, value: (_, value) => value?.toFixed(1) ?? "" },
      judged.length ? percent((one) => one.rate) : epochs.map((epoch) => (epoch.impressions ? (100 * epoch.plays) / epoch.impressions : null))],
    [{ label: "at least", scale: "%", width: 0, points: { show: false }, value: (_, value) => value?.toFixed(1) ?? "" }, percent((one) => one.rate_low)],
    [{ label: "at most", scale: "%", width: 0, points: { show: false }, value: (_, value) => value?.toFixed(1) ?? "" }, percent((one) => one.rate_high)],
  ];
  const places = of((one) => one.place);
  // A title that is new has half a day before it all the same.
  const x = { range: (): [number, number] => [Math.min(first, last - 12 * 3600), last + 1800] };
  const sync = { cursor: { drag: { x: false, y: false }, sync: { key: "epochs" } }, tzDate: UTC };
  const counted: uPlot.AlignedData = [seconds, ...lines.map(([, values]) => values)];
  const isFirst = !build;
  build = () => {
    const box = find("chart");
    const width = Math.max(280, box.clientWidth);
    box.replaceChildren();
    new uPlot({
      ...sync,
      width,
      height: Math.round(Math.min(320, Math.max(220, width * 0.4))),
      scales: {
        x,
        y: { range: (_, __, most) => [0, Math.max(1, most * 1.05)] },
        "%": { range: (_, __, most) => [0, Math.max(1, most * 1.1)] },
      },
      series: [{}, ...lines.map(([series]) => series)],
      bands: [{ series: [6, 5], fill: colour("--band") }],
      axes: [times(), { ...axis(), size: 56 }, { ...axis(), scale: "%", side: 1, grid: { show: false }, size: 44 }],
    }, counted, box);
    const below = find("places");
    below.replaceChildren();
    if (!places.some((place) => place !== null)) return;
    new uPlot({
      ...sync,
      width,
      height: 150,
      // The first place is at the top.
      scales: { x, y: { dir: -1, range: (_, __, last) => [0, Math.max(10, last * 1.05)] } },
      series: [{}, { label: "place by plays", stroke: colour("--mark"), width: 1.5, points: { show: true, size: 4 }, value: (_, value) => (value === null ? "" : String(value)) }],
      axes: [times(), { ...axis(), size: 56, incrs: [1, 5, 10, 20, 50] }, { ...axis(), side: 1, size: 44, show: true, values: () => [], grid: { show: false }, ticks: { show: false } }],
    }, [seconds, places], below);
  };
  if (isFirst) redraw(find("chart"), () => build?.());
  else build();
};

const table = (epochs: Epoch[], judged: Judged[]): void => {
  const by = new Map(judged.map((one) => [one.start, one]));
  find("epochs").replaceChildren(...[...epochs].reverse().slice(0, 96).map((epoch) => {
    const line = make("tr", "");
    const [one, percent] = [by.get(epoch.start), (part: number) => (100 * part).toFixed(1)];
    const start = epoch.start.replace("T", " ").replace(/:00Z$/, " UTC");
    const rate = one && epoch.impressions ? `${percent(one.rate)} % (${percent(one.rate_low)}–${percent(one.rate_high)})` : "";
    const played = `${epoch.plays}${one?.rising ? " ↑" : ""}`;
    [start, String(epoch.impressions), played, one?.expected_plays.toFixed(1) ?? "", rate, one?.place ? String(one.place) : "", epoch.sealed ? "final" : "may grow"]
      .forEach((text) => make("td", text, line));
    return line;
  }));
};

const explain = (why: Why, title: string): void => {
  const box = find("why");
  box.replaceChildren();
  for (const row of ROWS) {
    const words = why.words?.[row];
    if (!words) continue;
    const [first = "", ...rest] = words.replace(id, title).split("\n");
    const part = make("section", "", box);
    make("h3", row[0]?.toUpperCase() + row.slice(1), part);
    make("p", first, part).className = why.rank?.[row] ? "in" : "out";
    const more = document.createElement("ul");
    rest.filter((line) => line).forEach((line) => make("li", line, more));
    part.append(more);
  }
  if (!why.known) make("p", why.lacks ?? "Nothing is known of it.", box);
};

// ---- Rules: what people decided about it

interface Rule {
  id: string;
  action: string;
  video_id: string;
  row?: string;
  segment?: string;
  position?: number;
  factor?: number;
  expires_at?: number;
  note?: string;
}

const inWords = (rule: Rule): string => {
  const what = { pin: `stands at place ${rule.position ?? "?"}`, block: "is not shown", boost: `has its score times ${rule.factor ?? "?"}` }[rule.action] ?? rule.action;
  const until = rule.expires_at ? ` until ${new Date(rule.expires_at).toISOString().slice(0, 16).replace("T", " ")} UTC` : "";
  return `It ${what} in ${rule.row ?? "all rows"} for ${rule.segment || "everyone"}${until}.${rule.note ? ` ${rule.note}` : ""}`;
};

const rules = async (): Promise<void> => {
  const all = (await admin<Rule[]>("/v1/rules")).filter((rule) => rule.video_id === id);
  find("rules").replaceChildren(...all.map((rule) => {
    const line = make("li", `${inWords(rule)} `);
    const end = make("button", "End this rule", line);
    end.addEventListener("click", guarded(async () => {
      await admin<undefined>(`/v1/rules/${encodeURIComponent(rule.id)}`, { method: "DELETE" });
      await rules();
    }));
    return line;
  }));
  find("no-rules").hidden = all.length > 0;
};
const guarded = (what: () => Promise<void>) => (): void => void what().then(() => failed(undefined), failed);

find<HTMLFormElement>("rule").addEventListener("submit", (event) => {
  event.preventDefault();
  guarded(async () => {
    const action = find<HTMLSelectElement>("action").value;
    const hours = Number(find<HTMLSelectElement>("hours").value);
    const rule = {
      action, video_id: id, row: find<HTMLSelectElement>("in-row").value || undefined, segment: segment || undefined,
      position: action === "pin" ? Number(find<HTMLInputElement>("position").value) : undefined,
      factor: action === "boost" ? 2 : undefined, note: find<HTMLInputElement>("note").value || undefined,
      expires_at: hours ? Date.now() + hours * 3_600_000 : undefined,
    };
    await admin<Rule>("/v1/rules", { method: "POST", body: JSON.stringify(rule) });
    await rules();
    explain((await ask<{ why: Why }>(`/v1/videos/${encodeURIComponent(id)}/why`)).why, find("name").textContent ?? id);
  })();
});
const position = (): void => { find("position-label").hidden = find<HTMLSelectElement>("action").value !== "pin"; };
find("action").addEventListener("change", position);
position();

const show = async (): Promise<void> => {
  const first = (): void => void rules().catch(failed);
  onToken(first);
  if (id) first();
  find("name").textContent = id || "No title";
  if (!id) throw new Error("the address names no title: /title?id=…");
  document.title = `${id} · Uptake`;
  find<HTMLImageElement>("poster").src = poster(id, id);
  const path = `/v1/videos/${encodeURIComponent(id)}`;
  const { epochs, title } = await ask<{ epochs: Epoch[]; title?: string }>(path);
  if (title) {
    find("name").textContent = title;
    document.title = `${title} · Uptake`;
    find<HTMLImageElement>("poster").src = poster(id, title);
  }
  find("found").hidden = false;
  find("who").textContent = segment ? `for ${segment}` : "for everyone";
  draw(epochs, []);
  table(epochs, []);
  const judged = (await ask<{ epochs: Judged[] }>(`${path}/timeline`)).epochs;
  draw(epochs, judged);
  table(epochs, judged);
  explain((await ask<{ why: Why }>(`${path}/why`)).why, title ?? id);
};

show().catch((error: unknown) => {
  failed(error instanceof Error ? new Error(`This title cannot be shown: ${error.message}.`) : error);
});
