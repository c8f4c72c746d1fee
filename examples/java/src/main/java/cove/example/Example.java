package cove.example;

import com.google.protobuf.ByteString;
import cove.executor.v1.Executor.Exit;
import cove.gateway.v1.ExecutionServiceGrpc;
import cove.gateway.v1.Gateway.CreateCommitRequest;
import cove.gateway.v1.Gateway.CreateWorkspaceRequest;
import cove.gateway.v1.Gateway.DeleteWorkspaceRequest;
import cove.gateway.v1.Gateway.PushBranchRequest;
import cove.gateway.v1.Gateway.StartExecutionRequest;
import cove.gateway.v1.SourceServiceGrpc;
import cove.gateway.v1.WorkspaceServiceGrpc;
import io.grpc.StatusRuntimeException;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.UUID;

/**
 * Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it
 * changed.
 *
 * <p>Usage: {@code example REPOSITORY SCRIPT}, with COVE_TOKEN, and COVE_ADDRESS unless it is
 * 127.0.0.1:7420; {@code https://host:port} is spoken to with TLS.
 */
public final class Example {
  private Example() {}

  public static void main(String[] arguments) {
    if (arguments.length != 2) {
      System.err.println("usage: example REPOSITORY SCRIPT");
      System.exit(2);
    }
    int status;
    try (Cove cove = new Cove(System.getenv().getOrDefault("COVE_ADDRESS", "127.0.0.1:7420"))) {
      status = run(cove, arguments[0], arguments[1]);
    }
    System.exit(status);
  }

  /** Returns the exit status of the script. */
  private static int run(Cove cove, String url, String script) {
    String id = "java-" + once().substring(0, 8);
    String name = "workspaces/" + id;
    var workspaces = WorkspaceServiceGrpc.newBlockingStub(cove.channel());
    var executions = ExecutionServiceGrpc.newBlockingStub(cove.channel());
    // snippet:begin
    // A request is the same until it is answered, and is carried out once.
    var create = CreateWorkspaceRequest.newBuilder().setWorkspaceId(id).setRequestId(once());
    create.getWorkspaceBuilder().getSpecBuilder().setRepository(url);
    cove.again(() -> workspaces.createWorkspace(create.build()));
    try {
      var start = StartExecutionRequest.newBuilder().setParent(name).setRequestId(once());
      start.getExecutionBuilder().getSpecBuilder().setScript(script);
      var execution = cove.again(() -> executions.startExecution(start.build())).getExecution();
      Exit exit = cove.follow(execution.getName(), Example::print).exit(); // By offset.
      save(cove, name, script);
      return status(exit);
    } finally {
      delete(cove, name); // What is not pushed is kept for a day.
    }
    // snippet:end
  }

  /** Commits what the script changed, and pushes it. */
  private static void save(Cove cove, String name, String script) {
    var source = SourceServiceGrpc.newBlockingStub(cove.channel());
    var commit = CreateCommitRequest.newBuilder().setParent(name).setRequestId(once());
    commit.getCommitBuilder().setMessage(script);
    try {
      var made = cove.again(() -> source.createCommit(commit.build())).getCommit();
      System.err.println("commit " + made.getId());
    } catch (StatusRuntimeException failure) {
      if (!Cove.reason(failure).equals("ERROR_REASON_NOTHING_TO_COMMIT")) {
        throw failure;
      }
      System.err.println("nothing to commit");
      return;
    }
    var push = PushBranchRequest.newBuilder().setName(name).setRequestId(once()).build();
    cove.again(() -> source.pushBranch(push));
  }

  /** A failure is only told: another may have come before it. */
  private static void delete(Cove cove, String name) {
    var workspaces = WorkspaceServiceGrpc.newBlockingStub(cove.channel());
    var delete = DeleteWorkspaceRequest.newBuilder().setName(name).setRequestId(once());
    delete.setAllowMissing(true);
    try {
      cove.again(() -> workspaces.deleteWorkspace(delete.build()));
    } catch (StatusRuntimeException failure) {
      System.err.println(name + " is still there: " + failure.getMessage());
    }
  }

  /** A request id: the same in every retry of one request, which is carried out once. */
  private static String once() {
    return UUID.randomUUID().toString();
  }

  private static void print(ByteString data) {
    try {
      data.writeTo(System.out);
      System.out.flush();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** The script's own status; 1 where a signal, a timeout or a limit ended it. */
  private static int status(Exit exit) {
    return exit.hasCode() ? exit.getCode() : 1;
  }
}
