// Who was forked from whom; snapshots; making a fork.

import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import { age, id as idOf, short } from "./format";
import { go, to } from "./route";
import { Stale } from "./stale";
import { has, type Node, trees } from "./tree";
import type { Snapshot, Workspace } from "./types";
import { announce, Buttons, Dialog, Field, now, State, Trouble, useAct } from "./ui";
import { learn, link, workspaces } from "./watch";

/** The trees of all workspaces that have forks. */
export function Forest() {
  const all = trees(workspaces.value, true);
  return (
    <main class="page">
      <h1>Forks</h1>
      <Stale />
      {!all.length && link.value === "loading" && <p class="empty">Loading…</p>}
      {!all.length && link.value === "live" && <p class="empty">No workspace was forked yet.</p>}
      <ul class="tree">
        {all.map((each) => (
          <Branch key={each.id} node={each} current="" />
        ))}
      </ul>
    </main>
  );
}

export function Forks({ workspace }: { workspace: Workspace }) {
  const own = idOf(workspace.name);
  const tree = trees(workspaces.value).find((each) => has(each, own));
  return (
    <section aria-label="Forks" class="split">
      <div class="side">
        <Snapshots workspace={workspace} />
      </div>
      <div class="body">
        <ul class="tree">{tree && <Branch node={tree} current={own} />}</ul>
      </div>
    </section>
  );
}

function Branch({ node, current }: { node: Node; current: string }) {
  const { workspace } = node;
  return (
    <li>
      <span class="leaf">
        {workspace ? (
          <a href={to(node.id, "forks")} aria-current={node.id === current ? "true" : undefined}>
            {node.id}
          </a>
        ) : (
          <span class="dim">{node.id} (gone)</span>
        )}
        {workspace && <State value={workspace.state} />}
        <span class="mono dim">{short(workspace?.headCommit)}</span>
        <span class="dim">{age(workspace?.createTime, now.value)}</span>
        {node.snapshot && <span class="dim">at {node.snapshot}</span>}
      </span>
      {node.forks.length > 0 && (
        <ul>
          {node.forks.map((each) => (
            <Branch key={each.id} node={each} current={current} />
          ))}
        </ul>
      )}
    </li>
  );
}

function Snapshots({ workspace }: { workspace: Workspace }) {
  const [snapshots, setSnapshots] = useState<Snapshot[] | null>(null);
  const [forking, setForking] = useState("");
  const [missing, setMissing] = useState<unknown>(null);
  const { act, busy, problem, setProblem } = useAct();
  const load = () =>
    call<{ snapshots?: Snapshot[] }>("GET", `${workspace.name}/snapshots`)
      .then((found) => {
        setSnapshots(found.snapshots ?? []);
        setMissing(null);
      })
      .catch(setMissing);
  useEffect(() => {
    void load();
  }, [workspace.name]);
  const take = () =>
    act(async () => {
      const made = await call<Snapshot>("POST", `${workspace.name}:snapshot`, { json: {} });
      announce(`Snapshot ${idOf(made.name)} is taken`);
      await load();
    });
  const remove = (name: string) =>
    act(async () => {
      await call("DELETE", name);
      await load();
    });
  return (
    <>
      <div class="bar">
        <h2>Snapshots</h2>
        <span class="grow" />
        <button type="button" disabled={busy} onClick={take}>
          Take one
        </button>
      </div>
      <Trouble of={problem} close={() => setProblem(null)} />
      <Trouble of={missing} />
      {snapshots?.length === 0 && <p class="dim">None.</p>}
      <ul class="items">
        {snapshots?.map((each) => (
          <li key={each.name} class="entry">
            <span>
              {idOf(each.name)} <span class="mono dim">{short(each.headCommit)}</span>{" "}
              <span class="dim">{age(each.createTime, now.value)}</span>
            </span>
            <span>
              <button type="button" onClick={() => setForking(idOf(each.name))}>
                Fork<span class="hidden"> {idOf(each.name)}</span>
              </button>{" "}
              <button
                type="button"
                class="danger"
                disabled={busy}
                onClick={() => remove(each.name)}
              >
                Delete<span class="hidden"> {idOf(each.name)}</span>
              </button>
            </span>
          </li>
        ))}
      </ul>
      {forking && <Fork workspace={workspace} snapshot={forking} close={() => setForking("")} />}
    </>
  );
}

interface ForkProps {
  workspace: Workspace;
  snapshot?: string;
  close: () => void;
}

export function Fork({ workspace, snapshot = "", close }: ForkProps) {
  const [name, setName] = useState("");
  const { act, busy, problem } = useAct();
  const submit = (event: Event) => {
    event.preventDefault();
    void act(async () => {
      const json = { workspaceId: name, snapshotId: snapshot };
      const made = await call<Workspace>("POST", `${workspace.name}:fork`, { json });
      learn(made);
      close();
      go(to(idOf(made.name), "forks"));
    });
  };
  const what = snapshot ? `${idOf(workspace.name)} at ${snapshot}` : idOf(workspace.name);
  return (
    <Dialog title={`Fork ${what}`} close={close}>
      <form onSubmit={submit}>
        <Field
          label="Name"
          value={name}
          set={setName}
          hint="empty: the server chooses one"
          autofocus
        />
        <p class="dim">It begins as the other is, with all that is not committed.</p>
        <Trouble of={problem} />
        <Buttons close={close} label="Fork" busy={busy} />
      </form>
    </Dialog>
  );
}
