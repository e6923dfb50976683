package session

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/aws/smithy-go"
	smithyhttp "github.com/aws/smithy-go/transport/http"
)

// About says what a call was about, for [Explain].
type About struct {
	Service  string // "kinesis" or "dynamodb"
	Stream   string // name or ARN as configured, "" if the call was about the table
	Table    string // name or ARN as configured
	Region   string // that the client uses, "" if unknown
	Endpoint string // configured, "" for AWS' own
	// RegionFrom and EndpointFrom are the settings that these come from, as they stand in
	// a sentence; "" for the fields.
	RegionFrom, EndpointFrom string
}

// Explain adds to an error that is known to puzzle people what it means and what
// to do about it, and returns any other as it is, such as that of a context or one
// that is explained already. The result wraps err and has all of its text.
func Explain(err error, about About) error {
	if _, done := errors.AsType[*explainedError](err); done || err == nil {
		return err
	}
	f := fault{About: about, err: err, op: innermost(err)}
	if api, ok := errors.AsType[smithy.APIError](err); ok {
		f.code, f.message = api.ErrorCode(), api.ErrorMessage()
	}
	if late, ok := errors.AsType[*AttemptTimeoutError](err); ok {
		f.credentials = late.credentials
	}
	// Those of a role come with others, of which the last tells most.
	for e, ok := errors.AsType[*credentialsError](err); ok; e, ok = errors.AsType[*credentialsError](e.err) {
		f.credentials, f.op = e, innermost(e.err)
	}
	if f.ended() {
		return err
	}
	if f.placed() && f.arn(3) == "*" {
		return &explainedError{err, fmt.Sprintf("field `%s`: the region of `%s` is `*`: write that of the stream, such as `us-east-1`: %v",
			f.nameField(), f.name(), err)}
	}
	hint := f.hint()
	if hint == "" {
		return err
	}
	return &explainedError{err, strings.TrimSuffix(err.Error(), ".") + ". " + hint}
}

// Service returns which service a call was made to that failed, "kinesis" or "dynamodb";
// "" for another, or where the error does not tell.
func Service(err error) string {
	op, _ := errors.AsType[*smithy.OperationError](err)
	if op == nil {
		return ""
	}
	return map[string]string{"Kinesis": "kinesis", "DynamoDB": "dynamodb"}[op.ServiceID]
}

// IsDenied tells whether the call was refused for who makes it, so that only other
// permissions or credentials, or a clock that is right, mend it.
func IsDenied(err error) bool {
	api, ok := errors.AsType[smithy.APIError](err)
	return ok && (slices.Contains(denied, api.ErrorCode()) || slices.Contains(expired, api.ErrorCode()) ||
		slices.Contains(unknown, api.ErrorCode()) || slices.Contains(missigned, api.ErrorCode()) ||
		api.ErrorCode() == "KMSAccessDeniedException")
}

// The codes of one thing, which differ by service, protocol and age.
var (
	denied    = []string{"AccessDeniedException", "AccessDenied", "UnauthorizedOperation", "NotAuthorized"}
	expired   = []string{"ExpiredTokenException", "ExpiredToken"}
	unknown   = []string{"UnrecognizedClientException", "InvalidClientTokenId", "MissingAuthenticationToken", "MissingAuthenticationTokenException", "AuthFailure"}
	missigned = []string{"InvalidSignatureException", "SignatureDoesNotMatch", "IncompleteSignature", "IncompleteSignatureException", "RequestExpired", "RequestTimeTooSkewed"}
	misplaced = append([]string{"ResourceNotFoundException", "InvalidArgumentException", "InvalidArgument", "ValidationException"}, denied...)
)

// kms are the hints for what KMS refuses to Kinesis.
var kms = map[string]string{
	"KMSAccessDeniedException": "The stream is encrypted with a key that these credentials may not use. Allow `kms:Decrypt` on that key, in the IAM policy and in the policy of the key",
	"KMSDisabledException":     "The key that the stream is encrypted with is disabled. Enable it in KMS",
	"KMSInvalidStateException": "The key that the stream is encrypted with cannot be used in its present state. See that state in KMS, and cancel the deletion of the key if one is scheduled",
	"KMSNotFoundException":     "The key that the stream is encrypted with is not found. See in the stream's settings which it is, and in KMS whether that was deleted",
	"KMSOptInRequired":         "The account may not use KMS. Finish the account's activation in the console of AWS",
	"KMSThrottlingException":   "The account's calls of KMS are too many. Ask for a higher quota of KMS if it lasts",
}

// explainedError is an error with its hint. Explain makes it.
type explainedError struct {
	err  error
	text string
}

func (e *explainedError) Error() string { return e.text }
func (e *explainedError) Unwrap() error { return e.err }

// fault is an error taken apart.
type fault struct {
	About
	err           error
	code, message string // of the service, "" if none answered
	// op is the call that failed, which may be one that credentials come from, and
	// not the one that was made.
	op smithy.OperationError
	// credentials is why there were none, nil if that is not the matter.
	credentials *credentialsError
}

func innermost(err error) (op smithy.OperationError) {
	for next, ok := errors.AsType[*smithy.OperationError](err); ok; next, ok = errors.AsType[*smithy.OperationError](next.Err) {
		op = *next
	}
	return op
}

// ended tells whether the caller's context ended the call. To the library, a
// dialer's own time-out is a context's too; and the deadline of a call to the
// instance's metadata is that of its client.
func (f fault) ended() bool {
	_, dialed := errors.AsType[*net.OpError](f.err)
	return errors.Is(f.err, context.Canceled) ||
		errors.Is(f.err, context.DeadlineExceeded) && !dialed && f.op.ServiceID != "ec2imds"
}

// status is that of the answer, 0 if none came.
func (f fault) status() int {
	answer, ok := errors.AsType[interface {
		error
		HTTPStatusCode() int
	}](f.err)
	if !ok {
		return 0
	}
	return answer.HTTPStatusCode()
}

// unreachable tells whether the network failed.
func (f fault) unreachable() bool { return is[*net.OpError](f.err) || f.slow() }

// slow tells whether something took too long.
func (f fault) slow() bool {
	timeout, ok := errors.AsType[interface {
		error
		Timeout() bool
	}](f.err)
	return ok && timeout.Timeout()
}

func (f fault) has(text string) bool { return strings.Contains(f.err.Error(), text) }

// table tells whether the call was about the table.
func (f fault) table() bool { return f.Service == "dynamodb" }

func (f fault) name() string {
	if f.table() {
		return f.Table
	}
	return f.Stream
}

func (f fault) nameField() string {
	if f.table() {
		return "dynamodb.table"
	}
	return "streams"
}

// field is the full name of a field that the table may have for itself.
func (f fault) field(name string) string {
	if f.table() {
		return "dynamodb." + name
	}
	return name
}

// arn returns a part of the name if that is an ARN: 3 is the region, 4 the account.
func (f fault) arn(part int) string {
	parts := strings.SplitN(f.name(), ":", 6)
	if len(parts) < 6 || parts[0] != "arn" {
		return ""
	}
	return parts[part]
}

// where is the region as it stands in a sentence.
func (f fault) where() string {
	if f.Region == "" {
		return "the region"
	}
	return "region " + f.Region
}

// sts tells whether STS failed, asked for credentials.
func (f fault) sts() bool { return f.op.ServiceID == "STS" }

// placed tells whether the fault can be that of a name which is looked for in the
// wrong region. Without an endpoint, the SDK itself refuses some.
func (f fault) placed() bool {
	return !f.sts() && (slices.Contains(misplaced, f.code) || f.has("endpoint rule error"))
}

func (f fault) hint() string {
	if f.credentials != nil {
		if hint := f.uncredentialed(f.credentials); hint != "" {
			return hint
		}
	}
	switch region := f.arn(3); {
	case f.op.ServiceID == "ec2imds" || f.has("static credentials are empty"):
		return f.nobody()
	case f.placed() && region != "" && f.Region != "" && region != f.Region:
		return fmt.Sprintf("The ARN is of region %s while `%s` is %s. Write `%s: %[1]s`", region, f.field("region"), f.Region, f.field("region"))
	case f.has("failed to resolve service endpoint") || f.has("invalid accountID set"):
		return f.unresolved()
	case f.code == "":
		return f.network()
	case slices.Contains(denied, f.code):
		return f.denial()
	case slices.Contains(expired, f.code):
		return "The credentials are temporary and have expired. Renew them, or write such as renew themselves in `" + f.field("credentials") + "`: `profile`, `role` or `from_ec2_role`"
	case slices.Contains(unknown, f.code):
		return fmt.Sprintf("AWS does not know the credentials in %s. Check `%s`, the environment, and that the account has the region enabled", f.where(), f.field("credentials"))
	case slices.Contains(missigned, f.code):
		return f.missigned()
	case f.code == "SubscriptionRequiredException" || f.code == "OptInRequired":
		return fmt.Sprintf("The account may not use the service in %s. Finish the account's activation and enable the region in the console of AWS", f.where())
	case f.code == "ResourceNotFoundException" && f.table():
		return fmt.Sprintf("There is no table %s in %s. Check `dynamodb.table` and `dynamodb.region`, or create it; with `dynamodb.create: true` it is created, without checkpoints", f.Table, f.where())
	case f.code == "ResourceNotFoundException" && !strings.HasPrefix(f.message, "Shard "):
		account := "the account of these credentials"
		if f.arn(4) != "" {
			account = "account " + f.arn(4)
		}
		if found := accountOf.FindString(f.message); found != "" {
			account = strings.TrimPrefix(found, "under ")
		}
		return fmt.Sprintf("There is no stream %s in %s and %s. Check the name in `streams`, `region`, and that `credentials` are those of the stream's account",
			f.Stream, account, f.where())
	case f.code == "ProvisionedThroughputExceededException" && f.table():
		return fmt.Sprintf("The capacity of table %s is used up. Raise it, or make the table `PAY_PER_REQUEST` in DynamoDB (`dynamodb.billing_mode` is for one that is yet to be created)", f.Table)
	case f.code == "ProvisionedThroughputExceededException":
		return "All readers of a shard share 5 calls and 2 MB a second. Raise `poll_period`, or use `enhanced_fan_out`, here or in other readers"
	case f.code == "ValidationException" && f.table() && otherKey.MatchString(f.message):
		return fmt.Sprintf("Table %s has another key than `StreamID` and `ShardID`, so it is not one of this input. Write another in `dynamodb.table`", f.Table)
	}
	return kms[f.code]
}

var (
	accountOf = regexp.MustCompile(`under account \d+`)
	otherKey  = regexp.MustCompile(`key element does not match the schema|missed key schema element`)
	// AWS says since 2021 which kind of policy decided, in most services.
	refused   = regexp.MustCompile(`not authorized to perform: (\S+)(?: on resource: (\S+))?`)
	silent    = regexp.MustCompile(`because no ([\w -]+?) allows`)
	forbidden = regexp.MustCompile(`explicit deny in an? ([\w -]+)`)
	signedAt  = regexp.MustCompile(`(\d{8}T\d{6}Z).*\((\d{8}T\d{6}Z)`) // and the clock of AWS
)

// ofConsumer are the calls that are allowed on a consumer, which the ARN of its stream does
// not cover. A policy that has the time of its registration ends with it.
var (
	ofConsumer = []string{"SubscribeToShard", "DescribeStreamConsumer", "DeregisterStreamConsumer"}
	registered = regexp.MustCompile(`/consumer/[^/:]+:\d+$`)
)

func (f fault) denial() string {
	if f.op.OperationName == "AssumeRoleWithWebIdentity" {
		return "The role may not be assumed. Let the trust policy of the role name this identity provider and service account"
	}
	if f.op.OperationName == "" {
		return "A permission is missing; docs/aws_kinesis.md lists all that are needed"
	}
	action, resource, policy := strings.ToLower(f.op.ServiceID)+":"+f.op.OperationName, f.name(), "IAM policy"
	switch {
	case f.sts():
		resource = ""
	case slices.Contains(ofConsumer, f.op.OperationName):
		resource = "stream/" + f.name() + "/consumer/*"
		if f.arn(3) != "" {
			resource = f.name() + "/consumer/*"
		}
	}
	if m := refused.FindStringSubmatch(f.message); m != nil {
		action, resource = m[1], strings.TrimSuffix(cmp.Or(m[2], resource), ".")
	}
	resource = registered.ReplaceAllString(resource, "/consumer/*")
	if resource != "" {
		action += "` on `" + resource
	}
	if m := forbidden.FindStringSubmatch(f.message); m != nil {
		return fmt.Sprintf("A statement denies it, which outweighs what others allow. Except `%s` from the deny in the %s", action, m[1])
	}
	if m := silent.FindStringSubmatch(f.message); m != nil {
		policy = m[1]
	}
	if f.sts() {
		return fmt.Sprintf("The role may not be assumed. Allow `%s` in the %s, and who assumes it in the trust policy of the role; if that has a condition `sts:ExternalId`, write its value in `%s`",
			action, policy, f.field("credentials.role_external_id"))
	}
	return fmt.Sprintf("A permission is missing. Allow `%s` in the %s; docs/aws_kinesis.md lists all that are needed", action, policy)
}

// missigned is for a signature that AWS does not accept. Most come of a clock that is
// wrong by more than the SDK could find out and correct.
func (f fault) missigned() string {
	const layout = "20060102T150405Z"
	var signed, received time.Time
	if m := signedAt.FindStringSubmatch(f.message); m != nil {
		signed, _ = time.Parse(layout, m[1])
		received, _ = time.Parse(layout, m[2])
	} else if resp, ok := errors.AsType[*smithyhttp.ResponseError](f.err); ok && resp.Response != nil && resp.Response.Response != nil && resp.Response.Request != nil {
		signed, _ = time.Parse(layout, resp.Response.Request.Header.Get("X-Amz-Date"))
		received, _ = http.ParseTime(resp.Response.Header.Get("Date"))
	}
	const remedy = ". Set the clock, and let NTP keep it"
	if ahead := signed.Sub(received); !signed.IsZero() && !received.IsZero() && ahead.Abs() >= 4*time.Minute {
		if ahead > 0 {
			return fmt.Sprintf("The clock of this machine is %v ahead of that of AWS%s", ahead, remedy)
		}
		return fmt.Sprintf("The clock of this machine is %v behind that of AWS%s", -ahead, remedy)
	}
	if f.has("Signature expired") || f.has("Signature not yet current") || strings.HasPrefix(f.code, "Request") {
		return "The clock of this machine differs from that of AWS" + remedy
	}
	return "The secret key does not belong to the access key id, or something on the way changes requests. Check `" + f.field("credentials") + "` and the proxy"
}

// endpointSetting is where the endpoint is configured.
func (f fault) endpointSetting() string {
	return cmp.Or(f.EndpointFrom, "`"+f.field("endpoint")+"`")
}

// unresolved is for settings from which the SDK can make no address.
func (f fault) unresolved() string {
	const (
		fips    = "AWS_USE_FIPS_ENDPOINT, or `use_fips_endpoint` of the profile,"
		dual    = "AWS_USE_DUALSTACK_ENDPOINT, or `use_dualstack_endpoint` of the profile,"
		account = "AWS_ACCOUNT_ID_ENDPOINT_MODE, or `account_id_endpoint_mode` of the profile,"
	)
	switch {
	case f.has("FIPS and custom endpoint") || f.has("FIPS and local endpoint"):
		return fips + " chooses among the addresses of AWS, and " + f.endpointSetting() + " has another. Unset one of the two"
	case f.has("Dualstack and custom endpoint") || f.has("Dualstack and local endpoint") || f.has("Endpoint override is not supported for dual-stack"):
		return dual + " chooses among the addresses of AWS, and " + f.endpointSetting() + " has another. Unset one of the two"
	case f.has("FIPS") && f.has("DualStack"):
		return fips + " and " + dual + " ask for an address that " + f.where() + " does not have. Unset one of them"
	case f.has("accountID is required but not set"):
		return account + " is `required`, and the credentials do not tell their account. Write `preferred`, or set AWS_ACCOUNT_ID where they stand in the environment, and `aws_account_id` where they stand in a profile"
	case f.has("AccountIdEndpointMode is required"):
		return account + " is `required`, and there is no address with an account in it here. Write `preferred`"
	case f.has("DualStack is enabled"):
		return dual + " asks for an address that " + f.where() + " does not have. Unset it"
	}
	return ""
}

// network is for a call that no service answered.
func (f fault) network() string {
	host := cmp.Or(f.Endpoint, fmt.Sprintf("%s in %s", map[string]string{"kinesis": "Kinesis", "dynamodb": "DynamoDB", "": "AWS"}[f.Service], f.where()))
	if sent, ok := errors.AsType[*url.Error](f.err); ok {
		if u, err := url.Parse(sent.URL); err == nil && u.Host != "" {
			host = u.Host
		}
	}
	check := "`" + f.field("region") + "` and the name servers"
	if f.Endpoint != "" {
		check = f.endpointSetting()
	}
	op, _ := errors.AsType[*net.OpError](f.err)
	proxy, refused := errors.AsType[*ProxyError](f.err)
	dns, lookup := errors.AsType[*net.DNSError](f.err)
	invalid, stale := errors.AsType[x509.CertificateInvalidError](f.err)
	switch {
	case op != nil && op.Op == "proxyconnect" || refused:
		return f.proxied(proxy, host)
	case lookup && !dns.IsNotFound:
		return fmt.Sprintf("The name servers do not answer for %s. Check them", dns.Name)
	case lookup:
		return fmt.Sprintf("No host is called %s. Check %s", dns.Name, check)
	case is[x509.UnknownAuthorityError](f.err):
		return "This machine does not trust who signed the certificate of " + host + ". Write the path of a file with that authority's certificate in AWS_CA_BUNDLE"
	case is[x509.HostnameError](f.err):
		return "The certificate is not that of " + host + ". Check " + check + ", and whether a proxy answers"
	case stale && invalid.Reason == x509.Expired:
		return "The certificate of " + host + " is not valid now. Check the clock of this machine, then the certificate"
	case errors.Is(f.err, http.ErrSchemeMismatch):
		return host + " speaks HTTP without TLS. Write `http://` in " + f.endpointSetting()
	case errors.Is(f.err, syscall.ECONNREFUSED) && f.Endpoint != "":
		return "Nothing accepts connections at " + host + ". Check " + check + ", and whether it runs"
	case errors.Is(f.err, syscall.ECONNREFUSED):
		return host + " refuses connections. Check whether a firewall or a proxy stands before it"
	case f.slow() || errors.Is(f.err, syscall.EHOSTUNREACH) || errors.Is(f.err, syscall.ENETUNREACH):
		return "No answer came from " + host + ". Check whether there is a route to it: VPC endpoint, proxy, security group"
	}
	return ""
}

func is[E error](err error) bool {
	_, ok := errors.AsType[E](err)
	return ok
}
