package cases

import (
	"slices"

	"postern/agent"
)

// Scope limits what a caller may see: of one application, and of its sessions those of
// the scope's workflows.
type Scope struct {
	Application string // "": the default one
	Sandbox     bool
	Workflows   []string // group ids; empty: all

	// Record is the id of what the request makes; "" is a new one. A request that is
	// sent again under an Idempotency-Key has the same, and finds what it made before.
	Record string
}

// Owns tells whether what belongs to an application is the scope's.
func (c Scope) Owns(application string) bool {
	return agent.ApplicationOr(application) == agent.ApplicationOr(c.Application)
}

// Sees tells whether a session lies within the scope.
func (c Scope) Sees(s *Session) bool {
	return c.Owns(s.Application) && c.Sandbox == (s.Environment == Sandbox) && c.Allows(s.WorkflowID)
}

// Allows tells whether a workflow lies within the scope.
func (c Scope) Allows(group string) bool {
	return len(c.Workflows) == 0 || slices.Contains(c.Workflows, group)
}

// Environment is where the scope's sessions live.
func (c Scope) Environment() string {
	if c.Sandbox {
		return Sandbox
	}
	return Live
}
