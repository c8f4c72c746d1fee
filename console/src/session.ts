// The token: in this tab, and for as long as it is open.

import { signal } from "@preact/signals";

const KEY = "cove.token";
const kept = sessionStorage.getItem(KEY);

/** What is shown with each call; empty: nothing, for a gateway that asks for none. */
export const token = signal(kept ?? "");

/** Whether calls are let in; null: there is a token of before, and nobody has tried it. */
export const admitted = signal<boolean | null>(kept === null ? false : null);

/** The one workspace that the token reaches, when it is a share: `workspaces/<id>`. */
export const shared = signal("");

/** Why they are not. */
export const refusal = signal<{ message: string; remedy: string } | null>(null);

let ending = new AbortController();
const leavers: (() => void)[] = [];

/** Ends when whoever is signed in leaves: no answer to them is for the next one. */
export function session(): AbortSignal {
  return ending.signal;
}

/** What forgets a part of what the one who leaves has seen or written. */
export function onLeave(forget: () => void): void {
  leavers.push(forget);
}

export function keep(value: string): void {
  token.value = value;
  sessionStorage.setItem(KEY, value);
}

/** The token is not, or no longer, valid. */
export function forget(message: string, remedy: string): void {
  refusal.value = { message, remedy };
  leave();
}

/** Nothing of it stays for the next one in this tab. */
export function leave(): void {
  ending.abort();
  ending = new AbortController();
  token.value = "";
  shared.value = "";
  sessionStorage.removeItem(KEY);
  for (const each of leavers) each();
  admitted.value = false;
}
