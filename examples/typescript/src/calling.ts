// What a client does beside calling, in Node and in a browser: show its token, ask again, go on where it was.

import { Code, ConnectError, createClient, type CallOptions, type Interceptor, type Transport } from "@connectrpc/connect";

import type { Exit } from "#stubs/cove/executor/v1/executor_pb";
import { ExecutionService } from "#stubs/cove/gateway/v1/gateway_pb";
import { BadRequestSchema, ErrorInfoSchema, RetryInfoSchema, type ErrorInfo } from "#stubs/google/rpc/error_details_pb";

/** Milliseconds from a first failure, without an answer since, after which a client gives up. */
const PATIENCE = 60_000;

/** Milliseconds between two tries. */
const [FIRST, LONGEST] = [25, 5000];

/**
 * Milliseconds for one try, as a library may miss that a connection has gone. Longer than the server's own deadline, whose
 * word says more: that is 600 s at most, but for WaitExecution, Execute and uploads.
 */
const DEADLINE = 610_000;

/** Of calls by which nothing was begun. */
const REFUSED = ["ERROR_REASON_RATE_LIMITED", "ERROR_REASON_OVERLOADED"];

/** For the transport: every call shows the token. */
export function showing(token: string): Interceptor {
  return (next) => (request) => {
    request.header.set("authorization", `Bearer ${token}`);
    return next(request);
  };
}

/** Makes a call until it is answered. The request is the same each time, with its request id. */
export async function again<Q, A>(
  method: (request: Q, options: CallOptions) => Promise<A>,
  request: Q,
): Promise<A> {
  const patience = new Patience();
  for (;;) {
    try {
      return await method(request, { timeoutMs: DEADLINE });
    } catch (error) {
      await patience.wait(error);
    }
  }
}

/**
 * Gives the output of an execution to `write` until it ends, and returns how that was, and how often the
 * connection broke. It goes on at the byte where it was: none comes twice, none is missing. What `write` throws ends it.
 */
export async function follow(
  transport: Transport,
  execution: string,
  write: (data: Uint8Array) => unknown,
): Promise<{ exit: Exit; breaks: number }> {
  const client = createClient(ExecutionService, transport);
  const patience = new Patience();
  let fromOffset = 0n;
  for (let breaks = 0; ; breaks++) {
    const request = { name: execution, fromOffset, follow: true, batched: true };
    for await (const { event } of untilBroken(client.readOutput(request), patience)) {
      patience.refill(); // Any event is an answer; a heartbeat comes every 10 s.
      const chunks = event.case === "chunks" ? event.value.chunks : event.case === "chunk" ? [event.value] : [];
      for (const chunk of chunks) {
        await write(chunk.data);
        fromOffset = chunk.offset + BigInt(chunk.data.length);
      }
      if (event.case === "gap") fromOffset = event.value.to; // Kept no longer.
      if (event.case === "exit") return { exit: event.value, breaks };
    }
  }
}

/** The events of one stream. What fails outside, as they are used, does not come in here. */
async function* untilBroken<A>(stream: AsyncIterable<A>, patience: Patience): AsyncGenerator<A> {
  let broke: unknown = new ConnectError("the output ended without its last event");
  try {
    yield* stream;
  } catch (error) {
    broke = error;
  }
  await patience.wait(broke);
}

/** How long one call is repeated, and how long is waited in between. */
class Patience {
  #end = Infinity;
  #delay = FIRST;

  /** There was an answer: what failed before is forgotten. */
  refill(): void {
    this.#end = Infinity;
    this.#delay = FIRST;
  }

  /** Waits until the next try, or throws the error when there shall be none. */
  async wait(error: unknown): Promise<void> {
    if (!(error instanceof ConnectError && passes(error))) throw error;
    const now = Date.now();
    this.#end = Math.min(this.#end, now + PATIENCE);
    const asked = error.findDetails(RetryInfoSchema)[0]?.retryDelay;
    const told = asked ? Number(asked.seconds) * 1000 + asked.nanos / 1e6 : 0;
    const delay = Math.max(told, this.#delay * (0.5 + Math.random() / 2));
    if (now + delay > this.#end) throw error;
    this.#delay = Math.min(2 * this.#delay, LONGEST);
    await new Promise((resolve) => setTimeout(resolve, delay));
  }
}

/**
 * Whether it may go otherwise the next time: nobody of Cove answered, as its own failures all have an ErrorInfo, or it
 * began nothing. The code does not tell: a connection that is reset is Aborted in Node, one that ends is Canceled, in a
 * browser both are Unknown, behind a proxy it may be Internal, and if nothing came at all it is DeadlineExceeded.
 */
function passes(error: ConnectError): boolean {
  const info = reason(error);
  return !info || error.code === Code.Unavailable || REFUSED.includes(info.reason);
}

/** What a program branches on: its `reason`. Undefined where no server of Cove answered. */
export function reason(error: unknown): ErrorInfo | undefined {
  return ConnectError.from(error).findDetails(ErrorInfoSchema).find(({ domain }) => domain === "cove");
}

/** The first field that is wrong; empty where none is. */
export function field(error: unknown): string {
  return ConnectError.from(error).findDetails(BadRequestSchema)[0]?.fieldViolations[0]?.field ?? "";
}
