// Package cases is the domain of verification cases: workflows and their steps,
// sessions and their transitions, reviews, lists, webhook destinations and
// deliveries, API keys. It knows no technology: what is stored, served or sent is
// the matter of other packages.
//
// Start reading at Workflow (workflow.go), Session (session.go) and Advance
// (advance.go), which takes a session from step to step.
package cases
