// What a page does that is measured by the three trackers: it shows a list, and a visitor plays one of it.
import { AnalyticsBrowser } from "@segment/analytics-next";
import { SnowplowEcommercePlugin, trackProductListClick, trackProductListView } from "@snowplow/browser-plugin-snowplow-ecommerce";
import { newTracker, trackPageView } from "@snowplow/browser-tracker";
import posthog from "posthog-js";

const pause = (ms) => new Promise((done) => setTimeout(done, ms));

const segment = async (products, played) => {
  const tracker = AnalyticsBrowser.load({
    writeKey: "example",
    cdnSettings: { integrations: { "Segment.io": { apiKey: "example", apiHost: "segment.tv.example/v1" } } },
  });
  const named = ({ id, ...product }) => ({ product_id: id, ...product });
  await tracker.page();
  await tracker.track("Product List Viewed", { list_id: "row1", products: products.map(named) });
  if (played) await tracker.track("Product Clicked", { list_id: "row1", ...named(played) });
};

const postHog = async (products, played) => {
  posthog.init("phc_example", {
    api_host: "https://posthog.tv.example", disable_compression: true, autocapture: false, request_batching: false,
    disable_session_recording: true, advanced_disable_flags: true, capture_performance: false, disable_surveys: true,
    capture_pageleave: false, person_profiles: "always",
    // It sends nothing from a browser that a program drives.
    opt_out_useragent_filter: true,
  });
  await pause(300);
  const told = ({ id, position }) => ({ video_id: id, row: "row1", position });
  products.forEach((product) => posthog.capture("impression", told(product)));
  if (played) posthog.capture("play", told(played));
};

const snowplow = (products, played) => {
  newTracker("sp", "https://snowplow.tv.example", {
    appId: "tv", encodeBase64: false, contexts: { webPage: true, browser: true }, plugins: [SnowplowEcommercePlugin()],
  });
  const priced = (product) => ({ price: 0, currency: "BRL", ...product });
  trackPageView();
  trackProductListView({ name: "row1", products: products.map(priced) });
  if (played) trackProductListClick({ name: "row1", product: priced(played) });
};

window.measure = async (titles, title) => {
  const products = titles.map((id, index) => ({ id, name: `Title ${id}`, category: "Drama", position: index + 1 }));
  const played = products.find((product) => product.id === title);
  await segment(products, played);
  await postHog(products, played);
  snowplow(products, played);
  await pause(1500);
};
