package cove.example;

import static java.util.concurrent.TimeUnit.SECONDS;

import com.google.protobuf.Any;
import com.google.protobuf.ByteString;
import com.google.protobuf.InvalidProtocolBufferException;
import com.google.protobuf.Message;
import cove.executor.v1.Executor.Chunk;
import cove.executor.v1.Executor.Exit;
import cove.gateway.v1.ExecutionServiceGrpc;
import cove.gateway.v1.ExecutionServiceGrpc.ExecutionServiceBlockingStub;
import cove.gateway.v1.Gateway.ReadOutputRequest;
import cove.gateway.v1.Gateway.ReadOutputResponse;
import io.grpc.Context;
import io.grpc.ManagedChannel;
import io.grpc.ManagedChannelBuilder;
import io.grpc.Metadata;
import io.grpc.Status;
import io.grpc.StatusRuntimeException;
import io.grpc.protobuf.StatusProto;
import io.grpc.stub.MetadataUtils;
import java.util.Iterator;
import java.util.Optional;
import java.util.concurrent.ThreadLocalRandom;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** A connection to Cove: it shows its token, asks again, and goes on where it was. */
final class Cove implements AutoCloseable {
  /** How a command ended, and how often the connection broke while it was followed. */
  record Followed(Exit exit, int breaks) {}

  private static final Metadata.Key<String> AUTHORIZATION =
      Metadata.Key.of("authorization", Metadata.ASCII_STRING_MARSHALLER);

  private final ManagedChannel channel;

  /** Connects with the first call. {@code address} is {@code host:port}, without TLS. */
  Cove(String address) {
    Metadata token = new Metadata();
    token.put(AUTHORIZATION, "Bearer " + System.getenv().getOrDefault("COVE_TOKEN", ""));
    channel =
        ManagedChannelBuilder.forTarget(address)
            .usePlaintext()
            .keepAliveTime(20, SECONDS) // Else a peer that is gone without a word is not missed.
            .intercept(MetadataUtils.newAttachHeadersInterceptor(token))
            .build();
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
   * was: none comes twice, none is missing.
   */
  Followed follow(String execution, Consumer<ByteString> write) {
    ExecutionServiceBlockingStub executions = ExecutionServiceGrpc.newBlockingStub(channel);
    Patience patience = new Patience();
    long offset = 0;
    for (int breaks = 0; ; breaks++) {
      ReadOutputRequest request =
          ReadOutputRequest.newBuilder()
              .setName(execution)
              .setFromOffset(offset)
              .setFollow(true)
              .build();
      Context.CancellableContext attempt = Context.current().withCancellation();
      Context before = attempt.attach(); // The call ends with it, also when write throws.
      try {
        Iterator<ReadOutputResponse> events = executions.readOutput(request);
        while (events.hasNext()) {
          ReadOutputResponse event = events.next();
          patience.refill();
          switch (event.getEventCase()) {
            case CHUNK -> {
              Chunk chunk = event.getChunk();
              write.accept(chunk.getData());
              offset = chunk.getOffset() + chunk.getData().size();
            }
            case GAP -> offset = event.getGap().getTo(); // Kept no longer.
            case EXIT -> {
              return new Followed(event.getExit(), breaks);
            }
            default -> {} // A heartbeat, or an event that is newer than this program.
          }
        }
        throw Status.UNAVAILABLE.withDescription("the output broke off").asRuntimeException();
      } catch (StatusRuntimeException failure) {
        patience.pause(failure);
      } finally {
        attempt.detachAndCancel(before, null);
      }
    }
  }

  /** A detail of a failure, such as {@code ErrorInfo}, whose reason is what to branch on. */
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

    private long began;
    private long millis;

    Patience() {
      refill();
    }

    /** There was an answer: what failed before is forgotten. */
    void refill() {
      began = System.nanoTime();
      millis = LEAST_MILLIS;
    }

    /** Waits until the next attempt, or throws the failure where there shall be none. */
    void pause(StatusRuntimeException failure) {
      if (failure.getStatus().getCode() != Status.Code.UNAVAILABLE
          || System.nanoTime() - began > LIMIT_NANOS) {
        throw failure;
      }
      try {
        Thread.sleep(ThreadLocalRandom.current().nextLong(millis / 2, millis));
      } catch (InterruptedException interrupted) {
        Thread.currentThread().interrupt();
        throw failure;
      }
      millis = Math.min(2 * millis, MOST_MILLIS);
      channel.resetConnectBackoff(); // The channel's own would grow to two minutes.
    }
  }
}
