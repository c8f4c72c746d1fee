// Files from the reader's machine, into the top of the workspace.

import { useRef, useState } from "preact/hooks";
import { Problem, respond } from "./api";
import { at } from "./file_dialogs";
import { announce, Buttons, Dialog, Trouble, useAct } from "./ui";

/** Returns those whose names are taken; `over`: they are overwritten. */
async function put(id: string, files: File[], over: boolean): Promise<File[]> {
  const taken: File[] = [];
  for (const each of files) {
    const headers: Record<string, string> = over ? {} : { "if-none-match": "*" };
    try {
      await respond("PUT", at(id, each.name), { body: each, headers });
      announce(`${each.name} is uploaded`);
    } catch (error) {
      if (!(error instanceof Problem && error.status === 412)) throw error;
      taken.push(each);
    }
  }
  return taken;
}

export function Upload({ id, changed }: { id: string; changed: () => void }) {
  const [taken, setTaken] = useState<File[]>([]);
  const { act, busy, problem, setProblem } = useAct();
  const input = useRef<HTMLInputElement>(null);
  const send = (files: File[], over: boolean) =>
    act(async () => {
      try {
        setTaken(await put(id, files, over));
      } finally {
        changed(); // Those before the one that failed are there.
      }
    });
  const close = () => setTaken([]);
  return (
    <>
      <button type="button" disabled={busy} onClick={() => input.current?.click()}>
        Upload
      </button>
      <input
        ref={input}
        type="file"
        multiple
        hidden
        aria-label="Files to upload"
        onChange={(event) => {
          const files = [...(event.currentTarget.files ?? [])]; // Emptied with the field.
          event.currentTarget.value = "";
          void send(files, false);
        }}
      />
      {taken.length === 0 && <Trouble of={problem} close={() => setProblem(null)} />}
      {taken.length > 0 && (
        <Dialog title="Overwrite what is there?" close={close}>
          <form
            onSubmit={(event) => {
              event.preventDefault();
              void send(taken, true);
            }}
          >
            <ul>
              {taken.map((each) => (
                <li key={each.name} class="mono">
                  {each.name}
                </li>
              ))}
            </ul>
            <p>What is not committed of what is there is gone.</p>
            <Trouble of={problem} />
            <Buttons close={close} label="Overwrite" busy={busy} kind="danger" />
          </form>
        </Dialog>
      )}
    </>
  );
}
