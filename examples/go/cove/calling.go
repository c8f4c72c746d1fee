// Package cove is what a client does beside calling: show its token, ask again, go on where it was.
package cove

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"time"

	executorv1 "cove.example/stubs/cove/executor/v1"
	gatewayv1 "cove.example/stubs/cove/gateway/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Patience is how long after a first failure a client gives up, when there was no answer since.
const Patience = time.Minute

// Between two tries.
const first, longest = 25 * time.Millisecond, 5 * time.Second

// Dial makes a channel that shows the token of COVE_TOKEN with each call: to host:port without TLS, to
// https://host:port with. COVE_CA_FILE names the authorities that are trusted, if not those of the system.
func Dial(address string) (*grpc.ClientConn, error) {
	target, secure := strings.CutPrefix(address, "https://")
	transport, err := security(secure)
	if err != nil {
		return nil, err
	}
	return grpc.NewClient(
		target,
		grpc.WithTransportCredentials(transport),
		grpc.WithPerRPCCredentials(bearer{os.Getenv("COVE_TOKEN"), secure}),
		// Else a peer that is gone without a word is not missed,
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// and one that is back is tried again after up to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnects, MinConnectTimeout: 5 * time.Second}),
	)
}

var reconnects = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

func security(secure bool) (credentials.TransportCredentials, error) {
	file := os.Getenv("COVE_CA_FILE")
	switch {
	case !secure:
		return insecure.NewCredentials(), nil
	case file == "":
		return credentials.NewTLS(nil), nil
	default:
		return credentials.NewClientTLSFromFile(file, "")
	}
}

type bearer struct {
	token  string
	secure bool
}

func (shown bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + shown.token}, nil
}

func (shown bearer) RequireTransportSecurity() bool { return shown.secure }

// Again makes a call until it is answered. The request is the same each time, with its request id.
func Again[Q, A any](
	ctx context.Context, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q,
) (A, error) {
	for left := (patience{}); ; {
		answer, err := method(ctx, request)
		if err == nil {
			return answer, nil
		}
		if err := left.wait(ctx, err); err != nil {
			return answer, err
		}
	}
}

// Follow writes the output of an execution until it ends. It returns how that was, and how often the
// connection broke: it goes on at the byte where it was, so that none comes twice and none is missing.
// A failure of to ends it.
func Follow(
	ctx context.Context, channel *grpc.ClientConn, execution string, to io.Writer,
) (*executorv1.Exit, int, error) {
	client := gatewayv1.NewExecutionServiceClient(channel)
	request := &gatewayv1.ReadOutputRequest{Name: execution, Follow: true, Batched: true}
	left := patience{}
	for breaks := 0; ; breaks++ {
		exit, broke, err := read(ctx, client, request, to, &left)
		if exit != nil || err != nil {
			return exit, breaks, err
		}
		if err := left.wait(ctx, broke); err != nil {
			return nil, breaks, err
		}
	}
}

// read writes what comes in one stream, and moves the request's offset after it. It returns the last
// event, or how the stream broke before that, or a failure of to.
func read(
	ctx context.Context,
	client gatewayv1.ExecutionServiceClient,
	request *gatewayv1.ReadOutputRequest,
	to io.Writer,
	left *patience,
) (exit *executorv1.Exit, broke, err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel() // Else a stream that is not read to its end stays open.
	stream, broke := client.ReadOutput(ctx, request)
	for broke == nil {
		var answer *gatewayv1.ReadOutputResponse
		if answer, broke = stream.Recv(); broke != nil {
			break
		}
		*left = patience{} // Any event is an answer; a heartbeat comes every 10 s.
		chunks := answer.GetChunks().GetChunks()
		if chunk := answer.GetChunk(); chunk != nil {
			chunks = append(chunks, chunk)
		}
		for _, chunk := range chunks {
			if _, err := to.Write(chunk.Data); err != nil {
				return nil, nil, err
			}
			request.FromOffset = chunk.Offset + int64(len(chunk.Data))
		}
		if gap := answer.GetGap(); gap != nil { // Kept no longer.
			request.FromOffset = gap.To
		}
		if exit := answer.GetExit(); exit != nil {
			return exit, nil, nil
		}
	}
	if errors.Is(broke, io.EOF) { // Without its last event.
		broke = io.ErrUnexpectedEOF
	}
	return nil, broke, nil
}

// patience is how long one call is repeated, and how long is waited in between; the zero value is whole.
type patience struct {
	end   time.Time
	delay time.Duration
}

// wait waits until the next try, or returns why there shall be none.
func (left *patience) wait(ctx context.Context, err error) error {
	if left.end.IsZero() {
		left.end, left.delay = time.Now().Add(Patience), first
	}
	delay := left.delay/2 + rand.N(left.delay/2)
	if said := detail[*errdetails.RetryInfo](err); said != nil {
		delay = max(delay, said.RetryDelay.AsDuration())
	}
	if ctx.Err() != nil || !passes(err) || time.Now().Add(delay).After(left.end) {
		return err
	}
	left.delay = min(2*left.delay, longest)
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(delay):
		return nil
	}
}

// passes says whether it may go otherwise the next time: nobody of Cove answered, or it began nothing.
func passes(err error) bool {
	failure, is := status.FromError(err)
	if !is { // Not by gRPC.
		return errors.Is(err, io.ErrUnexpectedEOF)
	}
	switch Reason(err).Reason {
	case "": // Behind a proxy, a gateway that is gone has many codes. This one is a deadline of the caller's.
		return failure.Code() != codes.DeadlineExceeded
	case "ERROR_REASON_RATE_LIMITED", "ERROR_REASON_OVERLOADED":
		return true
	default:
		return failure.Code() == codes.Unavailable
	}
}

// Reason is what a program branches on; empty where no server of Cove answered.
func Reason(err error) *errdetails.ErrorInfo {
	if info := detail[*errdetails.ErrorInfo](err); info.GetDomain() == "cove" {
		return info
	}
	return &errdetails.ErrorInfo{}
}

// Field is the first field that is wrong; empty where none is.
func Field(err error) string {
	for _, violation := range detail[*errdetails.BadRequest](err).GetFieldViolations() {
		return violation.Field
	}
	return ""
}

// detail is the first of its kind; nil without one.
func detail[D any](err error) (none D) {
	for _, each := range status.Convert(err).Details() {
		if found, is := each.(D); is {
			return found
		}
	}
	return none
}
