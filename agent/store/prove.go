package store

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"

	bolt "go.etcd.io/bbolt"

	"postern/agent"
)

// Proof says where the bytes of an erased person were found before and after.
type Proof struct {
	Subject   string    `json:"subject"`
	Tombstone Tombstone `json:"tombstone"`
	Templates int       `json:"templates"` // that were erased
	Traces    []Trace   `json:"traces"`
	Clean     bool      `json:"clean"` // nothing is left in any file
}

// Trace is one kind of bytes and how many times they stand in the files of the data
// folder and the witness, at three moments.
type Trace struct {
	What    string   `json:"what"`
	Bytes   int      `json:"bytes"` // that were searched for
	Before  int      `json:"before"`
	Erased  int      `json:"erased"`            // after Erase: pages that are not in use yet
	Final   int      `json:"final"`             // after rotation of the store keys and compaction
	Remains []string `json:"remains,omitempty"` // files in which they still stand
}

// needle is bytes to look for.
type needle struct {
	what  string
	bytes []byte
}

// EraseProved erases a subject, makes it final at once by rotating the store keys
// and compacting all files, and searches every file of the data folder for what
// there was: the embeddings in the clear, the encrypted records, the wrapped keys of
// the person, and the wrapped store key that opened those.
func (s *Store) EraseProved(id, actor string) (Proof, error) {
	p := Proof{Subject: id}
	ns, err := s.needles(id)
	if err != nil {
		return p, err
	}
	defer func() {
		for _, n := range ns {
			clear(n.bytes)
		}
	}()
	before, err := s.search(ns)
	if err != nil {
		return p, err
	}
	if p.Templates, p.Tombstone, err = s.Erase(id, actor); err != nil {
		return p, err
	}
	erased, err := s.search(ns)
	if err != nil {
		return p, err
	}
	if _, err := s.Rotate(LevelStore, actor); err != nil {
		return p, err
	}
	if err := s.Compact(); err != nil {
		return p, err
	}
	final, err := s.search(ns)
	if err != nil {
		return p, err
	}
	p.Clean = true
	for i, n := range ns {
		t := Trace{What: n.what, Bytes: len(n.bytes), Before: count(before[i]), Erased: count(erased[i]), Final: count(final[i])}
		for file := range final[i] {
			t.Remains = append(t.Remains, file)
			p.Clean = false
		}
		p.Traces = append(p.Traces, t)
	}
	return p, nil
}

func count(hits map[string]int) (n int) {
	for _, h := range hits {
		n += h
	}
	return n
}

// needles collects what a subject has in the files.
func (s *Store) needles(id string) (ns []needle, err error) {
	err = s.view(s.templates, func(tx *bolt.Tx) error {
		if err := requireSubject(tx, id); err != nil {
			return err
		}
		ns = append(ns, needle{"record of the subject, encrypted", bytes.Clone(bucket(tx, bucketSubjects).Get([]byte(id)))})
		if ns, err = s.templateNeedles(tx, id, ns); err != nil {
			return err
		}
		ns = keyNeedles(tx, id, "the subject", ns)
		return nil
	})
	if err != nil {
		return ns, err
	}
	sessions, err := s.sessionsOf(id)
	if err != nil {
		return ns, err
	}
	err = s.view(s.cases, func(tx *bolt.Tx) error {
		for _, session := range sessions {
			ns = keyNeedles(tx, SessionOwner(session), "session "+session, ns)
		}
		return nil
	})
	return ns, err
}

// keyNeedles adds an owner's wrapped keys, and the store keys that open those.
func keyNeedles(tx *bolt.Tx, owner, whose string, ns []needle) []needle {
	c := bucket(tx, bucketOwners).Cursor()
	for k, v := c.Seek(prefix(owner)); k != nil && bytes.HasPrefix(k, prefix(owner)); k, v = c.Next() {
		ns = append(ns, needle{"wrapped keys of " + whose, bytes.Clone(v)})
		if len(v) >= 5 {
			row := storeKeyRow(class(v[0]), binary.BigEndian.Uint32(v[1:]))
			ns = append(ns, needle{"wrapped store key that opens them", bytes.Clone(bucket(tx, bucketKeys).Get(row))})
		}
	}
	return ns
}

func (s *Store) templateNeedles(tx *bolt.Tx, id string, ns []needle) ([]needle, error) {
	c := bucket(tx, bucketTemplates).Cursor()
	for k, v := c.Seek(prefix(id)); k != nil && bytes.HasPrefix(k, prefix(id)); k, v = c.Next() {
		t, err := s.openTemplate(tx, k, v)
		if err != nil {
			return ns, err
		}
		ns = append(ns,
			needle{"template " + t.ID + ", in the clear", floatBytes(t.Embedding)},
			needle{"template " + t.ID + ", encrypted", bytes.Clone(v)})
		clear(t.Embedding)
	}
	return ns, nil
}

func floatBytes(e agent.Embedding) []byte {
	out := make([]byte, 0, 4*len(e))
	for _, f := range e {
		out = binary.LittleEndian.AppendUint32(out, math.Float32bits(f))
	}
	return out
}

// search looks for the needles in every file of the data folder and the witness. It
// gives, for each needle, the files and how many times it stands in them.
func (s *Store) search(ns []needle) ([]map[string]int, error) {
	hits := make([]map[string]int, len(ns))
	for i := range hits {
		hits[i] = map[string]int{}
	}
	for _, dir := range []string{s.opts.Dir, s.opts.Witness} {
		if dir == "" {
			continue
		}
		err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) || err == nil && !d.Type().IsRegular() {
				return nil
			}
			if err != nil {
				return err
			}
			return searchFile(path, ns, hits)
		})
		if err != nil {
			return nil, diskError(folder(dir), err)
		}
	}
	return hits, nil
}

// searchBlock is how much of a file is read at a time.
const searchBlock = 8 << 20

func searchFile(path string, ns []needle, hits []map[string]int) error {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // one that was being replaced meanwhile: its successor has its name
	}
	if err != nil {
		return err
	}
	defer f.Close()
	overlap := 0 // so that what lies across two blocks is found
	for _, n := range ns {
		overlap = max(overlap, len(n.bytes))
	}
	if overlap > searchBlock/2 {
		return fmt.Errorf("%d bytes are too many to search for", overlap)
	}
	buf := make([]byte, searchBlock)
	defer clear(buf)
	have := 0 // bytes of buf that the block before left
	for {
		n, err := io.ReadFull(f, buf[have:])
		for i, nd := range ns {
			hits[i] = tally(hits[i], path, buf[:have+n], nd.bytes, have)
		}
		if err != nil {
			if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
				return nil
			}
			return err
		}
		have = copy(buf, buf[len(buf)-overlap:])
	}
}

// tally counts a needle in a block, but not again what lay wholly in its first seen
// bytes.
func tally(hits map[string]int, path string, block, n []byte, seen int) map[string]int {
	for at := 0; len(n) > 0; {
		i := bytes.Index(block[at:], n)
		if i < 0 {
			break
		}
		if at+i+len(n) > seen {
			hits[path]++
		}
		at += i + 1
	}
	return hits
}
