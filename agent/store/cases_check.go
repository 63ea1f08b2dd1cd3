package store

import (
	"bytes"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"postern/agent/cases"
)

// checkCases verifies cases.db: every record opens, every session and delivery is
// found by all its indexes, and no index names what is not there.
func (s *Store) checkCases(tx *bolt.Tx, p *problems) {
	want := map[string]uint64{}
	want[caseIDs] = eachRow(bucket(tx, caseSessions), p, func(k, v []byte) error { return s.checkSession(tx, k, v, want) })
	want[caseBySession] = 0
	want[caseByDest] = eachRow(bucket(tx, caseDeliveries), p, func(k, _ []byte) error { return s.checkDelivery(tx, string(k), want) })
	want[caseGroups] = eachRow(bucket(tx, caseWorkflows), p, func(k, v []byte) error {
		w, err := s.openWorkflow(tx, k, v)
		if err == nil && !bytes.Equal(bucket(tx, caseGroups).Get(append(prefix(w.GroupID), seqKey(uint64(w.Version))...)), k) {
			err = fmt.Errorf("workflow %s is not found by its group", k)
		}
		return err
	})
	want[caseMediaOwner] = eachRow(bucket(tx, caseMedia), p, func(k, _ []byte) error {
		m, err := s.media(tx, string(k))
		if err == nil && (!hasKey(bucket(tx, caseMediaOwner), join(m.Owner, m.ID)) || !hasKey(bucket(tx, caseMediaDates), mediaDate(&m))) {
			err = fmt.Errorf("picture %s is not found by its owner and its expiry", k)
		}
		return err
	})
	want[caseMediaDates] = want[caseMediaOwner]
	want[caseReplayAbout] = 0
	want[caseReplayDates] = eachRow(bucket(tx, caseReplays), p, func(k, _ []byte) error {
		r, err := s.replay(tx, k)
		if r.About != "" {
			want[caseReplayAbout]++
		}
		if err == nil && !hasKey(bucket(tx, caseReplayDates), replayDate(r.At, k)) {
			err = fmt.Errorf("a repeated request is not found by its date")
		}
		return err
	})
	eachRow(bucket(tx, caseKeys), p, func(k, v []byte) error {
		_, err := s.openKey(tx, k, v)
		return err
	})
	eachRow(bucket(tx, caseFaces), p, func(k, v []byte) error {
		_, err := s.openFace(tx, k, v)
		return err
	})
	eachRow(bucket(tx, caseEntries), p, func(k, v []byte) error {
		_, err := s.openEntry(tx, k, v)
		return err
	})
	eachRow(bucket(tx, caseDests), p, func(k, _ []byte) error {
		_, err := s.destination(tx, string(k))
		return err
	})
	s.checkCaseRest(tx, p)
	for name, n := range want {
		p.equal(name, eachRow(bucket(tx, name), p, nil), n)
	}
}

// checkCaseRest opens the records that no index leads to.
func (s *Store) checkCaseRest(tx *bolt.Tx, p *problems) {
	ring := &keyring{vault: s.cases.vault, tx: tx}
	for _, r := range s.cases.schema.sealed {
		switch r.bucket {
		case caseLists, caseEvents, caseSecrets:
			eachRow(bucket(tx, r.bucket), p, func(k, v []byte) error {
				if err := s.opens(ring, r, k, v, nil); err != nil {
					return badRecord(r.bucket, k, err)
				}
				return nil
			})
		}
	}
}

// casesShape verifies what can be told of cases.db without a key.
func casesShape(tx *bolt.Tx, p *problems) {
	needBuckets(tx, append([]string{bucketKeys, bucketOwners, bucketAudit}, caseBuckets...)...)
	for index, of := range map[string]string{caseIDs: caseSessions, caseStatuses: caseSessions, caseDates: caseSessions,
		caseMediaOwner: caseMedia, caseMediaDates: caseMedia, caseGroups: caseWorkflows, caseByDest: caseDeliveries, caseReplayDates: caseReplays} {
		p.equal(index, eachRow(bucket(tx, index), p, nil), eachRow(bucket(tx, of), p, nil))
	}
}

// hasKey tells whether a key is there, also one without a value.
func hasKey(b *bolt.Bucket, key []byte) bool {
	k, _ := b.Cursor().Seek(key)
	return bytes.Equal(k, key)
}

func (s *Store) checkSession(tx *bolt.Tx, k, v []byte, want map[string]uint64) error {
	c, err := s.openSession(tx, k, v)
	if err != nil {
		return err
	}
	if !bytes.Equal(bucket(tx, caseIDs).Get([]byte(c.ID)), k) {
		return fmt.Errorf("session %d is not found by its id", c.Number)
	}
	keys := sessionKeys(&c)
	for _, name := range []string{caseStatuses, caseDates, caseVendors, caseByWorkflow, caseDue} {
		key, due := keys[name]
		if !due {
			want[name] += 0
			continue
		}
		want[name]++
		if !hasKey(bucket(tx, name), key) {
			return fmt.Errorf("session %d is not in %s", c.Number, name)
		}
	}
	return nil
}

func (s *Store) checkDelivery(tx *bolt.Tx, id string, want map[string]uint64) error {
	d, err := s.delivery(tx, id)
	if err != nil {
		return err
	}
	if d.State == cases.Pending {
		want[caseQueue]++
		if !hasKey(bucket(tx, caseQueue), queueKey(&d)) {
			return fmt.Errorf("delivery %s is not in the queue", id)
		}
	}
	if d.SessionID != "" {
		want[caseBySession]++
	}
	_, err = s.due(tx, d)
	return err
}
