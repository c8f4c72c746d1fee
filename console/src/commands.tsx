// The commands of a workspace: what ran, what runs, and a line to run another.

import { useRef, useState } from "preact/hooks";
import { call, Problem } from "./api";
import { age, id as idOf, size } from "./format";
import { useKeys } from "./keys";
import { useExecutions } from "./listing";
import { Output } from "./output";
import { go, to } from "./route";
import type { Execution } from "./types";
import { announce, now, State, Trouble, useAct } from "./ui";

/** Of the list, at first, and more at each asking. */
const SHOWN = 200;

export function Commands({ id, item }: { id: string; item: string }) {
  const { executions, more, missing, problem, learn, refresh } = useExecutions(id, item);
  const [shown, setShown] = useState(SHOWN);
  const [line, setLine] = useState("");
  const { act, busy, problem: refused, setProblem } = useAct();
  const input = useRef<HTMLInputElement>(null);
  const all = executions ?? [];
  const open = all.find((each) => idOf(each.name) === item) ?? (item ? undefined : all[0]);
  const move = (by: number) => {
    const next = all[(open ? all.indexOf(open) : -1) + by];
    if (next) go(to(id, "commands", idOf(next.name)));
  };
  useKeys({ r: () => input.current?.focus(), j: () => move(1), k: () => move(-1) });
  const run = (event: Event) => {
    event.preventDefault();
    if (!line.trim()) return;
    void act(async () => {
      const made = await call<Execution>("POST", `workspaces/${id}/executions`, {
        json: { spec: { script: line } },
      });
      setLine("");
      learn(made);
      go(to(id, "commands", idOf(made.name)));
    });
  };
  return (
    <section class="split" aria-label="Commands">
      <div class="side">
        <form class="line" onSubmit={run}>
          <input
            ref={input}
            class="mono"
            aria-label="Command"
            placeholder="Run a command ( r )"
            value={line}
            spellcheck={false}
            autocomplete="off"
            onInput={(event) => setLine(event.currentTarget.value)}
          />
          <button type="submit" class="main" disabled={busy || !line.trim()}>
            Run
          </button>
        </form>
        <Trouble of={refused} close={() => setProblem(null)} />
        <Trouble of={problem} />
        {executions && !all.length && <p class="empty">Nothing was run yet.</p>}
        <ul class="items">
          {all.slice(0, shown).map((each) => (
            <Item key={each.name} id={id} execution={each} current={each === open} />
          ))}
        </ul>
        {all.length > shown && (
          <button type="button" class="plain" onClick={() => setShown(shown + SHOWN)}>
            Show more of {all.length}
          </button>
        )}
        {more && <p class="note">There are more than these {all.length}, all of them older.</p>}
      </div>
      <div class="body">
        {open && (
          <Output
            key={open.name}
            execution={open}
            ended={() => {
              announce(`${title(open)} ended`);
              void refresh();
            }}
          />
        )}
        {!open &&
          (isGone(missing) ? (
            <p class="empty">There is no such command.</p>
          ) : (
            <Trouble of={missing} />
          ))}
      </div>
    </section>
  );
}

function isGone(problem: unknown): boolean {
  return problem instanceof Problem && problem.status === 404;
}

function Item({ id, execution, current }: { id: string; execution: Execution; current: boolean }) {
  const bytes = Number(execution.outputBytes ?? execution.exit?.outputBytes ?? 0);
  return (
    <li>
      <a
        href={to(id, execution.spec?.terminal ? "terminal" : "commands", idOf(execution.name))}
        aria-current={current ? "true" : undefined}
      >
        <span class="mono cut">{title(execution)}</span>
        <span class="dim">
          <Outcome execution={execution} /> {age(execution.createTime, now.value)} · {size(bytes)}
        </span>
      </a>
    </li>
  );
}

export function title(execution: Execution): string {
  const { script, argv } = execution.spec ?? {};
  return script ?? argv?.join(" ") ?? idOf(execution.name);
}

/** How it ended, or that it goes on. */
export function Outcome({ execution }: { execution: Execution }) {
  const { exit, state } = execution;
  if (!exit) return <State value={state} />;
  if (exit.signal) return <State value={`signal ${exit.signal.number}`} kind="failed" />;
  if (exit.timedOut) return <State value="timed out" kind="failed" />;
  if (exit.limit) return <State value="limit" kind="failed" />;
  if (exit.cancelled) return <State value="cancelled" kind="suspended" />;
  if (exit.lost) return <State value="lost" kind="failed" />;
  const code = exit.code ?? 0;
  return <State value={`exit ${code}`} kind={code ? "failed" : "ended"} />;
}
