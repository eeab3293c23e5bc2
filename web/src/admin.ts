// Requests of who runs it: with the admin token where one is needed. It is kept by this page alone, in memory.

import { find, set } from "./page";

let token = "";

/** Asks the server; a refusal is an error in its own words. Where a token is needed the form for it shows. */
export const ask = async <T>(path: string, options: RequestInit = {}): Promise<T> => {
  const headers = new Headers(options.headers);
  if (token) headers.set("authorization", `Bearer ${token}`);
  if (options.body) headers.set("content-type", "application/json");
  const answer = await fetch(path, { ...options, headers });
  if (answer.status === 401 || answer.status === 403) find("token-form").hidden = false;
  if (answer.status === 204) return undefined as T;
  const body = (await answer.json()) as T & { detail?: string };
  if (!answer.ok) throw new Error(body.detail ?? `the server answers ${answer.status}`);
  return body;
};

/** Calls `then` when a token was given. */
export const onToken = (then: () => void): void => {
  find<HTMLFormElement>("token-form").addEventListener("submit", (event) => {
    event.preventDefault();
    token = find<HTMLInputElement>("token").value.trim();
    find<HTMLInputElement>("token").value = "";
    find("token-form").hidden = true;
    then();
  });
};

/** Shows what went wrong, or that nothing did. */
export const failed = (error: unknown): void => {
  set("failed", error instanceof Error ? error.message : String(error ?? ""));
  find("failed").hidden = error === undefined;
};
