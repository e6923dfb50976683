package session

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// provider gives credentials that last for an hour, or fails, after a time that it takes.
type provider struct {
	calls atomic.Int64

	mu    sync.Mutex
	takes time.Duration
	lasts time.Duration
	err   error
	same  bool // gives what it gave before
	token bool // gives other tokens under one key
	n     int
}

func (p *provider) Retrieve(ctx context.Context) (aws.Credentials, error) {
	p.calls.Add(1)
	p.mu.Lock()
	takes := p.takes
	p.mu.Unlock() // in a bubble, who waits for a lock keeps the clock from moving
	timer := time.NewTimer(takes)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
		return aws.Credentials{}, ctx.Err()
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.err != nil {
		return aws.Credentials{}, p.err
	}
	if !p.same {
		p.n++
	}
	creds := aws.Credentials{
		AccessKeyID: "key" + strconv.Itoa(p.n), SecretAccessKey: "s", CanExpire: p.lasts != 0, Expires: time.Now().Add(p.lasts),
	}
	if p.token {
		creds.AccessKeyID, creds.SessionToken = "key", creds.AccessKeyID
	}
	return creds, nil
}

func (p *provider) set(change func(*provider)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

// renewed returns a renewer of p in a bubble of synctest, which it ends with the test.
func renewed(t *testing.T, p *provider) *renewer {
	t.Helper()
	r := newRenewer(t.Context(), new(services), func(context.Context) (aws.CredentialsProvider, error) { return p, nil })
	t.Cleanup(r.close)
	return r
}

// pass lets time pass in a bubble of synctest, where it costs none.
func pass(d time.Duration) { time.Sleep(d) } //nolint:forbidigo // virtual time

// key returns the access key id that a call is signed with, which nothing may delay.
func key(t *testing.T, r *renewer) string {
	t.Helper()
	begun := time.Now()
	creds, err := r.Retrieve(t.Context())
	require.NoError(t, err)
	require.Zero(t, time.Since(begun), "the call waits")
	return creds.AccessKeyID
}

func TestCredentialsAreRenewedBeforeTheyExpireAndNobodyWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: time.Hour}
		r := renewed(t, p)
		require.Equal(t, "key1", key(t, r))
		p.set(func(p *provider) { p.takes = 30 * time.Second })
		pass(50 * time.Minute) // an hour less the lead
		for p.calls.Load() == 1 {
			require.Equal(t, "key1", key(t, r))
			pass(time.Second)
			synctest.Wait()
		}
		for range 29 {
			require.Equal(t, "key1", key(t, r), "the renewal is slow, and these are good for minutes")
			pass(time.Second)
		}
		synctest.Wait()
		require.Equal(t, "key2", key(t, r))
		require.EqualValues(t, 2, p.calls.Load())
		pass(49 * time.Minute)
		require.Equal(t, "key2", key(t, r))
		synctest.Wait()
		require.EqualValues(t, 2, p.calls.Load(), "not renewed before it is time")
	})
}

func TestRenewalThatFailsLeavesTheOldCredentialsInUse(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: time.Hour}
		r := renewed(t, p)
		require.Equal(t, "key1", key(t, r))
		p.set(func(p *provider) { p.err = errors.New("STS is gone") })
		for range 70 * 60 { // past their end, which the service is to judge
			require.Equal(t, "key1", key(t, r))
			pass(time.Second)
			synctest.Wait()
		}
		require.Less(t, p.calls.Load(), int64(45))
		p.set(func(p *provider) { p.err = nil })
		pass(lastRetry)
		require.Equal(t, "key1", key(t, r))
		synctest.Wait()
		require.Equal(t, "key2", key(t, r))
	})
}

// Each of many shards asks for credentials again and again while there are none.
func TestOutageAsksTheProviderAtAPaceHoweverManyCall(t *testing.T) {
	for name, refused := range map[string]bool{"none yet": false, "refused": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{lasts: time.Hour}
				r := renewed(t, p)
				if refused {
					require.True(t, r.refuse(key(t, r)))
				}
				p.set(func(p *provider) { p.err, p.takes = errors.New("no route"), 3*time.Second })
				before := p.calls.Load()
				var callers sync.WaitGroup
				var failures atomic.Int64
				outage, end := context.WithTimeout(t.Context(), 10*time.Minute)
				defer end()
				for range 100 {
					callers.Go(func() {
						for outage.Err() == nil {
							if _, err := r.Retrieve(outage); err != nil {
								failures.Add(1)
							}
							pass(200 * time.Millisecond)
						}
					})
				}
				callers.Wait()
				calls := p.calls.Load() - before
				t.Logf("%d calls of the provider, %d of the callers", calls, failures.Load())
				require.GreaterOrEqual(t, calls, int64(12))
				require.LessOrEqual(t, calls, int64(25))
				require.Greater(t, failures.Load(), int64(200_000), "callers are told at once")

				p.set(func(p *provider) { p.err, p.takes = nil, 0 })
				pass(lastRetry)
				require.NotEmpty(t, key(t, r))
			})
		})
	}
}

func TestRefusedCredentialsAreReplacedBeforeTheNextCall(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: 24 * time.Hour} // as it seems to a clock that is wrong
		r := renewed(t, p)
		require.Equal(t, "key1", key(t, r))
		require.False(t, r.refuse("another's"))
		var calls sync.WaitGroup
		for range 100 {
			calls.Go(func() {
				if r.refuse("key1") {
					creds, err := r.Retrieve(t.Context())
					if err != nil || creds.AccessKeyID != "key2" {
						t.Errorf("%v, %v", creds.AccessKeyID, err)
					}
				} else {
					t.Error("the call is not repeated")
				}
			})
		}
		calls.Wait()
		require.EqualValues(t, 2, p.calls.Load())
		require.True(t, r.refuse("key1"), "a call that was slower")
		require.Equal(t, "key2", key(t, r))
	})
}

func TestCredentialsThatComeAgainAfterTheirRefusalAreLeftToTheService(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: time.Hour}
		r := renewed(t, p)
		require.Equal(t, "key1", key(t, r))
		p.set(func(p *provider) { p.same = true })
		for range 600 {
			r.refuse("key1")
			require.Equal(t, "key1", key(t, r))
			pass(time.Second)
		}
		require.Less(t, p.calls.Load(), int64(25))
		p.set(func(p *provider) { p.same = false })
		pass(lastRetry)
		require.Equal(t, "key2", key(t, r))
	})
}

// A role has other credentials each time, and the service may take none of them.
func TestNewCredentialsThatAreRefusedEachTimeAreReplacedAtAPace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: time.Hour, takes: 50 * time.Millisecond}
		r := renewed(t, p)
		ctx, end := context.WithTimeout(t.Context(), 10*time.Minute)
		defer end()
		var callers sync.WaitGroup
		for n := range 100 {
			callers.Go(func() {
				pass(time.Duration(n) * 10 * time.Millisecond)
				for ctx.Err() == nil {
					if creds, err := r.Retrieve(ctx); err == nil {
						r.refuse(creds.AccessKeyID)
					}
					pass(time.Second)
				}
			})
		}
		callers.Wait()
		require.LessOrEqual(t, p.calls.Load(), int64(25))

		pass(lastRetry)
		_, err := r.Retrieve(t.Context()) // waits for those that are due by now
		require.NoError(t, err)
		pass(lastRetry) // and no service has refused them
		require.True(t, r.refuse(key(t, r)), "what was good is replaced at once")
		calls := p.calls.Load()
		_, err = r.Retrieve(t.Context())
		require.NoError(t, err)
		require.Equal(t, calls+1, p.calls.Load())
	})
}

func TestTokenThatIsRefusedIsReplacedUnderTheSameKey(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: time.Hour, token: true}
		r := renewed(t, p)
		for n := range int64(3) {
			require.Equal(t, "key", key(t, r))
			require.Equal(t, n+1, p.calls.Load())
			pass(2 * lastRetry)
			require.True(t, r.refuse("key"))
		}
	})
}

func TestClockOfAWSDecidesWhenCredentialsAreRenewed(t *testing.T) {
	for name, ahead := range map[string]time.Duration{
		"a day behind": 24 * time.Hour, "a day ahead": -24 * time.Hour, "5 minutes behind": 5 * time.Minute, "5 minutes ahead": -5 * time.Minute,
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := &provider{lasts: time.Hour + ahead} // by the clock of this machine
				r := renewed(t, p)
				key(t, r)
				r.services.clockIs(ahead) // the first answer has a date
				pass(49 * time.Minute)
				key(t, r)
				synctest.Wait()
				require.EqualValues(t, 1, p.calls.Load(), "they are good for eleven minutes yet")
				pass(10 * time.Minute)
				key(t, r)
				synctest.Wait()
				require.EqualValues(t, 2, p.calls.Load())
			})
		})
	}
}

// The clock of AWS is learned from the answers of Kinesis, whose SDK is told it too.
func TestClockOfAWSIsLearnedFromAnswers(t *testing.T) {
	for _, off := range []time.Duration{24 * time.Hour, -24 * time.Hour, 5 * time.Minute, -5 * time.Minute} {
		t.Run(off.String(), func(t *testing.T) {
			i := issue(t, "")
			i.tokens["container"] = 1
			containerToken(t, i)
			i.ahead, i.lasts = off, off+2*time.Hour
			cfg := load(t, Options{Region: "us-east-1"})
			call := caller(t, cfg)
			call()
			call()
			r := cfg.Credentials.(*renewer)
			r.mu.Lock()
			defer r.mu.Unlock()
			require.WithinRange(t, r.due, time.Now().Add(2*time.Hour-11*time.Minute), time.Now().Add(2*time.Hour-4*time.Minute),
				"five to ten minutes before the end")
		})
	}
}

func TestClockAheadCausesNoStormBeforeItIsKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{lasts: -23 * time.Hour}
		r := renewed(t, p)
		for range 3600 {
			key(t, r)
			pass(time.Second)
		}
		require.InDelta(t, 16, p.calls.Load(), 5)
	})
}

func TestProviderThatHangsIsGivenUpAndAskedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{takes: time.Hour}
		r := renewed(t, p)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := r.Retrieve(ctx)
		require.EqualError(t, err, "retrieving credentials from the configuration: no answer in 10s: context deadline exceeded")
		require.ErrorIs(t, err, context.DeadlineExceeded)

		_, err = r.Retrieve(t.Context())
		require.EqualError(t, err, "retrieving credentials from the configuration: no answer in 1m0s: context canceled")
		require.NotErrorIs(t, err, context.Canceled, "no caller has canceled anything")
		_, again := r.Retrieve(t.Context())
		require.Equal(t, err, again)
		require.EqualValues(t, 1, p.calls.Load())
	})
}

func TestClosingEndsARenewal(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := &provider{takes: time.Hour}
		r := renewed(t, p)
		waiter := make(chan error, 1)
		go func() {
			_, err := r.Retrieve(t.Context())
			waiter <- err
		}()
		synctest.Wait()
		begun := time.Now()
		r.close()
		require.ErrorIs(t, <-waiter, context.Canceled)
		r.close()
		_, err := r.Retrieve(t.Context())
		require.Error(t, err)
		require.Zero(t, time.Since(begun))
		require.EqualValues(t, 1, p.calls.Load())
	})
}

func TestStaticCredentialsAreNeverRenewed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := new(provider)
		r := renewed(t, p)
		for range 10 {
			require.Equal(t, "key1", key(t, r))
			pass(24 * time.Hour)
		}
		require.EqualValues(t, 1, p.calls.Load())
	})
}

func TestRenewalComesInTimeAndNotAtOnce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		random := rapid.Float64Range(0, 0.999999).Draw(t, "random")
		lasts := time.Duration(rapid.Int64Range(-int64(time.Hour), int64(48*time.Hour)).Draw(t, "lasts"))
		delay := renewalDelay(lasts, random)
		if delay < firstRetry {
			t.Fatalf("%v after they came", delay)
		}
		if left := lasts - delay; lasts > 2*firstRetry && (left < min(lasts/8, renewalLead/2)-1 || left > min(lasts/4, renewalLead)) {
			t.Fatalf("with %v of %v left", left, lasts)
		}
		failures := rapid.IntRange(1, 1000).Draw(t, "failures")
		if delay := retryDelay(failures, random); delay < firstRetry/2 || delay > lastRetry {
			t.Fatalf("%v after %d failures", delay, failures)
		}
	})
}
