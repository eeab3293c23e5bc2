// The pipeline: how fast, how far behind, what became of every record, and what could not be used.

import uPlot from "uplot";
import { ask, failed, onToken } from "./admin";
import { axis, colour, find, grouped, hour, make, redraw, repeat, set, times } from "./page";

type Counts = Record<string, number>;

interface Books extends Record<string, unknown> {
  read: number;
  checkpoint: string;
  created_ms: number;
  watermark_ms: number | null;
  state_bytes: number;
  balances: boolean;
  dead_by_reason: Counts;
  filtered_by_rule: Counts;
  late_by_age: Counts;
}

interface State {
  newest_checkpoint: Books | null;
  lag: number;
  partitions: { topic: string; partition: number; read_up_to: number; end: number; lag: number }[];
  row_age_ms: { p50: number; p95: number; p99: number; measured: number } | null;
}

interface Letter {
  number: number;
  reason: string;
  source: string;
  partition: number;
  offset: number;
  appended_ms: number;
  replayed: boolean;
  bytes?: string;
  bytes_base64?: string;
}

interface Letters {
  letters: number;
  replayed: number;
  by_reason: Counts;
  newest: Letter[];
}

const LOOK_EVERY = 2000;
/** Points of the curve: ten minutes. */
const POINTS = 300;

/** What may become of a record; each record is in exactly one. */
const ENTRIES = [
  ["counted", "joined, and in the tallies"],
  ["waiting", "for the other half of their request"],
  ["expired", "their request never brought its other half"],
  ["filtered", "dropped by a rule"],
  ["dead", "could not be used; kept as dead letters"],
  ["duplicate", "delivered again"],
  ["late", "too late to be joined; kept in the topic late"],
  ["capped", "over the cap of their request or member"],
  ["gap", "no longer in the log when they were to be read, and declared lost"],
] as const;

/** What an entry's number is made of, where the books say. */
const parts = (books: Books, name: string): string => {
  const [expired, plays, spilled] = ["expired", "expired_plays", "spilled"].map((of) => number(books, of)) as [number, number, number];
  if (name === "expired" && expired) return `${grouped(expired - plays)} impressions, ${grouped(plays)} plays`;
  if (name === "waiting" && spilled) return `${grouped(spilled)} requests on disk`;
  const by = { filtered: books.filtered_by_rule, dead: books.dead_by_reason, late: books.late_by_age }[name] ?? {};
  return Object.entries(by).filter(([, of]) => of > 0).map(([of, count]) => `${grouped(count)} ${of}`).join(", ");
};
const number = (books: Books, name: string): number => {
  const entry = books[name];
  return typeof entry === "number" ? entry : 0;
};
const bytes = (n: number): string => (n < 1 << 20 ? `${(n / 1024).toFixed(0)} KiB` : `${(n / (1 << 20)).toFixed(1)} MiB`);
const ago = (ms: number): string => (ms < 120_000 ? `${Math.max(0, Math.round(ms / 1000))} s` : `${Math.round(ms / 60_000)} min`);
const utc = (at: number): string => new Date(at).toISOString().slice(0, 19).replace("T", " ");

// ---- Rates

interface Point {
  at: number;
  appended: number;
  read: number | null;
}
const points: Point[] = [];
let before: { at: number; end: number } | undefined;
let checkpoint: { created: number; read: number; rate: number | null } | undefined;

const rates = (state: State): { appended: number | null; read: number | null } => {
  const [now, end] = [Date.now() / 1000, state.partitions.reduce((sum, of) => sum + of.end, 0)];
  const appended = before && now > before.at ? Math.max(0, (end - before.end) / (now - before.at)) : null;
  before = { at: now, end };
  const of = state.newest_checkpoint;
  if (of && of.created_ms !== checkpoint?.created) {
    const passed = checkpoint ? (of.created_ms - checkpoint.created) / 1000 : 0;
    const rate = checkpoint && passed > 0 && of.read >= checkpoint.read ? (of.read - checkpoint.read) / passed : null;
    checkpoint = { created: of.created_ms, read: of.read, rate };
  }
  if (appended !== null) points.push({ at: now, appended, read: checkpoint?.rate ?? null });
  if (points.length > POINTS) points.shift();
  return { appended, read: checkpoint?.rate ?? null };
};

const chart = (): void => {
  const box = find("rates");
  const line = (label: string, stroke: string, dash?: number[]): uPlot.Series =>
    ({ label, stroke, width: 2, ...(dash ? { dash } : {}), points: { show: false }, value: (_, value) => (value == null ? "" : `${grouped(value)}/s`) });
  const options: uPlot.Options = {
    width: Math.max(260, box.clientWidth),
    height: 220,
    cursor: { drag: { x: false, y: false } },
    tzDate: (seconds) => uPlot.tzDate(new Date(seconds * 1000), "Etc/UTC"),
    scales: { y: { range: (_, __, most) => [0, Math.max(10, most * 1.1)] } },
    series: [{}, line("appended", colour("--soft")), line("read, as of checkpoints", colour("--mark"), [6, 3])],
    axes: [times(), { ...axis(), size: 64 }],
  };
  box.replaceChildren();
  new uPlot(options, [points.map(({ at }) => at), points.map(({ appended }) => appended), points.map(({ read }) => read)], box);
};
let drawn = false;

/** What the curves show, for who does not see them: a line for each minute, the newest first. */
const minutes = (): void => {
  const by = new Map<number, Point[]>();
  for (const point of points) {
    const minute = Math.floor(point.at / 60);
    by.set(minute, [...(by.get(minute) ?? []), point]);
  }
  find("minutes").replaceChildren(...[...by].reverse().map(([minute, of]) => {
    const line = make("tr", "");
    make("th", hour(minute * 60_000), line).setAttribute("scope", "row");
    make("td", grouped(of.reduce((sum, { appended }) => sum + appended, 0) / of.length), line).className = "number";
    const read = of[of.length - 1]?.read ?? null;
    make("td", read === null ? "" : grouped(read), line).className = "number";
    return line;
  }));
};

// ---- What is shown

const ledger = (books: Books): void => {
  find("entries").replaceChildren(...ENTRIES.map(([name, words]) => {
    const line = make("tr", "");
    make("th", name, line).setAttribute("scope", "row");
    const n = number(books, name);
    make("td", grouped(n), line).className = "number";
    make("td", books.read ? `${((100 * n) / books.read).toFixed(n && n < books.read / 1000 ? 3 : 1)} %` : "", line).className = "number";
    make("td", [words, parts(books, name)].filter(Boolean).join(": "), line);
    return line;
  }));
  const sum = ENTRIES.reduce((all, [name]) => all + number(books, name), 0);
  set("balance", `${grouped(sum)} of ${grouped(books.read)} records are accounted for: ${sum === books.read && books.balances ? "it balances" : "it does not balance, which is a defect"}.`);
};

const show = (state: State): void => {
  const books = state.newest_checkpoint;
  const { appended, read } = rates(state);
  const rate = (of: number | null) => (of === null ? "…" : `${grouped(of)}/s`);
  const age = state.row_age_ms;
  set("age", age ? `${grouped(age.p50)} ms` : "not measured");
  set("age-more", age ? `p95 ${grouped(age.p95)} ms, p99 ${grouped(age.p99)} ms, of ${grouped(age.measured)} plays in five minutes` : "no play of a quiet title was counted in the last five minutes while somebody looked at rows");
  set("lag", grouped(state.lag));
  set("appended", rate(appended));
  set("read", books ? grouped(books.read) : "0");
  set("read-rate", rate(read));
  set("joined", books ? `${grouped(number(books, "counted"))} counted` : "…");
  set("open", books ? `${grouped(number(books, "waiting"))} wait` : "…");
  set("watermark", books?.watermark_ms ? `watermark ${utc(books.watermark_ms)}` : "no watermark yet");
  set("state", books ? `${bytes(books.state_bytes)} of state` : "…");
  set("checkpoint", books ? `checkpoint ${books.checkpoint}` : "no checkpoint yet");
  set("checkpoint-age", books ? `${ago(Date.now() - books.created_ms)} ago` : "nothing was run");
  find("found").hidden = !books;
  if (books) ledger(books);
  find("partitions").replaceChildren(...state.partitions.map((of) => {
    const line = make("tr", "");
    make("th", `${of.topic}/${of.partition}`, line).setAttribute("scope", "row");
    for (const n of [of.read_up_to, of.end, of.lag]) make("td", grouped(n), line).className = "number";
    return line;
  }));
  if (points.length < 2) return;
  find("no-rates").hidden = true;
  find("rates-found").hidden = false;
  minutes();
  if (drawn) return chart();
  drawn = true;
  redraw(find("rates"), chart);
};

const letters = async (): Promise<void> => {
  const all = await ask<Letters>("/v1/dead-letters?limit=50");
  const by = Object.entries(all.by_reason).map(([reason, n]) => `${grouped(n)} ${reason}`);
  set("letters", all.letters ? `${grouped(all.letters)} dead letters: ${by.join(", ")}. ${grouped(all.replayed)} were appended again.` : "There are no dead letters.");
  find("replay").hidden = !all.letters;
  find("letters-box").hidden = !all.letters;
  find("newest").replaceChildren(...all.newest.map((letter) => {
    const line = make("tr", "");
    make("td", utc(letter.appended_ms), line);
    make("td", letter.reason, line);
    make("td", `${letter.source}/${letter.partition} @ ${letter.offset}`, line);
    make("td", letter.replayed ? "yes" : "", line);
    make("td", (letter.bytes ?? `base64 ${letter.bytes_base64 ?? ""}`).slice(0, 300), line).className = "bytes";
    return line;
  }));
};

const replay = async (dry: boolean): Promise<void> => {
  const done = await ask<{ usable: number; unusable: number; filtered: number; replayed_before: number }>("/v1/dead-letters/replay", {
    method: "POST", body: JSON.stringify({ dry_run: dry }),
  });
  const what = dry ? "could be used by the configuration of this server" : "were appended to the input again";
  set("replayed", `${grouped(done.usable)} ${what}; ${grouped(done.unusable)} cannot be used, ${grouped(done.replayed_before)} were appended before.`);
  await letters();
};

const guarded = (what: () => Promise<void>) => () => void what().then(() => failed(undefined), failed);
find("count").addEventListener("click", guarded(() => replay(true)));
find("again").addEventListener("click", guarded(() => replay(false)));

const look = async (): Promise<void> => show(await ask<State>("/v1/pipeline"));
let looks = 0;
/** Dead letters change seldom. Where they cannot be read that is what the next look tries again: what went wrong is
 * not taken back, and told anew, in between. */
const tend = guarded(async () => {
  await look();
  if (looks % 5 === 0) await letters();
  looks++;
});
onToken(() => {
  looks = 0;
  tend();
});
tend();
repeat(() => { if (find("token-form").hidden) tend(); }, LOOK_EVERY);
