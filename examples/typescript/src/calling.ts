// What a client does beside calling, in Node and in a browser: show its token, ask again, go on where it was.

import { Code, ConnectError, createClient, type CallOptions, type Interceptor, type Transport } from "@connectrpc/connect";

import type { Exit } from "#stubs/cove/executor/v1/executor_pb";
import { ExecutionService } from "#stubs/cove/gateway/v1/gateway_pb";
import { BadRequestSchema, ErrorInfoSchema, type ErrorInfo } from "#stubs/google/rpc/error_details_pb";

/** Milliseconds without an answer after which a client gives up. */
const PATIENCE = 60_000;

/** For the transport: every call shows the token. */
export function showing(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/** Milliseconds for one try: a library may miss that a connection has gone. */
const DEADLINE = 300_000;

/** Makes a call until it is answered. The request is the same each time, with its request id. */
export async function again<Q, A>(
  method: (request: Q, options: CallOptions) => Promise<A>,
  request: Q,
): Promise<A> {
  const end = Date.now() + PATIENCE;
  for (let wait = 50; ; wait = Math.min(2 * wait, 5000)) {
    try {
      return await method(request, { timeoutMs: DEADLINE });
    } catch (error) {
      if (!broken(error) || Date.now() > end) throw error;
    }
    await sleep(wait);
  }
}

/**
 * Gives the output of an execution to `write` until it ends, and returns how that was, and how often the
 * connection broke. It goes on at the byte where it was: none comes twice, none is missing.
 */
export async function follow(
  transport: Transport,
  execution: string,
  write: (data: Uint8Array) => void,
): Promise<{ exit: Exit; breaks: number }> {
  const client = createClient(ExecutionService, transport);
  let fromOffset = 0n;
  let end = Date.now() + PATIENCE;
  for (let breaks = 0; ; breaks++) {
    try {
      const request = { name: execution, fromOffset, follow: true, batched: true };
      for await (const { event } of client.readOutput(request)) {
        end = Date.now() + PATIENCE;
        const chunks = event.case === "chunks" ? event.value.chunks : event.case === "chunk" ? [event.value] : [];
        for (const chunk of chunks) {
          write(chunk.data);
          fromOffset = chunk.offset + BigInt(chunk.data.length);
        }
        if (event.case === "gap") fromOffset = event.value.to; // Kept no longer.
        if (event.case === "exit") return { exit: event.value, breaks };
      }
    } catch (error) {
      if (!broken(error) || Date.now() > end) throw error;
    }
    await sleep(50);
  }
}

/**
 * Whether a call failed on the way to Cove, and not by Cove, whose failures all have an ErrorInfo. The code alone does
 * not tell: a connection that is reset is Aborted in Node, one that ends is Canceled, and in a browser both are Unknown.
 */
export function broken(error: unknown): boolean {
  const failure = ConnectError.from(error);
  return failure.code === Code.Unavailable || !reason(failure);
}

/** What a program branches on: its `reason`. Undefined where no server of Cove was reached. */
export function reason(error: unknown): ErrorInfo | undefined {
  return ConnectError.from(error).findDetails(ErrorInfoSchema)[0];
}

/** The first field that is wrong; empty where none is. */
export function field(error: unknown): string {
  return ConnectError.from(error).findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field ?? "";
}

function sleep(milliseconds: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, milliseconds * (0.5 + Math.random() / 2)));
}
