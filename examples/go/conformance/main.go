// The scenario that a client in any language runs; tests/interop says what its lines mean.
package main

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"log"
	"os"

	"cove.example/client/cove"
	executorv1 "cove.example/stubs/cove/executor/v1"
	v1 "cove.example/stubs/cove/gateway/v1"
	gitv1 "cove.example/stubs/cove/git/v1"
	registryv1 "cove.example/stubs/cove/registry/v1"
	"github.com/google/uuid"
	"google.golang.org/genproto/googleapis/rpc/code"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
)

var (
	ctx    = context.Background()
	suffix = os.Getenv("COVE_SUFFIX")
	name   = "workspaces/go-" + suffix
	out    = json.NewEncoder(os.Stdout)
)

type facts = map[string]any

func main() {
	calls := dial("COVE_ADDRESS")
	defer calls.Close()
	create(calls)
	run(calls)
	commit(calls)
	remove(calls)
}

// dial makes a channel, which has a connection of its own.
func dial(variable string) *grpc.ClientConn {
	channel, err := cove.Dial(os.Getenv(variable))
	must(err)
	return channel
}

func create(calls *grpc.ClientConn) {
	workspaces := v1.NewWorkspaceServiceClient(calls)
	spec := &registryv1.EnvironmentSpec{Repository: os.Getenv("COVE_REPOSITORY")}
	request := &v1.CreateWorkspaceRequest{
		WorkspaceId: "go-" + suffix,
		Workspace:   &v1.Workspace{Spec: spec},
		RequestId:   uuid.NewString(),
	}
	losing := dial("COVE_LOSING_ADDRESS")
	defer losing.Close()
	made := answer(cove.Again(ctx, v1.NewWorkspaceServiceClient(losing).CreateWorkspace, request)).Workspace
	tell("create", facts{"name": made.Name, "uid": made.Uid})
	again := answer(workspaces.CreateWorkspace(ctx, request)).Workspace
	tell("again", facts{"same": again.Uid == made.Uid})

	request.WorkspaceId += "-2"
	_, err := workspaces.CreateWorkspace(ctx, request)
	refused("reused", err)
	_, err = workspaces.GetWorkspace(ctx, &v1.GetWorkspaceRequest{Name: "workspaces/none-" + suffix})
	refused("missing", err)
	_, err = workspaces.CreateWorkspace(ctx, &v1.CreateWorkspaceRequest{WorkspaceId: "No Such!"})
	refused("invalid", err)
}

func run(calls *grpc.ClientConn) {
	executions := v1.NewExecutionServiceClient(calls)
	spec := &executorv1.ExecutionSpec{Script: "echo ran >> runs; seq -w 1048576"}
	request := &v1.StartExecutionRequest{
		Parent:    name,
		Execution: &executorv1.Execution{Spec: spec},
		RequestId: uuid.NewString(),
	}
	losing := dial("COVE_LOSING_ADDRESS")
	defer losing.Close()
	started := answer(cove.Again(ctx, v1.NewExecutionServiceClient(losing).StartExecution, request)).Execution
	tell("start", facts{"execution": started.Name})

	cutting := dial("COVE_CUTTING_ADDRESS")
	defer cutting.Close()
	output := &counted{}
	hash := sha256.New()
	_, breaks, err := cove.Follow(ctx, cutting, started.Name, io.MultiWriter(output, hash))
	must(err)
	sum := hex.EncodeToString(hash.Sum(nil))
	tell("output", facts{"bytes": output.bytes, "sha256": sum, "breaks": breaks})

	ended := answer(executions.WaitExecution(ctx, &v1.WaitExecutionRequest{Name: started.Name})).Execution
	tell("exit", facts{"exit_code": ended.Exit.GetCode()})
	fails := &executorv1.ExecutionSpec{Argv: []string{"sh", "-c", "exit 3"}}
	failed := answer(executions.Execute(ctx, &v1.ExecuteRequest{Name: name, Spec: fails})).Execution
	tell("failed", facts{"exit_code": failed.Exit.GetCode()})
}

func commit(calls *grpc.ClientConn) {
	tell("write", facts{"path": write(calls, "hello.txt", "hello from go\n")})
	source := v1.NewSourceServiceClient(calls)
	worktree := answer(source.GetWorktreeStatus(ctx, &v1.GetWorktreeStatusRequest{Name: name})).Status
	paths := []string{}
	for _, entry := range worktree.Entries {
		paths = append(paths, entry.Path)
	}
	tell("status", facts{"paths": paths})

	author := &gitv1.Signature{Name: "Ada", Email: "ada@example.org"}
	request := &v1.CreateCommitRequest{
		Parent:    name,
		Commit:    &gitv1.Commit{Message: "Say hello", Author: author},
		RequestId: uuid.NewString(),
	}
	losing := dial("COVE_LOSING_ADDRESS")
	defer losing.Close()
	made := answer(cove.Again(ctx, v1.NewSourceServiceClient(losing).CreateCommit, request)).Commit
	tell("commit", facts{"commit": made.Id})
}

func write(calls *grpc.ClientConn, path, content string) string {
	stream, err := v1.NewFileServiceClient(calls).WriteFile(ctx)
	must(err)
	header := &v1.WriteFileHeader{Name: name, Path: path}
	end := &executorv1.WriteFileEnd{Bytes: int64(len(content))}
	for _, part := range []*v1.WriteFileRequest{
		{Part: &v1.WriteFileRequest_Header{Header: header}},
		{Part: &v1.WriteFileRequest_Data{Data: []byte(content)}},
		{Part: &v1.WriteFileRequest_End{End: end}},
	} {
		must(stream.Send(part))
	}
	return answer(stream.CloseAndRecv()).File.Path
}

func remove(calls *grpc.ClientConn) {
	workspaces := v1.NewWorkspaceServiceClient(calls)
	answer(workspaces.DeleteWorkspace(ctx, &v1.DeleteWorkspaceRequest{Name: name}))
	left := answer(workspaces.GetWorkspace(ctx, &v1.GetWorkspaceRequest{Name: name})).Workspace
	tell("delete", facts{"deleted": left.State == v1.Workspace_STATE_DELETED})
}

func tell(step string, more facts) {
	more["step"] = step
	must(out.Encode(more))
}

// refused tells how a call that must fail failed.
func refused(step string, err error) {
	info := cove.Reason(err)
	tell(step, facts{
		"code":     code.Code(status.Code(err)).String(),
		"reason":   info.Reason,
		"domain":   info.Domain,
		"field":    cove.Field(err),
		"resource": info.Metadata["name"],
	})
}

type counted struct{ bytes int }

func (count *counted) Write(data []byte) (int, error) {
	count.bytes += len(data)
	return len(data), nil
}

func answer[A any](got A, err error) A {
	must(err)
	return got
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
