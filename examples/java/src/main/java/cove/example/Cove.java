package cove.example;

import static java.util.concurrent.TimeUnit.MILLISECONDS;
import static java.util.concurrent.TimeUnit.NANOSECONDS;
import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.Duration;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import com.google.rpc.ErrorInfo;
import com.google.rpc.RetryInfo;
import cove.executor.v1.Executor.Chunk;
import cove.executor.v1.Executor.Exit;
import cove.gateway.v1.ExecutionServiceGrpc;
import cove.gateway.v1.ExecutionServiceGrpc.ExecutionServiceBlockingStub;
import cove.gateway.v1.Gateway.ReadOutputRequest;
import cove.gateway.v1.Gateway.ReadOutputResponse;
import io.grpc.ChannelCredentials;
import io.grpc.Context;
import io.grpc.Grpc;
import io.grpc.InsecureChannelCredentials;
import io.grpc.ManagedChannel;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.TlsChannelCredentials;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.io.File;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Iterator;
import java.util.Optional;
import java.util.Set;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** A connection to Cove: it shows its token, asks again, and goes on where it was. */
final class Cove implements AutoCloseable {
  /** How a command ended, and how often the connection broke while it was followed. */
  record Followed(Exit exit, int breaks) {}

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);
  private static final String HTTPS = "https://";

  private final ManagedChannel channel;

  /** Connects with the first call. {@code address} is {@code host:port}; https:// means TLS. */
  Cove(String address) {
    Metadata token = new Metadata();
    token.put(AUTHORIZATION, "Bearer " + System.getenv().getOrDefault("COVE_TOKEN", ""));
    boolean secure = address.startsWith(HTTPS);
    String target = secure ? address.substring(HTTPS.length()) : address;
    channel =
        Grpc.newChannelBuilder(target, secure ? tls() : InsecureChannelCredentials.create())
            .keepAliveTime(20, SECONDS) // Else a peer that is gone without a word is not missed.
            .intercept(MetadataUtils.newAttachHeadersInterceptor(token))
            .build();
  }

  /** Trusts whom COVE_CA_FILE names, or else whom Java trusts. */
  private static ChannelCredentials tls() {
    String authorities = System.getenv().getOrDefault("COVE_CA_FILE", "");
    if (authorities.isEmpty()) {
      return TlsChannelCredentials.create();
    }
    try {
      return TlsChannelCredentials.newBuilder().trustManager(new File(authorities)).build();
    } catch (IOException failure) {
      throw new UncheckedIOException(failure);
    }
  }

  /** What stubs are made of. */
  ManagedChannel channel() {
    return channel;
  }

  /**
   * Makes a call until it is answered. {@code call} sends the same request each time, with the same
   * request id: it is carried out once, however often it comes.
   */
  <T> T again(Supplier<T> call) {
    Patience patience = new Patience();
    while (true) {
      try {
        return call.get();
      } catch (StatusRuntimeException failure) {
        patience.pause(failure);
      }
    }
  }

  /**
   * Writes the output of an execution until it ends. After a break it goes on at the byte where it
   * was: none comes twice, none is missing. What {@code write} throws ends it.
   */
  Followed follow(String execution, Consumer<ByteString> write) {
    ExecutionServiceBlockingStub executions = ExecutionServiceGrpc.newBlockingStub(channel);
    var request = ReadOutputRequest.newBuilder().setName(execution).setFollow(true);
    Patience patience = new Patience();
    for (int breaks = 0; ; breaks++) {
      Context.CancellableContext attempt = Context.current().withCancellation();
      Context before = attempt.attach(); // The call ends with it, also when write throws.
      try {
        Iterator<ReadOutputResponse> events = executions.readOutput(request.build());
        while (comes(events, patience)) {
          ReadOutputResponse event = events.next();
          switch (event.getEventCase()) {
            case CHUNK -> {
              Chunk chunk = event.getChunk();
              write.accept(chunk.getData());
              request.setFromOffset(chunk.getOffset() + chunk.getData().size());
            }
            case GAP -> request.setFromOffset(event.getGap().getTo()); // Kept no longer.
            case EXIT -> {
              return new Followed(event.getExit(), breaks);
            }
            default -> {} // A heartbeat, or an event that is newer than this program.
          }
        }
      } finally {
        attempt.detachAndCancel(before, null);
      }
    }
  }

  /** Whether there is another event. False after a break, when it is time to ask again. */
  private static boolean comes(Iterator<ReadOutputResponse> events, Patience patience) {
    StatusRuntimeException failure;
    try {
      if (events.hasNext()) {
        patience.refill();
        return true;
      }
      failure = Status.UNAVAILABLE.withDescription("the output broke off").asRuntimeException();
    } catch (StatusRuntimeException broken) {
      failure = broken;
    }
    patience.pause(failure);
    return false;
  }

  /** What to branch on in a failure; empty where no server of Cove said it. */
  static String reason(StatusRuntimeException failure) {
    return detail(failure, ErrorInfo.class)
        .filter(info -> info.getDomain().equals("cove"))
        .map(ErrorInfo::getReason)
        .orElse("");
  }

  /** A detail of a failure, such as {@code ErrorInfo}. */
  static <T extends Message> Optional<T> detail(StatusRuntimeException failure, Class<T> kind) {
    for (Any detail : StatusProto.fromThrowable(failure).getDetailsList()) {
      if (detail.is(kind)) {
        try {
          return Optional.of(detail.unpack(kind));
        } catch (InvalidProtocolBufferException garbled) {
          return Optional.empty();
        }
      }
    }
    return Optional.empty(); // No server of Cove was reached, or it says no more.
  }

  @Override
  public void close() {
    channel.shutdownNow();
  }

  /** How long one call is repeated while nobody answers. */
  private final class Patience {
    private static final long LIMIT_NANOS = SECONDS.toNanos(60);
    private static final long LEAST_MILLIS = 50;
    private static final long MOST_MILLIS = 5_000;

    /** Of servers that are busy, and have begun nothing. */
    private static final Set<String> LATER =
        Set.of("ERROR_REASON_RATE_LIMITED", "ERROR_REASON_OVERLOADED");

    private boolean failing;
    private long failingSince;
    private long millis = LEAST_MILLIS;

    /** There was an answer: what failed before is forgotten. */
    void refill() {
      failing = false;
      millis = LEAST_MILLIS;
    }

    /** Waits until the next attempt, or throws the failure where there shall be none. */
    void pause(StatusRuntimeException failure) {
      long now = System.nanoTime();
      failingSince = failing ? failingSince : now;
      failing = true;
      long own = ThreadLocalRandom.current().nextLong(millis / 2, millis);
      long wait = Math.max(own, asked(failure));
      if (!mayBeRepeated(failure)
          || now - failingSince + MILLISECONDS.toNanos(wait) > LIMIT_NANOS) {
        throw failure;
      }
      try {
        Thread.sleep(wait);
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw failure;
      }
      millis = Math.min(2 * millis, MOST_MILLIS);
      channel.resetConnectBackoff(); // The channel's own would grow to two minutes.
    }

    private static boolean mayBeRepeated(StatusRuntimeException failure) {
      Status.Code code = failure.getStatus().getCode();
      String reason = reason(failure);
      if (!reason.isEmpty()) {
        return code == Status.Code.UNAVAILABLE || LATER.contains(reason);
      }
      // Nobody of Cove answered, whatever the code; or the caller itself has ended the call.
      return code != Status.Code.DEADLINE_EXCEEDED && !Context.current().isCancelled();
    }

    /** Milliseconds for which the server asks to be left alone. */
    private static long asked(StatusRuntimeException failure) {
      Duration delay =
          detail(failure, RetryInfo.class)
              .map(RetryInfo::getRetryDelay)
              .orElse(Duration.getDefaultInstance());
      return SECONDS.toMillis(delay.getSeconds()) + NANOSECONDS.toMillis(delay.getNanos());
    }
  }
}
