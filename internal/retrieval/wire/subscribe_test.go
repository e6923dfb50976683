package wire

import (
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/credentials"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/stretchr/testify/require"
)

// subscribeTo subscribes at a service that answers so.
func subscribeTo(t *testing.T, answer http.HandlerFunc) (*Stream, error) {
	t.Helper()
	s := httptest.NewServer(answer)
	t.Cleanup(s.Close)
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	c := kinesis.New(kinesis.Options{
		Region: "us-east-1", BaseEndpoint: &s.URL, HTTPClient: &http.Client{Transport: transport},
		Credentials: credentials.NewStaticCredentialsProvider("id", "secret", ""), Retryer: aws.NopRetryer{},
	})
	body, err := Subscribe(t.Context(), c, &kinesis.SubscribeToShardInput{
		ConsumerARN: aws.String("arn:aws:kinesis:us-east-1:123456789012:stream/orders/consumer/group:1"), ShardId: aws.String("shardId-000000000000"),
		StartingPosition: &types.StartingPosition{Type: types.ShardIteratorTypeTrimHorizon},
	})
	if err != nil {
		return nil, err
	}
	return NewStream(body), nil
}

func TestSubscriptionIsOpenWhenTheCallReturns(t *testing.T) {
	more := make(chan struct{})
	s, err := subscribeTo(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/vnd.amazon.eventstream")
		_, _ = w.Write(eventFrame("initial-response", "{}"))
		_ = http.NewResponseController(w).Flush()
		select {
		case <-more: // not before the call has returned
		case <-r.Context().Done():
		}
		_, _ = w.Write(eventFrame("SubscribeToShardEvent", `{"Records":[`+record+`],"MillisBehindLatest":0}`))
	})
	require.NoError(t, err)
	close(more)
	event, err := s.Next()
	require.NoError(t, err)
	require.Nil(t, event)
	event, err = s.Next()
	require.NoError(t, err)
	require.Len(t, event.Records, 1)
	_, err = s.Next()
	require.Equal(t, io.EOF, err)
	require.NoError(t, s.Close())
	require.NoError(t, s.Close(), "and again")
}

func TestRefusedSubscriptionIsAnErrorOfItsType(t *testing.T) {
	_, err := subscribeTo(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.WriteHeader(http.StatusBadRequest)
		_, _ = io.WriteString(w, `{"__type":"ResourceInUseException","message":"sorry"}`)
	})
	var inUse *types.ResourceInUseException
	require.ErrorAs(t, err, &inUse)
}

func TestClosedSubscriptionEndsForTheService(t *testing.T) {
	gone := make(chan struct{})
	s, err := subscribeTo(t, func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
		close(gone)
	})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	<-gone
}
