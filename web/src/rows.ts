// The three rows of a viewer's page, with generated posters.

import "./trending-row";
import type { RowItem, TrendingRow } from "./trending-row";
import { poster } from "./poster";
import { start } from "./tracker";

start({});

const ROWS = [
  ["trending", "Trending now", "Nothing is played more than usual right now."],
  ["loved", "Loved by those who see it", "Nothing was shown yet."],
  ["popular", "Popular", "Nothing was played yet."],
] as const;

const titles = new Map<string, string>();

/** The name of a title that was shown. */
export const titleOf = (id: string): string => titles.get(id) ?? id;

/** Puts the rows into a place of the page, for everyone or for a segment. */
export const showRows = (into: HTMLElement, segment: string | null = null): void => {
  for (const [name, label, empty] of ROWS) {
    const row = document.createElement("trending-row") as TrendingRow;
    row.describe = (item: RowItem) => {
      const title = item.title ?? item.video_id;
      titles.set(item.video_id, title);
      return { title, image: poster(item.video_id, title) };
    };
    for (const [key, value] of Object.entries({ name, label, empty, limit: "12", ...(segment ? { segment } : {}) })) {
      row.setAttribute(key, value);
    }
    into.append(row);
  }
};
