// All workspaces, as they are now: one snapshot, and then every change.
// With a share, which may not watch, the one that it is of, asked for again and again.

import { computed, signal } from "@preact/signals";
import { call, events, Problem, pause } from "./api";
import { QUIET, seen, whileSeen } from "./connection";
import { onLeave, session, shared } from "./session";
import type { Workspace } from "./types";

const EVERY = 2_000;

interface WatchEvent {
  snapshot?: Workspace;
  snapshotEnd?: { revision: string };
  put?: { workspace: Workspace; revision: string };
  delete?: { name: string; uid: string; revision: string };
  heartbeat?: { revision: string };
}

const kept = new Map<string, Workspace>();
const version = signal(0);

/** "loading" until the first snapshot is whole, "live" while changes come. */
export const link = signal<"loading" | "live" | "broken">("loading");

/** Why it is broken. */
export const trouble = signal("");

export const workspaces = computed<Workspace[]>(() => {
  version.value;
  return [...kept.values()].sort((one, other) => (one.name < other.name ? -1 : 1));
});

export function named(id: string): Workspace | undefined {
  version.value;
  return kept.get(`workspaces/${id}`);
}

/** Take what an answer says, before the watch does. */
export function learn(workspace: Workspace): void {
  kept.set(workspace.name, workspace);
  changed();
}

let waiting = false;

/** At most once a frame, however much comes. */
function changed(): void {
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    version.value++;
  });
}

function clear(): void {
  kept.clear();
  version.value++;
  link.value = "loading";
  trouble.value = "";
}
onLeave(clear);

/** Follow until the signal says so. */
export async function watch(signal: AbortSignal): Promise<void> {
  const ended = session();
  let revision = "";
  clear();
  for (let failures = 0; !signal.aborted && !ended.aborted; ) {
    await seen(signal);
    const open = whileSeen(signal);
    try {
      if (shared.value) {
        await look(shared.value, open.signal);
        failures = 0;
        await pause(EVERY, open.signal);
        continue;
      }
      revision = await read(revision, open.signal, (at) => {
        revision = at;
        failures = 0;
      });
    } catch (error) {
      if (!open.signal.aborted && !ended.aborted) {
        if (error instanceof Problem && error.reason.startsWith("REVISION_")) revision = "";
        trouble.value = error instanceof Error ? error.message : String(error);
        link.value = "broken";
        await pause(Math.min(5_000, 250 * 2 ** failures++), signal);
      }
    } finally {
      open.done();
    }
  }
}

/** Ask once how the one workspace is. */
async function look(name: string, signal: AbortSignal): Promise<void> {
  try {
    const found = await call<Workspace>("GET", name, { signal });
    kept.set(name, found);
  } catch (error) {
    if (!(error instanceof Problem && error.status === 404)) throw error;
    kept.clear();
  }
  link.value = "live";
  changed();
}

async function read(
  from: string,
  signal: AbortSignal,
  at: (revision: string) => void,
): Promise<string> {
  let revision = from;
  const fresh = new Map<string, Workspace>();
  const opened = () => {
    if (from) link.value = "live";
  };
  const query = { from_revision: from };
  const options = { query, signal, quiet: QUIET, opened };
  for await (const event of events<WatchEvent>("workspaces:watch", options)) {
    if (event.snapshot) fresh.set(event.snapshot.name, event.snapshot);
    if (event.snapshotEnd) {
      kept.clear();
      for (const [name, each] of fresh) kept.set(name, each);
      version.value++;
      link.value = "live";
    }
    if (event.put) {
      kept.set(event.put.workspace.name, event.put.workspace);
      changed();
    }
    if (event.delete && kept.get(event.delete.name)?.uid === event.delete.uid) {
      kept.delete(event.delete.name);
      changed();
    }
    const told = event.snapshotEnd ?? event.put ?? event.delete ?? event.heartbeat;
    if (told) {
      revision = told.revision;
      at(revision);
    }
  }
  throw new Problem("the connection broke off", 0);
}
