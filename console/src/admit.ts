// Whether the token lets its caller in, and how far.

import { call, Problem } from "./api";
import { admitted, shared } from "./session";

/** Ask the gateway. Throws `Problem`. A share may not list: the refusal names what it is of. */
export async function admit(): Promise<void> {
  try {
    await call("GET", "workspaces", { query: { page_size: 1 } });
    shared.value = "";
  } catch (error) {
    const of = error instanceof Problem && error.reason === "SHARE_LIMITED";
    if (!of || !error.metadata["workspace"]) throw error;
    shared.value = error.metadata["workspace"];
  }
  admitted.value = true;
}
