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

export function keep(value: string): void {
  token.value = value;
  sessionStorage.setItem(KEY, value);
}

/** The token is not, or no longer, valid. */
export function forget(message: string, remedy: string): void {
  refusal.value = { message, remedy };
  leave();
}

export function leave(): void {
  token.value = "";
  shared.value = "";
  sessionStorage.removeItem(KEY);
  admitted.value = false;
}
