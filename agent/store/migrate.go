package store

import (
	"errors"
	"fmt"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// schema is one file's kind and the steps that lead to its present layout. Step
// i takes a file from version i to i+1; a new file takes them all. Steps are
// only ever added at the end.
type schema struct {
	kind   string
	steps  []step
	sealed []sealedRows              // every bucket with sealed values
	shape  func(*bolt.Tx, *problems) // what must hold at the newest version, keys aside
}

type step struct {
	name string
	run  func(*bolt.Tx) error
}

func (s schema) version() uint64 { return uint64(len(s.steps)) }

func templatesSchema() schema {
	return schema{kind: "templates", shape: templatesShape, steps: []step{
		{"subjects and templates", createBuckets(bucketSubjects, bucketTemplates, bucketSpaces)},
		{"keys", createBuckets(bucketKeys, bucketOwners)},
		{"audit and erasures", createBuckets(bucketAudit, bucketErased)},
		{"fleet", createBuckets(bucketFleetErased, bucketManaged, bucketChanges, bucketChanged, bucketStamps, bucketAccess)},
	}, sealed: []sealedRows{
		{bucketAudit, bindAudit},
		{bucketSubjects, func(_ *Store, k, _ []byte) (Binding, int, error) { return subjectBinding(string(k)), 0, nil }},
		{bucketTemplates, bindTemplate},
	}}
}

func resultsSchema() schema {
	return schema{kind: "results", shape: resultsShape, steps: []step{
		{"results and outbox", createBuckets(bucketResults, bucketIDs, bucketBySubject, bucketOutbox)},
		{"failed attempts", createBuckets(bucketThrottle)},
		{"keys", createBuckets(bucketKeys, bucketOwners)},
		{"counters", countResults},
		{"audit", createBuckets(bucketAudit)},
		{"holds, retention and telemetry", createBuckets(bucketHolds, bucketPolicies, bucketTelemetry)},
	}, sealed: []sealedRows{
		{bucketAudit, bindAudit},
		{bucketResults, bindResult},
		{bucketThrottle, bindThrottle},
		{bucketHolds, bindHold},
		{bucketPolicies, bindPolicy},
		{bucketTelemetry, bindTelemetry},
	}}
}

func casesSchema() schema {
	return schema{kind: "cases", shape: casesShape, steps: []step{
		{"workflows, sessions, lists, webhooks and keys", createBuckets(caseBuckets...)},
		{"keys", createBuckets(bucketKeys, bucketOwners)},
		{"audit", createBuckets(bucketAudit)},
		{"repeated requests", createBuckets(caseReplays, caseReplayDates, caseReplayAbout)},
	}, sealed: caseRows()}
}

// countResults gives the numbers of results counters of their own: since then Seq may
// have gaps.
func countResults(tx *bolt.Tx) error {
	meta := bucket(tx, bucketMeta)
	var c counters
	last, acked := c.read(tx, keyLast), c.read(tx, keyAcked)
	return errors.Join(c.err, setNumber(meta, keyResults, last), setNumber(meta, keyPending, last-acked))
}

// migrate runs the steps that the file has not seen, each in a transaction of
// its own together with the new version, so a kill between steps resumes.
func (d *dbFile) migrate(s schema) error {
	for v := d.version; v < s.version(); v++ {
		st := s.steps[v]
		err := guarded(func() error {
			return d.db.Update(func(tx *bolt.Tx) error {
				if err := st.run(tx); err != nil {
					return err
				}
				return setNumber(bucket(tx, bucketMeta), keySchema, v+1)
			})
		})
		if err != nil {
			return d.migrationError(st, v, err)
		}
		d.version = v + 1
		d.log.Info("migrated data file", "file", d.path, "step", st.name, "schema", d.version)
	}
	return nil
}

func (d *dbFile) migrationError(st step, from uint64, err error) error {
	d.noteStuck(err)
	if isErrno(err) {
		return diskError(d.name(), err)
	}
	return &agent.Error{
		Code:    agent.CodeStorage,
		Message: fmt.Sprintf("%s stays at schema %d, the step %q failed", d.name(), from, st.name),
		Fix:     "nothing was changed; use the version that wrote it, and report this",
		Err:     err,
	}
}
