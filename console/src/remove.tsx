// Deleting a workspace, and bringing it back.

import { useState } from "preact/hooks";
import { call } from "./api";
import { id } from "./format";
import type { Workspace } from "./types";
import { announce, Dialog, Trouble, useAct } from "./ui";
import { learn } from "./watch";

interface RemoveProps {
  workspace: Workspace;
  close: () => void;
  done?: () => void;
}

export function Remove({ workspace, close, done }: RemoveProps) {
  const [force, setForce] = useState(workspace.state === "STATE_DELETED");
  const { act, busy, problem } = useAct();
  const name = id(workspace.name);
  const submit = async (event: Event) => {
    event.preventDefault();
    const removed = await act(async () => {
      const query = { force };
      const answer = await call<{ workspace?: Workspace }>("DELETE", workspace.name, { query });
      if (answer.workspace) learn(answer.workspace);
    });
    if (!removed) return;
    announce(`${name} is deleted`);
    close();
    done?.();
  };
  return (
    <Dialog title={`Delete ${name}?`} close={close}>
      <form onSubmit={submit}>
        <p>
          Its commands end. Work that is nowhere else is kept for a while, and Undelete brings it
          back.
        </p>
        <label class="check">
          <input
            type="checkbox"
            checked={force}
            onChange={(event) => setForce(event.currentTarget.checked)}
          />
          Keep nothing: all of its work is lost at once
        </label>
        <Trouble of={problem} />
        <div class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="danger" disabled={busy}>
            {force ? "Delete for good" : "Delete"}
          </button>
        </div>
      </form>
    </Dialog>
  );
}

export async function undelete(workspace: Workspace): Promise<void> {
  if (workspace.state !== "STATE_DELETED") return;
  learn(await call<Workspace>("POST", `${workspace.name}:undelete`, { json: {} }));
  announce(`${id(workspace.name)} is back`);
}
