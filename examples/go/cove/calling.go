// Package cove is what a client does beside calling: show its token, ask again, go on where it was.
package cove

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"time"

	executorv1 "cove.example/stubs/cove/executor/v1"
	gatewayv1 "cove.example/stubs/cove/gateway/v1"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
)

// Patience is how long there may be no answer until a client gives up.
const Patience = time.Minute

// Dial makes a channel that shows the token of COVE_TOKEN with each call. With TLS at the gateway,
// credentials.NewTLS takes the place of insecure.
func Dial(address string) (*grpc.ClientConn, error) {
	return grpc.NewClient(
		address,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithPerRPCCredentials(bearer(os.Getenv("COVE_TOKEN"))),
		// Else a peer that is gone without a word is not missed,
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		// and one that is back is tried again after up to two minutes.
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: reconnects, MinConnectTimeout: 5 * time.Second}),
	)
}

var reconnects = backoff.Config{BaseDelay: 50 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: time.Second}

type bearer string

func (token bearer) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

func (bearer) RequireTransportSecurity() bool { return false }

// Again makes a call until it is answered. The request is the same each time, with its request id.
func Again[Q, A any](
	ctx context.Context, method func(context.Context, Q, ...grpc.CallOption) (A, error), request Q,
) (A, error) {
	end, wait := time.Now().Add(Patience), 50*time.Millisecond
	for {
		answer, err := method(ctx, request)
		if status.Code(err) != codes.Unavailable || time.Now().After(end) {
			return answer, err
		}
		time.Sleep(wait/2 + rand.N(wait/2))
		wait = min(2*wait, 5*time.Second)
	}
}

// Follow writes the output of an execution until it ends. It returns how that was, and how often the
// connection broke: it goes on at the byte where it was, so that none comes twice and none is missing.
func Follow(
	ctx context.Context, channel *grpc.ClientConn, execution string, to io.Writer,
) (*executorv1.Exit, int, error) {
	client := gatewayv1.NewExecutionServiceClient(channel)
	request := &gatewayv1.ReadOutputRequest{Name: execution, Follow: true, Batched: true}
	for end, breaks := time.Now().Add(Patience), 0; ; breaks++ {
		before := request.FromOffset
		exit, err := read(ctx, client, request, to)
		if exit != nil {
			return exit, breaks, nil
		}
		if request.FromOffset > before {
			end = time.Now().Add(Patience)
		}
		if !broken(err) || time.Now().After(end) {
			return nil, breaks, err
		}
		time.Sleep(50*time.Millisecond + rand.N(50*time.Millisecond))
	}
}

// read writes what comes in one stream, and moves the request's offset after it.
func read(
	ctx context.Context, client gatewayv1.ExecutionServiceClient, request *gatewayv1.ReadOutputRequest, to io.Writer,
) (*executorv1.Exit, error) {
	stream, err := client.ReadOutput(ctx, request)
	for err == nil {
		var answer *gatewayv1.ReadOutputResponse
		if answer, err = stream.Recv(); err != nil {
			break
		}
		chunks := answer.GetChunks().GetChunks()
		if chunk := answer.GetChunk(); chunk != nil {
			chunks = append(chunks, chunk)
		}
		for _, chunk := range chunks {
			if _, err := to.Write(chunk.Data); err != nil {
				return nil, err
			}
			request.FromOffset = chunk.Offset + int64(len(chunk.Data))
		}
		if gap := answer.GetGap(); gap != nil { // Kept no longer.
			request.FromOffset = gap.To
		}
		if exit := answer.GetExit(); exit != nil {
			return exit, nil
		}
	}
	return nil, err
}

// broken says whether a stream ended before its last event, by no fault of the call.
func broken(err error) bool {
	return status.Code(err) == codes.Unavailable || errors.Is(err, io.EOF)
}

// Reason is what a program branches on; empty where no server of Cove was reached.
func Reason(err error) *errdetails.ErrorInfo {
	for _, detail := range status.Convert(err).Details() {
		if info, is := detail.(*errdetails.ErrorInfo); is {
			return info
		}
	}
	return &errdetails.ErrorInfo{}
}

// Field is the first field that is wrong; empty where none is.
func Field(err error) string {
	for _, detail := range status.Convert(err).Details() {
		if bad, is := detail.(*errdetails.BadRequest); is && len(bad.FieldViolations) > 0 {
			return bad.FieldViolations[0].Field
		}
	}
	return ""
}
