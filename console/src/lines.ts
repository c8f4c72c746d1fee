// A stream of bytes as lines of text.

/** Bytes that are read ahead of who takes the lines. */
const AHEAD = 4 << 20;

/**
 * The lines of a body, as they are whole. What comes after the last newline is no line.
 *
 * It is read as fast as it comes: a browser throws away what it has of a body that breaks off.
 */
export async function* lines(body: ReadableStream<Uint8Array>): AsyncGenerator<string> {
  const decoder = new TextDecoder();
  let parts: string[] = [];
  for await (const bytes of eager(body)) {
    const text = decoder.decode(bytes, { stream: true });
    let from = 0;
    for (let at = text.indexOf("\n"); at >= 0; at = text.indexOf("\n", from)) {
      parts.push(text.slice(from, at));
      from = at + 1;
      const line = parts.join("");
      parts = [];
      if (line) yield line;
    }
    parts.push(text.slice(from));
  }
}

/** All that came, and only then that it broke off. */
async function* eager(body: ReadableStream<Uint8Array>): AsyncGenerator<Uint8Array> {
  const reader = body.getReader();
  const queue: Uint8Array[] = [];
  let ahead = 0;
  let over: { failure?: unknown } | null = null;
  let wake = () => {};
  const changed = () => new Promise<void>((resolve) => (wake = resolve));
  const read = async () => {
    try {
      for (;;) {
        const { done, value } = await reader.read();
        if (done) break;
        queue.push(value);
        ahead += value.length;
        wake();
        while (ahead > AHEAD) await changed();
      }
      over = {};
    } catch (failure) {
      over = { failure };
    }
    wake();
  };
  void read();
  try {
    for (;;) {
      const next = queue.shift();
      if (next) {
        ahead -= next.length;
        wake();
        yield next;
      } else if (over) {
        const { failure } = over as { failure?: unknown };
        if (failure !== undefined) throw failure;
        return;
      } else {
        await changed();
      }
    }
  } finally {
    ahead = 0;
    await reader.cancel().catch(() => {});
  }
}
