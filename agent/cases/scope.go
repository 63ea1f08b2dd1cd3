package cases

import "slices"

// Scope limits what a caller may see of sessions and workflows.
type Scope struct {
	Sandbox   bool
	Workflows []string // group ids; empty: all
}

// Sees tells whether a session lies within the scope.
func (c Scope) Sees(s *Session) bool {
	return c.Sandbox == (s.Environment == Sandbox) && c.Allows(s.WorkflowID)
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
