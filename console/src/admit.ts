// Whether a token lets its caller in, and how far.

import { call, Problem } from "./api";
import { admitted, keep, refusal, shared } from "./session";

/** What a header can have, and a token has: the rest would be refused as if nobody answered. */
const TOKEN = /^[\x21-\x7e]*$/;

/** Ask the gateway, and keep the token if it lets in. Throws `Problem`. */
export async function signIn(value: string): Promise<void> {
  if (!TOKEN.test(value)) {
    const remedy = "A token has letters, digits and signs of ASCII, and no spaces: copy it again.";
    throw new Problem("this is no token", 400, "", remedy);
  }
  const of = await reach(value);
  keep(value);
  shared.value = of;
  refusal.value = null;
  admitted.value = true;
}

/** Ask with the token that was kept before. Throws `Problem`; one that is refused is forgotten. */
export async function admit(): Promise<void> {
  shared.value = await reach();
  admitted.value = true;
}

/** The one workspace, for a share. It may not list: the refusal names what it is of. */
async function reach(value?: string): Promise<string> {
  const tried = value === undefined ? {} : { token: value };
  try {
    await call("GET", "workspaces", { query: { page_size: 1 }, ...tried });
    return "";
  } catch (error) {
    const of = error instanceof Problem && error.reason === "SHARE_LIMITED";
    if (!of || !error.metadata["workspace"]) throw error;
    return error.metadata["workspace"];
  }
}
