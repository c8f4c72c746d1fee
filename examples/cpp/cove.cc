#include "cove.h"

#include <algorithm>
#include <cstdio>
#include <random>
#include <thread>

namespace example {
namespace {

using cove::gateway::v1::ExecutionService;
using cove::gateway::v1::FileService;
using cove::gateway::v1::ReadOutputRequest;
using cove::gateway::v1::ReadOutputResponse;
using cove::gateway::v1::SourceService;
using cove::gateway::v1::WorkspaceService;

constexpr std::chrono::seconds kLongestWait{5};

std::shared_ptr<grpc::Channel> Connect(const std::string& address) {
  grpc::ChannelArguments arguments;
  // Else a peer that is gone without a word is not missed,
  arguments.SetInt(GRPC_ARG_KEEPALIVE_TIME_MS, 20'000);
  // one that is back is tried again after up to two minutes,
  arguments.SetInt(GRPC_ARG_MAX_RECONNECT_BACKOFF_MS, 1'000);
  // and channels to the same address share a connection.
  arguments.SetInt(GRPC_ARG_USE_LOCAL_SUBCHANNEL_POOL, 1);
  return grpc::CreateCustomChannel(address, grpc::InsecureChannelCredentials(), arguments);
}

}  // namespace

void Patience::Pause(const grpc::Status& status) {
  if (status.error_code() != grpc::StatusCode::UNAVAILABLE ||
      std::chrono::steady_clock::now() > end_) {
    throw Failure(status);
  }
  thread_local std::minstd_rand random{std::random_device{}()};
  std::this_thread::sleep_for(wait_ * std::uniform_real_distribution<>(0.5, 1.0)(random));
  wait_ = std::min<std::chrono::duration<double>>(2 * wait_, kLongestWait);
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
