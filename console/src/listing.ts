// The executions of a workspace, as they are now.

import { useEffect, useRef, useState } from "preact/hooks";
import { call } from "./api";
import { changedSince, latestFirst, pages, type Read } from "./executions";
import type { Execution } from "./types";

const EACH = 4000;
/** How often all are asked for; in between only those that are new, run, or ended of late. */
const ALL = 15;

/**
 * The latest first, asked for again every few seconds, as there is no watch of them. The one
 * called `item` is looked up by itself: it need not be among them.
 */
export function useExecutions(id: string, item = "") {
  const kept = useRef(new Map<string, Execution>());
  const [executions, setExecutions] = useState<Execution[] | null>(null);
  const [more, setMore] = useState(false);
  const [missing, setMissing] = useState<unknown>(null);
  const [problem, setProblem] = useState<unknown>(null);
  const refresh = useRef(async () => {});
  const show = () => setExecutions(latestFirst(kept.current.values()));
  const learn = (execution: Execution) => {
    kept.current.set(execution.name, execution);
    show();
  };
  useEffect(() => {
    const end = new AbortController();
    const path = `workspaces/${id}/executions`;
    const read: Read = (query) => call("GET", path, { query, signal: end.signal });
    let running = false;
    let times = 0;
    refresh.current = async () => {
      if (running) return;
      running = true;
      try {
        const filter = times % ALL ? changedSince(kept.current.values()) : "";
        const before = new Set(kept.current.keys());
        const [found, cut] = await pages(read, filter);
        if (!filter) {
          setMore(cut);
          // What was learned meanwhile stays.
          if (!cut) for (const name of before) kept.current.delete(name);
        }
        for (const each of found) kept.current.set(each.name, each);
        times++;
        show();
        setProblem(null);
      } catch (error) {
        if (!end.signal.aborted) setProblem(error);
      } finally {
        running = false;
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
  const name = `workspaces/${id}/executions/${encodeURIComponent(item)}`;
  const known = !item || kept.current.has(name);
  useEffect(() => {
    setMissing(null);
    if (known) return;
    const end = new AbortController();
    const { signal } = end;
    call<Execution>("GET", name, { signal })
      .then(learn)
      .catch((error) => {
        if (!signal.aborted) setMissing(error);
      });
    return () => end.abort();
  }, [name, known]);
  return { executions, more, missing, problem, learn, refresh: () => refresh.current() };
}
