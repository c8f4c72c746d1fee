// The patches of `git diff`, as lines to show.

export interface Line {
  kind: "context" | "added" | "removed" | "hunk" | "note";
  text: string;
  old: number | null;
  new: number | null;
}

const HUNK = /^@@ -(\d+)(?:,\d+)? \+(\d+)(?:,\d+)? @@/;

/** The lines of one file's patch, numbered; what is before its first hunk is left out. */
export function parsePatch(patch: string): Line[] {
  const found: Line[] = [];
  let before = 0;
  let after = 0;
  let inside = false;
  const all = patch.split("\n");
  if (all.at(-1) === "") all.pop();
  for (const raw of all) {
    const hunk = HUNK.exec(raw);
    if (hunk) {
      inside = true;
      before = Number(hunk[1]);
      after = Number(hunk[2]);
      found.push({ kind: "hunk", text: raw, old: null, new: null });
    } else if (!inside) {
      if (raw.startsWith("Binary files")) {
        found.push({ kind: "note", text: raw, old: null, new: null });
      }
    } else if (raw.startsWith("+")) {
      found.push({ kind: "added", text: raw.slice(1), old: null, new: after++ });
    } else if (raw.startsWith("-")) {
      found.push({ kind: "removed", text: raw.slice(1), old: before++, new: null });
    } else if (raw.startsWith("\\")) {
      found.push({ kind: "note", text: raw.slice(2), old: null, new: null });
    } else {
      found.push({ kind: "context", text: raw.slice(1), old: before++, new: after++ });
    }
  }
  return found;
}
