// Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it changed.
//
// Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it is 127.0.0.1:7420; https://host:port
// is spoken to with TLS.

import { createClient, type Client, type Transport } from "@connectrpc/connect";

import { ExecutionService, SourceService, WorkspaceService } from "#stubs/cove/gateway/v1/gateway_pb";
import { again, follow, reason } from "./calling";
import { connect } from "./node";

/** The same in every retry of one request, which is carried out once. */
const once = () => crypto.randomUUID();

/** Returns the exit status of the script. */
async function run(transport: Transport, workspaceId: string, url: string, script: string): Promise<number> {
  const parent = `workspaces/${workspaceId}`;
  const workspaces = createClient(WorkspaceService, transport);
  const executions = createClient(ExecutionService, transport);
  // snippet:begin
  // A request is the same until it is answered, and is carried out once.
  const workspace = { spec: { repository: url } };
  await again(workspaces.createWorkspace, { workspaceId, workspace, requestId: once() });
  try {
    const start = { parent, execution: { spec: { script } }, requestId: once() };
    const { execution } = await again(executions.startExecution, start);
    const { exit } = await follow(transport, execution!.name, (data) => process.stdout.write(data)); // By offset.
    await push(createClient(SourceService, transport), parent, script);
    return exit.reason.case === "code" ? exit.reason.value : 1; // A signal, a timeout or a limit ended it.
  } finally {
    await remove(workspaces, parent); // What is not pushed is kept for a day.
  }
  // snippet:end
}

/** Commits what there is, and pushes it to where the repository is from. */
async function push(source: Client<typeof SourceService>, name: string, message: string): Promise<void> {
  try {
    const made = await again(source.createCommit, { parent: name, commit: { message }, requestId: once() });
    console.error("commit", made.commit!.id);
  } catch (error) {
    if (reason(error)?.reason !== "ERROR_REASON_NOTHING_TO_COMMIT") throw error;
    console.error("nothing to commit");
    return;
  }
  await again(source.pushBranch, { name, requestId: once() });
}

/** A failure is only told: another may have come before it. */
async function remove(workspaces: Client<typeof WorkspaceService>, name: string): Promise<void> {
  try {
    await again(workspaces.deleteWorkspace, { name, allowMissing: true, requestId: once() });
  } catch (error) {
    console.error(`${name} is still there: ${error}`);
  }
}

const [url, script, ...more] = process.argv.slice(2);
if (!url || !script || more.length) {
  console.error("usage: example REPOSITORY SCRIPT");
  process.exit(2);
}
const transport = connect(process.env.COVE_ADDRESS ?? "127.0.0.1:7420");
process.exitCode = await run(transport, `typescript-${once().slice(0, 8)}`, url, script);
