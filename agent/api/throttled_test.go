package api

import (
	"errors"
	"net/http"
	"testing"
	"time"

	"postern/agent"
)

// A refusal for too many failed attempts says when the next is possible, unless there is
// none.
func TestThrottledAnswer(t *testing.T) {
	for _, wait := range []time.Duration{30 * time.Second, 0} {
		err := &agent.Error{Code: agent.CodeThrottled, Message: "subject has failed 5 times in a row", RetryAfter: wait, Err: errors.New("secret")}
		e := answerFor(err)
		if e.Status != http.StatusTooManyRequests || e.RetryAfter != wait {
			t.Errorf("status %d, retry after %v, want %v", e.Status, e.RetryAfter, wait)
		}
	}
}
