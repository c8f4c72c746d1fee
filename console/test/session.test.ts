import { beforeEach, expect, test, vi } from "vitest";

type Answer = { status: number; body?: object };

/** Calls that wait for their answer, and what was shown with each. */
let calls: { url: string; bearer: string; answer: (with_: Answer) => void; lose: () => void }[];

beforeEach(() => {
  vi.resetModules();
  calls = [];
  const stored = new Map<string, string>();
  vi.stubGlobal("location", { href: "http://gateway/console/#/", hash: "#/" });
  vi.stubGlobal("sessionStorage", {
    getItem: (key: string) => stored.get(key) ?? null,
    setItem: (key: string, value: string) => stored.set(key, value),
    removeItem: (key: string) => stored.delete(key),
  });
  vi.stubGlobal("fetch", (url: URL, request: RequestInit) => {
    const headers = request.headers as Record<string, string>;
    return new Promise<Response>((resolve, reject) => {
      request.signal?.addEventListener("abort", () => reject(new DOMException("", "AbortError")));
      calls.push({
        url: url.href,
        bearer: headers["authorization"] ?? "",
        answer: ({ status, body = {} }) => resolve(new Response(JSON.stringify(body), { status })),
        lose: () => reject(new TypeError("lost")),
      });
    });
  });
});

async function load() {
  const session = await import("../src/session");
  const { call } = await import("../src/api");
  const { signIn } = await import("../src/admit");
  const enter = async (token: string) => {
    const done = signIn(token);
    calls.at(-1)?.answer({ status: 200 });
    await done;
  };
  return { session, call, signIn, enter };
}

test("a token is kept once it was let in, and not before", async () => {
  const { session, signIn } = await load();
  const refused = signIn("wrong");
  expect(calls[0]?.bearer).toBe("Bearer wrong");
  expect(sessionStorage.getItem("cove.token")).toBeNull();
  calls[0]?.answer({ status: 401, body: { message: "no valid token" } });
  await expect(refused).rejects.toThrow("no valid token");
  const broken = signIn("right");
  calls[1]?.answer({ status: 503, body: { message: "not now" } });
  await expect(broken).rejects.toThrow("not now");
  expect(sessionStorage.getItem("cove.token")).toBeNull();
  expect(session.token.value).toBe("");
  const done = signIn("right");
  calls[2]?.answer({ status: 200 });
  await done;
  expect(sessionStorage.getItem("cove.token")).toBe("right");
  expect(session.admitted.value).toBe(true);
});

test.each(["tök", "one two", "one\ntwo", "“quoted”"])("%j is no token", async (value) => {
  const { signIn } = await load();
  await expect(signIn(value)).rejects.toMatchObject({ message: "this is no token" });
  expect(calls).toEqual([]);
});

test("a late refusal of the former token does not end the session of the next", async () => {
  const { session, call, enter } = await load();
  await enter("first");
  const late = call("GET", "capabilities").catch((error) => error);
  const of = calls.at(-1);
  session.leave();
  await enter("second");
  of?.answer({ status: 401, body: { message: "no valid token" } });
  await late;
  expect(session.token.value).toBe("second");
  expect(session.admitted.value).toBe(true);
  const own = call("GET", "capabilities").catch((error) => error);
  calls.at(-1)?.answer({ status: 401, body: { message: "revoked" } });
  await own;
  expect(session.admitted.value).toBe(false);
  expect(session.refusal.value?.message).toBe("revoked");
});

test("no answer to the former one arrives, and nothing is asked again by the next", async () => {
  const { session, call, enter } = await load();
  await enter("first");
  const lost = call("POST", "workspaces:create", { json: {} });
  const slow = call("GET", "workspaces/one");
  const rejected = Promise.all([expect(lost).rejects.toThrow(), expect(slow).rejects.toThrow()]);
  calls.at(-2)?.lose();
  await new Promise((resolve) => setTimeout(resolve, 0));
  const slowly = calls.at(-1);
  session.leave();
  await enter("second");
  slowly?.answer({ status: 200, body: { name: "workspaces/one" } });
  await rejected;
  expect(calls.filter((each) => each.url.endsWith(":create"))).toHaveLength(1);
});

test("what leaves with a token", async () => {
  const { session, enter } = await load();
  await enter("first");
  session.shared.value = "workspaces/one";
  let left = 0;
  session.onLeave(() => left++);
  session.leave();
  expect([session.token.value, session.shared.value]).toEqual(["", ""]);
  expect(sessionStorage.getItem("cove.token")).toBeNull();
  expect(session.session().aborted).toBe(false);
  expect(left).toBe(1);
});
