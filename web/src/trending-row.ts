// Defines <trending-row>; the tracker is for the page to start.

import { TrendingRow } from "./element.js";

export * from "./element.js";

if (!customElements.get("trending-row")) customElements.define("trending-row", TrendingRow);
