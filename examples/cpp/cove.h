// A connection to Cove: it shows its token, asks again, and goes on where it
// was.

#pragma once

#include <grpcpp/grpcpp.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>

#include "cove/gateway/v1/gateway.grpc.pb.h"
#include "google/rpc/status.pb.h"

namespace example {

// A call that failed, and why.
class Failure : public std::runtime_error {
 public:
  explicit Failure(const grpc::Status& status)
      : std::runtime_error(status.error_message()), status_(status) {}

  grpc::StatusCode code() const { return status_.error_code(); }

  // What to branch on; empty where no server of Cove said it.
  std::string Reason() const;

  // A detail such as google::rpc::ErrorInfo.
  template <typename Message>
  std::optional<Message> Detail() const {
    google::rpc::Status status;
    status.ParseFromString(status_.error_details());
    for (const auto& packed : status.details()) {
      if (Message detail; packed.UnpackTo(&detail)) return detail;
    }
    return std::nullopt;
  }

 private:
  grpc::Status status_;
};

// How long one call is repeated while nobody answers.
class Patience {
 public:
  // There was an answer: what failed before is forgotten.
  void Refill() { *this = Patience(); }

  // Waits until the next attempt; throws Failure where there shall be none.
  void Pause(const grpc::Status& status);

 private:
  std::optional<std::chrono::steady_clock::time_point> failing_since_;
  std::chrono::duration<double> wait_{0.05};
};

// How a command ended, and how often the connection broke meanwhile.
struct Followed {
  cove::executor::v1::Exit exit;
  int breaks = 0;
};

class Cove {
 public:
  // Connects with the first call. `address` is host:port, with TLS after
  // https://.
  Cove(const std::string& address, const std::string& token);

  const std::unique_ptr<cove::gateway::v1::WorkspaceService::Stub> workspaces;
  const std::unique_ptr<cove::gateway::v1::ExecutionService::Stub> executions;
  const std::unique_ptr<cove::gateway::v1::FileService::Stub> files;
  const std::unique_ptr<cove::gateway::v1::SourceService::Stub> source;

  template <typename Stub, typename Request, typename Response>
  using Method = grpc::Status (Stub::*)(grpc::ClientContext*, const Request&, Response*);

  // Makes a call until it is answered: the same request each time, with its
  // request id, which is carried out once, however often it comes.
  template <typename Stub, typename Request, typename Response>
  Response Again(const std::unique_ptr<Stub>& stub, Method<Stub, Request, Response> method,
                 const Request& request) const {
    for (Patience patience;;) {
      Response response;
      const auto context = Context();
      const auto status = ((*stub).*method)(context.get(), request, &response);
      if (status.ok()) return response;
      patience.Pause(status);
    }
  }

  // Writes the output of an execution until it ends. After a break it goes on
  // at the byte where it was: none comes twice, none is missing. What `write`
  // throws ends it.
  Followed Follow(const std::string& execution,
                  const std::function<void(const std::string&)>& write) const;

  // Of one attempt of one call; it cannot be used again.
  std::unique_ptr<grpc::ClientContext> Context() const;

 private:
  Cove(const std::shared_ptr<grpc::Channel>& channel, const std::string& token);

  const std::string token_;
};

// A request id: the same in every retry of one request, which is carried out
// once.
std::string Once();

}  // namespace example
