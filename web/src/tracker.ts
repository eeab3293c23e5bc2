// The tracker: tells the collector which videos were seen, and which were played.
//
//   start({ endpoint: "https://uptake.example" });
//   <div data-uptake-request="TOKEN"> <a data-uptake-video="v1" href="…">…</a> … </div>
//
// A video is seen when half of it was in the viewport for a second while the page was visible, or when
// it is played.
// Every event is made once and keeps its time and ids through every retry, so what arrives twice
// counts once. What cannot be sent waits in localStorage, within bounds.
//
// The document hears of the start as `uptake-start`, of each event as `uptake-event`, and of each batch that
// was answered as `uptake-sent`: its events, the status, and the collector's verdicts.

export interface UptakeEvent {
  kind: "impression" | "play";
  request_id: string;
  video_id: string;
  timestamp: number;
  /** Milliseconds since the row arrived, by a clock that nobody sets. */
  since_row_ms: number;
  member_id?: string;
  row?: string;
  position?: number;
  dimensions?: Record<string, string>;
}

/** What the tracker is told; as attributes of a script's tag: `data-endpoint`, `data-key` and so on. */
export interface Options {
  /** Where the collector is, as https://uptake.example; the page's own server if it is left out. */
  endpoint?: string;
  /** The write key, where the collector asks for one. */
  key?: string;
  /** Who looks at the page. */
  member?: string;
  /** "required": nothing is kept or sent before `consent(true)`. */
  consent?: string;
  /** Values of dimensions as the text of a JSON object, as {"country":"BR"}. */
  dimensions?: string;
}

export interface Uptake {
  /** Watches the videos below a node, also those that are added later. */
  observe(root: ParentNode): void;
  /** A video of a row was played by other means than a click on it. */
  play(video: Element): void;
  /** Grants or withdraws consent; withdrawn, everything that waits is deleted, also what other pages left. */
  consent(granted: boolean): void;
  /** Sends what waits now. */
  flush(): Promise<void>;
}

declare global {
  interface Window {
    uptake?: Uptake;
  }
}

const VISIBLE = 0.5;
const VISIBLE_MS = 1000;
const FLUSH_MS = 2000;
/** Below the 64 KiB that browsers let a closing page send. */
const BATCH_BYTES = 60_000;
const BATCH_EVENTS = 100;
const QUEUE_EVENTS = 1000;
/** Of how many requests, and of how many events, a page that stays open remembers that they were there. */
const KNOWN = 10_000;
const STORE = "uptake-queue-";
/** What the collector counts these events under, so that a version that goes wrong is seen; the build fills it in. */
declare const __VERSION__: string;
const CLIENT = typeof __VERSION__ === "string" ? "uptake-web/" + __VERSION__ : "uptake-web";

/** Forgets the first of too many. */
const bound = (all: Set<string> | Map<string, unknown>) => {
  if (all.size > KNOWN) all.delete(all.keys().next().value as string);
};

/** Starts the one tracker of this page, or returns the one that runs: the options of the first start hold. */
export function start(options: Options): Uptake {
  if (window.uptake) return window.uptake;
  const url = (options.endpoint ?? location.origin) + "/v1/events";
  const own = STORE + Math.random().toString(36).slice(2);
  const done = new Set<string>();
  const arrived = new Map<string, number>();
  const timers = new Map<Element, number>();
  const visible = new Set<Element>();
  let granted = options.consent !== "required";
  let queue: UptakeEvent[] = [];
  /** The batch that is on its way. */
  let sent: UptakeEvent[] = [];
  let failures = 0;
  let timer = 0;
  let due = Infinity;

  // A page may show what is reported of it.
  const tell = (name: string, detail: unknown) => document.dispatchEvent(new CustomEvent("uptake-" + name, { detail }));

  // ---- What happened

  const rowOf = (video: Element) => video.closest<HTMLElement>("[data-uptake-request]");
  const record = (kind: UptakeEvent["kind"], video: Element) => {
    const row = rowOf(video);
    const request = row?.dataset.uptakeRequest;
    const { uptakeVideo: id, uptakePosition: position } = (video as HTMLElement).dataset;
    if (!granted || !row || !request || !id) return;
    const name = kind + " " + request + " " + id;
    if (done.has(name)) return;
    done.add(name);
    bound(done);
    const event: UptakeEvent = {
      kind,
      request_id: request,
      video_id: id,
      timestamp: Date.now(),
      since_row_ms: Math.round(performance.now() - (arrived.get(request) ?? 0)),
    };
    if (row.dataset.uptakeRow) event.row = row.dataset.uptakeRow;
    if (position) event.position = +position;
    if (options.member) event.member_id = options.member;
    if (options.dimensions) event.dimensions = JSON.parse(options.dimensions) as Record<string, string>;
    queue.push(event);
    // The oldest are the least of use.
    if (queue.length > QUEUE_EVENTS) queue.splice(0, queue.length - QUEUE_EVENTS);
    tell("event", event);
    later(kind === "play" ? 0 : FLUSH_MS);
  };
  /** Who plays a video has seen it, however short it was in view; a play without an impression is nobody's. */
  const played = (video: Element) => {
    record("impression", video);
    record("play", video);
  };

  // ---- What is seen

  const cancel = (video: Element) => {
    clearTimeout(timers.get(video));
    timers.delete(video);
  };
  const wait = (video: Element) => {
    if (timers.has(video) || document.hidden) return;
    timers.set(video, window.setTimeout(() => {
      timers.delete(video);
      // A row that was filled anew shows another video in the same place.
      if (video.isConnected) record("impression", video);
    }, VISIBLE_MS));
  };
  const seen = new IntersectionObserver((entries) => {
    for (const { target, intersectionRatio } of entries) {
      if (intersectionRatio >= VISIBLE) {
        visible.add(target);
        wait(target);
      } else {
        visible.delete(target);
        cancel(target);
      }
    }
  }, { threshold: [0, VISIBLE] });
  const look = (root: ParentNode) => {
    const rows = [...root.querySelectorAll<HTMLElement>("[data-uptake-request]")];
    if (root instanceof HTMLElement && root.dataset.uptakeRequest) rows.push(root);
    for (const { dataset } of rows) {
      const request = dataset.uptakeRequest;
      if (!request || arrived.has(request)) continue;
      arrived.set(request, performance.now());
      bound(arrived);
    }
    const videos = [...root.querySelectorAll("[data-uptake-video]")];
    if (root instanceof HTMLElement && root.dataset.uptakeVideo) videos.push(root);
    // To be told where it is also where it did not move.
    for (const video of videos) {
      cancel(video);
      seen.unobserve(video);
      seen.observe(video);
    }
  };
  const changed = new MutationObserver((changes) => {
    for (const { addedNodes, removedNodes, type, target } of changes) {
      if (type === "attributes") look(target as HTMLElement);
      addedNodes.forEach((node) => node instanceof HTMLElement && look(node));
      removedNodes.forEach((node) => {
        if (!(node instanceof HTMLElement)) return;
        for (const video of [node, ...node.querySelectorAll("[data-uptake-video]")]) {
          seen.unobserve(video);
          visible.delete(video);
          cancel(video);
        }
      });
    }
  });
  const observe = (root: ParentNode) => {
    look(root);
    changed.observe(root, {
      subtree: true, childList: true, attributes: true, attributeFilter: ["data-uptake-request", "data-uptake-video"],
    });
    root.addEventListener("click", (event) => {
      const video = event.target instanceof Element && event.target.closest("[data-uptake-video]");
      if (video && (video as HTMLElement).dataset.uptakePlay !== "manual") played(video);
    }, true);
  };

  // ---- Sending

  /** Sends within so many milliseconds; after failures not before the back-off is over. What comes meanwhile
   * does not postpone it. */
  const later = (ms: number) => {
    const rest = Math.max(ms, failures && Math.min(60_000, 500 * 2 ** failures));
    const at = performance.now() + rest;
    if (at >= due) return;
    due = at;
    clearTimeout(timer);
    timer = window.setTimeout(flush, rest);
  };
  const body = (events: UptakeEvent[]) => JSON.stringify({ key: options.key, sent: Date.now(), client: CLIENT, events });
  const batch = () => {
    let count = Math.min(queue.length, BATCH_EVENTS);
    while (count > 1 && new Blob([body(queue.slice(0, count))]).size > BATCH_BYTES) count >>= 1;
    return queue.splice(0, count);
  };
  /** A page that dies leaves what waits, and what is on its way, to the next one. */
  const keep = () => {
    const events = [...sent, ...queue];
    try {
      if (events.length) localStorage.setItem(own, JSON.stringify(events));
      else localStorage.removeItem(own);
    } catch {
      // Private windows and full disks: what waits is in memory only.
    }
  };
  /** Takes over what earlier pages, or closed ones, could not send. */
  const adopt = () => {
    let keys: string[] = [];
    try {
      keys = Object.keys(localStorage).filter((name) => name.startsWith(STORE) && name !== own);
    } catch {
      // As above.
    }
    for (const key of keys) {
      try {
        const events = localStorage.getItem(key) ?? "[]";
        localStorage.removeItem(key);
        queue = [...(JSON.parse(events) as UptakeEvent[]), ...queue].slice(-QUEUE_EVENTS);
      } catch {
        // Somebody else wrote it: it is of no use to anybody.
      }
    }
  };
  const flush = async (): Promise<void> => {
    clearTimeout(timer);
    due = Infinity;
    if (sent.length || !queue.length || !granted) return;
    const events = (sent = batch());
    keep();
    try {
      // As text, so that no question has to be asked before.
      const answer = await fetch(url, {
        method: "POST", body: body(events), keepalive: true, credentials: "omit",
        headers: { "content-type": "text/plain" },
      });
      if ([408, 429].includes(answer.status) || answer.status >= 500) throw new Error();
      failures = 0;
      tell("sent", { events, status: answer.status, verdicts: await answer.json().catch(() => null) });
    } catch {
      failures++;
      // Unless consent was withdrawn meanwhile.
      if (sent === events) queue = [...events, ...queue].slice(-QUEUE_EVENTS);
    }
    if (sent === events) sent = [];
    keep();
    if (queue.length) later(0);
  };
  /** The page may not come back: what waits goes now, in one breath. */
  const leave = () => {
    if (!granted) return;
    // Nobody says whether this arrives. Where the last time nothing did, it is kept as well: what
    // arrives twice counts once.
    const kept = failures ? [...queue] : [];
    while (queue.length) {
      const events = batch();
      if (!navigator.onLine || !navigator.sendBeacon(url, new Blob([body(events)], { type: "text/plain" }))) {
        queue = [...events, ...queue];
        break;
      }
    }
    if (kept.length) queue = kept;
    keep();
  };

  document.addEventListener("visibilitychange", () => {
    if (document.hidden) {
      [...timers.keys()].forEach(cancel);
      // The page mostly lives on and hears the answer; where it does not, the next one finds what was kept.
      keep();
      void flush();
    } else {
      visible.forEach(wait);
    }
  });
  addEventListener("pagehide", leave);
  addEventListener("online", () => {
    failures = 0;
    later(0);
  });
  addEventListener("pageshow", (event) => {
    // Back from the cache: nothing is new, but what could not be sent may go now.
    if (event.persisted && queue.length) later(0);
  });
  observe(document);
  if (granted) adopt();
  if (queue.length) later(0);

  window.uptake = {
    observe,
    play: played,
    consent: (now) => {
      granted = now;
      adopt();
      if (now) {
        visible.forEach(wait);
        later(0);
      } else {
        queue = [];
        sent = [];
        keep();
      }
    },
    flush,
  };
  tell("start", undefined);
  return window.uptake;
}
