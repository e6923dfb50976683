package session

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
)

// The pace of renewals.
const (
	// renewalLead is how long before they expire credentials are renewed at most, if
	// they last long enough.
	renewalLead = 10 * time.Minute
	// After a renewal that failed the next one waits for the first of these, then for
	// twice as long each time, up to the second.
	firstRetry, lastRetry = time.Second, time.Minute
	// uncertainRetry is after credentials came that have expired by the clock of this
	// machine. Then the clock is wrong, or the instance has lost the way to where new
	// ones come from and keeps the old ones in use.
	uncertainRetry = 5 * time.Minute
	// renewalTimeout bounds one renewal. It is as long as the SDK lets a
	// credential_process run.
	renewalTimeout = time.Minute
	// closeTimeout is how long close waits for a renewal that it has canceled. Only a
	// credential_process that leaves children behind does not end at once.
	closeTimeout = time.Second
)

// sourceFunc finds where credentials come from, anew each time: it reads the
// environment and the shared configuration files.
type sourceFunc func(context.Context) (aws.CredentialsProvider, error)

// renewer keeps credentials, and renews them before they expire. It stands in place
// of the SDK's cache, in which every caller waits for a renewal, and fails with it,
// though the credentials that it has are good for minutes yet.
//
// Nobody waits while there are credentials that no service has refused. Whether they
// have expired is for the services to say: the clock of this machine, which may be
// wrong, only tells when it is time to renew. A renewal that fails is repeated at a
// pace, however many callers there are, and meanwhile its error is theirs where
// there are no credentials, or refused ones.
//
// Load makes it; CloseIdle ends it. It is safe for concurrent use.
type renewer struct {
	services *services
	source   sourceFunc
	profile  string          // for errors: the configured one, "" if none
	role     string          // for errors: the configured one that it assumes, "" if none
	ec2Role  bool            // for errors: from_ec2_role is set
	root     context.Context //nolint:containedctx // of the renewals, which outlast the calls that begin them
	cancel   context.CancelFunc

	mu       sync.Mutex
	provider aws.CredentialsProvider // nil: to be found by source
	creds    aws.Credentials         // without keys: none yet
	came     time.Time               // when creds did
	instead  int                     // credentials in a row that came in place of refused ones
	replaced string                  // the access key id before the last change
	refused  bool                    // a service does not take creds
	err      error                   // of the last renewal
	failures int                     // renewals in a row that brought nothing of use
	due      time.Time               // when the next renewal may begin; zero: never
	running  chan struct{}           // closed at the end of the renewal under way; nil: none
	closed   bool
}

func newRenewer(ctx context.Context, s *services, source sourceFunc) *renewer {
	r := &renewer{services: s, source: source, due: time.Now()}
	r.root, r.cancel = context.WithCancel(context.WithoutCancel(ctx))
	s.renewers = append(s.renewers, r)
	return r
}

// renewing makes what cfg, which resolve has made, has for credentials renew itself.
func (o Options) renewing(ctx context.Context, cfg aws.Config, answers *services) aws.CredentialsProvider {
	base := newRenewer(ctx, answers, func(ctx context.Context) (aws.CredentialsProvider, error) {
		again, err := o.resolve(ctx, answers)
		return again.Credentials, err
	})
	base.provider = cfg.Credentials
	base.profile, base.ec2Role = o.Credentials.Profile, o.Credentials.FromEC2Role
	if o.Credentials.Role == "" {
		return base
	}
	cfg.Credentials = base
	role := newRenewer(ctx, answers, func(context.Context) (aws.CredentialsProvider, error) {
		return assumeRole(cfg, o.Credentials), nil
	})
	role.provider, role.role = assumeRole(cfg, o.Credentials), o.Credentials.Role
	return role
}

// Retrieve returns the credentials to sign a call with. It waits only where there are
// none, or a service has refused them, and only for a renewal under way. The error is
// a *credentialsError.
func (r *renewer) Retrieve(ctx context.Context) (aws.Credentials, error) {
	r.mu.Lock()
	if r.running == nil && !r.closed && !r.due.IsZero() && !time.Now().Before(r.due) {
		r.running = make(chan struct{})
		go r.renew(r.running)
	}
	running := r.running
	if running == nil || r.creds.HasKeys() && !r.refused {
		defer r.mu.Unlock()
		return r.answer()
	}
	r.mu.Unlock()

	begun := time.Now()
	select {
	case <-running:
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.answer()
	case <-ctx.Done():
		r.mu.Lock()
		defer r.mu.Unlock()
		return aws.Credentials{}, r.failed(time.Since(begun), ctx.Err())
	}
}

// answer is what the last renewal leaves callers with. Credentials that it brought
// again though they were refused are given out: the service says why they are.
func (r *renewer) answer() (aws.Credentials, error) {
	switch {
	case r.creds.HasKeys() && (!r.refused || r.err == nil):
		return r.creds, nil
	case r.err != nil:
		return aws.Credentials{}, r.err
	}
	return aws.Credentials{}, r.failed(0, errClosed)
}

var errClosed = errors.New("the client has been closed")

// renew is a renewal. Only one is under way at a time.
func (r *renewer) renew(done chan struct{}) {
	// Not with a deadline, which the client of the instance's metadata would take for
	// its caller's, in place of its own of 5 s.
	ctx, cancel := context.WithCancel(r.root)
	defer cancel()
	var late atomic.Bool
	timer := time.AfterFunc(renewalTimeout, func() {
		late.Store(true)
		cancel()
	})
	defer timer.Stop()

	creds, err := r.fetch(ctx)
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case err != nil && late.Load():
		// Not wrapped: it is the renewal that was canceled, and not a call.
		err = r.failed(renewalTimeout, errors.New(err.Error()))
	case err != nil:
		err = r.failed(0, err)
	}
	r.finish(creds, err)
	r.running = nil
	close(done)
}

// fetch asks the provider. Where a service has refused the credentials, what leads to
// them is looked for anew: somebody may have written others to the files, or a
// provider of the SDK relies on the clock for those that it assumes a role with.
func (r *renewer) fetch(ctx context.Context) (aws.Credentials, error) {
	r.mu.Lock()
	provider := r.provider
	if r.refused {
		provider = nil
	}
	r.mu.Unlock()
	if provider == nil {
		var err error
		if provider, err = r.source(ctx); err != nil {
			return aws.Credentials{}, err
		}
		r.mu.Lock()
		r.provider = provider
		r.mu.Unlock()
	}
	if cache, ok := provider.(*aws.CredentialsCache); ok {
		cache.Invalidate()
	}
	creds, err := provider.Retrieve(ctx)
	if err == nil && !creds.HasKeys() {
		err = errors.New("the answer has no keys")
	}
	return creds, err
}

// failed makes an error of the provider. waited is how long there was no answer, 0 if
// there was one. The caller holds mu.
func (r *renewer) failed(waited time.Duration, err error) error {
	e := &credentialsError{profile: r.profile, role: r.role, ec2Role: r.ec2Role, waited: waited, err: withoutOutput(err)}
	if p, ok := r.provider.(aws.CredentialProviderSource); ok {
		e.sources = p.ProviderSources()
	}
	return e
}

// finish takes the result of a renewal over.
func (r *renewer) finish(creds aws.Credentials, err error) {
	now := time.Now()
	r.err = err
	same := err == nil && creds.AccessKeyID == r.creds.AccessKeyID && creds.SecretAccessKey == r.creds.SecretAccessKey &&
		creds.SessionToken == r.creds.SessionToken
	if err != nil || r.refused && same {
		r.failures++
		r.due = now.Add(retryDelay(r.failures, random()))
		return
	}
	if creds.AccessKeyID != r.creds.AccessKeyID { // a token or a secret may change by itself
		r.replaced = r.creds.AccessKeyID
	}
	if r.refused {
		r.instead++
	}
	r.creds, r.came, r.refused, r.failures = creds, now, false, 0
	r.schedule(now)
}

// schedule sets when credentials that are fresh are renewed.
func (r *renewer) schedule(now time.Time) {
	r.due = time.Time{}
	if r.creds.CanExpire {
		r.due = now.Add(renewalDelay(r.creds.Expires.Sub(r.services.now()), random()))
	}
}

// refuse takes note that a service did not take the credentials of an access key id.
// It returns whether others are there, or on their way, to repeat the call with.
//
// A role has new ones for whoever asks, and a service may refuse them all, such as that
// of a region which the account has not enabled. So those that come in place of refused
// ones and are refused at once are replaced at a pace.
func (r *renewer) refuse(id string) (others bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case id == r.replaced:
		return true
	case id != r.creds.AccessKeyID:
		return false
	case r.refused:
		return r.running != nil || !time.Now().Before(r.due)
	}
	r.refused = true
	if r.failures > 0 { // the next one is due soon, and the provider is spared
		return true
	}
	now := time.Now()
	if now.Sub(r.came) >= lastRetry {
		r.instead = 0
	}
	r.due = now
	if r.instead > 0 {
		r.due = now.Add(retryDelay(r.instead, random()))
	}
	return r.instead == 0
}

// written tells whether an access key id is that of credentials that are without an end,
// such as a file has, which somebody may have been writing when it was read.
func (r *renewer) written(id string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return id == r.creds.AccessKeyID && !r.creds.CanExpire
}

// close ends the renewal under way, and allows no other.
func (r *renewer) close() {
	r.mu.Lock()
	r.closed = true
	running := r.running
	r.mu.Unlock()
	r.cancel()
	if running == nil {
		return
	}
	timer := time.NewTimer(closeTimeout)
	defer timer.Stop()
	select {
	case <-running:
	case <-timer.C:
	}
}

// ProviderSources lets the SDK tell the services where the credentials come from.
func (r *renewer) ProviderSources() []aws.CredentialSource {
	r.mu.Lock()
	defer r.mu.Unlock()
	if p, ok := r.provider.(aws.CredentialProviderSource); ok {
		return p.ProviderSources()
	}
	return nil
}

// IsCredentialsProvider tells the SDK whether the provider is of the type of target.
func (r *renewer) IsCredentialsProvider(target aws.CredentialsProvider) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.provider != nil && aws.IsCredentialsProvider(r.provider, target)
}

// random is in [0, 1). It spreads renewals, and keeps no secret.
func random() float64 { return rand.Float64() } //nolint:gosec // as its comment says

// renewalDelay is how long after they came to renew credentials that last for so long
// from then: when an eighth to a quarter of that is left, at most ten minutes. random
// is in [0, 1), and keeps the members of a group apart. What comes may be what there
// was before, since some sources have nothing new until five minutes before the end.
func renewalDelay(lasts time.Duration, random float64) time.Duration {
	if lasts <= 0 {
		return spread(uncertainRetry, random)
	}
	return max(lasts-spread(min(lasts/4, renewalLead), random), firstRetry)
}

// retryDelay is how long to wait after so many failures, from 1. random is in [0, 1).
func retryDelay(failures int, random float64) time.Duration {
	return spread(min(firstRetry<<min(failures-1, 10), lastRetry), random)
}

// spread returns a half of d to all of it.
func spread(d time.Duration, random float64) time.Duration {
	return d/2 + time.Duration(random*float64(d/2))
}
