import { expect, test } from "vitest";
import { parsePatch } from "../src/diff";

const PATCH = `diff --git a/x b/x
index 1..2 100644
--- a/x
+++ b/x
@@ -1,3 +1,3 @@ def f():
 one
-two
+zwei
 three
@@ -10 +10,2 @@
--- a line that looks like a header
+++ another
+
\\ No newline at end of file
`;

test("lines are numbered on both sides", () => {
  expect(parsePatch(PATCH).map((each) => [each.kind, each.old, each.new, each.text])).toEqual([
    ["hunk", null, null, "@@ -1,3 +1,3 @@ def f():"],
    ["context", 1, 1, "one"],
    ["removed", 2, null, "two"],
    ["added", null, 2, "zwei"],
    ["context", 3, 3, "three"],
    ["hunk", null, null, "@@ -10 +10,2 @@"],
    ["removed", 10, null, "-- a line that looks like a header"],
    ["added", null, 10, "++ another"],
    ["added", null, 11, ""],
    ["note", null, null, "No newline at end of file"],
  ]);
});

test("a patch without hunks has no lines, a binary one a note", () => {
  expect(parsePatch("diff --git a/x b/y\nrename from x\nrename to y\n")).toEqual([]);
  expect(parsePatch("Binary files a/x and b/x differ\n").map((each) => each.kind)).toEqual([
    "note",
  ]);
  expect(parsePatch("")).toEqual([]);
});
