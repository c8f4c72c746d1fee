// The dialogs that make, rename and delete files.

import { useState } from "preact/hooks";
import { call, respond } from "./api";
import { Buttons, Dialog, Field, Trouble, useAct } from "./ui";

/** The path of a file's content in the API. */
export function at(id: string, path: string): string {
  return `workspaces/${id}/files/${path.split("/").map(encodeURIComponent).join("/")}`;
}

export function Make({
  id,
  close,
  made,
}: {
  id: string;
  close: () => void;
  made: (at: string) => void;
}) {
  const [path, setPath] = useState("");
  const { act, busy, problem } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const done = await act(async () => {
      const query = { make_parents: true };
      const headers = { "if-none-match": "*" };
      await respond("PUT", at(id, path), { body: "", query, headers });
    });
    if (!done) return;
    close();
    made(path);
  };
  return (
    <Dialog title="New file" close={close}>
      <form onSubmit={submit}>
        <Field label="Path" value={path} set={setPath} autofocus required />
        <Trouble of={problem} />
        <Buttons close={close} label="Create" busy={busy} />
      </form>
    </Dialog>
  );
}

interface MoveProps {
  id: string;
  path: string;
  close: () => void;
  moved: (path: string) => void;
}

export function Move({ id, path, close, moved }: MoveProps) {
  const [target, setTarget] = useState(path);
  const { act, busy, problem } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const done = await act(async () => {
      await call("POST", `workspaces/${id}/files:move`, { json: { path, newPath: target } });
    });
    if (!done) return;
    close();
    moved(target);
  };
  return (
    <Dialog title={`Rename ${path}`} close={close}>
      <form onSubmit={submit}>
        <Field label="New path" value={target} set={setTarget} autofocus required />
        <Trouble of={problem} />
        <Buttons close={close} label="Rename" busy={busy} />
      </form>
    </Dialog>
  );
}

interface RemoveFileProps {
  id: string;
  path: string;
  close: () => void;
  removed: () => void;
}

export function RemoveFile({ id, path, close, removed }: RemoveFileProps) {
  const { act, busy, problem } = useAct();
  const submit = async (event: Event) => {
    event.preventDefault();
    const done = await act(async () => {
      await respond("DELETE", at(id, path));
    });
    if (!done) return;
    close();
    removed();
  };
  return (
    <Dialog title={`Delete ${path}?`} close={close}>
      <form onSubmit={submit}>
        <p>What is not committed of it is gone.</p>
        <Trouble of={problem} />
        <Buttons close={close} label="Delete" busy={busy} kind="danger" />
      </form>
    </Dialog>
  );
}
