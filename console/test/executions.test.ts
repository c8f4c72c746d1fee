import { expect, test } from "vitest";
import { changedSince, latestFirst, pages } from "../src/executions";

const made = (name: string, createTime: string, endTime?: string) => ({
  name,
  state: endTime ? "STATE_ENDED" : "STATE_RUNNING",
  createTime,
  ...(endTime ? { exit: { endTime } } : {}),
});

test("all pages are read, the latest first, and no more than a bound", async () => {
  const asked: string[] = [];
  const read = (last: number) => async (query: Record<string, string | number>) => {
    asked.push(String(query["page_token"]));
    expect(query["order_by"]).toBe("create_time desc");
    const at = Number(query["page_token"] || 0);
    const page = { executions: [made(`e${at}`, "2026-01-01T00:00:00Z")] };
    return at < last ? { ...page, nextPageToken: String(at + 1) } : page;
  };
  const [three, cut] = await pages(read(2));
  expect(three.map((each) => each.name)).toEqual(["e0", "e1", "e2"]);
  expect(cut).toBe(false);
  expect(asked).toEqual(["", "1", "2"]);
  const [bounded, more] = await pages(read(Number.POSITIVE_INFINITY));
  expect(more).toBe(true);
  expect(bounded.length).toBe(asked.length - 3);
});

test("the latest is first, whatever the digits of its time", () => {
  const all = [
    made("a", "2026-01-01T00:00:00Z"),
    made("c", "2026-01-01T00:00:00.500100Z"),
    made("b", "2026-01-01T00:00:00.500Z"),
    made("d", "2026-01-01T00:00:01Z"),
  ];
  expect(latestFirst(all).map((each) => each.name)).toEqual(["d", "c", "b", "a"]);
});

test("what may have changed is asked for from a minute before the last time that is known", () => {
  expect(changedSince([])).toBe("");
  const all = [
    made("a", "2026-01-01T00:10:00Z", "2026-01-01T00:20:00.25Z"),
    made("b", "2026-01-01T00:15:00Z"),
  ];
  expect(changedSince(all)).toBe(
    'create_time > "2026-01-01T00:19:00.250Z" OR exit.end_time > "2026-01-01T00:19:00.250Z"' +
      " OR state = STARTING OR state = RUNNING",
  );
});
