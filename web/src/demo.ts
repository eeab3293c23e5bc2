// The demo: the rows a crowd is shown, what it does to them, and what is done to it.

import uPlot from "uplot";
import { axis, colour, find, grouped, hour, make, redraw, set, times } from "./page";
import { showRows } from "./rows";

interface Named {
  name: string;
  what: string;
}

interface Rise {
  video_id: string;
  title: string;
  since: number;
  times: number;
  trending: number | null;
  charts: (number | null)[];
  is_over: boolean;
}

interface Quantiles {
  p50: number;
  p95: number;
  p99: number;
  measured: number;
}

interface State {
  now: number;
  speed: number;
  paused: boolean;
  moment: Named | null;
  moments: Named[];
  season: { from: number; until: number };
  preparing: Named | null;
  crowd: {
    visits: number;
    events_made: number;
    events_taken: number;
    events_taken_again: number;
    retried: number;
    robot_plays: number;
    waiting: number;
    play_to_tally_ms: Quantiles | null;
    play_to_row_ms: Quantiles | null;
  } | null;
  loop: { rises: Rise[]; points: { at: number; served: number; charts: number[]; rows: number }[] } | null;
  story: { at: number; text: string }[];
  charts: string[];
  trouble: Record<string, boolean>;
  memory: { server_and_crowd: number | null; pipeline: number | null };
  pipeline_starts: number | null;
  check: { equal: number; differing: string[] };
}

const LOOK_EVERY = 500;
const BOOKS_EVERY = 2000;

showRows(find("rows"));

const act = async (action: object): Promise<void> => {
  const answer = await fetch("/demo/control", {
    method: "POST", headers: { "content-type": "application/json" }, body: JSON.stringify(action),
  });
  const refused = answer.ok ? "" : ((await answer.json()) as { detail?: string }).detail ?? `answered ${answer.status}`;
  find("failed").textContent = refused;
  find("failed").hidden = !refused;
  await look();
};

find("pause").addEventListener("click", () => void act({ do: find("pause").dataset.paused === "true" ? "go" : "pause" }));
find<HTMLSelectElement>("speed").addEventListener("change", (event) => {
  void act({ do: "speed", speed: Number((event.target as HTMLSelectElement).value) });
});
find("kill").addEventListener("click", () => void act({ do: "kill" }));
find("locked").addEventListener("click", () => void act({ do: "lock" }));
find("seek").addEventListener("submit", (event) => {
  event.preventDefault();
  void act({ do: "jump", to: find<HTMLInputElement>("when").value });
});
for (const what of ["twice", "held", "clocks"]) {
  find(what).addEventListener("click", () => {
    void act({ do: "trouble", what, on: find(what).getAttribute("aria-pressed") !== "true" });
  });
}

// ---- What is shown

const moments = (state: State): void => {
  const box = find("moments");
  if (!box.childElementCount) {
    for (const { name, what } of state.moments) {
      const button = make("button", what.replace(/^the /, ""), box);
      button.dataset.name = name;
      button.addEventListener("click", () => void act({ do: "jump", to: name }));
    }
  }
  for (const button of box.querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.name === state.moment?.name));
    button.disabled = Boolean(state.preparing);
  }
  const [seek, when] = [find("seek").querySelector("button"), find<HTMLInputElement>("when")];
  if (seek) seek.disabled = Boolean(state.preparing);
  const local = (at: number) => new Date(at).toISOString().slice(0, 16);
  when.min = local(state.season.from);
  when.max = local(state.season.until - 1);
  // What somebody is about to choose stays.
  if (!when.value) when.value = local(state.now);
};

let told = "";
const story = (lines: State["story"]): void => {
  const key = `${lines.length} ${lines[lines.length - 1]?.at ?? 0}`;
  if (key === told) return;
  told = key;
  find("story").replaceChildren(...[...lines].reverse().slice(0, 60).map(({ at, text }) => {
    const line = make("li", "");
    make("time", hour(at), line);
    line.append(` ${text}`);
    return line;
  }));
};

const later = (since: number, at: number | null, now: number, over: boolean): string => {
  if (at === null) return over ? "never" : `not in ${Math.max(0, Math.round((now - since) / 60000))} min`;
  return `${Math.max(0, Math.round((at - since) / 60000))} min`;
};

let risen = "";
const rises = (state: State): void => {
  const all = state.loop?.rises ?? [];
  const key = JSON.stringify([all, Math.floor(state.now / 60000)]);
  if (key === risen) return;
  risen = key;
  find("rises").replaceChildren(...all.slice(0, 12).map((rise) => {
    const line = make("tr", "");
    const title = make("th", "", line);
    title.setAttribute("scope", "row");
    const link = make("a", rise.title, title) as HTMLAnchorElement;
    link.href = `/title?id=${encodeURIComponent(rise.video_id)}`;
    make("td", hour(rise.since), line);
    make("td", later(rise.since, rise.trending, state.now, rise.is_over), line).className = "first";
    [...rise.charts].reverse().forEach((at) => make("td", later(rise.since, at, state.now, rise.is_over), line));
    return line;
  }));
  find("no-rises").hidden = all.length > 0;
};

let points: NonNullable<State["loop"]>["points"] = [];
const chart = (): void => {
  const box = find("regret");
  const [charts, width] = [["daily", "half-hourly", "live"], Math.max(260, box.clientWidth)];
  const percent = (value: number) => Math.max(0, 100 * value);
  const data: uPlot.AlignedData = [
    points.map((point) => point.at / 1000),
    points.map((point) => percent(point.served)),
    ...[2, 1, 0].map((n) => points.map((point) => percent(point.charts[n] ?? 0))),
  ];
  const line = (label: string, stroke: string, width: number, dash?: number[]): uPlot.Series =>
    ({ label, stroke, width, ...(dash ? { dash } : {}), points: { show: false }, value: (_, value) => (value == null ? "" : `${value.toFixed(0)} %`) });
  const options: uPlot.Options = {
    width,
    height: 240,
    cursor: { drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { y: { range: (_, __, most) => [0, Math.max(10, most * 1.05)] } },
    series: [
      {},
      line("Uptake", colour("--mark"), 2.5),
      line(`plays, ${charts[2]}`, colour("--warm"), 1.5),
      line(`plays, ${charts[1]}`, colour("--soft"), 1.5, [6, 4]),
      line(`plays, ${charts[0]}`, colour("--soft"), 1.5, [2, 3]),
    ],
    axes: [times(), { ...axis(), size: 48, values: (_, values) => values.map((value) => `${value} %`) }],
  };
  box.replaceChildren();
  new uPlot(options, data, box);
};
let drawn = false;
const regret = (state: State): void => {
  const now = state.loop?.points ?? [];
  find("no-regret").hidden = now.length > 1;
  if (now.length === points.length && now[0]?.at === points[0]?.at) return;
  points = now;
  if (now.length < 2) {
    find("regret").replaceChildren();
    return;
  }
  if (drawn) return chart();
  drawn = true;
  redraw(find("regret"), chart);
};

const quantiles = (of: Quantiles | null | undefined): string =>
  of ? `${of.p50} ms (p95 ${of.p95}, p99 ${of.p99})` : "being measured";

const show = (state: State): void => {
  const at = new Date(state.now);
  set("date", at.toLocaleDateString("en-GB", { weekday: "long", day: "numeric", month: "long", year: "numeric", timeZone: "UTC" }));
  set("clock", hour(state.now));
  const pause = find("pause");
  pause.dataset.paused = String(state.paused);
  set("pause", state.paused ? "Go on" : "Pause");
  const speed = find<HTMLSelectElement>("speed");
  if (document.activeElement !== speed) {
    const options = [...speed.options].map((option) => option.value);
    if (!options.includes(String(state.speed))) speed.add(new Option(`${state.speed} ×`, String(state.speed)));
    speed.value = String(state.speed);
  }
  set("preparing", state.preparing ? `Preparing ${state.preparing.what} …` : "");
  moments(state);
  story(state.story);
  rises(state);
  regret(state);
  for (const [name, on] of Object.entries(state.trouble)) find(name).setAttribute("aria-pressed", String(on));
  const crowd = state.crowd;
  set("visits", grouped(crowd?.visits ?? 0));
  set("taken", `${grouped(crowd?.events_taken ?? 0)}${crowd?.events_taken_again ? `, and ${grouped(crowd.events_taken_again)} of them again` : ""}`);
  set("waiting", grouped(crowd?.waiting ?? 0));
  set("latency", quantiles(crowd?.play_to_row_ms));
  const mib = (bytes: number | null) => (bytes === null ? "?" : `${grouped(Math.round(bytes / 2 ** 20))} MiB`);
  set("memory", `${mib(state.memory.pipeline)} the pipeline, ${mib(state.memory.server_and_crowd)} server and crowd`);
  set("starts", grouped(state.pipeline_starts ?? 0));
  const differing = state.check.differing.length;
  set("check", `${grouped(state.check.equal)} tallies equal what the crowd knows${differing ? `, ${differing} not yet` : ""}`);
  set("robot", crowd?.robot_plays ? `${grouped(crowd.robot_plays)} plays claimed; a request counts once an epoch` : "none about");
};

const look = async (): Promise<void> => {
  try {
    show((await (await fetch("/demo/state")).json()) as State);
    find("gone").hidden = true;
  } catch {
    find("gone").hidden = false;
  }
};

const books = async (): Promise<void> => {
  try {
    const answer = await fetch("/v1/pipeline");
    if (!answer.ok) return;
    const { newest_checkpoint: of, lag } = (await answer.json()) as { newest_checkpoint: Record<string, unknown> | null; lag: number };
    const number = (name: string): number => {
      const entry = of?.[name];
      if (typeof entry === "number") return entry;
      return Object.values((entry as Record<string, number> | undefined) ?? {}).reduce((sum, n) => sum + (typeof n === "number" ? n : 0), 0);
    };
    const parts = ["counted", "waiting", "expired", "filtered", "dead", "duplicate", "late", "capped"];
    const named = parts.map((name) => [name, number(name)] as const).filter(([, n]) => n > 0);
    const sum = named.reduce((all, [, n]) => all + n, 0);
    set("ledger", `${grouped(number("read"))} read = ${named.map(([name, n]) => `${grouped(n)} ${name}`).join(" + ")}`);
    set("balance", sum === number("read") ? "It balances." : "It does not balance.");
    set("lag", `${grouped(lag)} records`);
  } catch {
    // The next look may succeed.
  }
};

const again = (what: () => Promise<void>, every: number): void => {
  void what().finally(() => setTimeout(() => again(what, every), every));
};
again(look, LOOK_EVERY);
again(books, BOOKS_EVERY);
