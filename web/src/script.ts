// What the tag of a script of its own says: the server it came from, and its attributes. A bundle must not take the
// tag that it was loaded by for one, so only scripts that are a tag's own use this.

import type { Options } from "./tracker";

const script = document.currentScript as HTMLScriptElement | null;

/** Nothing where there is no such tag, as in a module. */
export const told: Options | undefined = script
  ? { endpoint: new URL(script.src || location.href, location.href).origin, ...script.dataset }
  : undefined;
