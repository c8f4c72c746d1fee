import { expect, test } from "vitest";
import { endings, restored, unified } from "../src/endings";

test.each([
  ["", "\n"],
  ["one", "\n"],
  ["one\ntwo\n", "\n"],
  ["one\r\ntwo\r\n", "\r\n"],
  ["one\r\n\r\n", "\r\n"],
  ["one\r\ntwo\n", "mixed"],
  ["\none\r\n", "mixed"],
  ["one\rtwo", "mixed"],
  ["one\r\r\ntwo", "mixed"],
  ["one\r\ntwo\r", "mixed"],
])("%j ends its lines by %j", (text, how) => {
  expect(endings(text)).toBe(how);
  expect(unified(text)).not.toContain("\r");
  if (how !== "mixed") expect(restored(unified(text), endings(text))).toBe(text);
});

test("a line that is added ends as the others do", () => {
  expect(restored("one\ntwo\n", "\r\n")).toBe("one\r\ntwo\r\n");
  expect(restored("one\ntwo\n", "\n")).toBe("one\ntwo\n");
});
