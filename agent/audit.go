package agent

import "time"

// AuditAction names a deed that is recorded in the audit log.
type AuditAction string

// The deeds.
const (
	AuditEnrol     AuditAction = "enrol"     // a person was enrolled, or templates were added
	AuditErase     AuditAction = "erase"     // a person, session or template was erased
	AuditConsent   AuditAction = "consent"   // consent was recorded or withdrawn
	AuditReview    AuditAction = "review"    // a person changed the status of a case
	AuditConfigure AuditAction = "configure" // configuration, workflow, list, destination or API key changed
	AuditKeyUse    AuditAction = "key_use"   // an API key was used for something that is worth a line
	AuditRotate    AuditAction = "rotate"    // keys were rotated
	AuditBackup    AuditAction = "backup"    // a backup was made
	AuditRestore   AuditAction = "restore"   // a backup was restored
	AuditExport    AuditAction = "export"    // enrolments left the device
	AuditImport    AuditAction = "import"    // enrolments came from another device
	AuditOverride  AuditAction = "override"  // a person set aside a limit, such as a lock after failed attempts
	AuditSystem    AuditAction = "system"    // the agent itself: start, recovery, compaction
)

// ActorHub is who acts when a hub has asked for it.
const ActorHub = "hub"

// AuditEvent is one deed. The log keeps Tag, a keyed hash of Subject, and not
// Subject itself, which is filled in on reading for people that are still enrolled:
// once somebody is erased the log names nobody. Detail must hold nothing personal.
type AuditEvent struct {
	File    string            `json:"file"` // data file whose chain it is in
	Seq     uint64            `json:"seq"`  // in that chain, from 1 without gaps
	At      time.Time         `json:"at"`
	Action  AuditAction       `json:"action"`
	Actor   string            `json:"actor"` // who did it: a user, an API key, the agent
	Subject string            `json:"subject,omitempty"`
	Tag     string            `json:"tag,omitempty"`
	Detail  map[string]string `json:"detail,omitempty"`
}
