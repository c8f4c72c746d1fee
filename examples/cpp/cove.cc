#include "cove.h"

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <thread>

#include "google/rpc/error_details.pb.h"

namespace example {
namespace {

using Seconds = std::chrono::duration<double>;

using cove::gateway::v1::ExecutionService;
using cove::gateway::v1::FileService;
using cove::gateway::v1::ReadOutputRequest;
using cove::gateway::v1::ReadOutputResponse;
using cove::gateway::v1::SourceService;
using cove::gateway::v1::WorkspaceService;

constexpr Seconds kLimit{60};
constexpr Seconds kLongestWait{5};
const std::string kHttps = "https://";

// Trusts whom COVE_CA_FILE names, or else whom gRPC trusts.
std::shared_ptr<grpc::ChannelCredentials> Tls() {
  grpc::SslCredentialsOptions options;
  if (const char* name = std::getenv("COVE_CA_FILE"); name && *name) {
    std::ifstream file(name);
    if (!file) throw std::runtime_error(std::string(name) + " cannot be read");
    options.pem_root_certs.assign(std::istreambuf_iterator<char>(file), {});
  }
  return grpc::SslCredentials(options);
}

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  // Else a peer that is gone without a word is not missed,
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  // nor while a stream stands still, as pings end after two with no data between,
  arguments.SetInt(GRPC_ARG_HTTP2_MAX_PINGS_WITHOUT_DATA, 0);
  // one that is back is tried again after up to two minutes,
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // and channels to the same address share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  if (address.compare(0, kHttps.size(), kHttps) == 0) {
    return grpc::CreateCustomChannel(address.substr(kHttps.size()), Tls(), arguments);
  }
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

bool MayBeRepeated(const Failure& failure) {
  const std::string reason = failure.Reason();
  if (reason == "ERROR_REASON_RATE_LIMITED" || reason == "ERROR_REASON_OVERLOADED") {
    return true;  // Nothing was begun.
  }
  if (!reason.empty()) return failure.code() == grpc::StatusCode::UNAVAILABLE;
  // Nobody of Cove answered, whatever the code; or the caller's own deadline passed.
  return failure.code() != grpc::StatusCode::DEADLINE_EXCEEDED;
}

// For how long the server asks to be left alone.
Seconds Asked(const Failure& failure) {
  const auto retry = failure.Detail<google::rpc::RetryInfo>();
  if (!retry) return Seconds(0);
  return std::chrono::seconds(retry->retry_delay().seconds()) +
         std::chrono::nanoseconds(retry->retry_delay().nanos());
}

}  // namespace

std::string Failure::Reason() const {
  const auto info = Detail<google::rpc::ErrorInfo>();
  return info && info->domain() == "cove" ? info->reason() : "";
}

void Patience::Pause(const grpc::Status& status) {
  const Failure failure(status);
  const auto now = std::chrono::steady_clock::now();
  if (!failing_since_) failing_since_ = now;
  thread_local std::minstd_rand random{std::random_device{}()};
  const Seconds wait =
      std::max(wait_ * std::uniform_real_distribution<>(0.5, 1.0)(random), Asked(failure));
  if (!MayBeRepeated(failure) || now - *failing_since_ + wait > kLimit) throw failure;
  std::this_thread::sleep_for(wait);
  wait_ = std::min(2 * wait_, kLongestWait);
}

Cove::Cove(const std::string& address, const std::string& token) : Cove(Connect(address), token) {}

Cove::Cove(const std::shared_ptr<grpc::Channel>& channel, const std::string& token)
    : workspaces(WorkspaceService::NewStub(channel)),
      executions(ExecutionService::NewStub(channel)),
      files(FileService::NewStub(channel)),
      source(SourceService::NewStub(channel)),
      token_("Bearer " + token) {}

std::unique_ptr<grpc::ClientContext> Cove::Context() const {
  auto context = std::make_unique<grpc::ClientContext>();
  context->AddMetadata("authorization", token_);
  return context;
}

Followed Cove::Follow(const std::string& execution,
                      const std::function<void(const std::string&)>& write) const {
  Patience patience;
  ReadOutputRequest request;
  request.set_name(execution);
  request.set_follow(true);
  for (int breaks = 0;; ++breaks) {
    const auto context = Context();
    const auto events = executions->ReadOutput(context.get(), request);
    ReadOutputResponse event;
    while (events->Read(&event)) {
      patience.Refill();
      switch (event.event_case()) {
        case ReadOutputResponse::kChunk:
          write(event.chunk().data());
          request.set_from_offset(event.chunk().offset() +
                                  static_cast<std::int64_t>(event.chunk().data().size()));
          break;
        case ReadOutputResponse::kGap:  // Kept no longer.
          request.set_from_offset(event.gap().to());
          break;
        case ReadOutputResponse::kExit:
          context->TryCancel();  // Nothing comes after it.
          return {event.exit(), breaks};
        default:  // A heartbeat, or an event that is newer than this program.
          break;
      }
    }
    const auto status = events->Finish();
    patience.Pause(status.ok() ? grpc::Status(grpc::StatusCode::UNAVAILABLE, "the output broke off")
                               : status);
  }
}

std::string Once() {
  std::random_device random;
  std::uniform_int_distribution<unsigned> word(0, 0xffff);
  char text[37];
  std::snprintf(text, sizeof text, "%04x%04x-%04x-4%03x-%04x-%04x%04x%04x", word(random),
                word(random), word(random), word(random) & 0xfff, (word(random) & 0x3fff) | 0x8000,
                word(random), word(random), word(random));
  return text;
}

}  // namespace example
