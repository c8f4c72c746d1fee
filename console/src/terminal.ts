// A terminal on the page, attached to a command by WebSocket. No byte of its output and no key is
// lost or taken twice when the connection breaks: both have offsets.

import { FitAddon } from "@xterm/addon-fit";
import { Terminal } from "@xterm/xterm";
import "@xterm/xterm/css/xterm.css";
import { call, root, uuid } from "./api";
import { toBase64, toBase64Url } from "./bytes";
import { again, QUIET } from "./connection";
import { Pending } from "./pending";
import { token } from "./session";
import "./allowed";
import type { Execution, Exit } from "./types";

interface Told {
  execution?: Execution;
  gap?: { from?: string; to?: string };
  heartbeat?: object;
  exit?: Exit;
  input?: { offset?: string; closed?: boolean; lost?: boolean };
  error?: { message?: string };
}

interface Listener {
  state: (state: string) => void;
  /** Another one writes. */
  held: () => void;
  problem: (problem: unknown) => void;
}

const PART = 256 * 1024;
const REFUSALS = 3;

export async function attach(
  place: HTMLElement,
  name: string,
  signal: AbortSignal,
  takeOver: boolean,
  listener: Listener,
): Promise<void> {
  const terminal = screen(place, signal);
  const writer = uuid();
  const pending = new Pending();
  let at = 0;
  let socket: WebSocket | null = null;
  let readOnly = false;
  let taking = takeOver;
  const say = (value: unknown) => {
    if (socket?.readyState === WebSocket.OPEN) socket.send(JSON.stringify(value));
  };
  const write = (offset: number, bytes: Uint8Array) => {
    for (let from = 0; from < bytes.length; from += PART) {
      const data = toBase64(bytes.subarray(from, from + PART));
      say({ input: { offset: String(offset + from), data } });
    }
  };
  const type = (bytes: Uint8Array) => {
    if (readOnly) return;
    const offset = pending.add(bytes);
    if (offset !== null) write(offset, bytes);
  };
  const lookOn = () => {
    readOnly = true;
    listener.held();
  };
  const take = (message: Uint8Array | string): boolean => {
    taking = false;
    if (typeof message !== "string") {
      at += message.length;
      terminal.write(message);
      return false;
    }
    const told = JSON.parse(message) as Told;
    if (told.execution) {
      listener.state("attached");
      if (!readOnly) {
        const begun = Number(told.execution.inputBytes ?? 0);
        write(begun, pending.after(begun));
        say({ resize: { rows: terminal.rows, cols: terminal.cols } });
      }
    }
    if (told.gap) at = Number(told.gap.to ?? at);
    if (told.input?.lost) lookOn();
    else if (told.input?.offset) pending.after(Number(told.input.offset));
    return told.exit !== undefined;
  };
  terminal.onData((text) => type(new TextEncoder().encode(text)));
  terminal.onBinary((text) => type(Uint8Array.from(text, (each) => each.charCodeAt(0))));
  terminal.onResize(({ rows, cols }) => say({ resize: { rows, cols } }));
  for (let failures = 0; !signal.aborted; ) {
    const query = { from_offset: at, writer, take_over: taking, read_only: readOnly };
    socket = open(name, readOnly ? { from_offset: at, read_only: true } : query);
    const { opened, over } = await talk(socket, signal, take);
    if (over) {
      listener.state("ended");
      terminal.options.disableStdin = true;
      return;
    }
    if (signal.aborted) return;
    listener.state("reconnecting");
    if (opened) failures = 0;
    const problem = await why(name, signal);
    // A WebSocket does not say why it was refused. One that is so again and again, while other
    // calls are answered, is so because another one writes.
    if (failures >= REFUSALS && problem === null && !readOnly) lookOn();
    else if (!(await again(problem, ++failures, signal))) {
      if (!signal.aborted) listener.problem(problem);
      listener.state("closed");
      return;
    }
  }
}

function open(name: string, query: Record<string, unknown>): WebSocket {
  const url = new URL(`./${name}:attach`, root);
  url.protocol = url.protocol.replace("http", "ws");
  for (const [key, value] of Object.entries(query)) url.searchParams.set(key, String(value));
  const bearer = token.value ? [`cove.bearer.${toBase64Url(token.value)}`] : [];
  const socket = new WebSocket(url, ["cove", ...bearer]);
  socket.binaryType = "arraybuffer";
  return socket;
}

/** Until it closes, or is silent for too long. `take` says whether a message is the last. */
function talk(
  socket: WebSocket,
  signal: AbortSignal,
  take: (message: Uint8Array | string) => boolean,
): Promise<{ opened: boolean; over: boolean }> {
  return new Promise((resolve) => {
    const result = { opened: false, over: false };
    let timer = setTimeout(() => {}, 0);
    const finish = () => {
      clearTimeout(timer);
      socket.onclose = socket.onmessage = socket.onerror = null;
      socket.close();
      resolve(result);
    };
    const heard = () => {
      clearTimeout(timer);
      timer = setTimeout(finish, QUIET);
    };
    socket.onopen = () => {
      result.opened = true;
      heard();
    };
    socket.onmessage = ({ data }: MessageEvent<ArrayBuffer | string>) => {
      heard();
      if (take(typeof data === "string" ? data : new Uint8Array(data))) {
        result.over = true;
        finish();
      }
    };
    socket.onclose = finish;
    signal.addEventListener("abort", finish, { once: true });
    heard();
  });
}

async function why(name: string, signal: AbortSignal): Promise<unknown> {
  try {
    await call("GET", name, { signal });
    return null;
  } catch (error) {
    return error;
  }
}

function screen(place: HTMLElement, signal: AbortSignal): Terminal {
  const style = getComputedStyle(place);
  const colour = (name: string) => style.getPropertyValue(name).trim();
  const terminal = new Terminal({
    fontFamily: colour("--mono"),
    fontSize: 13,
    scrollback: 5000,
    screenReaderMode: true,
    theme: {
      background: colour("--terminal"),
      foreground: colour("--terminal-text"),
      cursor: colour("--terminal-text"),
      selectionBackground: colour("--terminal-selection"),
    },
  });
  const fit = new FitAddon();
  terminal.loadAddon(fit);
  terminal.open(place);
  terminal.attachCustomKeyEventHandler((event) => {
    // Everything else is the terminal's: without it nobody gets out by keys.
    if (event.ctrlKey && event.shiftKey && event.code === "KeyE") {
      if (event.type === "keydown") document.querySelector<HTMLElement>(".tabs a")?.focus();
      return false;
    }
    return true;
  });
  const observer = new ResizeObserver(() => fit.fit());
  observer.observe(place);
  fit.fit();
  terminal.focus();
  signal.addEventListener("abort", () => {
    observer.disconnect();
    terminal.dispose();
  });
  return terminal;
}
