// <trending-row> as a script of a page, with a tracker for pages that start none:
//
//   <script src="https://uptake.example/trending-row.js" defer></script>

import { TrendingRow } from "./element";
import { told } from "./script";
import { start } from "./tracker";

const attributes = told;
if (attributes) {
  if (attributes.endpoint) TrendingRow.endpoint = attributes.endpoint;
  // A tracker that the page starts itself has options, and consent may be one: it goes first wherever its tag is.
  const begin = () => start(attributes);
  if (document.readyState === "complete") begin();
  else for (const name of ["DOMContentLoaded", "load"]) addEventListener(name, begin);
}
if (!customElements.get("trending-row")) customElements.define("trending-row", TrendingRow);
