// The file that is open: its text to edit, or that it has none.

import { useEffect, useRef, useState } from "preact/hooks";
import { Problem, respond } from "./api";
import { type Endings, endings, restored, unified } from "./endings";
import { at, Move, RemoveFile } from "./file_dialogs";
import { size } from "./format";
import { Leave, useHeld } from "./leave";
import { download } from "./output";
import { go, held, to } from "./route";
import { announce, Trouble, useAct } from "./ui";

/** Bytes up to which a file is shown. */
const SHOWN = 1 << 20;

interface Content {
  /** As the field has it; null: none, or too much. */
  text: string | null;
  ends: Endings;
  etag: string;
  size: number;
}

async function read(id: string, path: string): Promise<Content> {
  const answer = await respond("GET", at(id, path));
  const length = Number(answer.headers.get("content-length") ?? 0);
  const etag = answer.headers.get("etag") ?? "";
  const none: Content = { text: null, ends: "\n", etag, size: length };
  if (length > SHOWN) {
    await answer.body?.cancel();
    return none;
  }
  const bytes = await answer.arrayBuffer();
  try {
    const text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
    return text.includes("\0") ? none : { ...none, text: unified(text), ends: endings(text) };
  } catch {
    return none;
  }
}

interface OpenedProps {
  id: string;
  path: string;
  /** Another one: it is read again, unless it was edited. */
  version: number;
  changed: () => void;
}

export function Opened({ id, path, version, changed }: OpenedProps) {
  const [content, setContent] = useState<Content | null>(null);
  const [text, setText] = useState("");
  const [missing, setMissing] = useState<unknown>(null);
  const [moving, setMoving] = useState(false);
  const [removing, setRemoving] = useState(false);
  const { act, busy, problem, setProblem } = useAct();
  const isText = typeof content?.text === "string";
  const dirty = isText && text !== content.text;
  const edited = useRef(dirty);
  edited.current = dirty;
  const turns = useRef(0);
  const load = (over: boolean) => {
    const turn = ++turns.current; // A later one, or what was saved meanwhile, is newer.
    return read(id, path)
      .then((found) => {
        if (turn !== turns.current || (edited.current && !over)) return;
        setContent(found);
        setText(found.text ?? "");
        setMissing(null);
        setProblem(null);
      })
      .catch((error) => {
        if (over) setProblem(error);
        else if (!edited.current) setMissing(error);
      });
  };
  useEffect(() => {
    if (!edited.current) void load(false);
  }, [version]);
  useHeld(dirty);
  const save = (over: boolean) =>
    act(async () => {
      if (!content) return;
      const headers: Record<string, string> = over ? {} : { "if-match": content.etag };
      const body = restored(text, content.ends);
      const answer = await respond("PUT", at(id, path), { body, headers });
      const etag = answer.headers.get("etag") ?? "";
      turns.current++;
      setContent({ ...content, text, etag, size: new Blob([body]).size });
      announce(`${path} is saved`);
    });
  if (missing) return <Trouble of={missing} />;
  if (!content) return <p class="empty">Loading…</p>;
  const mixed = content.ends === "mixed";
  const conflict = problem instanceof Problem && problem.status === 412;
  return (
    <article class="file">
      <div class="bar">
        <h2 class="mono cut" title={path}>
          {path}
        </h2>
        <span class="dim">{dirty ? "changed" : size(content.size)}</span>
        <span class="grow" />
        {isText && !mixed && (
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
        <button
          type="button"
          disabled={dirty}
          title={dirty ? "Save it first" : undefined}
          onClick={() => setMoving(true)}
        >
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
          <button type="button" onClick={() => void load(true)}>
            Take theirs
          </button>{" "}
          <button type="button" class="danger" onClick={() => save(true)}>
            Overwrite
          </button>
        </div>
      ) : (
        <Trouble of={problem} close={() => setProblem(null)} />
      )}
      {mixed && (
        <p class="note">
          Its lines end in more than one way, which could not be kept here: it can only be read.
        </p>
      )}
      {!isText ? (
        <p class="empty">
          {content.size > SHOWN ? "Too large to be shown" : "No text"}: Download has it.
        </p>
      ) : (
        <textarea
          class="mono"
          aria-label={`Content of ${path}`}
          spellcheck={false}
          value={text}
          readOnly={mixed}
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
            held.value = false; // What was edited is to go, too.
            changed();
            go(to(id, "files"));
          }}
        />
      )}
      <Leave title={`Leave ${path} without saving?`} lost="What you changed in it is gone then." />
    </article>
  );
}
