import { expect, test } from "vitest";
import { fromBase64, toBase64, toBase64Url } from "../src/bytes";
import { age, repository, size, word } from "../src/format";
import { lines } from "../src/lines";
import { Pending } from "../src/pending";
import { plain } from "../src/plain";
import { has, trees } from "../src/tree";

test("lines are whole, however the bytes come", async () => {
  const bytes = new TextEncoder().encode('{"a":"é"}\n\n{"b":2}\n{"cut');
  for (const part of [1, 2, 3, 7, 100]) {
    const body = new ReadableStream<Uint8Array>({
      start(controller) {
        for (let at = 0; at < bytes.length; at += part) {
          controller.enqueue(bytes.subarray(at, at + part));
        }
        controller.close();
      },
    });
    const found: string[] = [];
    for await (const line of lines(body)) found.push(line);
    expect(found).toEqual(['{"a":"é"}', '{"b":2}']);
  }
});

test("what was typed is sent again from where it did not arrive", () => {
  const pending = new Pending();
  const text = (bytes: Uint8Array) => new TextDecoder().decode(bytes);
  const typed = (value: string) => pending.add(new TextEncoder().encode(value));
  expect(typed("early")).toBeNull();
  expect(text(pending.after(7))).toBe("early");
  expect(typed("more")).toBe(12);
  expect(text(pending.after(14))).toBe("re");
  expect(text(pending.after(14))).toBe("re");
  expect(text(pending.after(99))).toBe("");
  expect(typed("x")).toBe(99);
});

test("bytes and base64", () => {
  const bytes = Uint8Array.from({ length: 256 }, (_, index) => index);
  expect([...fromBase64(toBase64(bytes))]).toEqual([...bytes]);
  expect(toBase64Url("ü?>~a")).toBe("w7w_Pn5h");
});

test("output is text without what moves a cursor", () => {
  expect(plain("\x1b[1;31mred\x1b[0m\tx\r\ny\x07\x1b]0;title\x07z")).toBe("red\tx\nyz");
});

test("how things are written", () => {
  expect([0, 1023, 1024, 1536, 200 * 1024, 5 * 1024 ** 3].map(size)).toEqual([
    "0 B",
    "1023 B",
    "1.0 KiB",
    "1.5 KiB",
    "200 KiB",
    "5.0 GiB",
  ]);
  const now = Date.parse("2026-01-02T00:00:00Z");
  expect(age("2026-01-01T23:59:20Z", now)).toBe("40s");
  expect(age("2026-01-01T00:00:00Z", now)).toBe("1d");
  expect(age("2027-01-01T00:00:00Z", now)).toBe("0s");
  expect(word("WORK_STATE_TYPE_CHANGED", "WORK_STATE_")).toBe("type changed");
  expect(repository("file:///srv/app")).toBe("/srv/app");
});

test("forks are trees, also where the first is gone, and names come again", () => {
  const made = (name: string, source = "") => ({
    name: `workspaces/${name}`,
    uid: name,
    state: "STATE_READY",
    source,
  });
  const all = [
    made("a"),
    made("b", "workspaces/a/snapshots/s"),
    made("c", "workspaces/b"),
    made("d", "workspaces/gone"),
    made("e", "workspaces/f"),
    made("f", "workspaces/e"),
    made("alone"),
  ];
  const found = trees(all, true);
  expect(found.map((each) => each.id).sort()).toEqual(["a", "f", "gone"]);
  const [a] = found.filter((each) => each.id === "a");
  expect(a?.forks[0]?.snapshot).toBe("s");
  expect(a && has(a, "c")).toBe(true);
  expect(found.find((each) => each.id === "gone")?.workspace).toBeUndefined();
});
