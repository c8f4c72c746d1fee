// The files of a workspace: a tree, and the one that is open.

import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import { Make } from "./file_dialogs";
import { size } from "./format";
import { Opened } from "./opened";
import { go, to } from "./route";
import type { File as Entry } from "./types";
import { Trouble } from "./ui";
import { Upload } from "./upload";

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
  const changed = () => setVersion((before) => before + 1);
  return (
    <section class="split" aria-label="Files">
      <div class="side">
        <div class="bar">
          <button type="button" onClick={() => setMaking(true)}>
            New file
          </button>
          <Upload id={id} changed={changed} />
          <button type="button" class="plain" onClick={changed}>
            Refresh
          </button>
        </div>
        <Folder id={id} path="" open={path} version={version} />
      </div>
      <div class="body">
        {path ? (
          <Opened key={path} id={id} path={path} version={version} changed={changed} />
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
      .then((found) => {
        if (gone) return;
        setEntries(found);
        setProblem(null);
      })
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
