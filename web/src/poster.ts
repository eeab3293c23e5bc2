// Posters for titles that have none: always the same for a title, and no two alike.

/** A hash that is the same everywhere (FNV-1a, 32 bits). */
const hash = (text: string): number => {
  let h = 0x811c9dc5;
  for (const c of new TextEncoder().encode(text)) h = Math.imul(h ^ c, 0x01000193) >>> 0;
  // The low bits of the last letter reach all the others.
  h = Math.imul(h ^ (h >>> 16), 0x45d9f3b) >>> 0;
  return (h ^ (h >>> 16)) >>> 0;
};

const SHAPES = [
  (a: number, b: number) => `<circle cx="${40 + a}" cy="90" r="${40 + b}"/><circle cx="${200 + b}" cy="${a}" r="60"/>`,
  (a: number, b: number) => `<path d="M0 ${120 - b}L${160 + a} ${20 + b}L320 ${140 - a}V180H0Z"/><path d="M0 ${160 - a}L320 ${70 + b}V180H0Z"/>`,
  (a: number, b: number) => `<path d="M${60 + a} 0h50L${40 + b} 180h-70Z"/><path d="M${180 + b} 0h30l${a} 180h-90Z"/>`,
  (a: number, b: number) => `<rect x="${20 + a}" y="${10 + b}" width="120" height="120"/><rect x="${110 + b}" y="${50 + a / 2}" width="140" height="120"/>`,
];

/** A picture of a title, as an address that holds it. */
export const poster = (id: string, title: string): string => {
  const h = hash(id);
  const [hue, a, b] = [h % 360, (h >>> 9) % 70, (h >>> 16) % 50];
  const shape = SHAPES[(h >>> 24) % SHAPES.length]?.(a, b) ?? "";
  const words = title.split(/[^\p{L}\p{N}]+/u).filter((word) => word);
  const initials = words.slice(0, 2).map((word) => [...word][0]?.toUpperCase() ?? "").join("");
  const safe = initials.replace(/[<>&]/g, "");
  const svg = `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 320 180"><rect width="320" height="180" fill="hsl(${hue} 38% 24%)"/>`
    + `<g fill="hsl(${(hue + 40) % 360} 55% 48%)" fill-opacity=".55">${shape}</g>`
    + `<text x="24" y="152" font-family="system-ui,sans-serif" font-size="56" font-weight="700" fill="#fff" fill-opacity=".92">${safe}</text></svg>`;
  return `data:image/svg+xml,${encodeURIComponent(svg)}`;
};
