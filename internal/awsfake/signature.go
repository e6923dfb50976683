package awsfake

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"
)

// AccessKey is what a request may be signed with.
type AccessKey struct {
	Secret string
	// Token is what temporary credentials have beside their secret. Empty for those
	// that last.
	Token string
	// Expires is when the service takes the key no more, by its own clock. Zero: never.
	Expires time.Time
}

// Keys are the access keys that a [Server] knows, by their ids. They may change while
// it serves. The zero value has none and is ready to use; it is safe for concurrent
// use.
type Keys struct {
	mu   sync.Mutex
	byID map[string]AccessKey
}

// Set adds a key or puts it in the place of the one with its id.
func (k *Keys) Set(id string, key AccessKey) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.byID == nil {
		k.byID = map[string]AccessKey{}
	}
	k.byID[id] = key
}

// Remove makes a key unknown.
func (k *Keys) Remove(id string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	delete(k.byID, id)
}

func (k *Keys) get(id string) (AccessKey, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	key, ok := k.byID[id]
	return key, ok
}

// Types of errors that say what is wrong with who signed a request, or with how.
const (
	CodeExpiredToken          = "ExpiredTokenException"
	CodeIncompleteSignature   = "IncompleteSignatureException"
	CodeInvalidSignature      = "InvalidSignatureException"
	CodeMissingAuthentication = "MissingAuthenticationTokenException"
	CodeUnrecognizedClient    = "UnrecognizedClientException"
)

// The parts of Signature Version 4, by "Create a signed AWS API request" in the user
// guide of IAM. It is done here once more, rather than by the SDK's signer, so that
// a request is not judged by the code that signed it.
const (
	signingAlgorithm  = "AWS4-HMAC-SHA256"
	signingTerminator = "aws4_request"
	signingTime       = "20060102T150405Z"

	// maxClockSkew is how far the time in a signature may be from the service's.
	maxClockSkew = 5 * time.Minute
)

// authorization is what a signed request says of its signature.
type authorization struct {
	keyID                         string
	date, region, service         string // of the scope
	scope                         string // these and the terminator
	signedHeaders                 []string
	signature                     string
	time                          time.Time
	timestamp, token, payloadHash string
}

// authenticate returns why the service refuses who sends a request; nil where it does
// not. service is the one that the request is for, empty where it is for none. In
// which order the services look at what is wrong is not documented.
func (k *Keys) authenticate(r *http.Request, body []byte, service, region string, now time.Time) *Error {
	a, refusal := parseAuthorization(r, body)
	if refusal != nil {
		return refusal
	}
	switch {
	case a.region != region:
		return refuse(CodeInvalidSignature, "Credential should be scoped to a valid region. ")
	case service != "" && a.service != service:
		return refuse(CodeInvalidSignature, "Credential should be scoped to correct service: '%s'. ", service)
	case a.date != a.time.Format("20060102"):
		return refuse(CodeInvalidSignature, "Date in Credential scope does not match YYYYMMDD from ISO-8601 version of date from HTTP: '%s' != '%s', from '%s'.",
			a.date, a.time.Format("20060102"), a.timestamp)
	}
	key, known := k.get(a.keyID)
	switch {
	case !known || key.Token != a.token:
		return refuse(CodeUnrecognizedClient, "The security token included in the request is invalid.")
	case !key.Expires.IsZero() && !now.Before(key.Expires):
		return refuse(CodeExpiredToken, "The security token included in the request is expired")
	}
	if refusal := a.checkClock(now); refusal != nil {
		return refusal
	}
	if a.sign(r, key.Secret) != a.signature {
		return refuse(CodeInvalidSignature, "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access Key and signing method. Consult the service documentation for details.")
	}
	return nil
}

// checkClock refuses a signature that is too old, or of a time that is yet to come.
func (a *authorization) checkClock(now time.Time) *Error {
	now = now.UTC()
	if oldest := now.Add(-maxClockSkew); a.time.Before(oldest.Truncate(time.Second)) {
		return refuse(CodeInvalidSignature, "Signature expired: %s is now earlier than %s (%s - 5 min.)",
			a.timestamp, oldest.Format(signingTime), now.Format(signingTime))
	}
	if newest := now.Add(maxClockSkew); a.time.After(newest) {
		return refuse(CodeInvalidSignature, "Signature not yet current: %s is still later than %s (%s + 5 min.)",
			a.timestamp, newest.Format(signingTime), now.Format(signingTime))
	}
	return nil
}

func parseAuthorization(r *http.Request, body []byte) (*authorization, *Error) {
	header := r.Header.Get("Authorization")
	if header == "" {
		return nil, refuse(CodeMissingAuthentication, "Missing Authentication Token")
	}
	rest, ok := strings.CutPrefix(header, signingAlgorithm)
	if !ok {
		return nil, refuse(CodeIncompleteSignature, "Unsupported AWS 'algorithm': '%.40s'.", header)
	}
	fields := map[string]string{}
	for field := range strings.SplitSeq(rest, ",") {
		name, value, _ := strings.Cut(strings.TrimSpace(field), "=")
		fields[name] = value
	}
	var missing strings.Builder
	for _, name := range []string{"Credential", "Signature", "SignedHeaders"} {
		if fields[name] == "" {
			fmt.Fprintf(&missing, "Authorization header requires '%s' parameter. ", name)
		}
	}
	a := &authorization{
		signature:     fields["Signature"],
		signedHeaders: strings.Split(fields["SignedHeaders"], ";"),
		timestamp:     r.Header.Get("X-Amz-Date"),
		token:         r.Header.Get("X-Amz-Security-Token"),
	}
	if a.timestamp == "" {
		missing.WriteString("Authorization header requires existence of either a 'X-Amz-Date' or a 'Date' header. ")
	}
	if missing.Len() > 0 {
		return nil, refuse(CodeIncompleteSignature, "%s", missing.String())
	}
	parts := strings.Split(fields["Credential"], "/")
	if len(parts) != 5 {
		return nil, refuse(CodeIncompleteSignature, "Credential must have exactly 5 slash-delimited elements, e.g. keyid/date/region/service/term, got '%s'", fields["Credential"])
	}
	a.keyID, a.date, a.region, a.service = parts[0], parts[1], parts[2], parts[3]
	if parts[4] != signingTerminator {
		return nil, refuse(CodeInvalidSignature, "Credential should be scoped with a valid terminator: '%s', not '%s'. ", signingTerminator, parts[4])
	}
	a.scope = strings.Join(parts[1:], "/")
	var err error
	if a.time, err = time.Parse(signingTime, a.timestamp); err != nil {
		return nil, refuse(CodeIncompleteSignature, "Date must be in ISO-8601 'basic format'. Got '%s'.", a.timestamp)
	}
	if unsigned := a.unsigned(r.Header); unsigned != "" {
		return nil, refuse(CodeInvalidSignature, "'%s' must be a 'SignedHeader' in the AWS Authorization.", unsigned)
	}
	a.payloadHash = hashHex(string(body))
	return a, nil
}

// unsigned is a header that has to be signed, where it is there, and is not; empty
// when there is none.
func (a *authorization) unsigned(h http.Header) string {
	if !slices.Contains(a.signedHeaders, "host") {
		return "Host"
	}
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if low := strings.ToLower(name); strings.HasPrefix(low, "x-amz-") && !slices.Contains(a.signedHeaders, low) {
			return low
		}
	}
	return ""
}

// sign is the signature that the request should have.
func (a *authorization) sign(r *http.Request, secret string) string {
	var canonical strings.Builder
	for _, part := range []string{r.Method, canonicalPath(r.URL), canonicalQuery(r.URL)} {
		canonical.WriteString(part + "\n")
	}
	for _, name := range a.signedHeaders {
		canonical.WriteString(name + ":" + canonicalHeader(r, name) + "\n")
	}
	canonical.WriteString("\n" + strings.Join(a.signedHeaders, ";") + "\n" + a.payloadHash)

	key := []byte("AWS4" + secret)
	for _, part := range []string{a.date, a.region, a.service, signingTerminator} {
		key = hmacOf(key, part)
	}
	text := strings.Join([]string{signingAlgorithm, a.timestamp, a.scope, hashHex(canonical.String())}, "\n")
	return hex.EncodeToString(hmacOf(key, text))
}

// canonicalPath is the path as it was sent, encoded once more.
func canonicalPath(u *url.URL) string {
	path := u.EscapedPath()
	if path == "" {
		return "/"
	}
	return strings.ReplaceAll(escape(path), "%2F", "/")
}

func canonicalQuery(u *url.URL) string {
	var pairs []string
	for name, values := range u.Query() {
		for _, value := range values {
			pairs = append(pairs, escape(name)+"="+escape(value))
		}
	}
	slices.Sort(pairs)
	return strings.Join(pairs, "&")
}

// escape encodes all but what RFC 3986 calls unreserved.
func escape(s string) string { return strings.ReplaceAll(url.QueryEscape(s), "+", "%20") }

func canonicalHeader(r *http.Request, name string) string {
	switch name {
	case "host":
		if r.Host != "" {
			return r.Host
		}
		return r.URL.Host
	case "content-length":
		return fmt.Sprint(r.ContentLength) // which net/http keeps apart in a client
	}
	var values []string
	for _, v := range r.Header.Values(name) {
		values = append(values, strings.Join(strings.Fields(v), " "))
	}
	return strings.Join(values, ",")
}

func hashHex(s string) string {
	sum := sha256.Sum256([]byte(s))
	return hex.EncodeToString(sum[:])
}

func hmacOf(key []byte, text string) []byte {
	mac := hmac.New(sha256.New, key)
	mac.Write([]byte(text)) // a hash never fails
	return mac.Sum(nil)
}
