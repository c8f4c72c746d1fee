package cove.example;

import com.google.gson.JsonArray;
import com.google.gson.JsonObject;
import com.google.protobuf.ByteString;
import com.google.rpc.BadRequest;
import com.google.rpc.ErrorInfo;
import cove.executor.v1.Executor.Execution;
import cove.executor.v1.Executor.ExecutionSpec;
import cove.executor.v1.Executor.WriteFileEnd;
import cove.gateway.v1.ExecutionServiceGrpc;
import cove.gateway.v1.FileServiceGrpc;
import cove.gateway.v1.Gateway.CreateCommitRequest;
import cove.gateway.v1.Gateway.CreateWorkspaceRequest;
import cove.gateway.v1.Gateway.DeleteWorkspaceRequest;
import cove.gateway.v1.Gateway.ExecuteRequest;
import cove.gateway.v1.Gateway.GetWorkspaceRequest;
import cove.gateway.v1.Gateway.GetWorktreeStatusRequest;
import cove.gateway.v1.Gateway.StartExecutionRequest;
import cove.gateway.v1.Gateway.WaitExecutionRequest;
import cove.gateway.v1.Gateway.Workspace;
import cove.gateway.v1.Gateway.WriteFileHeader;
import cove.gateway.v1.Gateway.WriteFileRequest;
import cove.gateway.v1.Gateway.WriteFileResponse;
import cove.gateway.v1.SourceServiceGrpc;
import cove.gateway.v1.WorkspaceServiceGrpc;
import cove.git.v1.Git.StatusEntry;
import io.grpc.StatusRuntimeException;
import io.grpc.stub.StreamObserver;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HexFormat;
import java.util.UUID;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.atomic.AtomicLong;

/** The scenario that a client in any language runs; tests/interop says what its lines mean. */
public final class Conformance {
  private static final String ID = "java-" + System.getenv("COVE_SUFFIX");
  private static final String NAME = "workspaces/" + ID;

  private final Cove cove;

  private Conformance(Cove cove) {
    this.cove = cove;
  }

  public static void main(String[] arguments) throws NoSuchAlgorithmException {
    try (Cove cove = connect("COVE_ADDRESS")) {
      Conformance scenario = new Conformance(cove);
      scenario.create();
      scenario.run();
      scenario.commit();
      scenario.delete();
    }
  }

  private void create() {
    var workspaces = WorkspaceServiceGrpc.newBlockingStub(cove.channel());
    var builder = CreateWorkspaceRequest.newBuilder().setWorkspaceId(ID).setRequestId(once());
    builder.getWorkspaceBuilder().getSpecBuilder().setRepository(System.getenv("COVE_REPOSITORY"));
    CreateWorkspaceRequest request = builder.build();
    Workspace made;
    try (Cove losing = connect("COVE_LOSING_ADDRESS")) {
      var stub = WorkspaceServiceGrpc.newBlockingStub(losing.channel());
      made = losing.again(() -> stub.createWorkspace(request)).getWorkspace();
    }
    JsonObject create = line("create");
    create.addProperty("name", made.getName());
    create.addProperty("uid", made.getUid());
    System.out.println(create);

    JsonObject again = line("again");
    String uid = workspaces.createWorkspace(request).getWorkspace().getUid();
    again.addProperty("same", uid.equals(made.getUid()));
    System.out.println(again);

    var other = request.toBuilder().setWorkspaceId(ID + "-2").build();
    refused("reused", () -> workspaces.createWorkspace(other));
    String none = "workspaces/none-" + System.getenv("COVE_SUFFIX");
    var missing = GetWorkspaceRequest.newBuilder().setName(none).build();
    refused("missing", () -> workspaces.getWorkspace(missing));
    var invalid = CreateWorkspaceRequest.newBuilder().setWorkspaceId("No Such!").build();
    refused("invalid", () -> workspaces.createWorkspace(invalid));
  }

  private void run() throws NoSuchAlgorithmException {
    var executions = ExecutionServiceGrpc.newBlockingStub(cove.channel());
    var builder = StartExecutionRequest.newBuilder().setParent(NAME).setRequestId(once());
    builder.getExecutionBuilder().getSpecBuilder().setScript("echo ran >> runs; seq -w 1048576");
    StartExecutionRequest request = builder.build();
    Execution started;
    try (Cove losing = connect("COVE_LOSING_ADDRESS")) {
      var stub = ExecutionServiceGrpc.newBlockingStub(losing.channel());
      started = losing.again(() -> stub.startExecution(request)).getExecution();
    }
    JsonObject start = line("start");
    start.addProperty("execution", started.getName());
    System.out.println(start);

    MessageDigest digest = MessageDigest.getInstance("SHA-256");
    AtomicLong bytes = new AtomicLong();
    Cove.Followed followed;
    try (Cove cutting = connect("COVE_CUTTING_ADDRESS")) {
      followed =
          cutting.follow(
              started.getName(),
              data -> {
                digest.update(data.asReadOnlyByteBuffer());
                bytes.addAndGet(data.size());
              });
    }
    JsonObject output = line("output");
    output.addProperty("bytes", bytes.get());
    output.addProperty("sha256", HexFormat.of().formatHex(digest.digest()));
    output.addProperty("breaks", followed.breaks());
    System.out.println(output);

    var wait = WaitExecutionRequest.newBuilder().setName(started.getName()).build();
    ended("exit", executions.waitExecution(wait).getExecution());
    var failing = ExecutionSpec.newBuilder().addArgv("sh").addArgv("-c").addArgv("exit 3");
    var execute = ExecuteRequest.newBuilder().setName(NAME).setSpec(failing).build();
    ended("failed", executions.execute(execute).getExecution());
  }

  private void commit() {
    JsonObject write = line("write");
    write.addProperty("path", write("hello.txt", "hello from java\n").getFile().getPath());
    System.out.println(write);

    var source = SourceServiceGrpc.newBlockingStub(cove.channel());
    var asked = GetWorktreeStatusRequest.newBuilder().setName(NAME).build();
    JsonArray paths = new JsonArray();
    for (StatusEntry entry : source.getWorktreeStatus(asked).getStatus().getEntriesList()) {
      paths.add(entry.getPath());
    }
    JsonObject status = line("status");
    status.add("paths", paths);
    System.out.println(status);

    var builder = CreateCommitRequest.newBuilder().setParent(NAME).setRequestId(once());
    builder.getCommitBuilder().setMessage("Say hello");
    builder.getCommitBuilder().getAuthorBuilder().setName("Ada").setEmail("ada@example.org");
    CreateCommitRequest request = builder.build();
    JsonObject commit = line("commit");
    try (Cove losing = connect("COVE_LOSING_ADDRESS")) {
      var stub = SourceServiceGrpc.newBlockingStub(losing.channel());
      var made = losing.again(() -> stub.createCommit(request)).getCommit();
      commit.addProperty("commit", made.getId());
    }
    System.out.println(commit);
  }

  private void delete() {
    var workspaces = WorkspaceServiceGrpc.newBlockingStub(cove.channel());
    workspaces.deleteWorkspace(DeleteWorkspaceRequest.newBuilder().setName(NAME).build());
    var asked = GetWorkspaceRequest.newBuilder().setName(NAME).build();
    Workspace left = workspaces.getWorkspace(asked).getWorkspace();
    JsonObject delete = line("delete");
    delete.addProperty("deleted", left.getState() == Workspace.State.STATE_DELETED);
    System.out.println(delete);
  }

  /** A stream of requests needs the asynchronous stub; its one answer is waited for here. */
  private WriteFileResponse write(String path, String text) {
    ByteString content = ByteString.copyFromUtf8(text);
    var header =
        WriteFileHeader.newBuilder().setName(NAME).setPath(path).setRequestId(once()).build();
    var end = WriteFileEnd.newBuilder().setBytes(content.size()).build();
    var answer = new CompletableFuture<WriteFileResponse>();
    var parts = FileServiceGrpc.newStub(cove.channel()).writeFile(completing(answer));
    parts.onNext(WriteFileRequest.newBuilder().setHeader(header).build());
    parts.onNext(WriteFileRequest.newBuilder().setData(content).build());
    parts.onNext(WriteFileRequest.newBuilder().setEnd(end).build());
    parts.onCompleted();
    return answer.join();
  }

  private static <T> StreamObserver<T> completing(CompletableFuture<T> answer) {
    return new StreamObserver<>() {
      @Override
      public void onNext(T value) {
        answer.complete(value);
      }

      @Override
      public void onError(Throwable failure) {
        answer.completeExceptionally(failure);
      }

      @Override
      public void onCompleted() {}
    };
  }

  /** Tells how a call that must fail fails. */
  private static void refused(String step, Runnable call) {
    try {
      call.run();
    } catch (StatusRuntimeException failure) {
      ErrorInfo info = Cove.detail(failure, ErrorInfo.class).orElseThrow(() -> failure);
      String field =
          Cove.detail(failure, BadRequest.class)
              .filter(bad -> bad.getFieldViolationsCount() > 0)
              .map(bad -> bad.getFieldViolations(0).getField())
              .orElse("");
      JsonObject line = line(step);
      line.addProperty("code", failure.getStatus().getCode().name());
      line.addProperty("reason", info.getReason());
      line.addProperty("domain", info.getDomain());
      line.addProperty("field", field);
      line.addProperty("resource", info.getMetadataOrDefault("name", ""));
      System.out.println(line);
      return;
    }
    throw new IllegalStateException(step + ": this call must fail");
  }

  private static void ended(String step, Execution execution) {
    JsonObject line = line(step);
    line.addProperty("exit_code", execution.getExit().getCode());
    System.out.println(line);
  }

  private static JsonObject line(String step) {
    JsonObject line = new JsonObject();
    line.addProperty("step", step);
    return line;
  }

  /** With a connection of its own. */
  private static Cove connect(String variable) {
    return new Cove(System.getenv(variable));
  }

  private static String once() {
    return UUID.randomUUID().toString();
  }
}
