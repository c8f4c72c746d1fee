// The scenario that a client in any language runs; tests/interop says what its
// lines mean.

#include <google/protobuf/struct.pb.h>
#include <google/protobuf/util/json_util.h>
#include <openssl/evp.h>

#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <functional>
#include <iostream>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cove.h"
#include "google/rpc/code.pb.h"
#include "google/rpc/error_details.pb.h"

namespace {

namespace pb = cove::gateway::v1;
using example::Cove;
using example::Once;
using pb::ExecutionService;
using pb::SourceService;
using pb::WorkspaceService;

std::string Variable(const char* name) {
  const char* value = std::getenv(name);
  if (!value) throw std::runtime_error(std::string(name) + " is not set");
  return value;
}

// With a connection of its own.
Cove Connect(const char* variable) { return {Variable(variable), Variable("COVE_TOKEN")}; }

// A line of JSON.
class Line {
 public:
  explicit Line(const std::string& step) { Text("step", step); }
  Line& Text(const std::string& key, const std::string& value) {
    (*facts_.mutable_fields())[key].set_string_value(value);
    return *this;
  }
  Line& Number(const std::string& key, double value) {
    (*facts_.mutable_fields())[key].set_number_value(value);
    return *this;
  }
  Line& Bool(const std::string& key, bool value) {
    (*facts_.mutable_fields())[key].set_bool_value(value);
    return *this;
  }
  Line& Texts(const std::string& key, const std::vector<std::string>& values) {
    auto* list = (*facts_.mutable_fields())[key].mutable_list_value();
    for (const auto& value : values) list->add_values()->set_string_value(value);
    return *this;
  }
  void Tell() const {
    std::string text;
    const auto status = google::protobuf::util::MessageToJsonString(facts_, &text);
    if (!status.ok()) throw std::runtime_error(status.ToString());
    std::cout << text << std::endl;
  }

 private:
  google::protobuf::Struct facts_;
};

// Tells how a call that must fail fails.
void Refused(const std::string& step, const std::function<void()>& call) {
  try {
    call();
  } catch (const example::Failure& failure) {
    const auto info = failure.Detail<google::rpc::ErrorInfo>();
    if (!info) throw;
    const auto bad = failure.Detail<google::rpc::BadRequest>();
    const auto name = info->metadata().find("name");
    Line(step)
        .Text("code", google::rpc::Code_Name(static_cast<int>(failure.code())))
        .Text("reason", info->reason())
        .Text("domain", info->domain())
        .Text("field", bad && bad->field_violations_size() ? bad->field_violations(0).field() : "")
        .Text("resource", name == info->metadata().end() ? "" : name->second)
        .Tell();
    return;
  }
  throw std::runtime_error(step + ": this call must fail");
}

class Digest {
 public:
  Digest() { EVP_DigestInit_ex(context_.get(), EVP_sha256(), nullptr); }
  void Update(const std::string& data) {
    EVP_DigestUpdate(context_.get(), data.data(), data.size());
  }
  std::string Hex() {
    std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
    unsigned size = 0;
    EVP_DigestFinal_ex(context_.get(), digest.data(), &size);
    std::string hex;
    for (unsigned n = 0; n < size; ++n) {
      char text[3];
      std::snprintf(text, sizeof text, "%02x", digest[n]);
      hex += text;
    }
    return hex;
  }

 private:
  std::unique_ptr<EVP_MD_CTX, decltype(&EVP_MD_CTX_free)> context_{EVP_MD_CTX_new(),
                                                                   EVP_MD_CTX_free};
};

class Scenario {
 public:
  void Create();
  void Run();
  void Commit();
  void Delete();

 private:
  const std::string suffix_ = Variable("COVE_SUFFIX");
  const std::string id_ = "cpp-" + suffix_;
  const std::string name_ = "workspaces/" + id_;
  const Cove cove_ = Connect("COVE_ADDRESS");
};

void Scenario::Create() {
  const auto create = &WorkspaceService::Stub::CreateWorkspace;
  pb::CreateWorkspaceRequest request;
  request.set_workspace_id(id_);
  request.set_request_id(Once());
  request.mutable_workspace()->mutable_spec()->set_repository(Variable("COVE_REPOSITORY"));
  const Cove losing = Connect("COVE_LOSING_ADDRESS");
  const auto made = losing.Again(losing.workspaces, create, request).workspace();
  Line("create").Text("name", made.name()).Text("uid", made.uid()).Tell();

  const auto same = cove_.Again(cove_.workspaces, create, request).workspace();
  Line("again").Bool("same", same.uid() == made.uid()).Tell();

  request.set_workspace_id(id_ + "-2");
  Refused("reused", [&] { cove_.Again(cove_.workspaces, create, request); });
  pb::GetWorkspaceRequest missing;
  missing.set_name("workspaces/none-" + suffix_);
  Refused("missing",
          [&] { cove_.Again(cove_.workspaces, &WorkspaceService::Stub::GetWorkspace, missing); });
  pb::CreateWorkspaceRequest invalid;
  invalid.set_workspace_id("No Such!");
  Refused("invalid", [&] { cove_.Again(cove_.workspaces, create, invalid); });
}

void Scenario::Run() {
  pb::StartExecutionRequest request;
  request.set_parent(name_);
  request.set_request_id(Once());
  request.mutable_execution()->mutable_spec()->set_script("echo ran >> runs; seq -w 1048576");
  const Cove losing = Connect("COVE_LOSING_ADDRESS");
  const auto name =
      losing.Again(losing.executions, &ExecutionService::Stub::StartExecution, request)
          .execution()
          .name();
  Line("start").Text("execution", name).Tell();

  Digest digest;
  std::size_t bytes = 0;
  const auto followed = Connect("COVE_CUTTING_ADDRESS").Follow(name, [&](const std::string& data) {
    digest.Update(data);
    bytes += data.size();
  });
  Line("output")
      .Number("bytes", static_cast<double>(bytes))
      .Text("sha256", digest.Hex())
      .Number("breaks", followed.breaks)
      .Tell();

  pb::WaitExecutionRequest wait;
  wait.set_name(name);
  const auto ended = cove_.Again(cove_.executions, &ExecutionService::Stub::WaitExecution, wait);
  Line("exit").Number("exit_code", ended.execution().exit().code()).Tell();
  pb::ExecuteRequest execute;
  execute.set_name(name_);
  execute.set_request_id(Once());
  for (const auto* word : {"sh", "-c", "exit 3"}) {
    execute.mutable_spec()->add_argv(word);
  }
  const auto failed = cove_.Again(cove_.executions, &ExecutionService::Stub::Execute, execute);
  Line("failed").Number("exit_code", failed.execution().exit().code()).Tell();
}

void Scenario::Commit() {
  const std::string content = "hello from cpp\n";
  pb::WriteFileRequest part;
  pb::WriteFileResponse written;
  const auto context = cove_.Context();
  const auto parts = cove_.files->WriteFile(context.get(), &written);
  part.mutable_header()->set_name(name_);
  part.mutable_header()->set_path("hello.txt");
  part.mutable_header()->set_request_id(Once());
  parts->Write(part);
  part.set_data(content);
  parts->Write(part);
  part.mutable_end()->set_bytes(static_cast<std::int64_t>(content.size()));
  parts->Write(part);
  parts->WritesDone();
  // Whether a Write failed, and why, is in the status.
  if (const auto status = parts->Finish(); !status.ok()) {
    throw example::Failure(status);
  }
  Line("write").Text("path", written.file().path()).Tell();

  pb::GetWorktreeStatusRequest asked;
  asked.set_name(name_);
  const auto status = cove_.Again(cove_.source, &SourceService::Stub::GetWorktreeStatus, asked);
  std::vector<std::string> paths;
  for (const auto& entry : status.status().entries()) {
    paths.push_back(entry.path());
  }
  Line("status").Texts("paths", paths).Tell();

  pb::CreateCommitRequest request;
  request.set_parent(name_);
  request.set_request_id(Once());
  request.mutable_commit()->set_message("Say hello");
  auto* author = request.mutable_commit()->mutable_author();
  author->set_name("Ada");
  author->set_email("ada@example.org");
  const Cove losing = Connect("COVE_LOSING_ADDRESS");
  const auto made = losing.Again(losing.source, &SourceService::Stub::CreateCommit, request);
  Line("commit").Text("commit", made.commit().id()).Tell();
}

void Scenario::Delete() {
  pb::DeleteWorkspaceRequest request;
  request.set_name(name_);
  request.set_request_id(Once());
  cove_.Again(cove_.workspaces, &WorkspaceService::Stub::DeleteWorkspace, request);
  pb::GetWorkspaceRequest asked;
  asked.set_name(name_);
  const auto left = cove_.Again(cove_.workspaces, &WorkspaceService::Stub::GetWorkspace, asked);
  Line("delete").Bool("deleted", left.workspace().state() == pb::Workspace::STATE_DELETED).Tell();
}

}  // namespace

int main() {
  try {
    Scenario scenario;
    scenario.Create();
    scenario.Run();
    scenario.Commit();
    scenario.Delete();
  } catch (const std::exception& failure) {
    std::cerr << failure.what() << "\n";
    return EXIT_FAILURE;
  }
}
