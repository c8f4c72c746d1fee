// Runs a script in a workspace of a repository, shows what it prints, commits
// and pushes what it changed.
//
// Usage: example REPOSITORY SCRIPT, with COVE_TOKEN, and COVE_ADDRESS unless it
// is 127.0.0.1:7420; https://host:port is spoken to with TLS.

#include <cstdlib>
#include <exception>
#include <iostream>
#include <string>

#include "cove.h"

namespace {

using cove::executor::v1::Exit;
using cove::gateway::v1::CreateCommitRequest;
using cove::gateway::v1::CreateWorkspaceRequest;
using cove::gateway::v1::DeleteWorkspaceRequest;
using cove::gateway::v1::ExecutionService;
using cove::gateway::v1::PushBranchRequest;
using cove::gateway::v1::SourceService;
using cove::gateway::v1::StartExecutionRequest;
using cove::gateway::v1::WorkspaceService;
using example::Cove;
using example::Once;

void Print(const std::string& data) { std::cout << data << std::flush; }

// Commits what the script changed, and pushes it.
void Save(const Cove& cove, const std::string& name, const std::string& script) {
  CreateCommitRequest commit;
  commit.set_parent(name);
  commit.set_request_id(Once());
  commit.mutable_commit()->set_message(script);
  try {
    const auto made = cove.Again(cove.source, &SourceService::Stub::CreateCommit, commit);
    std::cerr << "commit " << made.commit().id() << "\n";
  } catch (const example::Failure& failure) {
    if (failure.Reason() != "ERROR_REASON_NOTHING_TO_COMMIT") throw;
    std::cerr << "nothing to commit\n";
    return;
  }
  PushBranchRequest push;
  push.set_name(name);
  push.set_request_id(Once());
  cove.Again(cove.source, &SourceService::Stub::PushBranch, push);
}

// Deletes a workspace where its scope ends.
class Cleanup {
 public:
  Cleanup(const Cove& cove, const std::string& name) : cove_(cove), name_(name) {}
  Cleanup(const Cleanup&) = delete;
  Cleanup& operator=(const Cleanup&) = delete;

  // A failure is only told: another may have come before it.
  ~Cleanup() {
    try {
      DeleteWorkspaceRequest request;
      request.set_name(name_);
      request.set_allow_missing(true);
      request.set_request_id(Once());
      cove_.Again(cove_.workspaces, &WorkspaceService::Stub::DeleteWorkspace, request);
    } catch (const std::exception& failure) {
      std::cerr << name_ << " is still there: " << failure.what() << "\n";
    }
  }

 private:
  const Cove& cove_;
  const std::string name_;
};

// Returns how the script ended.
Exit Run(const Cove& cove, const std::string& url, const std::string& script) {
  const std::string id = "cpp-" + Once().substr(0, 8);
  const std::string name = "workspaces/" + id;
  // snippet:begin
  // A request is the same until it is answered, and is carried out once.
  CreateWorkspaceRequest create;
  create.set_workspace_id(id);
  create.set_request_id(Once());
  create.mutable_workspace()->mutable_spec()->set_repository(url);
  cove.Again(cove.workspaces, &WorkspaceService::Stub::CreateWorkspace, create);
  const Cleanup cleanup(cove, name);  // What is not pushed is kept for a day.
  StartExecutionRequest start;
  start.set_parent(name);
  start.set_request_id(Once());
  start.mutable_execution()->mutable_spec()->set_script(script);
  const auto started = cove.Again(cove.executions, &ExecutionService::Stub::StartExecution, start);
  const Exit exit = cove.Follow(started.execution().name(), Print).exit;  // By offset.
  // snippet:end
  Save(cove, name, script);
  return exit;
}

std::string Variable(const char* name, const char* otherwise) {
  const char* value = std::getenv(name);
  return value ? value : otherwise;
}

}  // namespace

int main(int count, char** arguments) {
  if (count != 3) {
    std::cerr << "usage: example REPOSITORY SCRIPT\n";
    return 2;
  }
  try {
    const Cove cove(Variable("COVE_ADDRESS", "127.0.0.1:7420"), Variable("COVE_TOKEN", ""));
    const Exit exit = Run(cove, arguments[1], arguments[2]);
    // A signal, a timeout or a limit may have ended it, which are no status.
    return exit.has_code() ? exit.code() : EXIT_FAILURE;
  } catch (const std::exception& failure) {
    std::cerr << failure.what() << "\n";
    return EXIT_FAILURE;
  }
}
