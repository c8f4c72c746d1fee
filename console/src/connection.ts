// When streams are open: browsers have six connections of HTTP/1.1 to a host, for all tabs.

import { signal } from "@preact/signals";
import { Problem, pause } from "./api";

/** Milliseconds after which a stream is dead that said nothing: it has a heartbeat every 10 s. */
export const QUIET = 25_000;

/** Whether the page can be seen. One that cannot holds no stream. */
export const visible = signal(document.visibilityState === "visible");
document.addEventListener("visibilitychange", () => {
  visible.value = document.visibilityState === "visible";
});

/** Wait until the page can be seen, or the signal says so. */
export function seen(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (visible.value || signal.aborted) {
      resolve();
      return;
    }
    const done = () => {
      stop();
      resolve();
    };
    const stop = visible.subscribe((now) => {
      if (now) queueMicrotask(done);
    });
    signal.addEventListener("abort", done, { once: true });
  });
}

/** Ends with `outer`, and when the page is hidden. */
export function whileSeen(outer: AbortSignal): { signal: AbortSignal; done: () => void } {
  const inner = new AbortController();
  const stop = visible.subscribe((now) => {
    if (!now) inner.abort();
  });
  return { signal: AbortSignal.any([outer, inner.signal]), done: stop };
}

/** Wait before the next try; false: there is to be none. */
export async function again(
  problem: unknown,
  failures: number,
  signal: AbortSignal,
): Promise<boolean> {
  if (signal.aborted) return false;
  if (isFinal(problem)) return false;
  if (visible.value) await pause(Math.min(5_000, 125 * 2 ** failures), signal);
  await seen(signal);
  return !signal.aborted;
}

/** Whether another try would fail alike. A page that was hidden has ended its streams itself. */
export function isFinal(problem: unknown): boolean {
  if (problem instanceof Problem) return !problem.passes;
  return problem !== null && !(problem instanceof DOMException && problem.name === "AbortError");
}
