// Package store keeps the device's durable state in three bbolt files: enrolled
// subjects and their templates in templates.db, decisions and the outbox of what
// the hub has not acknowledged in results.db, and in cases.db what the HTTP API
// keeps: workflows, sessions with their pictures, lists, webhooks and API keys.
//
// Callers see verbs, never buckets or transactions. Start reading at Open
// (store.go), then Enrol (templates.go), AppendResult (results.go, group.go) and
// Ack (outbox.go). How a file comes into being is in file.go, what its records
// look like in codec.go and layout.go.
//
// # What a returned nil means
//
// A writing verb that returns nil has been synced to disk; one that returns an
// error has, with one exception, changed nothing. The exception is a disk error
// at the very end of a commit: the change may or may not be there after the next
// Open. AppendResult with the same result is safe to repeat and settles it.
//
// # Fail closed
//
// After an error from writing or syncing a file, and after anything that shows a
// damaged file, the Store refuses every further write until it is opened again:
// the kernel may have dropped pages that bbolt takes as written. Broken tells. An
// agent that cannot append a result must not act on the decision. Reads go on. A
// full disk is different: verbs fail until there is room, and nothing else.
//
// At 80 % of Options.MaxBytes verbs that add to a file are refused, while Ack
// and the deleting verbs, which need free pages themselves, go on. Telemetry gives
// way to results; results give way to nothing.
//
// # Damage
//
// With Options.Recover, Open verifies every page and takes a damaged file up a
// ladder: the commit before the newest, the last good copy (Copy), an empty file
// (recover.go). Without it such a file is reported and left as it is. Nothing is
// ever deleted.
//
// # Caveats
//
//   - One process holds a data folder at a time; Open says who.
//   - Values are encrypted, bbolt's keys are not: subject ids, template ids,
//     result ids and sequence numbers can be read from the files. vault.go says
//     how values are sealed.
//   - bbolt never gives space back to the file system, and a deleted record's
//     bytes stay in the file until its page is reused. They are of no use: the
//     key that opens them goes with the record.
//   - The disk must honour fdatasync. On cards that do not, a power cut can lose
//     the last moments; the hub sees that as a gap in Seq.
package store
