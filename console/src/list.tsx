// The list of workspaces. Of a thousand rows those are made that can be seen.

import { computed, signal } from "@preact/signals";
import { useEffect, useLayoutEffect, useRef, useState } from "preact/hooks";
import { Create } from "./create";
import { age, id, repository, short, word } from "./format";
import { useKeys } from "./keys";
import { Remove, undelete } from "./remove";
import { go, to } from "./route";
import { onLeave } from "./session";
import { Stale } from "./stale";
import type { Workspace } from "./types";
import { now, State, Trouble, useAct } from "./ui";
import { link, workspaces } from "./watch";

const ROW = 40;
const HEAD = 32;
const BEYOND = 8;

const words = signal("");
const deleted = signal(false);

/** The name of the current row: also the one that was opened last. */
export const chosen = signal("");

onLeave(() => {
  words.value = chosen.value = "";
  deleted.value = false;
});

const shown = computed<Workspace[]>(() => {
  const wanted = words.value.toLowerCase().split(/\s+/).filter(Boolean);
  return workspaces.value.filter((each) => {
    if (each.state === "STATE_DELETED" && !deleted.value) return false;
    if (!wanted.length) return true;
    const labels = Object.entries(each.labels ?? {}).map(([key, value]) => `${key}=${value}`);
    const parts = [id(each.name), word(each.state), each.spec?.repository, each.branch, ...labels];
    const text = parts.join(" ").toLowerCase();
    return wanted.every((part) => text.includes(part));
  });
});

export function List() {
  const rows = shown.value;
  const known = link.value === "live" || workspaces.value.length > 0;
  const [creating, setCreating] = useState(false);
  const [removing, setRemoving] = useState<Workspace | null>(null);
  const filter = useRef<HTMLInputElement>(null);
  const { act, problem, setProblem } = useAct();
  const at = Math.max(
    0,
    rows.findIndex((each) => each.name === chosen.value),
  );
  const current = rows[at];
  const move = (to: number) => {
    const next = rows[Math.max(0, Math.min(rows.length - 1, to))];
    if (next) chosen.value = next.name;
  };
  useKeys({
    "/": () => filter.current?.focus(),
    j: () => move(at + 1),
    k: () => move(at - 1),
    g: () => move(0),
    G: () => move(rows.length - 1),
    ArrowDown: () => move(at + 1),
    ArrowUp: () => move(at - 1),
    Home: () => move(0),
    End: () => move(rows.length - 1),
    PageDown: () => move(at + 15),
    PageUp: () => move(at - 15),
    Enter: () => current && go(to(id(current.name))),
    n: () => setCreating(true),
    d: () => current && setRemoving(current),
    u: () => current && act(() => undelete(current)),
    t: () => go("#/tree"),
  });
  return (
    <main class="list">
      <div class="bar">
        <h1 class="quiet">Workspaces</h1>
        <input
          ref={filter}
          type="search"
          aria-label="Filter"
          placeholder="Filter: name, state, repository, label   ( / )"
          value={words.value}
          onInput={(event) => {
            words.value = event.currentTarget.value;
          }}
          onKeyDown={(event) => {
            if (event.key === "Enter" || event.key === "ArrowDown") {
              event.preventDefault();
              document.getElementById("rows")?.focus();
            }
          }}
        />
        <span class="dim count" aria-live="polite">
          {known &&
            (rows.length === workspaces.value.length
              ? `${rows.length} in all`
              : `${rows.length} of ${workspaces.value.length}`)}
        </span>
        <label class="check">
          <input
            type="checkbox"
            checked={deleted.value}
            onChange={(event) => {
              deleted.value = event.currentTarget.checked;
            }}
          />
          Deleted
        </label>
        <button type="button" class="main" onClick={() => setCreating(true)}>
          New workspace
        </button>
      </div>
      <Stale />
      <Trouble of={problem} close={() => setProblem(null)} />
      {rows.length || !known ? (
        <Rows rows={rows} at={at} />
      ) : (
        <p class="empty">
          {words.value || workspaces.value.length
            ? "Nothing fits the filter."
            : "No workspace yet. Press n to make one."}
        </p>
      )}
      {creating && <Create close={() => setCreating(false)} />}
      {removing && <Remove workspace={removing} close={() => setRemoving(null)} />}
    </main>
  );
}

function Rows({ rows, at }: { rows: Workspace[]; at: number }) {
  const box = useRef<HTMLDivElement>(null);
  const [top, setTop] = useState(0);
  const [height, setHeight] = useState(800);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const observer = new ResizeObserver(() => setHeight(element.clientHeight));
    observer.observe(element);
    if (document.activeElement === document.body) element.focus({ preventScroll: true });
    return () => observer.disconnect();
  }, []);
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const begin = at * ROW;
    if (begin < element.scrollTop) element.scrollTop = begin;
    const end = begin + ROW - (element.clientHeight - HEAD);
    if (end > element.scrollTop) element.scrollTop = end;
  }, [at]);
  const first = Math.max(0, Math.floor(top / ROW) - BEYOND);
  const last = Math.min(rows.length, Math.ceil((top + height) / ROW) + BEYOND);
  return (
    <div
      id="rows"
      class="table"
      role="grid"
      aria-label="Workspaces"
      aria-rowcount={rows.length + 1}
      aria-activedescendant={at >= first && at < last ? `row-${at}` : undefined}
      tabIndex={0}
      ref={box}
      onScroll={(event) => setTop(event.currentTarget.scrollTop)}
    >
      <div role="rowgroup" class="heads">
        <div class="row head" role="row" aria-rowindex={1}>
          {["Name", "State", "Repository", "Commit", "Age"].map((each) => (
            <span key={each} role="columnheader">
              {each}
            </span>
          ))}
        </div>
      </div>
      <div class="rows" role="rowgroup">
        <svg class="spacer" aria-hidden="true" width="1" height={rows.length * ROW} />
        {rows.slice(first, last).map((each, index) => (
          <Row
            key={each.name}
            workspace={each}
            index={first + index}
            current={first + index === at}
          />
        ))}
      </div>
    </div>
  );
}

interface RowProps {
  workspace: Workspace;
  index: number;
  current: boolean;
}

function Row({ workspace, index, current }: RowProps) {
  const name = id(workspace.name);
  const place = useRef<HTMLDivElement>(null);
  // Before it is painted: else a new row is seen in the first one's place.
  useLayoutEffect(() => {
    place.current?.style.setProperty("transform", `translateY(${index * ROW}px)`);
  }, [index]);
  const progress = workspace.progress?.phase;
  return (
    // biome-ignore lint/a11y/useKeyWithClickEvents: the keys are those of the page.
    <div
      id={`row-${index}`}
      class="row"
      role="row"
      ref={place}
      aria-rowindex={index + 2}
      aria-selected={current}
      onClick={() => {
        chosen.value = workspace.name;
      }}
    >
      <span role="gridcell" class="name">
        <a href={to(name)} tabIndex={-1}>
          {name}
        </a>
        {workspace.source && (
          <span class="dim fork"> fork of {workspace.source.split("/")[1]}</span>
        )}
      </span>
      <span role="gridcell">
        <State value={workspace.state} />
        {progress && workspace.state === "STATE_PENDING" && <span class="dim"> {progress}</span>}
      </span>
      <span role="gridcell" class="dim cut" title={workspace.spec?.repository}>
        {repository(workspace.spec?.repository)}
      </span>
      <span role="gridcell" class="mono dim">
        {short(workspace.headCommit)}
      </span>
      <span role="gridcell" class="dim">
        {age(workspace.createTime, now.value)}
      </span>
    </div>
  );
}
