// Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it changed.
//
// Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it is 127.0.0.1:7420.

import { createClient, type Transport } from "@connectrpc/connect";
import { createGrpcTransport } from "@connectrpc/connect-node";

import { ExecutionService, SourceService, WorkspaceService } from "#stubs/cove/gateway/v1/gateway_pb";
import { again, follow, reason, showing } from "./calling";

/** The same in every retry of one request, which is carried out once. */
const once = () => crypto.randomUUID();

/** Returns the exit status of the script. */
async function run(transport: Transport, workspaceId: string, url: string, script: string): Promise<number> {
  const parent = `workspaces/${workspaceId}`;
  // snippet:begin
  // A request is the same until it is answered, and is carried out once.
  const workspaces = createClient(WorkspaceService, transport);
  const executions = createClient(ExecutionService, transport);
  const workspace = { spec: { repository: url } };
  await again(workspaces.createWorkspace, { workspaceId, workspace, requestId: once() });
  const start = { parent, execution: { spec: { script } }, requestId: once() };
  const { execution } = await again(executions.startExecution, start);
  const { exit } = await follow(transport, execution!.name, (data) => process.stdout.write(data)); // By offset.
  // snippet:end
  const code = exit.reason.case === "code" ? exit.reason.value : 1;
  const source = createClient(SourceService, transport);
  try {
    const commit = { parent, commit: { message: script }, requestId: once() };
    const made = await again(source.createCommit, commit);
    console.error("commit", made.commit!.id);
  } catch (error) {
    if (reason(error)?.reason !== "ERROR_REASON_NOTHING_TO_COMMIT") throw error;
    console.error("nothing to commit");
    return code;
  }
  await again(source.pushBranch, { name: parent, requestId: once() });
  return code;
}

const [url = "", script = ""] = process.argv.slice(2);
const transport = createGrpcTransport({
  baseUrl: `http://${process.env.COVE_ADDRESS ?? "127.0.0.1:7420"}`,
  interceptors: [showing(process.env.COVE_TOKEN ?? "")],
  pingIntervalMs: 20_000, // Else a peer that is gone without a word is not missed.
});
const id = `typescript-${once().slice(0, 8)}`;
try {
  process.exitCode = await run(transport, id, url, script);
} finally {
  const workspaces = createClient(WorkspaceService, transport);
  const gone = { name: `workspaces/${id}`, force: true, allowMissing: true, requestId: once() };
  await again(workspaces.deleteWorkspace, gone);
}
