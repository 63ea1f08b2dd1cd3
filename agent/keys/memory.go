package keys

import "io/fs"

// Memory returns a root key that lives in this process only: for tests, and for
// files that are made to be thrown away. Roots of the same Memory share their
// keys, as openings of the same key file do.
type Memory struct{ ring ring }

// Open is Options.Open for a root key in memory.
func (m *Memory) Open(existing bool) (*Root, error) {
	return openSource(&memorySource{m}, Options{}, existing)
}

type memorySource struct{ m *Memory }

func (s *memorySource) load() (ring, error) {
	if len(s.m.ring.entries) == 0 {
		return ring{}, fs.ErrNotExist
	}
	return s.m.ring.clone(), nil
}

func (s *memorySource) save(r ring) error                  { s.m.ring = r.clone(); return nil }
func (s *memorySource) lock(secret []byte) ([]byte, error) { return secret, nil }
func (s *memorySource) label() Label {
	return Label{Kind: "memory", Place: "this process", Protects: "protects nothing once the process has ended"}
}
