package session

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/aws/retry"
	awshttp "github.com/aws/aws-sdk-go-v2/aws/transport/http"
	"github.com/aws/aws-sdk-go-v2/service/dynamodb"
	dynamodbtypes "github.com/aws/aws-sdk-go-v2/service/dynamodb/types"
	"github.com/aws/aws-sdk-go-v2/service/kinesis"
	"github.com/aws/aws-sdk-go-v2/service/kinesis/types"
	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
	"github.com/stretchr/testify/require"

	"github.com/benthos-plugins/aws-kinesis/internal/throttle"
)

const ordersARN = "arn:aws:kinesis:eu-west-1:123456789012:stream/orders"

var (
	stream = About{Service: "kinesis", Stream: "orders", Region: "us-east-1"}
	byARN  = About{Service: "kinesis", Stream: ordersARN, Region: "us-east-1"}
	table  = About{Service: "dynamodb", Table: "leases", Region: "us-east-1"}
)

// failed is an error as the SDK makes it of what a service, or the way to it, says.
func failed(service, operation string, status int, err error) error {
	return &smithy.OperationError{ServiceID: service, OperationName: operation, Err: &awshttp.ResponseError{
		RequestID: "r1",
		ResponseError: &smithyhttp.ResponseError{
			Response: &smithyhttp.Response{Response: &http.Response{StatusCode: status, Header: http.Header{}}}, Err: err,
		},
	}}
}

func api(code, message string) error { return &smithy.GenericAPIError{Code: code, Message: message} }

// coded is an answer of Kinesis, or of DynamoDB for calls of the table's.
func coded(operation, code, message string) error {
	if operation == "UpdateItem" {
		return failed("DynamoDB", operation, 400, api(code, message))
	}
	return failed("Kinesis", operation, 400, api(code, message))
}

// unsent is a call that got no answer.
func unsent(err error) error {
	return failed("Kinesis", "ListShards", 0, &smithyhttp.RequestSendError{
		Err: &url.Error{Op: "Post", URL: "https://kinesis.us-east-1.amazonaws.com/", Err: err},
	})
}

func fetching(err error) error {
	return &smithy.OperationError{ServiceID: "Kinesis", OperationName: "ListShards", Err: fmt.Errorf(
		"get identity: get credentials: failed to refresh cached credentials, %w", err)}
}

func dialing(err error) error { return &net.OpError{Op: "dial", Net: "tcp", Err: err} }

func at(a About, endpoint string) About {
	a.Endpoint = endpoint
	return a
}

const nobody = "No credentials were found, or their source fails. Write `credentials`, or see to one of the places where they are looked for without: environment, shared configuration, web identity, container, role of the instance"

func TestPuzzlingErrorSaysWhatToDo(t *testing.T) {
	for name, c := range map[string]struct {
		err   error
		about About
		want  string
	}{
		"no credentials":    {fetching(fmt.Errorf("no EC2 IMDS role found, %w", &smithy.OperationError{ServiceID: "ec2imds", OperationName: "GetMetadata", Err: &smithy.CanceledError{Err: context.DeadlineExceeded}})), stream, nobody},
		"empty credentials": {fetching(errors.New("static credentials are empty")), table, strings.Replace(nobody, "`credentials`", "`dynamodb.credentials`", 1)},
		"expired token":     {coded("ListShards", "ExpiredTokenException", "The security token included in the request is expired"), stream, "The credentials are temporary and have expired. Renew them, or write such as renew themselves in `credentials`: `profile`, `role` or `from_ec2_role`"},
		"unknown token":     {coded("UpdateItem", "UnrecognizedClientException", "The security token included in the request is invalid."), table, "AWS does not know the credentials in region us-east-1. Check `dynamodb.credentials`, the environment, and that the account has the region enabled"},
		"wrong secret":      {coded("ListShards", "InvalidSignatureException", "The request signature we calculated does not match the signature you provided."), stream, "The secret key does not belong to the access key id, or something on the way changes requests. Check `credentials` and the proxy"},
		"clock behind":      {coded("ListShards", "InvalidSignatureException", "Signature expired: 20151120T200815Z is now earlier than 20151120T201846Z (20151120T202346Z - 5 min.)"), stream, "The clock of this machine is 15m31s behind that of AWS. Set the clock, and let NTP keep it"},
		"clock ahead":       {coded("ListShards", "InvalidSignatureException", "Signature not yet current: 20181017T093750Z is still later than 20181017T093639Z (20181017T093139Z + 5 min.)"), stream, "The clock of this machine is 6m11s ahead of that of AWS. Set the clock, and let NTP keep it"},
		"clock, how far?":   {coded("ListShards", "RequestExpired", "Request has expired."), stream, "The clock of this machine differs from that of AWS. Set the clock, and let NTP keep it"},

		"denied in full":        {coded("GetRecords", "AccessDeniedException", "User: arn:aws:iam::1:user/x is not authorized to perform: kinesis:GetRecords on resource: "+ordersARN+" because no identity-based policy allows the kinesis:GetRecords action"), stream, "A permission is missing. Allow `kinesis:GetRecords` on `" + ordersARN + "` in the identity-based policy; docs/aws_kinesis.md lists all that are needed"},
		"consumer denied":       {coded("SubscribeToShard", "AccessDeniedException", "no"), stream, "A permission is missing. Allow `kinesis:SubscribeToShard` on `stream/orders/consumer/*` in the IAM policy; docs/aws_kinesis.md lists all that are needed"},
		"consumer denied, ARN":  {coded("SubscribeToShard", "AccessDeniedException", "User: x is not authorized to perform: kinesis:SubscribeToShard on resource: arn:aws:kinesis:us-east-1:1:stream/orders/consumer/archive:1714564800 because no identity-based policy allows the kinesis:SubscribeToShard action"), stream, "A permission is missing. Allow `kinesis:SubscribeToShard` on `arn:aws:kinesis:us-east-1:1:stream/orders/consumer/*` in the identity-based policy; docs/aws_kinesis.md lists all that are needed"},
		"denied by endpoint":    {coded("UpdateItem", "AccessDeniedException", "User: x is not authorized to perform: dynamodb:UpdateItem on resource: y because no VPC endpoint policy allows the dynamodb:UpdateItem action"), table, "A permission is missing. Allow `dynamodb:UpdateItem` on `y` in the VPC endpoint policy; docs/aws_kinesis.md lists all that are needed"},
		"denied by a statement": {coded("ListShards", "AccessDeniedException", "User: x is not authorized to perform: kinesis:ListShards on resource: y with an explicit deny in a service control policy: arn:aws:organizations::1:policy/p"), stream, "A statement denies it, which outweighs what others allow. Except `kinesis:ListShards` on `y` from the deny in the service control policy"},
		"denied with no word":   {coded("UpdateItem", "AccessDeniedException", ""), table, "A permission is missing. Allow `dynamodb:UpdateItem` on `leases` in the IAM policy; docs/aws_kinesis.md lists all that are needed"},
		"role denied":           {fetching(failed("STS", "AssumeRole", 403, api("AccessDenied", "User: x is not authorized to perform: sts:AssumeRole on resource: arn:aws:iam::1:role/r"))), byARN, "The role may not be assumed. Allow `sts:AssumeRole` on `arn:aws:iam::1:role/r` in the IAM policy, and who assumes it in the trust policy of the role; if that has a condition `sts:ExternalId`, write its value in `credentials.role_external_id`"},
		"web identity denied":   {fetching(failed("STS", "AssumeRoleWithWebIdentity", 403, api("AccessDenied", "Not authorized to perform sts:AssumeRoleWithWebIdentity"))), stream, "The role may not be assumed. Let the trust policy of the role name this identity provider and service account"},

		"key denied":    {failed("Kinesis", "GetRecords", 400, &types.KMSAccessDeniedException{Message: aws.String("User x is not authorized to decrypt records in stream y")}), stream, "The stream is encrypted with a key that these credentials may not use. Allow `kms:Decrypt` on that key, in the IAM policy and in the policy of the key"},
		"key disabled":  {failed("Kinesis", "GetRecords", 400, &types.KMSDisabledException{}), stream, "The key that the stream is encrypted with is disabled. Enable it in KMS"},
		"key deleted":   {failed("Kinesis", "GetRecords", 400, &types.KMSInvalidStateException{}), stream, "The key that the stream is encrypted with cannot be used in its present state. See that state in KMS, and cancel the deletion of the key if one is scheduled"},
		"key unknown":   {failed("Kinesis", "GetRecords", 400, &types.KMSNotFoundException{}), stream, "The key that the stream is encrypted with is not found. See in the stream's settings which it is, and in KMS whether that was deleted"},
		"KMS not ours":  {failed("Kinesis", "GetRecords", 400, &types.KMSOptInRequired{}), stream, "The account may not use KMS. Finish the account's activation in the console of AWS"},
		"KMS throttles": {failed("Kinesis", "GetRecords", 400, &types.KMSThrottlingException{}), stream, "The account's calls of KMS are too many. Ask for a higher quota of KMS if it lasts"},

		"no stream":             {failed("Kinesis", "ListShards", 400, &types.ResourceNotFoundException{Message: aws.String("Stream orders under account 123456789012 not found.")}), stream, "There is no stream orders in account 123456789012 and region us-east-1. Check the name in `streams`, `region`, and that `credentials` are those of the stream's account"},
		"no stream of an ARN":   {coded("ListShards", "ResourceNotFoundException", ""), About{Service: "kinesis", Stream: ordersARN, Region: "eu-west-1"}, "There is no stream " + ordersARN + " in account 123456789012 and region eu-west-1. Check the name in `streams`, `region`, and that `credentials` are those of the stream's account"},
		"no stream, no account": {coded("ListShards", "ResourceNotFoundException", ""), About{Service: "kinesis", Stream: "orders"}, "There is no stream orders in the account of these credentials and the region. Check the name in `streams`, `region`, and that `credentials` are those of the stream's account"},
		"other region":          {coded("ListShards", "ResourceNotFoundException", "Stream orders under account 123456789012 not found."), byARN, "The ARN is of region eu-west-1 while `region` is us-east-1. Write `region: eu-west-1`"},
		"other region, denied":  {coded("ListShards", "AccessDeniedException", "User: x is not authorized to perform: y on resource: z"), byARN, "The ARN is of region eu-west-1 while `region` is us-east-1. Write `region: eu-west-1`"},
		"other partition":       {&smithy.OperationError{ServiceID: "Kinesis", OperationName: "ListShards", Err: errors.New("failed to resolve service endpoint, endpoint rule error, Partition: aws from ARN doesn't match with partition name: aws-cn")}, About{Service: "kinesis", Stream: ordersARN, Region: "cn-north-1"}, "The ARN is of region eu-west-1 while `region` is cn-north-1. Write `region: eu-west-1`"},
		"no table":              {failed("DynamoDB", "UpdateItem", 400, &dynamodbtypes.ResourceNotFoundException{Message: aws.String("Requested resource not found")}), table, "There is no table leases in region us-east-1. Check `dynamodb.table` and `dynamodb.region`, or create it; with `dynamodb.create: true` it is created, without checkpoints"},
		"table elsewhere":       {coded("UpdateItem", "ResourceNotFoundException", ""), About{Service: "dynamodb", Table: "arn:aws:dynamodb:eu-west-1:123456789012:table/leases", Region: "us-east-1"}, "The ARN is of region eu-west-1 while `dynamodb.region` is us-east-1. Write `dynamodb.region: eu-west-1`"},
		"table of another":      {coded("UpdateItem", "ValidationException", "The provided key element does not match the schema"), table, "Table leases has another key than `StreamID` and `ShardID`, so it is not one of this input. Write another in `dynamodb.table`"},
		"table is slow":         {coded("UpdateItem", "ProvisionedThroughputExceededException", "The level of configured provisioned throughput for the table was exceeded."), table, "The capacity of table leases is used up. Raise it, or make the table `PAY_PER_REQUEST` in DynamoDB (`dynamodb.billing_mode` is for one that is yet to be created)"},
		"shard is slow":         {coded("GetRecords", "ProvisionedThroughputExceededException", "Rate exceeded for shard shardId-000000000000 in stream orders under account 123456789012."), stream, "All readers of a shard share 5 calls and 2 MB a second. Raise `poll_period`, or use `enhanced_fan_out`, here or in other readers"},
		"not activated":         {coded("ListShards", "SubscriptionRequiredException", "The AWS Access Key Id needs a subscription for the service"), stream, "The account may not use the service in region us-east-1. Finish the account's activation and enable the region in the console of AWS"},

		"no host":           {unsent(dialing(&net.DNSError{Err: "no such host", Name: "kinesis.us-est-1.amazonaws.com", IsNotFound: true})), stream, "No host is called kinesis.us-est-1.amazonaws.com. Check `region` and the name servers"},
		"name servers":      {unsent(dialing(&net.DNSError{Err: "i/o timeout", Name: "kinesis.us-east-1.amazonaws.com", IsTimeout: true})), stream, "The name servers do not answer for kinesis.us-east-1.amazonaws.com. Check them"},
		"no configured one": {unsent(dialing(&net.DNSError{Err: "no such host", Name: "localstak", IsNotFound: true})), at(table, "http://localstak:4566"), "No host is called localstak. Check `dynamodb.endpoint`"},
		"refused":           {unsent(dialing(&os.SyscallError{Syscall: "connect", Err: syscall.ECONNREFUSED})), at(stream, "https://x"), "Nothing accepts connections at kinesis.us-east-1.amazonaws.com. Check `endpoint`, and whether it runs"},
		"refused by AWS":    {unsent(dialing(syscall.ECONNREFUSED)), stream, "kinesis.us-east-1.amazonaws.com refuses connections. Check whether a firewall or a proxy stands before it"},
		"unknown authority": {unsent(x509.UnknownAuthorityError{}), stream, "This machine does not trust who signed the certificate of kinesis.us-east-1.amazonaws.com. Write the path of a file with that authority's certificate in AWS_CA_BUNDLE"},
		"other certificate": {unsent(x509.HostnameError{Certificate: &x509.Certificate{}, Host: "h"}), stream, "The certificate is not that of kinesis.us-east-1.amazonaws.com. Check `region` and the name servers, and whether a proxy answers"},
		"old certificate":   {unsent(x509.CertificateInvalidError{Reason: x509.Expired}), stream, "The certificate of kinesis.us-east-1.amazonaws.com is not valid now. Check the clock of this machine, then the certificate"},
		"plain HTTP":        {unsent(http.ErrSchemeMismatch), at(stream, "https://x"), "kinesis.us-east-1.amazonaws.com speaks HTTP without TLS. Write `http://` in `endpoint`"},
		"proxy":             {unsent(&net.OpError{Op: "proxyconnect", Net: "tcp", Err: dialing(syscall.ECONNREFUSED)}), stream, "The HTTP proxy fails. Correct HTTPS_PROXY, let the proxy connect to kinesis.us-east-1.amazonaws.com, or add that to NO_PROXY"},
		"no route":          {unsent(dialing(syscall.EHOSTUNREACH)), stream, "No answer came from kinesis.us-east-1.amazonaws.com. Check whether there is a route to it: VPC endpoint, proxy, security group"},
		"silence":           {failed("DynamoDB", "UpdateItem", 0, &AttemptTimeoutError{Operation: "UpdateItem", Limit: time.Second}), table, "No answer came from DynamoDB in region us-east-1. Check whether there is a route to it: VPC endpoint, proxy, security group"},
	} {
		t.Run(name, func(t *testing.T) {
			got := Explain(c.err, c.about)
			require.EqualError(t, got, strings.TrimSuffix(c.err.Error(), ".")+". "+c.want)
			require.ErrorIs(t, got, c.err)
			require.Equal(t, got, Explain(fmt.Errorf("listing: %w", got), c.about).(interface{ Unwrap() error }).Unwrap(), "one hint")
		})
	}
}

func TestErrorThatSaysItAllStaysAsItIs(t *testing.T) {
	require.NoError(t, Explain(nil, stream))
	for name, err := range map[string]error{
		"canceled":         failed("Kinesis", "ListShards", 0, &smithy.CanceledError{Err: context.Canceled}),
		"deadline":         unsent(context.DeadlineExceeded),
		"deadline, direct": fmt.Errorf("reading: %w", context.DeadlineExceeded),
		"no shard":         coded("GetShardIterator", "ResourceNotFoundException", "Shard shardId-000000000007 in stream orders under account 123456789012 does not exist"),
		"slow down":        coded("ListShards", "LimitExceededException", "Rate exceeded for stream orders under account 123456789012."),
		"other validation": coded("UpdateItem", "ValidationException", "Item size has exceeded the maximum allowed size"),
		"any":              errors.New("any"),
	} {
		t.Run(name, func(t *testing.T) {
			about := stream
			if strings.Contains(err.Error(), "DynamoDB") {
				about = table
			}
			require.Equal(t, err, Explain(err, about))
		})
	}
}

func TestOpenRegionOfAnARNSaysWhatToWrite(t *testing.T) {
	const arn = "arn:aws:kinesis:*:123456789012:stream/orders"
	isolate(t, "")
	client := kinesis.NewFromConfig(load(t, static))
	_, err := client.ListShards(t.Context(), &kinesis.ListShardsInput{StreamARN: aws.String(arn)})
	require.Error(t, err)
	require.EqualError(t, Explain(err, About{Service: "kinesis", Stream: arn, Region: "us-east-1"}),
		"field `streams`: the region of `"+arn+"` is `*`: write that of the stream, such as `us-east-1`: "+err.Error())
}

// refusing loads a configuration for a server that refuses each call, and whose clock is
// as far from this machine's.
func refusing(t *testing.T, code, message string, clock time.Duration) aws.Config {
	t.Helper()
	isolate(t, "")
	o := static
	o.Endpoint = serve(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/x-amz-json-1.1")
		w.Header().Set("Date", time.Now().Add(clock).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusBadRequest)
		_, _ = fmt.Fprintf(w, `{"__type":"com.amazonaws#%s","message":%q}`, code, message)
	})
	cfg := load(t, o)
	cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
	return cfg
}

func TestErrorsOfTheSDKsClientsAreKnown(t *testing.T) {
	t.Run("kinesis", func(t *testing.T) {
		cfg := refusing(t, "ResourceNotFoundException", "Stream orders under account 123456789012 not found.", 0)
		_, err := kinesis.NewFromConfig(cfg).ListShards(t.Context(), &kinesis.ListShardsInput{StreamName: aws.String("orders")})
		require.ErrorContains(t, Explain(err, stream), "not found. There is no stream orders in account 123456789012 and region us-east-1. ")
	})
	t.Run("dynamodb", func(t *testing.T) {
		cfg := refusing(t, "AccessDeniedException", "User: x is not authorized to perform: dynamodb:DescribeTable on resource: y", 0)
		_, err := dynamodb.NewFromConfig(cfg).DescribeTable(t.Context(), &dynamodb.DescribeTableInput{TableName: aws.String("leases")})
		require.ErrorContains(t, Explain(err, table), " on resource: y. A permission is missing. Allow `dynamodb:DescribeTable` on `y` in the IAM policy; ")
		require.True(t, IsDenied(err))
	})
	t.Run("clock by the answer's date", func(t *testing.T) {
		cfg := refusing(t, "InvalidSignatureException", "", -time.Hour)
		_, err := kinesis.NewFromConfig(cfg).ListStreams(t.Context(), nil)
		require.Regexp(t, `The clock of this machine is (1h0m[01]|59m59)s ahead of that of AWS\. `, Explain(err, stream).Error())
	})
	t.Run("no credentials", func(t *testing.T) {
		isolate(t, "")
		_, err := kinesis.NewFromConfig(load(t, Options{Region: "us-east-1"})).ListStreams(t.Context(), nil)
		require.ErrorContains(t, Explain(err, stream), ". "+nobody)
	})
	t.Run("other region", func(t *testing.T) {
		isolate(t, "")
		cfg := load(t, Options{Region: "cn-north-1", Credentials: static.Credentials})
		_, err := kinesis.NewFromConfig(cfg).ListShards(t.Context(), &kinesis.ListShardsInput{StreamARN: aws.String(ordersARN)})
		require.ErrorContains(t, Explain(err, About{Service: "kinesis", Stream: ordersARN, Region: "cn-north-1"}), ". Write `region: eu-west-1`")
	})
}

func TestErrorsOfARealNetworkAreKnown(t *testing.T) {
	isolate(t, "")
	list := func(ctx context.Context, endpoint string) error {
		o := static
		o.Endpoint = endpoint
		cfg := load(t, o)
		cfg.Retryer = func() aws.Retryer { return aws.NopRetryer{} }
		_, err := kinesis.NewFromConfig(cfg).ListStreams(ctx, nil)
		return Explain(err, at(stream, endpoint))
	}
	gone := httptest.NewServer(nil)
	gone.Close()
	secure := httptest.NewUnstartedServer(nil)
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	t.Cleanup(secure.Close)
	plain := serve(t, func(_ http.ResponseWriter, r *http.Request) { stall(r) })

	require.ErrorContains(t, list(t.Context(), gone.URL), ". Nothing accepts connections at 127.0.0.1:")
	require.ErrorContains(t, list(t.Context(), secure.URL), ". This machine does not trust who signed the certificate of 127.0.0.1:")
	require.ErrorContains(t, list(t.Context(), strings.Replace(plain, "http:", "https:", 1)), " speaks HTTP without TLS. Write `http://` in `endpoint`")

	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	require.NotContains(t, list(ctx, plain).Error(), "No answer")

	_, err := (&net.Dialer{Timeout: time.Nanosecond}).DialContext(t.Context(), "tcp", "127.0.0.1:1")
	require.ErrorIs(t, err, context.DeadlineExceeded, "as a context's")
	require.ErrorContains(t, Explain(unsent(err), stream), ". No answer came from kinesis.us-east-1.amazonaws.com. ")
}

func TestThrottlingAndDenialAreKnownByEveryCode(t *testing.T) {
	throttled := []string{"KMSThrottlingException"}
	for code := range retry.DefaultThrottleErrorCodes {
		throttled = append(throttled, code)
	}
	for _, code := range []string{"ProvisionedThroughputExceededException", "LimitExceededException", "ThrottlingException", "Throttling", "ThrottledException", "RequestLimitExceeded", "TooManyRequestsException", "RequestThrottled", "RequestThrottledException"} {
		require.Contains(t, throttled, code)
	}
	denied := []string{
		"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "KMSAccessDeniedException", "UnrecognizedClientException",
		"InvalidClientTokenId", "InvalidSignatureException", "SignatureDoesNotMatch", "ExpiredTokenException", "ExpiredToken", "RequestExpired",
	}
	for _, code := range throttled {
		require.True(t, throttle.Is(Explain(coded("GetRecords", code, ""), stream)), code)
		require.False(t, IsDenied(coded("GetRecords", code, "")), code)
	}
	for _, code := range denied {
		require.True(t, IsDenied(Explain(coded("GetRecords", code, ""), stream)), code)
		require.False(t, throttle.Is(coded("GetRecords", code, "")), code)
	}
	require.True(t, throttle.Is(failed("Kinesis", "ListShards", http.StatusTooManyRequests, errors.New("?"))))
	for _, err := range []error{nil, errors.New("any"), coded("GetRecords", "InternalFailure", "")} {
		require.False(t, throttle.Is(err))
		require.False(t, IsDenied(err))
	}
}
