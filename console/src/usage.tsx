// What a workspace uses, as it runs.

import { useEffect, useState } from "preact/hooks";
import { events } from "./api";
import { again, isFinal, whileSeen } from "./connection";
import { seconds, size } from "./format";
import { Plot } from "./plot";
import type { Usage } from "./types";
import { Trouble } from "./ui";

const KEPT = 300;
const INTERVAL = "1s";
/** Samples are no heartbeats: one a second is due. */
const QUIET = 15_000;

interface Sample {
  time: number;
  running: boolean;
  /** Processors; null where there is nothing to compare with. */
  cpu: number | null;
  memory: number;
  processes: number;
  written: number | null;
}

interface UsageEvent {
  sample?: { time: string; usage?: Usage; running?: boolean };
}

/** Counters that only grow, as rates between two samples. */
export function rates(before: { time: number; usage: Usage } | null, time: number, usage: Usage) {
  const passed = before ? (time - before.time) / 1000 : 0;
  const rate = (now: number, then: number) =>
    before && passed > 0 && now >= then ? (now - then) / passed : null;
  const old = before?.usage ?? {};
  return {
    cpu: rate(seconds(usage.cpuTime), seconds(old.cpuTime)),
    written: rate(Number(usage.writtenBytes ?? 0), Number(old.writtenBytes ?? 0)),
  };
}

export function UsageTab({ id }: { id: string }) {
  const [samples, setSamples] = useState<Sample[]>([]);
  const [problem, setProblem] = useState<unknown>(null);
  useEffect(() => {
    const end = new AbortController();
    const kept: Sample[] = [];
    let before: { time: number; usage: Usage } | null = null;
    const read = async (signal: AbortSignal) => {
      const query = { interval: INTERVAL };
      const path = `workspaces/${id}/usage`;
      for await (const { sample } of events<UsageEvent>(path, { query, signal, quiet: QUIET })) {
        if (!sample) continue;
        const time = Date.parse(sample.time);
        const usage = sample.usage ?? {};
        const rate = rates(before, time, usage);
        before = { time, usage };
        kept.push({
          time,
          running: sample.running ?? false,
          memory: Number(usage.memoryBytes ?? 0),
          processes: usage.processes ?? 0,
          ...rate,
        });
        if (kept.length > KEPT) kept.shift();
        setSamples([...kept]);
      }
    };
    const follow = async () => {
      for (let failures = 0; ; failures++) {
        const seen = whileSeen(end.signal);
        let broken: unknown = null;
        try {
          await read(seen.signal);
        } catch (error) {
          broken = error;
        } finally {
          seen.done();
        }
        if (end.signal.aborted) return;
        if (isFinal(broken)) setProblem(broken);
        if (!(await again(broken, Math.min(failures, 4), end.signal))) return;
      }
    };
    void follow();
    return () => end.abort();
  }, [id]);
  const series = (pick: (sample: Sample) => number | null) =>
    samples.map((each) => ({ time: each.time, value: pick(each) }));
  const last = samples.at(-1);
  return (
    <section aria-label="Usage">
      <Trouble of={problem} />
      {last && !last.running && (
        <p class="note">It is asleep, and uses nothing. Looking at it does not wake it.</p>
      )}
      {!samples.length && !problem && <p class="empty">Waiting for the first sample…</p>}
      {samples.length > 0 && (
        <div class="plots">
          <Plot title="Processors" points={series((each) => each.cpu)} text={(v) => v.toFixed(2)} />
          <Plot title="Memory" points={series((each) => each.memory)} text={size} />
          <Plot
            title="Processes"
            points={series((each) => each.processes)}
            text={(v) => String(Math.round(v))}
          />
          <Plot title="Written a second" points={series((each) => each.written)} text={size} />
        </div>
      )}
    </section>
  );
}
