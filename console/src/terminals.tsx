// The terminals of a workspace. What draws them is loaded when one is opened.

import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "./api";
import { Outcome, title } from "./commands";
import { age, id as idOf } from "./format";
import { useExecutions } from "./listing";
import { go, to } from "./route";
import type { Execution } from "./types";
import { now, Trouble, useAct } from "./ui";

/** bash where there is one. */
const SHELL = "if command -v bash > /dev/null; then exec bash -i; else exec sh -i; fi";

/** Of those that ended, the latest so many are listed. */
const ENDED = 100;

export function Terminals({ id, item }: { id: string; item: string }) {
  const { executions, problem, learn, refresh } = useExecutions(id);
  const { act, busy, problem: refused } = useAct();
  const all = (executions ?? []).filter((each) => each.spec?.terminal);
  const running = all.filter((each) => !each.exit);
  const ended = all.filter((each) => each.exit).slice(0, ENDED);
  const start = () =>
    act(async () => {
      const spec = {
        argv: ["sh", "-c", SHELL],
        env: { TERM: "xterm-256color" },
        terminal: { rows: 24, cols: 80 },
      };
      const made = await call<Execution>("POST", `workspaces/${id}/executions`, { json: { spec } });
      learn(made);
      go(to(id, "terminal", idOf(made.name)));
    });
  return (
    <section aria-label="Terminals" class="terminals">
      <div class="bar">
        <button type="button" class="main" disabled={busy} onClick={start}>
          New terminal
        </button>
        <nav aria-label="Open terminals" class="chips">
          {running.map((each) => (
            <a
              key={each.name}
              href={to(id, "terminal", idOf(each.name))}
              aria-current={idOf(each.name) === item ? "true" : undefined}
            >
              {idOf(each.name)} <span class="dim">{age(each.createTime, now.value)}</span>
            </a>
          ))}
        </nav>
      </div>
      <Trouble of={problem} />
      <Trouble of={refused} />
      {item ? (
        <Screen key={item} name={`workspaces/${id}/executions/${item}`} ended={refresh} />
      ) : (
        executions &&
        !running.length && (
          <p class="empty">
            None is open. A terminal goes on when you leave, and can be opened again from here.
          </p>
        )
      )}
      {ended.length > 0 && (
        <details>
          <summary>Ended</summary>
          <ul class="items">
            {ended.map((each) => (
              <li key={each.name}>
                <a href={to(id, "commands", idOf(each.name))}>
                  <span class="mono cut">{title(each)}</span>
                  <span class="dim">
                    <Outcome execution={each} /> {age(each.createTime, now.value)}
                  </span>
                </a>
              </li>
            ))}
          </ul>
        </details>
      )}
    </section>
  );
}

function Screen({ name, ended }: { name: string; ended: () => void }) {
  const place = useRef<HTMLDivElement>(null);
  const [state, setState] = useState("opening");
  const [problem, setProblem] = useState<unknown>(null);
  const [held, setHeld] = useState(false);
  const [takeOver, setTakeOver] = useState(0);
  const done = useRef(ended);
  done.current = ended;
  useEffect(() => {
    const element = place.current;
    if (!element) return;
    const end = new AbortController();
    setProblem(null);
    setHeld(false);
    import("./terminal")
      .then(({ attach }) =>
        attach(element, name, end.signal, takeOver > 0, {
          state: (now) => {
            setState(now);
            if (now === "ended") done.current();
          },
          held: () => setHeld(true),
          problem: setProblem,
        }),
      )
      .catch(setProblem);
    return () => end.abort();
  }, [name, takeOver]);
  return (
    <>
      <p class="dim small" role="status" data-terminal={state}>
        {state}
        {held && (
          <>
            {" · another one writes here "}
            <button type="button" onClick={() => setTakeOver(takeOver + 1)}>
              Take over
            </button>
          </>
        )}
        {state === "attached" && " · Ctrl Shift E leaves it"}
      </p>
      <Trouble of={problem} />
      <div ref={place} class="screen" />
    </>
  );
}
