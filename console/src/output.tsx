// The output of one command, as it comes.

import { useEffect, useRef, useState } from "preact/hooks";
import { call, events } from "./api";
import { Outcome, title } from "./commands";
import { again, isFinal, QUIET, whileSeen } from "./connection";
import { follow, type OutputEvent, type Part, type Told } from "./follow";
import { size } from "./format";
import { plain } from "./plain";
import type { Execution, Exit } from "./types";
import { Trouble, useAct } from "./ui";

/** Bytes of the end that are shown; all of it is in the download. */
const SHOWN = 512 * 1024;
const SIGNALS = ["INT", "TERM", "KILL", "STOP", "CONT", "HUP"];

interface Seen {
  /** Where what is shown begins and ends, in bytes of the whole output. */
  from: number;
  to: number;
  breaks: number;
  broken: boolean;
  exit: Exit | null;
}

/** Every part from an offset on, over all connections that it takes. */
export function output(name: string, from: number, signal: AbortSignal): AsyncGenerator<Told> {
  async function* open(at: number): AsyncGenerator<OutputEvent> {
    const seen = whileSeen(signal);
    const query = { from_offset: at, follow: true };
    try {
      yield* events<OutputEvent>(`${name}/output`, { query, signal: seen.signal, quiet: QUIET });
    } finally {
      seen.done();
    }
  }
  return follow(open, from, (problem, failures) => again(problem, failures, signal));
}

export function Output({ execution, ended }: { execution: Execution; ended: () => void }) {
  const pre = useRef<HTMLPreElement>(null);
  const [seen, setSeen] = useState<Seen>({ from: 0, to: 0, breaks: 0, broken: false, exit: null });
  const [problem, setProblem] = useState<unknown>(null);
  const { act, busy, problem: refused } = useAct();
  const done = useRef(ended);
  done.current = ended;
  const running = !execution.exit && !seen.exit;
  useEffect(() => {
    const element = pre.current;
    if (!element) return;
    const end = new AbortController();
    const page = new Page(element);
    const now: Seen = { from: -1, to: 0, breaks: 0, broken: false, exit: null };
    const known = Number(execution.outputBytes ?? execution.exit?.outputBytes ?? 0);
    const wasRunning = !execution.exit;
    let frame = 0;
    const show = () => {
      frame ||= requestAnimationFrame(() => {
        frame = 0;
        page.show();
        now.from = page.from;
        setSeen({ ...now });
      });
    };
    const read = async () => {
      const from = known > SHOWN ? known - SHOWN : 0;
      for await (const told of output(execution.name, from, end.signal)) {
        if (told.kind === "part") {
          page.add(told.part);
          now.to = told.part.offset + told.part.bytes.length;
          now.broken = false;
        } else if (told.kind === "gap") {
          page.note(`[${told.to - told.from} bytes are missing: ${told.reason || "not kept"}]`);
        } else if (told.kind === "broken") {
          if (end.signal.aborted) return;
          now.breaks++;
          now.broken = !isFinal(told.problem);
          if (!now.broken) setProblem(told.problem);
        } else if (told.kind === "exit") {
          now.exit = told.exit;
          now.broken = false;
          if (wasRunning) done.current();
        }
        show();
      }
    };
    void read();
    return () => {
      end.abort();
      cancelAnimationFrame(frame);
    };
  }, [execution.name]);
  const send = (signal: string) =>
    act(async () => {
      const json = { signal: `SIGNAL_${signal}`, scope: "SIGNAL_SCOPE_TREE" };
      await call("POST", `${execution.name}:signal`, { json });
    });
  return (
    <article class="output">
      <div class="bar">
        <h2 class="mono cut" title={title(execution)}>
          {title(execution)}
        </h2>
        <Outcome execution={seen.exit ? { ...execution, exit: seen.exit } : execution} />
        <span
          class="dim count"
          data-to={seen.to}
          data-breaks={seen.breaks}
          data-ended={seen.exit ? "yes" : "no"}
        >
          {size(seen.to)}
        </span>
        <span class="grow" />
        {running && (
          <>
            <button type="button" disabled={busy} onClick={() => send("TERM")}>
              Stop
            </button>
            <select
              aria-label="Send a signal"
              value=""
              onChange={(event) => {
                const { value } = event.currentTarget;
                event.currentTarget.value = "";
                if (value) void send(value);
              }}
            >
              <option value="">Signal…</option>
              {SIGNALS.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          </>
        )}
        <button type="button" disabled={busy} onClick={() => act(() => save(execution))}>
          Download
        </button>
      </div>
      {seen.broken && running && (
        <p class="note" role="status">
          The connection broke off at byte {seen.to}. Going on from there…
        </p>
      )}
      <Trouble of={problem} />
      <Trouble of={refused} />
      {seen.from > 0 && (
        <p class="dim small">The first {size(seen.from)} are left out here; Download has all.</p>
      )}
      {/* biome-ignore lint/a11y/noNoninteractiveTabindex: it is scrolled by keys. */}
      <pre ref={pre} class="log" tabIndex={0} role="log" aria-label="Output" aria-live="off" />
    </article>
  );
}

/** All that it has written so far, as a file. */
async function save(execution: Execution): Promise<void> {
  const parts: Uint8Array<ArrayBuffer>[] = [];
  const end = new AbortController();
  const open = (at: number) =>
    events<OutputEvent>(`${execution.name}/output`, { query: { from_offset: at } });
  const all = follow(open, 0, (problem, failures) => again(problem, failures, end.signal));
  for await (const told of all) {
    if (told.kind === "part") parts.push(new Uint8Array(told.part.bytes));
    if (told.kind === "broken" && isFinal(told.problem)) throw told.problem;
  }
  download(new Blob(parts), `${execution.name.split("/").at(-1)}.log`);
}

export function download(blob: Blob, name: string): void {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(blob);
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** What is shown of it: added to at the end, cut off at the start, at most once a frame. */
class Page {
  from = 0;
  private readonly decoders = new Map<string, TextDecoder>();
  private readonly sizes: number[] = [];
  private total = 0;
  private started = false;
  private waiting: { stream: string; text: string; bytes: number }[] = [];

  constructor(private readonly element: HTMLElement) {
    element.replaceChildren();
  }

  add(part: Part): void {
    if (!this.started) {
      this.started = true;
      this.from = part.offset;
    }
    const decoder = this.decoders.get(part.stream) ?? new TextDecoder();
    this.decoders.set(part.stream, decoder);
    const text = plain(decoder.decode(part.bytes, { stream: true }));
    const last = this.waiting.at(-1);
    if (last?.stream === part.stream) {
      last.text += text;
      last.bytes += part.bytes.length;
    } else {
      this.waiting.push({ stream: part.stream, text, bytes: part.bytes.length });
    }
  }

  note(text: string): void {
    this.waiting.push({ stream: "note", text: `\n${text}\n`, bytes: 0 });
  }

  show(): void {
    if (!this.waiting.length) return;
    const { scrollTop, scrollHeight, clientHeight } = this.element;
    const atEnd = scrollHeight - scrollTop - clientHeight < 40;
    const fresh = document.createDocumentFragment();
    for (const each of this.waiting) {
      const span = document.createElement("span");
      span.className = each.stream.replace("STREAM_", "").toLowerCase();
      span.textContent = each.text;
      fresh.append(span);
      this.sizes.push(each.bytes);
      this.total += each.bytes;
    }
    this.waiting = [];
    this.element.append(fresh);
    while (this.total > 2 * SHOWN && this.total - (this.sizes[0] ?? 0) >= SHOWN) {
      const gone = this.sizes.shift() ?? 0;
      this.total -= gone;
      this.from += gone;
      this.element.firstChild?.remove();
    }
    if (atEnd) this.element.scrollTop = this.element.scrollHeight;
  }
}
