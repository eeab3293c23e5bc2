// What several pages need.

export const find = <T extends HTMLElement>(id: string): T => document.getElementById(id) as T;

/** Makes an element with a text in it. */
export const make = (name: string, text: string, parent?: HTMLElement): HTMLElement => {
  const made = document.createElement(name);
  made.textContent = text;
  parent?.append(made);
  return made;
};

/** Gives an element a text, and leaves it alone where it has that text: what is selected stays, nothing is read out
 * again. */
export const set = (id: string, text: string): void => {
  if (find(id).textContent !== text) find(id).textContent = text;
};

/** Calls `what` every so many milliseconds while somebody looks at the page, but not while its button `pause` is
 * pressed; and at once when that is let go. */
export const repeat = (what: () => void, every: number): void => {
  const button = find("pause");
  const isPaused = (): boolean => button.getAttribute("aria-pressed") === "true";
  button.addEventListener("click", () => {
    button.setAttribute("aria-pressed", String(!isPaused()));
    if (!isPaused()) what();
  });
  setInterval(() => { if (!document.hidden && !isPaused()) what(); }, every);
};

/** A colour of the page as it is now, light or dark. */
export const colour = (name: string): string => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

/** How the axes of a chart look now. */
export const axis = () => ({
  stroke: colour("--soft"),
  grid: { stroke: colour("--line"), width: 1 },
  ticks: { stroke: colour("--line"), width: 1 },
});

/** An axis of times in UTC: hours, and the day where one begins. */
export const times = () => ({
  ...axis(),
  space: 64,
  values: (_: unknown, splits: number[], __: unknown, ___: unknown, apart: number) =>
    splits.map((at, n) => {
      const text = new Date(at * 1000).toISOString();
      const before = splits[n - 1];
      const isNewDay = before === undefined || new Date(before * 1000).toISOString().slice(0, 10) !== text.slice(0, 10);
      const time = text.slice(11, apart < 60 ? 19 : 16);
      return isNewDay ? `${time}\n${text.slice(0, 10)}` : time;
    }),
});

/** Calls what draws into `box`, and again when its width or the colours change. */
export const redraw = (box: HTMLElement, draw: () => void): void => {
  draw();
  let width = box.clientWidth;
  new ResizeObserver(() => {
    if (Math.abs(box.clientWidth - width) < 8) return;
    width = box.clientWidth;
    draw();
  }).observe(box);
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
};

/** Grouped digits. */
export const grouped = (n: number): string => Math.round(n).toLocaleString("en");

/** The time of day in UTC. */
export const hour = (at: number): string => new Date(at).toISOString().slice(11, 16);
