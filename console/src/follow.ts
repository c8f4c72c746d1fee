// The output of an execution, every byte once, over connections that break.

import { fromBase64 } from "./bytes";
import type { Exit } from "./types";

export interface Chunk {
  stream: string;
  offset?: string;
  data?: string;
}

export interface OutputEvent {
  chunk?: Chunk;
  chunks?: { chunks?: Chunk[] };
  gap?: { from?: string; to?: string; reason?: string };
  heartbeat?: object;
  preview?: object;
  exit?: Exit;
  end?: object;
}

export interface Part {
  stream: string;
  offset: number;
  bytes: Uint8Array;
}

export type Told =
  | { kind: "part"; part: Part }
  | { kind: "gap"; from: number; to: number; reason: string }
  | { kind: "broken"; problem: unknown; at: number }
  | { kind: "exit"; exit: Exit }
  | { kind: "end" };

/** Opens a stream of events from an offset on. */
export type Open = (from: number) => AsyncIterable<OutputEvent>;

/**
 * Follow from `from` to the end. A connection that breaks off is told, and another one opened
 * where it stopped once `again` has returned true; what comes twice is left out.
 */
export async function* follow(
  open: Open,
  from: number,
  again: (problem: unknown, failures: number) => Promise<boolean>,
): AsyncGenerator<Told> {
  let at = from;
  for (let failures = 0; ; ) {
    let problem: unknown = null;
    try {
      for await (const event of open(at)) {
        for (const told of readings(event, at)) {
          if (told.kind === "part") at = told.part.offset + told.part.bytes.length;
          if (told.kind === "gap") at = told.to;
          failures = 0;
          yield told;
          if (told.kind === "exit" || told.kind === "end") return;
        }
      }
    } catch (error) {
      problem = error;
    }
    yield { kind: "broken", problem, at };
    if (!(await again(problem, ++failures))) return;
  }
}

function* readings(event: OutputEvent, at: number): Generator<Told> {
  let next = at;
  for (const chunk of event.chunk ? [event.chunk] : (event.chunks?.chunks ?? [])) {
    const offset = Number(chunk.offset ?? 0);
    const bytes = fromBase64(chunk.data ?? "");
    // A negative start is the server's to place: the first chunk says where it is.
    if (next < 0) next = offset;
    const known = Math.max(0, next - offset);
    if (known >= bytes.length) continue;
    if (offset > next) yield { kind: "gap", from: next, to: offset, reason: "" };
    const part = { stream: chunk.stream, offset: offset + known, bytes: bytes.subarray(known) };
    next = part.offset + part.bytes.length;
    yield { kind: "part", part };
  }
  if (event.gap) {
    const { from = "0", to = "0", reason = "" } = event.gap;
    yield { kind: "gap", from: Number(from), to: Number(to), reason };
  }
  if (event.exit) yield { kind: "exit", exit: event.exit };
  else if (event.end) yield { kind: "end" };
}
