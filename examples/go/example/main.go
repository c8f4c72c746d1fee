// Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it changed.
//
// Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it is 127.0.0.1:7420.
package main

import (
	"cmp"
	"context"
	"fmt"
	"log"
	"os"

	"cove.example/client/cove"
	executorv1 "cove.example/stubs/cove/executor/v1"
	v1 "cove.example/stubs/cove/gateway/v1"
	gitv1 "cove.example/stubs/cove/git/v1"
	registryv1 "cove.example/stubs/cove/registry/v1"
	"github.com/google/uuid"
	"google.golang.org/grpc"
)

func main() {
	log.SetFlags(0)
	channel, err := cove.Dial(cmp.Or(os.Getenv("COVE_ADDRESS"), "127.0.0.1:7420"))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	id := "go-" + uuid.NewString()[:8]
	code, err := run(ctx, channel, id, os.Args[1], os.Args[2])
	if gone := remove(ctx, channel, "workspaces/"+id); err == nil {
		err = gone
	}
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(int(code))
}

// run returns the exit status of the script.
func run(ctx context.Context, channel *grpc.ClientConn, id, url, script string) (int32, error) {
	name := "workspaces/" + id
	workspaces := v1.NewWorkspaceServiceClient(channel)
	executions, source := v1.NewExecutionServiceClient(channel), v1.NewSourceServiceClient(channel)
	// snippet:begin
	// A request is the same until it is answered, and is carried out once.
	made := &v1.Workspace{Spec: &registryv1.EnvironmentSpec{Repository: url}}
	create := &v1.CreateWorkspaceRequest{WorkspaceId: id, Workspace: made, RequestId: uuid.NewString()}
	if _, err := cove.Again(ctx, workspaces.CreateWorkspace, create); err != nil {
		return 0, err
	}
	runs := &executorv1.Execution{Spec: &executorv1.ExecutionSpec{Script: script}}
	start := &v1.StartExecutionRequest{Parent: name, Execution: runs, RequestId: uuid.NewString()}
	started, err := cove.Again(ctx, executions.StartExecution, start)
	if err != nil {
		return 0, err // Of a failure, cove.Reason(err).Reason is what to branch on.
	}
	exit, _, err := cove.Follow(ctx, channel, started.Execution.Name, os.Stdout) // By offset.
	// snippet:end
	if err != nil {
		return 0, err
	}
	message := &gitv1.Commit{Message: script}
	commit := &v1.CreateCommitRequest{Parent: name, Commit: message, RequestId: uuid.NewString()}
	committed, err := cove.Again(ctx, source.CreateCommit, commit)
	if cove.Reason(err).Reason == "ERROR_REASON_NOTHING_TO_COMMIT" {
		fmt.Fprintln(os.Stderr, "nothing to commit")
		return status(exit), nil
	}
	if err == nil {
		fmt.Fprintln(os.Stderr, "commit", committed.Commit.Id)
		push := &v1.PushBranchRequest{Name: name, RequestId: uuid.NewString()}
		_, err = cove.Again(ctx, source.PushBranch, push)
	}
	return status(exit), err
}

func status(exit *executorv1.Exit) int32 {
	if code, ok := exit.Reason.(*executorv1.Exit_Code); ok {
		return code.Code
	}
	return 1 // A signal, a timeout or a limit ended it.
}

func remove(ctx context.Context, channel *grpc.ClientConn, name string) error {
	workspaces := v1.NewWorkspaceServiceClient(channel)
	request := &v1.DeleteWorkspaceRequest{Name: name, Force: true, AllowMissing: true, RequestId: uuid.NewString()}
	_, err := cove.Again(ctx, workspaces.DeleteWorkspace, request)
	return err
}
