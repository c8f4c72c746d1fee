import { expect, test } from "vitest";
import { toBase64 } from "../src/bytes";
import { follow, type OutputEvent, type Told } from "../src/follow";

const ALL = new TextEncoder().encode("0123456789abcdefghij");

function chunk(from: number, to: number): OutputEvent {
  const data = toBase64(ALL.subarray(from, to));
  return { chunk: { stream: "STREAM_STDOUT", offset: String(from), data } };
}

/** Follow over connections that bring these events; null: it breaks off with a failure. */
async function followed(connections: (OutputEvent | null)[][], from = 0, tries = 10) {
  const asked: number[] = [];
  const told: Told[] = [];
  async function* open(at: number): AsyncGenerator<OutputEvent> {
    asked.push(at);
    for (const event of connections.shift() ?? []) {
      if (!event) throw new Error("broken");
      yield event;
    }
  }
  const again = async (_: unknown, failures: number) => failures < tries;
  for await (const each of follow(open, from, again)) told.push(each);
  const parts = told.filter((each) => each.kind === "part").map((each) => each.part);
  const text = parts.map((each) => new TextDecoder().decode(each.bytes)).join("");
  return { asked, told, text, kinds: told.map((each) => each.kind), parts };
}

test("it goes on at the next byte, and what comes twice is left out", async () => {
  const { asked, text, kinds, parts } = await followed([
    [chunk(0, 5), null],
    [],
    [chunk(3, 8), chunk(8, 9)],
    [chunk(2, 4), chunk(0, 12), { chunks: { chunks: [chunk(12, 13), chunk(12, 20)].map(one) } }],
    [{ exit: { code: 3 } }],
  ]);
  expect(asked).toEqual([0, 5, 5, 9, 20]);
  expect(text).toBe("0123456789abcdefghij");
  expect(parts.map((each) => each.offset)).toEqual([0, 5, 8, 9, 12, 13]);
  expect(kinds.filter((each) => each === "broken").length).toBe(4);
  expect(kinds.at(-1)).toBe("exit");
});

function one(event: OutputEvent) {
  if (!event.chunk) throw new Error("no chunk");
  return event.chunk;
}

test("what is missing is told, and gone on after", async () => {
  const gap: OutputEvent = { gap: { from: "2", to: "6", reason: "REASON_RETENTION" } };
  const { told, asked } = await followed([
    [chunk(0, 2), gap],
    [chunk(6, 8), chunk(9, 10)],
    [{ end: {} }],
  ]);
  expect(asked).toEqual([0, 6, 10]);
  expect(told.filter((each) => each.kind === "gap")).toEqual([
    { kind: "gap", from: 2, to: 6, reason: "REASON_RETENTION" },
    { kind: "gap", from: 8, to: 9, reason: "" },
  ]);
});

test("from the end on, the first chunk says where that is", async () => {
  const { asked, parts } = await followed(
    [
      [chunk(15, 18), null],
      [chunk(18, 20), { exit: {} }],
    ],
    -5,
  );
  expect(asked).toEqual([-5, 18]);
  expect(parts.map((each) => each.offset)).toEqual([15, 18]);
});

test("it gives up when it is told to, and bytes that come begin the count anew", async () => {
  const { asked } = await followed([[], [], [chunk(0, 1)], [], [], []], 0, 3);
  expect(asked).toEqual([0, 0, 0, 1, 1]);
});
