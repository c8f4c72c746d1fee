// The commands of a workspace: what ran, what runs, and a line to run another.

import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "./api";
import { age, id as idOf, size } from "./format";
import { useKeys } from "./keys";
import { Output } from "./output";
import { go, to } from "./route";
import type { Execution } from "./types";
import { announce, now, State, Trouble, useAct } from "./ui";

const EACH = 4000;

/** The latest first. Asked for again every few seconds, as there is no watch of them. */
export function useExecutions(id: string) {
  const [executions, setExecutions] = useState<Execution[] | null>(null);
  const [problem, setProblem] = useState<unknown>(null);
  const refresh = useRef(async () => {});
  useEffect(() => {
    const end = new AbortController();
    refresh.current = async () => {
      try {
        const found = await call<{ executions?: Execution[] }>(
          "GET",
          `workspaces/${id}/executions`,
          { query: { page_size: 200 }, signal: end.signal },
        );
        const newest = (found.executions ?? []).sort((one, other) =>
          (one.createTime ?? "") < (other.createTime ?? "") ? 1 : -1,
        );
        setExecutions(newest);
        setProblem(null);
      } catch (error) {
        if (!end.signal.aborted) setProblem(error);
      }
    };
    void refresh.current();
    const timer = setInterval(() => {
      if (document.visibilityState === "visible") void refresh.current();
    }, EACH);
    return () => {
      clearInterval(timer);
      end.abort();
    };
  }, [id]);
  return { executions, problem, refresh: () => refresh.current() };
}

export function Commands({ id, item }: { id: string; item: string }) {
  const { executions, problem, refresh } = useExecutions(id);
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
      await refresh();
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
          {all.map((each) => (
            <Item key={each.name} id={id} execution={each} current={each === open} />
          ))}
        </ul>
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
        {!open && item && executions && <p class="empty">There is no such command.</p>}
      </div>
    </section>
  );
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
