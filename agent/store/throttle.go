package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
	"postern/agent/throttle"
)

// KindThrottle is the kind of the record that counts failed attempts.
const KindThrottle = "throttle"

// Throttled is how often attempts have failed in a row, of a subject or, where it is
// empty, on this device.
type Throttled struct {
	Subject string `json:"subject,omitempty"`
	throttle.State
}

// Throttle returns the counting of a subject, or with "" of the device. AppendResult
// moves it, in the transaction of the result, so it is as durable as the result is.
func (s *Store) Throttle(subject string) (throttle.State, error) {
	var st throttle.State
	err := s.view(s.results, func(tx *bolt.Tx) (err error) {
		st, err = s.throttled(tx, subject)
		return err
	})
	return st, err
}

// Throttles lists whoever has failed since the last success: the device first, then
// subjects in the order of their ids.
func (s *Store) Throttles() ([]Throttled, error) {
	out := []Throttled{}
	err := s.view(s.results, func(tx *bolt.Tx) error {
		c := bucket(tx, bucketThrottle).Cursor()
		for k, v := c.First(); k != nil; k, v = c.Next() {
			st, err := s.openThrottle(tx, k, v)
			if err != nil {
				return err
			}
			out = append(out, Throttled{string(k[1:]), st})
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return out, nil
}

// Unlock starts the counting of a subject, or with "" of the device, anew and returns
// what it was. Where nothing has failed it is agent.CodeNotFound.
func (s *Store) Unlock(subject string) (throttle.State, error) {
	var was throttle.State
	err := s.update(s.results, func(tx *bolt.Tx) (err error) {
		if was, err = s.throttled(tx, subject); err != nil {
			return err
		}
		if was.Failures == 0 {
			return coded(agent.CodeNotFound, "no failed attempts are counted for %s", throttleName(subject))
		}
		if err := bucket(tx, bucketThrottle).Delete(throttleKey(subject)); err != nil {
			return err
		}
		return s.audit(tx, agent.AuditEvent{Action: agent.AuditOverride, Subject: subject,
			Detail: map[string]string{"what": "unlocked after failed attempts", "failures": fmt.Sprint(was.Failures)}})
	})
	return was, err
}

// forgetAttempts drops the counting of somebody who has been erased.
func (s *Store) forgetAttempts(subject string) error {
	return s.update(s.results, func(tx *bolt.Tx) error { return bucket(tx, bucketThrottle).Delete(throttleKey(subject)) })
}

func throttleName(subject string) string {
	if subject == "" {
		return "this device"
	}
	return "subject " + quoteKey([]byte(subject))
}

// throttleKey tells the device from any subject: no id is empty, and none begins
// with a zero byte.
func throttleKey(subject string) []byte { return append([]byte{0}, subject...) }

func throttleBinding(key []byte) Binding { return Binding{Kind: KindThrottle, Record: string(key[1:])} }

func (s *Store) throttled(tx *bolt.Tx, subject string) (throttle.State, error) {
	k := throttleKey(subject)
	v := bucket(tx, bucketThrottle).Get(k)
	if v == nil {
		return throttle.State{}, nil
	}
	return s.openThrottle(tx, k, v)
}

// countAttempt lets a result move the counting of its subject and of the device.
func (s *Store) countAttempt(tx *bolt.Tx, r *agent.Result) error {
	effect := throttle.EffectOf(*r)
	if effect == throttle.None {
		return nil
	}
	keys := []string{""}
	// A 1:N search that fails says nothing about whom it came nearest to.
	if r.SubjectID != "" && (r.Kind == agent.KindVerify || effect == throttle.Success) {
		keys = append(keys, r.SubjectID)
	}
	now := s.opts.Mark()
	for _, subject := range keys {
		st, err := s.throttled(tx, subject)
		if err != nil {
			return err
		}
		if err := s.putThrottle(tx, subject, st.After(effect, now)); err != nil {
			return err
		}
	}
	return nil
}

// distrust makes the next attempt on this device wait: how many have failed is not
// known any more.
func (s *Store) distrust(tx *bolt.Tx) error {
	return s.putThrottle(tx, "", throttle.State{Failures: throttle.WithLiveness.Failures, Last: s.opts.Mark()})
}

func (s *Store) putThrottle(tx *bolt.Tx, subject string, st throttle.State) error {
	b, k := bucket(tx, bucketThrottle), throttleKey(subject)
	if st.Failures == 0 {
		return b.Delete(k)
	}
	st.Last.At = stamp(st.Last.At)
	p, err := encodePayload(st, nil)
	if err != nil {
		return err
	}
	v, err := s.seal(tx, p, throttleBinding(k))
	if err != nil {
		return err
	}
	return b.Put(k, v)
}

func bindThrottle(_ *Store, k, _ []byte) (Binding, int, error) {
	if len(k) == 0 {
		return Binding{}, 0, errors.New("key is empty")
	}
	return throttleBinding(k), 0, nil
}

func (s *Store) openThrottle(tx *bolt.Tx, k, v []byte) (throttle.State, error) {
	p, err := s.unseal(tx, v, throttleBinding(k))
	if err != nil {
		return throttle.State{}, badRecord(KindThrottle, k, err)
	}
	st, err := decodeThrottle(p)
	if err != nil {
		return throttle.State{}, badRecord(KindThrottle, k, err)
	}
	return st, nil
}

func decodeThrottle(p []byte) (throttle.State, error) {
	var st throttle.State
	floats, err := decodePayload(p, &st)
	switch {
	case err != nil:
		return throttle.State{}, err
	case len(floats) > 0:
		return throttle.State{}, errors.New("a count of attempts with floats")
	case st.Failures < 1:
		return throttle.State{}, errors.New("a count of attempts below one")
	}
	return st, nil
}
