// What differs from the branch, and what becomes of it: commit, push.

import { useEffect, useRef, useState } from "preact/hooks";
import { call, events } from "./api";
import { fromBase64 } from "./bytes";
import { type Line, parsePatch } from "./diff";
import { age, short, word } from "./format";
import { useKeys } from "./keys";
import { Leave, useHeld } from "./leave";
import type { Commit, StatusEntry, WorktreeStatus } from "./types";
import { announce, now, Trouble, useAct } from "./ui";

const RANGES: [string, string][] = [
  ["KIND_HEAD_TO_WORK", "not committed"],
  ["KIND_BASE_TO_WORK", "all since the base"],
  ["KIND_BASE_TO_HEAD", "committed since the base"],
];

/** Lines of a file beyond which it is folded at first. */
const MANY = 400;

interface DiffFile {
  path: string;
  oldPath?: string;
  change?: string;
  binary?: boolean;
  additions?: number;
  deletions?: number;
}

interface DiffEvent {
  file?: DiffFile;
  patch?: { data?: string; truncated?: boolean };
  end?: { files?: number; additions?: number; deletions?: number; truncated?: boolean };
}

interface Diff {
  files: { file: DiffFile; lines: Line[]; truncated: boolean }[];
  additions: number;
  deletions: number;
  truncated: boolean;
}

async function diff(id: string, kind: string, signal: AbortSignal): Promise<Diff> {
  const found: Diff = { files: [], additions: 0, deletions: 0, truncated: false };
  let data: Uint8Array[] = [];
  let cut = false;
  const finish = () => {
    const last = found.files.at(-1);
    if (last) {
      const decoder = new TextDecoder();
      const text = data.map((each) => decoder.decode(each, { stream: true })).join("");
      last.lines = parsePatch(text + decoder.decode());
      last.truncated = cut;
    }
    data = [];
    cut = false;
  };
  const query = { "range.kind": kind };
  for await (const event of events<DiffEvent>(`workspaces/${id}/git/diff`, { query, signal })) {
    if (event.file) {
      finish();
      found.files.push({ file: event.file, lines: [], truncated: false });
    }
    if (event.patch) {
      data.push(fromBase64(event.patch.data ?? ""));
      cut ||= event.patch.truncated ?? false;
    }
    if (event.end) {
      found.additions = event.end.additions ?? 0;
      found.deletions = event.end.deletions ?? 0;
      found.truncated = event.end.truncated ?? false;
    }
  }
  finish();
  return found;
}

export function Changes({ id, head }: { id: string; head: string }) {
  const [kind, setKind] = useState("KIND_HEAD_TO_WORK");
  const [status, setStatus] = useState<WorktreeStatus | null>(null);
  const [shown, setShown] = useState<Diff | null>(null);
  const [commits, setCommits] = useState<Commit[]>([]);
  const [problem, setProblem] = useState<unknown>(null);
  const [version, setVersion] = useState(0);
  const refresh = () => setVersion((before) => before + 1);
  useKeys({ R: refresh });
  useEffect(() => {
    const end = new AbortController();
    const { signal } = end;
    const load = async () => {
      const [state, files, log] = await Promise.all([
        call<WorktreeStatus>("GET", `workspaces/${id}/git/status`, { signal }),
        diff(id, kind, signal),
        call<{ commits?: Commit[] }>("GET", `workspaces/${id}/git/log`, {
          query: { page_size: 10 },
          signal,
        }),
      ]);
      setStatus(state);
      setShown(files);
      setCommits(log.commits ?? []);
      setProblem(null);
    };
    load().catch((error) => {
      if (!signal.aborted) setProblem(error);
    });
    return () => end.abort();
  }, [id, kind, version, head]);
  return (
    <section class="split" aria-label="Changes">
      <div class="side">
        <Save id={id} status={status} done={refresh} />
        <Entries entries={status?.entries ?? []} total={status?.total ?? 0} known={!!status} />
        <h2 class="sub">Commits</h2>
        <ul class="items">
          {commits.map((each) => (
            <li key={each.id} class="commit">
              <span class="cut">{each.message.split("\n")[0]}</span>
              <span class="dim">
                <code>{short(each.id)}</code> {each.author?.name}{" "}
                {age(each.author?.time, now.value)}
              </span>
            </li>
          ))}
        </ul>
      </div>
      <div class="body">
        <div class="bar">
          <label class="check">
            Changes
            <select value={kind} onChange={(event) => setKind(event.currentTarget.value)}>
              {RANGES.map(([value, name]) => (
                <option key={value} value={value}>
                  {name}
                </option>
              ))}
            </select>
          </label>
          {shown && (
            <span class="dim">
              {shown.files.length} files <span class="plus">+{shown.additions}</span>{" "}
              <span class="minus">−{shown.deletions}</span>
            </span>
          )}
          <span class="grow" />
          <button type="button" class="plain" onClick={refresh}>
            Refresh
          </button>
        </div>
        <Trouble of={problem} />
        {shown?.truncated && <p class="note">There is more than is shown here.</p>}
        {shown && !shown.files.length && <p class="empty">Nothing differs.</p>}
        {shown?.files.map((each) => (
          <File key={each.file.path} {...each} />
        ))}
      </div>
    </section>
  );
}

interface EntriesProps {
  entries: StatusEntry[];
  total: number;
  known: boolean;
}

function Entries({ entries, total, known }: EntriesProps) {
  if (!known) return <p class="dim">Loading…</p>;
  if (!entries.length) return <p class="dim">Nothing to commit.</p>;
  return (
    <>
      <h2 class="sub">
        {total} {total === 1 ? "path" : "paths"} to commit
      </h2>
      <ul class="items">
        {entries.map((each) => (
          <li key={each.path} class="entry">
            <span class="mono cut" title={each.path}>
              {each.path}
            </span>
            <span class="dim">
              {word(each.workState, "WORK_STATE_") || word(each.indexState, "INDEX_STATE_")}
            </span>
          </li>
        ))}
      </ul>
    </>
  );
}

interface SaveProps {
  id: string;
  status: WorktreeStatus | null;
  done: () => void;
}

/** Commit and push. */
function Save({ id, status, done }: SaveProps) {
  const [message, setMessage] = useState("");
  const [told, setTold] = useState("");
  const { act, busy, problem, setProblem } = useAct();
  const input = useRef<HTMLTextAreaElement>(null);
  useKeys({ c: () => input.current?.focus() });
  useHeld(message.trim() !== "");
  const commit = (event: Event) => {
    event.preventDefault();
    void act(async () => {
      const json = { commit: { message }, expectedHead: status?.headCommit };
      const path = `workspaces/${id}/git/commit`;
      const made = await call<{ commit: Commit }>("POST", path, { json });
      setMessage((now) => (now === message ? "" : now)); // What was written meanwhile stays.
      setTold(`Committed ${short(made.commit.id)}`);
      announce(`Committed ${short(made.commit.id)}`);
      done();
    });
  };
  const push = () =>
    act(async () => {
      const path = `workspaces/${id}/git/push`;
      const pushed = await call<{ remoteBranch: string }>("POST", path, { json: {} });
      setTold(`Pushed to ${pushed.remoteBranch}`);
      announce(`Pushed to ${pushed.remoteBranch}`);
    });
  return (
    <>
      <form class="save" onSubmit={commit}>
        <textarea
          ref={input}
          rows={2}
          aria-label="Commit message"
          placeholder="Commit message ( c )"
          value={message}
          onInput={(event) => setMessage(event.currentTarget.value)}
          onKeyDown={(event) => {
            if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
              event.currentTarget.form?.requestSubmit();
            }
          }}
        />
        <div class="bar">
          <button type="submit" class="main" disabled={busy || !message.trim() || !status?.total}>
            Commit
          </button>
          <button type="button" disabled={busy} onClick={push}>
            Push
          </button>
          <span class="dim" role="status">
            {told || (status?.ahead ? `${status.ahead} ahead of its base` : "")}
          </span>
        </div>
        <Trouble of={problem} close={() => setProblem(null)} />
      </form>
      <Leave title="Leave without committing?" lost="The message that you wrote is gone then." />
    </>
  );
}

function File({ file, lines, truncated }: Diff["files"][number]) {
  const [open, setOpen] = useState(lines.length <= MANY);
  return (
    <details class="diff" open={open} onToggle={(event) => setOpen(event.currentTarget.open)}>
      <summary>
        <span class="mono cut">
          {file.oldPath ? `${file.oldPath} → ` : ""}
          {file.path}
        </span>
        <span class="dim">{word(file.change, "CHANGE_")}</span>
        <span class="plus">+{file.additions ?? 0}</span>
        <span class="minus">−{file.deletions ?? 0}</span>
      </summary>
      {open && (
        <div class="scroll">
          {file.binary ? (
            <p class="dim indent">No text.</p>
          ) : (
            <table class="mono">
              <caption class="hidden">Changes of {file.path}</caption>
              <tbody>
                {lines.map((line, index) => (
                  <tr key={index} class={line.kind}>
                    <td class="number">{line.old}</td>
                    <td class="number">{line.new}</td>
                    <td class="sign">{SIGN[line.kind]}</td>
                    <td>{line.text}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          )}
          {truncated && <p class="note">The rest of this file is not shown.</p>}
        </div>
      )}
    </details>
  );
}

const SIGN: Record<Line["kind"], string> = {
  added: "+",
  removed: "−",
  context: "",
  hunk: "",
  note: "",
};
