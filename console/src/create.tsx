// The dialog that makes a workspace.

import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import { id } from "./format";
import { go, to } from "./route";
import { onLeave } from "./session";
import type { Workspace } from "./types";
import { Dialog, Field, Trouble, useAct } from "./ui";
import { learn } from "./watch";

const LAST = "cove.repository";
onLeave(() => sessionStorage.removeItem(LAST));

interface Capabilities {
  provider?: { drivers?: string[]; defaultDriver?: string };
}

export function Create({ close }: { close: () => void }) {
  const [repository, setRepository] = useState(sessionStorage.getItem(LAST) ?? "");
  const [revision, setRevision] = useState("");
  const [name, setName] = useState("");
  const [driver, setDriver] = useState("");
  const [image, setImage] = useState("");
  const [idle, setIdle] = useState("");
  const [drivers, setDrivers] = useState<string[]>([]);
  const { act, busy, problem } = useAct();
  useEffect(() => {
    call<Capabilities>("GET", "capabilities")
      .then((found) => setDrivers(found.provider?.drivers ?? []))
      .catch(() => {}); // Then the server's own is taken.
  }, []);
  const submit = async (event: Event) => {
    event.preventDefault();
    await act(async () => {
      const spec: Record<string, string> = {};
      if (repository) spec["repository"] = repository;
      if (revision) spec["revision"] = revision;
      if (driver) spec["driver"] = driver;
      if (image) spec["image"] = image;
      if (idle) spec["idleTimeout"] = `${Number(idle) * 60}s`;
      const made = await call<Workspace>("POST", "workspaces:create", {
        json: { workspaceId: name, workspace: { spec }, returnWhen: "RETURN_WHEN_ACCEPTED" },
      });
      sessionStorage.setItem(LAST, repository);
      learn(made);
      close();
      go(to(id(made.name)));
    });
  };
  return (
    <Dialog title="New workspace" close={close}>
      <form onSubmit={submit}>
        <Field
          label="Repository"
          value={repository}
          set={setRepository}
          hint="https://, ssh:// or file:// address; empty makes an empty repository"
          autofocus
        />
        <div class="pair">
          <Field label="Name" value={name} set={setName} hint="empty: the server chooses one" />
          <Field label="Revision" value={revision} set={setRevision} hint="branch, tag or commit" />
        </div>
        <div class="pair">
          <div class="field">
            <label for="driver">Driver</label>
            <select
              id="driver"
              value={driver}
              onChange={(event) => setDriver(event.currentTarget.value)}
            >
              <option value="">default</option>
              {drivers.map((each) => (
                <option key={each}>{each}</option>
              ))}
            </select>
          </div>
          <Field label="Suspend when idle, minutes" value={idle} set={setIdle} type="number" />
        </div>
        {driver && driver !== "local" && (
          <Field label="Image" value={image} set={setImage} hint="of the containers" />
        )}
        <Trouble of={problem} />
        <div class="buttons">
          <button type="button" onClick={close}>
            Cancel
          </button>
          <button type="submit" class="main" disabled={busy}>
            Create
          </button>
        </div>
      </form>
    </Dialog>
  );
}
