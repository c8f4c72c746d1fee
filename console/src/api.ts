// The HTTP API of the gateway, as docs/rest.md has it.

import { lines } from "./lines";
import { forget, session, token } from "./session";

/** Where the API is: beside the console, whatever a proxy puts before both. */
export const root = new URL("../", location.href.split("#")[0]);

/** What a failure in the midst of a stream counts as: it began well. */
const BROKEN = 503;

export interface Violation {
  field: string;
  description: string;
}

/** A call that failed: what is wrong, by which a program can tell it, and what to do. */
export class Problem extends Error {
  constructor(
    message: string,
    readonly status: number,
    readonly reason = "",
    readonly remedy = "",
    readonly violations: Violation[] = [],
    readonly request = "",
    readonly metadata: Record<string, string> = {},
  ) {
    super(message);
  }

  /** Whether the same call may do better later: nobody answered, or not now. */
  get passes(): boolean {
    return this.status === 0 || this.status === 429 || this.status === 503 || this.status === 504;
  }
}

export interface Status {
  message?: string;
  details?: {
    "@type": string;
    reason?: string;
    metadata?: Record<string, string>;
    message?: string;
    fieldViolations?: Violation[];
  }[];
}

/** What a google.rpc.Status in JSON says. */
export function problemOf(status: Status, code: number, request = ""): Problem {
  const found = (type: string) => status.details?.find((each) => each["@type"].endsWith(type));
  const info = found("google.rpc.ErrorInfo");
  return new Problem(
    status.message || `HTTP ${code}`,
    code,
    info?.reason?.replace("ERROR_REASON_", "") ?? "",
    found("google.rpc.LocalizedMessage")?.message ?? "",
    found("google.rpc.BadRequest")?.fieldViolations ?? [],
    request,
    info?.metadata,
  );
}

export interface Options {
  query?: Record<string, string | number | boolean | undefined>;
  json?: unknown;
  body?: Blob | string;
  headers?: Record<string, string>;
  signal?: AbortSignal;
  /** Shown in place of the one that is kept, to try it: a refusal ends no session. */
  token?: string;
}

const TRIES = 3;

/** One call. A change is asked for again with the same key when its answer was lost. */
export async function call<T>(method: string, path: string, options: Options = {}): Promise<T> {
  const answer = await respond(method, path, options);
  return (await answer.json()) as T;
}

/** As `call`, for an answer that is no JSON. Throws `Problem`. */
export async function respond(
  method: string,
  path: string,
  options: Options = {},
): Promise<Response> {
  const headers: Record<string, string> = { ...options.headers };
  if (method !== "GET" && method !== "HEAD") headers["idempotency-key"] = uuid();
  const signal = together(session(), options.signal);
  for (let tried = 1; ; tried++) {
    try {
      return await once(method, path, headers, { ...options, signal });
    } catch (error) {
      const lost = error instanceof Problem && error.status === 0;
      if (!lost || tried === TRIES) throw error;
      await pause(300 * tried, signal);
      signal.throwIfAborted(); // The next one's token is not for this.
    }
  }
}

/** The events of a stream, one JSON object a line. Throws `Problem`, also for its last line. */
export async function* events<T extends object>(
  path: string,
  options: Options & { quiet?: number; opened?: () => void } = {},
): AsyncGenerator<T> {
  const silent = new AbortController();
  const ended = together(session(), options.signal);
  const signal = together(ended, silent.signal);
  let timer: ReturnType<typeof setTimeout> | undefined;
  const heard = () => {
    clearTimeout(timer);
    if (options.quiet) timer = setTimeout(() => silent.abort(), options.quiet);
  };
  try {
    heard();
    const answer = await once("GET", path, {}, { ...options, signal });
    options.opened?.();
    if (!answer.body) return;
    for await (const line of lines(answer.body)) {
      heard();
      const event = JSON.parse(line) as Awaited<T> & { error?: Status };
      if (event.error) throw problemOf(event.error, BROKEN);
      yield event;
    }
  } catch (error) {
    if (error instanceof Problem) throw error;
    if (ended.aborted) throw error;
    throw new Problem("the connection broke off", 0);
  } finally {
    clearTimeout(timer);
    silent.abort();
  }
}

function together(one: AbortSignal, other: AbortSignal | undefined): AbortSignal {
  return other ? AbortSignal.any([one, other]) : one;
}

async function once(
  method: string,
  path: string,
  headers: Record<string, string>,
  options: Options,
): Promise<Response> {
  const url = new URL(`./${path}`, root); // Without ./ a name with a colon is a scheme.
  for (const [name, value] of Object.entries(options.query ?? {})) {
    if (value !== undefined && value !== "") url.searchParams.set(name, String(value));
  }
  const all: Record<string, string> = { ...headers };
  const shown = options.token ?? token.value;
  if (shown) all["authorization"] = `Bearer ${shown}`;
  const request: RequestInit = { method, headers: all, cache: "no-store", credentials: "omit" };
  if (options.signal) request.signal = options.signal;
  if (options.json !== undefined) request.body = JSON.stringify(options.json);
  else if (options.body !== undefined) request.body = options.body;
  let answer: Response;
  try {
    answer = await fetch(url, request);
  } catch (error) {
    if (options.signal?.aborted) throw error;
    throw new Problem("the gateway does not answer", 0, "", "Check that the suite runs.");
  }
  if (answer.ok) return answer;
  const status = (await answer.json().catch(() => ({}))) as Status;
  const problem = problemOf(status, answer.status, answer.headers.get("x-request-id") ?? "");
  const isKept = options.token === undefined && shown === token.value;
  if (answer.status === 401 && isKept) forget(problem.message, problem.remedy);
  throw problem;
}

/** Wait; at once when the signal says so. */
export function pause(milliseconds: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, milliseconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      resolve();
    });
  });
}

/** `crypto.randomUUID` is only there over HTTPS and on loopback. */
export function uuid(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40;
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80;
  const hex = [...bytes].map((each) => each.toString(16).padStart(2, "0")).join("");
  return hex.replace(/^(.{8})(.{4})(.{4})(.{4})(.{12})$/, "$1-$2-$3-$4-$5");
}
