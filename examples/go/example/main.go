// Runs a script in a workspace of a repository, shows what it prints, commits and pushes what it changed.
//
// Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it is 127.0.0.1:7420;
// https://host:port is spoken to with TLS.
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
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: example REPOSITORY SCRIPT")
		os.Exit(2)
	}
	channel, err := cove.Dial(cmp.Or(os.Getenv("COVE_ADDRESS"), "127.0.0.1:7420"))
	if err != nil {
		log.Fatal(err)
	}
	code, err := run(context.Background(), channel, "go-"+uuid.NewString()[:8], os.Args[1], os.Args[2])
	if err != nil {
		log.Fatal(err)
	}
	os.Exit(int(code))
}

// run returns the exit status of the script.
func run(ctx context.Context, channel *grpc.ClientConn, id, url, script string) (int32, error) {
	name := "workspaces/" + id
	workspaces := v1.NewWorkspaceServiceClient(channel)
	executions := v1.NewExecutionServiceClient(channel)
	// snippet:begin
	// A request is the same until it is answered, and is carried out once.
	made := &v1.Workspace{Spec: &registryv1.EnvironmentSpec{Repository: url}}
	create := &v1.CreateWorkspaceRequest{WorkspaceId: id, Workspace: made, RequestId: uuid.NewString()}
	if _, err := cove.Again(ctx, workspaces.CreateWorkspace, create); err != nil {
		return 0, err // Of a failure, cove.Reason(err).Reason is what to branch on.
	}
	defer remove(ctx, workspaces, name) // What is not pushed is kept for a day.
	runs := &executorv1.Execution{Spec: &executorv1.ExecutionSpec{Script: script}}
	start := &v1.StartExecutionRequest{Parent: name, Execution: runs, RequestId: uuid.NewString()}
	started, err := cove.Again(ctx, executions.StartExecution, start)
	if err != nil {
		return 0, err
	}
	exit, _, err := cove.Follow(ctx, channel, started.Execution.Name, os.Stdout) // By offset.
	// snippet:end
	if err == nil {
		err = push(ctx, v1.NewSourceServiceClient(channel), name, script)
	}
	return status(exit), err
}

func status(exit *executorv1.Exit) int32 {
	if code, is := exit.GetReason().(*executorv1.Exit_Code); is {
		return code.Code
	}
	return 1 // A signal, a timeout or a limit ended it.
}

// push commits what there is, and pushes it to where the repository is from.
func push(ctx context.Context, source v1.SourceServiceClient, name, message string) error {
	commit := &v1.CreateCommitRequest{
		Parent:    name,
		Commit:    &gitv1.Commit{Message: message},
		RequestId: uuid.NewString(),
	}
	made, err := cove.Again(ctx, source.CreateCommit, commit)
	if cove.Reason(err).Reason == "ERROR_REASON_NOTHING_TO_COMMIT" {
		fmt.Fprintln(os.Stderr, "nothing to commit")
		return nil
	}
	if err != nil {
		return err
	}
	fmt.Fprintln(os.Stderr, "commit", made.Commit.Id)
	_, err = cove.Again(ctx, source.PushBranch, &v1.PushBranchRequest{Name: name, RequestId: uuid.NewString()})
	return err
}

// remove only tells of a failure: another may have come before it.
func remove(ctx context.Context, workspaces v1.WorkspaceServiceClient, name string) {
	request := &v1.DeleteWorkspaceRequest{Name: name, AllowMissing: true, RequestId: uuid.NewString()}
	// Also when ctx has ended.
	if _, err := cove.Again(context.WithoutCancel(ctx), workspaces.DeleteWorkspace, request); err != nil {
		log.Print(name, " is still there: ", err)
	}
}
