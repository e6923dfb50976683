package awsfake

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"slices"
	"strings"
)

// Action is what policies call the request, such as "kinesis:GetRecords". Empty for an
// unknown target.
func (c *Call) Action() string {
	if c.Service == "" {
		return ""
	}
	return c.Service + ":" + c.Operation
}

// Resource is the ARN that policies have to allow the request's Action on: of the table, of
// the stream, or, of those requests that the Service Authorization Reference checks against
// one, of the consumer. A consumer that is not there yet has an ARN without a time, which a
// policy for it has to cover as well. Empty when the request names nothing.
func (c *Call) Resource() string {
	if c.Service == serviceDynamoDB {
		if c.Table() == "" {
			return ""
		}
		return c.server.dynamodb.arn(c.Table())
	}
	name := c.Stream()
	if token, err := base64.StdEncoding.DecodeString(c.text("NextToken")); name == "" && err == nil {
		from := nextToken{}
		_ = json.Unmarshal(token, &from) // what is no token names nothing
		name = from.Stream
	}
	if name == "" {
		return ""
	}
	stream := c.server.kinesis.arn(name)
	switch c.Operation {
	case "SubscribeToShard", "DescribeStreamConsumer", "DeregisterStreamConsumer":
		if arn := c.text("ConsumerARN"); arn != "" {
			return arn
		}
		return c.consumerARN(name, stream)
	}
	return stream
}

func (c *Call) consumerARN(stream, arn string) string {
	consumer := c.text("ConsumerName")
	all, err := c.server.Consumers(stream)
	if i := slices.IndexFunc(all, func(one Consumer) bool { return one.Name == consumer }); err == nil && i >= 0 {
		return all[i].ARN
	}
	return arn + "/consumer/" + consumer + ":"
}

// Policy is a document of IAM that allows actions on resources, which is all that it
// may do here: what denies, or allows all but something, is refused when it is read.
// Conditions are not looked at.
type Policy struct {
	Version   string
	Statement []Statement
}

// Statement allows each of its actions on each of its resources, which are patterns
// of ARNs.
type Statement struct {
	Sid       string
	Effect    string
	Action    oneOrMore
	Resource  oneOrMore
	Condition map[string]map[string]oneOrMore `json:",omitempty"`
}

// oneOrMore is a list that may be written as its only entry.
type oneOrMore []string

func (l *oneOrMore) UnmarshalJSON(b []byte) error {
	one := ""
	if json.Unmarshal(b, &one) == nil {
		*l = oneOrMore{one}
		return nil
	}
	return json.Unmarshal(b, (*[]string)(l))
}

// ReadPolicy reads documents from files, as one that allows what any of them does.
func ReadPolicy(files ...string) (Policy, error) {
	whole := Policy{}
	for _, file := range files {
		content, err := os.ReadFile(file) //nolint:gosec // the file that a test names
		if err != nil {
			return Policy{}, err
		}
		part := Policy{}
		decoder := json.NewDecoder(strings.NewReader(string(content)))
		decoder.DisallowUnknownFields()
		if err := decoder.Decode(&part); err != nil {
			return Policy{}, fmt.Errorf("reading policy %s: %w", file, err)
		}
		for _, s := range part.Statement {
			if s.Effect != "Allow" || len(s.Action) == 0 || len(s.Resource) == 0 {
				return Policy{}, fmt.Errorf("reading policy %s: statement %q does not allow actions on resources", file, s.Sid)
			}
		}
		whole.Version = part.Version
		whole.Statement = append(whole.Statement, part.Statement...)
	}
	return whole, nil
}

// Allows reports whether a statement allows an action on a resource.
func (p Policy) Allows(action, resource string) bool {
	return slices.ContainsFunc(p.Statement, func(s Statement) bool {
		return slices.ContainsFunc(s.Action, func(a string) bool { return Covers(strings.ToLower(a), strings.ToLower(action)) }) &&
			slices.ContainsFunc(s.Resource, func(r string) bool { return Covers(r, resource) })
	})
}

// Covers reports whether a pattern, in which * stands for any text and ? for one
// character, is that of a text.
func Covers(pattern, text string) bool {
	head, tail, star := strings.Cut(pattern, "*")
	if len(text) < len(head) || !star && len(text) != len(head) {
		return false
	}
	for i := range len(head) {
		if head[i] != '?' && head[i] != text[i] {
			return false
		}
	}
	if !star {
		return true
	}
	for from := len(head); from <= len(text); from++ {
		if Covers(tail, text[from:]) {
			return true
		}
	}
	return false
}
