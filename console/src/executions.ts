// Lists of executions in the order in which people look for them.

import type { Execution } from "./types";

const PAGE = 1000;
const ORDER = "create_time desc";
/** Pages that are read at most, the latest first. */
const PAGES = 10;
/** Milliseconds by which what is asked for overlaps: an end is told a little after its time. */
const OVERLAP = 60_000;

interface Answer {
  executions?: Execution[];
  nextPageToken?: string;
}

export type Read = (query: Record<string, string | number>) => Promise<Answer>;

/** The latest that the filter selects, and whether there are more than are read. */
export async function pages(read: Read, filter = ""): Promise<[Execution[], boolean]> {
  const found: Execution[] = [];
  let token = "";
  for (let page = 0; page < PAGES; page++) {
    const answer = await read({ page_size: PAGE, page_token: token, filter, order_by: ORDER });
    found.push(...(answer.executions ?? []));
    token = answer.nextPageToken ?? "";
    if (!token) return [found, false];
  }
  return [found, true];
}

/** Without the Z a time with fewer digits comes before the ones that begin as it does. */
const made = (each: Execution) => (each.createTime ?? "").replace("Z", "");

export function latestFirst(all: Iterable<Execution>): Execution[] {
  return [...all].sort((one, other) => (made(one) < made(other) ? 1 : -1));
}

/** What selects all that may have changed since these were read. */
export function changedSince(known: Iterable<Execution>): string {
  let last = 0;
  for (const { createTime, exit } of known) {
    last = Math.max(last, Date.parse(exit?.endTime ?? createTime ?? "") || 0);
  }
  if (!last) return "";
  const time = `"${new Date(last - OVERLAP).toISOString()}"`;
  return `create_time > ${time} OR exit.end_time > ${time} OR state = STARTING OR state = RUNNING`;
}
