// The files of a workspace: a tree, and the one that is open.

import { useEffect, useRef, useState } from "preact/hooks";
import { call, Problem, respond } from "./api";
import { at, Make, Move, RemoveFile } from "./file_dialogs";
import { size } from "./format";
import { download } from "./output";
import { go, to } from "./route";
import type { File as Entry } from "./types";
import { announce, Trouble, useAct } from "./ui";

/** Bytes up to which a file is shown. */
const SHOWN = 1 << 20;

async function list(id: string, path: string): Promise<Entry[]> {
  const found: Entry[] = [];
  let token = "";
  do {
    const page = await call<{ files?: Entry[]; nextPageToken?: string }>(
      "GET",
      `workspaces/${id}/files:list`,
      { query: { path: path || ".", page_size: 1000, page_token: token } },
    );
    found.push(...(page.files ?? []).filter((each) => each.path !== ".git"));
    token = page.nextPageToken ?? "";
  } while (token && found.length < 10_000);
  const rank = (each: Entry) => (each.kind === "KIND_DIRECTORY" ? 0 : 1);
  return found.sort((one, other) => rank(one) - rank(other) || (one.path < other.path ? -1 : 1));
}

export function Files({ id, path }: { id: string; path: string }) {
  const [version, setVersion] = useState(0);
  const [making, setMaking] = useState(false);
  const { act, busy, problem, setProblem } = useAct();
  const input = useRef<HTMLInputElement>(null);
  const changed = () => setVersion((before) => before + 1);
  const upload = (files: FileList | null) =>
    act(async () => {
      for (const each of files ?? []) {
        await respond("PUT", at(id, each.name), { body: each });
        announce(`${each.name} is uploaded`);
      }
      changed();
    });
  return (
    <section class="split" aria-label="Files">
      <div class="side">
        <div class="bar">
          <button type="button" onClick={() => setMaking(true)}>
            New file
          </button>
          <button type="button" disabled={busy} onClick={() => input.current?.click()}>
            Upload
          </button>
          <button type="button" class="plain" onClick={changed}>
            Refresh
          </button>
          <input
            ref={input}
            type="file"
            multiple
            hidden
            aria-label="Files to upload"
            onChange={(event) => {
              void upload(event.currentTarget.files);
              event.currentTarget.value = "";
            }}
          />
        </div>
        <Trouble of={problem} close={() => setProblem(null)} />
        <Folder id={id} path="" open={path} version={version} />
      </div>
      <div class="body">
        {path ? (
          <Opened key={`${path} ${version}`} id={id} path={path} changed={changed} />
        ) : (
          <p class="empty">Choose a file.</p>
        )}
      </div>
      {making && (
        <Make
          id={id}
          close={() => setMaking(false)}
          made={(made) => {
            changed();
            go(to(id, "files", made));
          }}
        />
      )}
    </section>
  );
}

interface FolderProps {
  id: string;
  path: string;
  open: string;
  version: number;
}

function Folder({ id, path, open, version }: FolderProps) {
  const [entries, setEntries] = useState<Entry[] | null>(null);
  const [problem, setProblem] = useState<unknown>(null);
  useEffect(() => {
    let gone = false;
    list(id, path)
      .then((found) => !gone && setEntries(found))
      .catch((error) => !gone && setProblem(error));
    return () => {
      gone = true;
    };
  }, [id, path, version]);
  if (problem) return <Trouble of={problem} />;
  if (!entries) return <p class="dim">Loading…</p>;
  if (!entries.length) return <p class="dim indent">Nothing in it.</p>;
  return (
    <ul class="files">
      {entries.map((each) => (
        <li key={each.path}>
          {each.kind === "KIND_DIRECTORY" ? (
            <Directory id={id} path={each.path} open={open} version={version} />
          ) : (
            <a href={to(id, "files", each.path)} aria-current={each.path === open || undefined}>
              <span class="cut">{each.path.split("/").at(-1)}</span>
              <span class="dim">{each.linkTarget ? "link" : size(Number(each.size ?? 0))}</span>
            </a>
          )}
        </li>
      ))}
    </ul>
  );
}

function Directory({ id, path, open, version }: FolderProps) {
  const [shown, setShown] = useState(open.startsWith(`${path}/`));
  return (
    <details open={shown} onToggle={(event) => setShown(event.currentTarget.open)}>
      <summary>{path.split("/").at(-1)}</summary>
      {shown && <Folder id={id} path={path} open={open} version={version} />}
    </details>
  );
}

interface Content {
  text: string | null;
  etag: string;
  size: number;
}

async function read(id: string, path: string): Promise<Content> {
  const answer = await respond("GET", at(id, path));
  const length = Number(answer.headers.get("content-length") ?? 0);
  const etag = answer.headers.get("etag") ?? "";
  if (length > SHOWN) {
    await answer.body?.cancel();
    return { text: null, etag, size: length };
  }
  const bytes = await answer.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return { text: text.includes("\0") ? null : text, etag, size: length };
  } catch {
    return { text: null, etag, size: length };
  }
}

function Opened({ id, path, changed }: { id: string; path: string; changed: () => void }) {
  const [content, setContent] = useState<Content | null>(null);
  const [text, setText] = useState("");
  const [missing, setMissing] = useState<unknown>(null);
  const [moving, setMoving] = useState(false);
  const [removing, setRemoving] = useState(false);
  const { act, busy, problem, setProblem } = useAct();
  const load = () =>
    read(id, path)
      .then((found) => {
        setContent(found);
        setText(found.text ?? "");
        setProblem(null);
      })
      .catch(setMissing);
  useEffect(() => {
    void load();
  }, [id, path]);
  const save = (over: boolean) =>
    act(async () => {
      const headers: Record<string, string> = over ? {} : { "if-match": content?.etag ?? "" };
      const answer = await respond("PUT", at(id, path), { body: text, headers });
      const etag = answer.headers.get("etag") ?? "";
      setContent({ text, etag, size: new Blob([text]).size });
      announce(`${path} is saved`);
    });
  if (missing) return <Trouble of={missing} />;
  if (!content) return <p class="empty">Loading…</p>;
  const dirty = content.text !== null && text !== content.text;
  const conflict = problem instanceof Problem && problem.status === 412;
  return (
    <article class="file">
      <div class="bar">
        <h2 class="mono cut" title={path}>
          {path}
        </h2>
        <span class="dim">{dirty ? "changed" : size(content.size)}</span>
        <span class="grow" />
        {content.text !== null && (
          <button type="button" class="main" disabled={busy || !dirty} onClick={() => save(false)}>
            Save
          </button>
        )}
        <button
          type="button"
          disabled={busy}
          onClick={() =>
            act(async () => {
              const answer = await respond("GET", at(id, path));
              download(await answer.blob(), path.split("/").at(-1) ?? "file");
            })
          }
        >
          Download
        </button>
        <button type="button" onClick={() => setMoving(true)}>
          Rename
        </button>
        <button type="button" class="danger" onClick={() => setRemoving(true)}>
          Delete
        </button>
      </div>
      {conflict ? (
        <div class="trouble" role="alert">
          <p>
            <strong>Another one changed this file meanwhile.</strong>
          </p>
          <button type="button" onClick={() => void load()}>
            Take theirs
          </button>{" "}
          <button type="button" class="danger" onClick={() => save(true)}>
            Overwrite
          </button>
        </div>
      ) : (
        <Trouble of={problem} close={() => setProblem(null)} />
      )}
      {content.text === null ? (
        <p class="empty">
          {content.size > SHOWN ? "Too large to be shown" : "No text"}: Download has it.
        </p>
      ) : (
        <textarea
          class="mono"
          aria-label={`Content of ${path}`}
          spellcheck={false}
          value={text}
          onInput={(event) => setText(event.currentTarget.value)}
          onKeyDown={(event) => {
            if ((event.ctrlKey || event.metaKey) && event.key === "s") {
              event.preventDefault();
              if (dirty) void save(false);
            }
          }}
        />
      )}
      {moving && (
        <Move
          id={id}
          path={path}
          close={() => setMoving(false)}
          moved={(moved) => {
            changed();
            go(to(id, "files", moved));
          }}
        />
      )}
      {removing && (
        <RemoveFile
          id={id}
          path={path}
          close={() => setRemoving(false)}
          removed={() => {
            changed();
            go(to(id, "files"));
          }}
        />
      )}
    </article>
  );
}
