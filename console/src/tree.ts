// Who was forked from whom.

import { id } from "./format";
import type { Workspace } from "./types";

export interface Node {
  id: string;
  /** Undefined: it is gone, and only its forks tell of it. */
  workspace: Workspace | undefined;
  /** The snapshot it was forked from, if it was one. */
  snapshot: string;
  forks: Node[];
}

/** The trees of all workspaces. Only those with forks, if `forked`. */
export function trees(workspaces: Workspace[], forked = false): Node[] {
  const nodes = new Map<string, Node>();
  const node = (name: string): Node => {
    const known = nodes.get(name);
    if (known) return known;
    const made: Node = { id: name, workspace: undefined, snapshot: "", forks: [] };
    nodes.set(name, made);
    return made;
  };
  const children = new Set<string>();
  for (const workspace of workspaces) {
    const own = node(id(workspace.name));
    own.workspace = workspace;
    const [, source = "", , snapshot = ""] = (workspace.source ?? "").split("/");
    // A name that was used again may have its own descendant as its source.
    if (source && source !== own.id && !isBelow(own, source)) {
      own.snapshot = snapshot;
      node(source).forks.push(own);
      children.add(own.id);
    }
  }
  const roots = [...nodes.values()].filter((each) => !children.has(each.id));
  return forked ? roots.filter((each) => each.forks.length > 0) : roots;
}

function isBelow(top: Node, wanted: string): boolean {
  return top.forks.some((each) => each.id === wanted || isBelow(each, wanted));
}

/** Whether the workspace is in the tree. */
export function has(top: Node, wanted: string): boolean {
  return top.id === wanted || isBelow(top, wanted);
}
