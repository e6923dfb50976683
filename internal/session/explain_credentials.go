package session

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/processcreds"
)

// credentialsError is why there are no credentials. A renewer makes it.
type credentialsError struct {
	sources []aws.CredentialSource // the way on which they were looked for, nil if unknown
	profile string                 // configured, "" if none
	role    string                 // configured, and to be assumed with those of another renewer; "" if none
	waited  time.Duration          // without an answer, 0 if there was one
	ec2Role bool                   // from_ec2_role is set
	err     error
}

func (e *credentialsError) Error() string {
	waited := ""
	if e.waited > 0 {
		waited = fmt.Sprintf("no answer in %v: ", e.waited.Round(time.Millisecond))
	}
	return fmt.Sprintf("retrieving credentials from %s: %s%v", e.from(), waited, e.err)
}

func (e *credentialsError) Unwrap() error { return e.err }

// RetryableError keeps the SDK from repeating the call: the provider has been asked
// more than once, and is asked again when it is time.
func (*credentialsError) RetryableError() bool { return false }

// withoutOutput is err without what a credential_process has written, which may be
// credentials.
func withoutOutput(err error) error {
	if !is[*processcreds.ProviderError](err) {
		return err
	}
	syntax, ok := errors.AsType[*json.SyntaxError](err)
	if !ok && !strings.Contains(err.Error(), "parse failed") {
		return err
	}
	if !ok {
		return errors.New("its output cannot be parsed")
	}
	return fmt.Errorf("its output cannot be parsed: %w", syntax)
}

// from names the provider.
func (e *credentialsError) from() string {
	if e.role != "" {
		return "role " + e.role
	}
	switch e.kind() {
	case webIdentity:
		return "web identity"
	case container:
		return "the container's endpoint"
	case instance:
		return "the role of the EC2 instance"
	case process:
		return "the `credential_process` of " + e.inProfile()
	case singleSignOn:
		return "the SSO session of " + e.inProfile()
	case login:
		return "the login session of " + e.inProfile()
	case assumed:
		return e.inProfile()
	case other:
	}
	return "the configuration"
}

// inProfile names the profile that is used.
func (e *credentialsError) inProfile() string {
	switch name := os.Getenv("AWS_PROFILE"); {
	case e.profile != "":
		return "profile " + e.profile
	case name != "":
		return "profile " + name
	}
	return "profile default"
}

// sourceKind is what gives the first credentials on the way.
type sourceKind int

const (
	other sourceKind = iota
	webIdentity
	container
	instance
	process
	singleSignOn
	login
	assumed // a role of a profile with static credentials
)

// kinds are in the order in which they are looked for: a way has those of a role, too.
var kinds = []struct {
	kind sourceKind
	of   []aws.CredentialSource
}{
	{webIdentity, []aws.CredentialSource{aws.CredentialSourceEnvVarsSTSWebIDToken, aws.CredentialSourceProfileSTSWebIDToken, aws.CredentialSourceSTSAssumeRoleWebID}},
	{container, []aws.CredentialSource{aws.CredentialSourceHTTP}},
	{instance, []aws.CredentialSource{aws.CredentialSourceIMDS}},
	{process, []aws.CredentialSource{aws.CredentialSourceProcess}},
	{singleSignOn, []aws.CredentialSource{aws.CredentialSourceSSO, aws.CredentialSourceSSOLegacy}},
	{login, []aws.CredentialSource{aws.CredentialSourceLogin}},
	{assumed, []aws.CredentialSource{aws.CredentialSourceSTSAssumeRole}},
}

func (e *credentialsError) kind() sourceKind {
	for _, k := range kinds {
		if slices.ContainsFunc(e.sources, func(s aws.CredentialSource) bool { return slices.Contains(k.of, s) }) {
			return k.kind
		}
	}
	return other
}

// uncredentialed is the hint for a call that was not made for want of credentials, ""
// if the error of STS tells by itself.
func (f fault) uncredentialed(e *credentialsError) string {
	switch {
	case f.sts():
		return f.unassumed()
	case e.role != "":
		return ""
	}
	slow := e.waited > 0 || f.unreachable()
	switch e.kind() {
	case webIdentity:
		if f.has("unable to read file") {
			return "The file of the web identity token cannot be read. Check AWS_WEB_IDENTITY_TOKEN_FILE, or `web_identity_token_file` of the profile, and that the pod mounts it: its service account needs the annotation `eks.amazonaws.com/role-arn`"
		}
	case container:
		return f.uncontained(f.status(), slow)
	case instance:
		return f.uninstanced(f.status(), e)
	case process:
		switch {
		case slow:
			return "The `credential_process` does not end. Run its command by hand"
		case f.has("error in credential_process"):
			return "The `credential_process` fails; what it says itself is on the standard error. Run its command by hand, as the user and in the environment of this process"
		}
		return "The `credential_process` has to write an object of JSON with Version 1, AccessKeyId, SecretAccessKey, and Expiration if they expire"
	case singleSignOn:
		switch {
		case f.code == "ForbiddenException" || f.code == "ResourceNotFoundException":
			return "The user of the SSO session has no such role in that account. Check `sso_account_id` and `sso_role_name` of " + e.inProfile()
		case slow:
			return "The SSO portal does not answer. Check `sso_region` of " + e.inProfile() + ", and whether there is a route to it"
		}
		return "The SSO session has ended. Run `aws sso login --profile " + strings.TrimPrefix(e.inProfile(), "profile ") + "`, as the user of this process"
	case login:
		return "The login session has ended. Run `aws login --profile " + strings.TrimPrefix(e.inProfile(), "profile ") + "`, as the user of this process"
	case assumed, other:
	}
	return ""
}

func (f fault) uncontained(status int, slow bool) string {
	const url = "AWS_CONTAINER_CREDENTIALS_FULL_URI or AWS_CONTAINER_CREDENTIALS_RELATIVE_URI"
	switch {
	case f.has("failed to read authorization token"):
		return "The file of the container's token cannot be read. Check AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE, and that it is mounted"
	case status == http.StatusUnauthorized || status == http.StatusForbidden:
		return "The container's endpoint refuses the token. Check AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE or AWS_CONTAINER_AUTHORIZATION_TOKEN; in EKS, that the service account has a pod identity association, and that the role's trust policy lets `pods.eks.amazonaws.com` use `sts:AssumeRole` and `sts:TagSession`"
	case slow:
		return "The container's endpoint does not answer. Check " + url + ", whether a proxy stands before it (NO_PROXY), and the agent of ECS or EKS on the host"
	}
	return "The container's endpoint has no credentials. Check " + url + ", and the role of the task or the pod"
}

func (f fault) uninstanced(status int, e *credentialsError) string {
	const hop = "in a container the hop limit of the instance has to be 2: `aws ec2 modify-instance-metadata-options --instance-id ... --http-put-response-hop-limit 2`"
	switch {
	case status == http.StatusNotFound:
		return "The EC2 instance has no role. Attach an instance profile to it, or write `" + f.field("credentials") + "`"
	case status == http.StatusForbidden:
		return "The metadata service of the instance is turned off, or a firewall keeps this process from it. Set `HttpEndpoint` of the instance to enabled"
	case status == http.StatusUnauthorized || f.has("StatusCode: 401"): // the client hides what it retried
		return "The instance demands IMDSv2, and no token for it came: " + hop
	case e.ec2Role && f.has("AWS_EC2_METADATA_DISABLED"):
		return "`" + f.field("credentials.from_ec2_role") + "` is true while the environment says AWS_EC2_METADATA_DISABLED. Unset one of them"
	case e.ec2Role:
		return "The metadata service of the instance does not answer. Check that this runs on EC2; " + hop
	}
	if f.has("AWS_EC2_METADATA_DISABLED") {
		return f.nobody()
	}
	return f.nobody() + ". On EC2, " + hop
}

// unassumed is for what STS refuses.
func (f fault) unassumed() string {
	switch {
	case f.code == "":
		return f.network()
	case f.code == "ExpiredTokenException" && f.op.OperationName == "AssumeRoleWithWebIdentity":
		return "The web identity token has expired, and its file was not renewed. Check AWS_WEB_IDENTITY_TOKEN_FILE, or `web_identity_token_file` of the profile, and the clock of this machine"
	case f.code == "InvalidIdentityToken":
		return "STS cannot verify the web identity token. Check that IAM has an identity provider for its issuer, with the audience `sts.amazonaws.com`"
	case f.code == "RegionDisabledException":
		return fmt.Sprintf("STS is not active in %s. Activate it in the account's settings of IAM", f.where())
	case f.code == "ValidationError":
		return "STS does not take the parameters. Check `" + f.field("credentials.role") + "`, which is an ARN such as `arn:aws:iam::123456789012:role/reader`, and `" + f.field("credentials.role_external_id") + "`; or `role_arn` and `external_id` of the profile"
	}
	return ""
}

// nobody is for a search that found no credentials.
func (f fault) nobody() string {
	return "No credentials were found, or their source fails. Write `" + f.field("credentials") + "`, or see to one of the places where they are looked for without: environment, shared configuration, web identity, container, role of the instance"
}

// explainLoading adds to an error of the shared configuration what to do about it.
// profile is the configured one, "" if none is.
func explainLoading(err error, profile string) error {
	if missing, ok := errors.AsType[config.SharedConfigProfileNotExistError](err); ok {
		where := "AWS_PROFILE"
		if profile != "" {
			where = "field `credentials.profile`"
		}
		return fmt.Errorf("%w. Neither ~/.aws/config nor ~/.aws/credentials has a profile %s, or the files that AWS_CONFIG_FILE and AWS_SHARED_CREDENTIALS_FILE name. Write another in %s, or add it: `aws configure --profile %[2]s`",
			err, missing.Profile, where)
	}
	if _, ok := errors.AsType[config.AssumeRoleTokenProviderNotSetError](err); ok {
		return fmt.Errorf("%w. The profile has `mfa_serial`, and nobody could type the code in. Use a role that demands none, or a `credential_process`", err)
	}
	return err
}
