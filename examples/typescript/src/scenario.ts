// The scenario that a client in any language runs, for Node and for a browser; tests/interop says what its lines mean.

import { Code, ConnectError, createClient, type Transport } from "@connectrpc/connect";

import { Workspace_State } from "#stubs/cove/gateway/v1/gateway_pb";
import { ExecutionService, SourceService, WorkspaceService } from "#stubs/cove/gateway/v1/gateway_pb";
import { again, field, follow, reason } from "./calling";

/** Where it runs, and what differs there. */
export interface World {
  /** In the names of its workspaces. */
  language: string;
  suffix: string;
  repository: string;
  direct: Transport;
  /** A transport with a connection of its own. */
  losing: () => Transport;
  cutting: () => Transport;
  /** Writes a file; returns its path. */
  write: (workspace: string, path: string, content: string) => Promise<string>;
  tell: (line: string) => void;
}

export async function scenario(world: World): Promise<void> {
  const name = `workspaces/${world.language}-${world.suffix}`;
  await create(world);
  await run(world, name);
  await commit(world, name);
  const workspaces = createClient(WorkspaceService, world.direct);
  await workspaces.deleteWorkspace({ name });
  const left = await workspaces.getWorkspace({ name });
  tell(world, "delete", { deleted: left.workspace!.state === Workspace_State.DELETED });
}

async function create(world: World): Promise<void> {
  const workspaces = createClient(WorkspaceService, world.direct);
  const request = {
    workspaceId: `${world.language}-${world.suffix}`,
    workspace: { spec: { repository: world.repository } },
    requestId: crypto.randomUUID(),
  };
  const losing = createClient(WorkspaceService, world.losing());
  const { name, uid } = (await again(losing.createWorkspace, request)).workspace!;
  tell(world, "create", { name, uid });
  const same = await workspaces.createWorkspace(request);
  tell(world, "again", { same: same.workspace!.uid === uid });

  const reused = { ...request, workspaceId: `${request.workspaceId}-2` };
  await refused(world, "reused", () => workspaces.createWorkspace(reused));
  const missing = { name: `workspaces/none-${world.suffix}` };
  await refused(world, "missing", () => workspaces.getWorkspace(missing));
  await refused(world, "invalid", () => workspaces.createWorkspace({ workspaceId: "No Such!" }));
}

async function run(world: World, parent: string): Promise<void> {
  const executions = createClient(ExecutionService, world.direct);
  const spec = { script: "echo ran >> runs; seq -w 1048576" };
  const start = { parent, execution: { spec }, requestId: crypto.randomUUID() };
  const losing = createClient(ExecutionService, world.losing());
  const { name } = (await again(losing.startExecution, start)).execution!;
  tell(world, "start", { execution: name });

  const parts: Uint8Array[] = [];
  const { breaks } = await follow(world.cutting(), name, (data) => parts.push(data));
  const output = new Uint8Array(await new Blob(parts as BlobPart[]).arrayBuffer());
  const sha256 = hex(await crypto.subtle.digest("SHA-256", output));
  tell(world, "output", { bytes: output.length, sha256, breaks });

  const ended = (await executions.waitExecution({ name })).execution!;
  tell(world, "exit", { exit_code: ended.exit!.reason.value });
  const fails = { name: parent, spec: { argv: ["sh", "-c", "exit 3"] } };
  const failed = (await executions.execute(fails)).execution!;
  tell(world, "failed", { exit_code: failed.exit!.reason.value });
}

async function commit(world: World, name: string): Promise<void> {
  const source = createClient(SourceService, world.direct);
  tell(world, "write", { path: await world.write(name, "hello.txt", `hello from ${world.language}\n`) });
  const { status } = await source.getWorktreeStatus({ name });
  tell(world, "status", { paths: status!.entries.map((entry) => entry.path) });

  const author = { name: "Ada", email: "ada@example.org" };
  const request = { parent: name, commit: { message: "Say hello", author }, requestId: crypto.randomUUID() };
  const losing = createClient(SourceService, world.losing());
  const made = await again(losing.createCommit, request);
  tell(world, "commit", { commit: made.commit!.id });
}

/** How a call that must fail fails. */
async function refused(world: World, step: string, call: () => Promise<unknown>): Promise<void> {
  try {
    await call();
  } catch (error) {
    const code = Code[ConnectError.from(error).code]!.replace(/(?<=[a-z])[A-Z]/g, "_$&").toUpperCase();
    const info = reason(error);
    const facts = { code, reason: info?.reason, domain: info?.domain, field: field(error) };
    tell(world, step, { ...facts, resource: info?.metadata.name });
    return;
  }
  throw new Error(`${step}: this call must fail`);
}

function tell(world: World, step: string, facts: object): void {
  world.tell(JSON.stringify({ step, ...facts }));
}

function hex(bytes: ArrayBuffer): string {
  return [...new Uint8Array(bytes)].map((byte) => byte.toString(16).padStart(2, "0")).join("");
}
