// The page of one workspace.

import { useEffect, useState } from "preact/hooks";
import { call } from "./api";
import { Changes } from "./changes";
import { Commands } from "./commands";
import { Files } from "./files";
import { Fork, Forks } from "./forks";
import { age, repository, short } from "./format";
import { useKeys } from "./keys";
import { chosen } from "./list";
import { Remove, undelete } from "./remove";
import { go, route, TABS, to } from "./route";
import { shared } from "./session";
import { Stale } from "./stale";
import { Terminals } from "./terminals";
import type { Workspace as Value } from "./types";
import { now, State, Trouble, useAct } from "./ui";
import { UsageTab } from "./usage";
import { learn, link, named } from "./watch";

export function Workspace({ id }: { id: string }) {
  const workspace = named(id);
  const [removing, setRemoving] = useState(false);
  const [forking, setForking] = useState(false);
  const tab = route.value.tab;
  useEffect(() => {
    chosen.value = `workspaces/${id}`;
  }, [id]);
  const keys = Object.fromEntries(
    TABS.map((each, index) => [String(index + 1), () => go(to(id, each))]),
  );
  useKeys({ ...keys, f: () => setForking(true) });
  if (!workspace) {
    return (
      <main class="page">
        <h1>{id}</h1>
        <Stale />
        <p class="empty">
          {link.value === "loading" && "Loading…"}
          {link.value === "live" && `There is no workspace “${id}”.`}{" "}
          {!shared.value && <a href="#/">All workspaces</a>}
        </p>
      </main>
    );
  }
  return (
    <main class="page">
      <Stale />
      <Head
        workspace={workspace}
        id={id}
        remove={() => setRemoving(true)}
        fork={() => setForking(true)}
      />
      <nav class="tabs" aria-label={`Parts of ${id}`}>
        {TABS.map((each, index) => (
          <a key={each} href={to(id, each)} aria-current={tab === each ? "page" : undefined}>
            <kbd aria-hidden="true">{index + 1}</kbd>
            {each}
          </a>
        ))}
      </nav>
      <Tab workspace={workspace} id={id} />
      {removing && (
        <Remove workspace={workspace} close={() => setRemoving(false)} done={() => go("#/")} />
      )}
      {forking && <Fork workspace={workspace} close={() => setForking(false)} />}
    </main>
  );
}

interface HeadProps {
  workspace: Value;
  id: string;
  remove: () => void;
  fork: () => void;
}

function Head({ workspace, id, remove, fork }: HeadProps) {
  const { act, busy, problem, setProblem } = useAct();
  const { state, failure } = workspace;
  const change = (verb: string) =>
    act(async () => learn(await call("POST", `${workspace.name}:${verb}`, { json: {} })));
  return (
    <div class="about">
      <div class="bar">
        <h1>{id}</h1>
        <State value={state} />
        {workspace.progress?.phase && state === "STATE_PENDING" && (
          <span class="dim">{workspace.progress.phase}</span>
        )}
        <span class="grow" />
        {state === "STATE_READY" && (
          <button type="button" disabled={busy} onClick={() => change("suspend")}>
            Suspend
          </button>
        )}
        {state === "STATE_SUSPENDED" && (
          <button type="button" disabled={busy} onClick={() => change("resume")}>
            Resume
          </button>
        )}
        {state === "STATE_DELETED" ? (
          <button type="button" disabled={busy} onClick={() => act(() => undelete(workspace))}>
            Undelete
          </button>
        ) : (
          <button type="button" onClick={fork}>
            Fork
          </button>
        )}
        <button type="button" class="danger" onClick={remove}>
          Delete
        </button>
      </div>
      <dl class="facts">
        <Fact name="Repository" value={repository(workspace.spec?.repository)} />
        <Fact name="Branch" value={workspace.branch} />
        <Fact name="Head" value={short(workspace.headCommit)} />
        <Fact name="Driver" value={workspace.driver} />
        <Fact name="Age" value={age(workspace.createTime, now.value)} />
        <Fact name="By" value={workspace.creator} />
        {Object.entries(workspace.labels ?? {}).map(([key, value]) => (
          <Fact key={key} name={key} value={value} />
        ))}
      </dl>
      {failure && (
        <div class="trouble" role="alert">
          <p>
            <strong>{failure.message}</strong> <code>{failure.reason}</code>
          </p>
          {failure.remedy && <p>{failure.remedy}</p>}
        </div>
      )}
      {workspace.warnings?.map((each) => (
        <p class="note" key={each}>
          {each}
        </p>
      ))}
      <Trouble of={problem} close={() => setProblem(null)} />
    </div>
  );
}

function Fact({ name, value }: { name: string; value: string | undefined }) {
  if (!value) return null;
  return (
    <div>
      <dt>{name}</dt>
      <dd title={value}>{value}</dd>
    </div>
  );
}

function Tab({ workspace, id }: { workspace: Value; id: string }) {
  const { tab, item } = route.value;
  if (tab === "forks") return <Forks workspace={workspace} />;
  if (workspace.state === "STATE_PENDING") return <p class="empty">It is being made…</p>;
  if (workspace.state === "STATE_DELETED") {
    return <p class="empty">It is deleted. Undelete brings its work back.</p>;
  }
  switch (tab) {
    case "terminal":
      return <Terminals id={id} item={item} />;
    case "files":
      return <Files id={id} path={item} />;
    case "changes":
      return <Changes id={id} head={workspace.headCommit ?? ""} />;
    case "usage":
      return <UsageTab id={id} />;
    default:
      return <Commands id={id} item={item} />;
  }
}
