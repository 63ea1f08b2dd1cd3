package store

import (
	"fmt"
	"testing"

	"postern/agent"
)

// BenchmarkAppendResult is one durable decision after the other: two syncs each.
func BenchmarkAppendResult(b *testing.B) {
	s := mustOpen(b, testOptions(b))
	for b.Loop() {
		_, err := s.AppendResult(testResult("a", agent.Approved))
		must(b, err)
	}
}

// BenchmarkAppendResultShared is durable decisions from 64 goroutines for each CPU.
func BenchmarkAppendResultShared(b *testing.B) {
	s := mustOpen(b, testOptions(b))
	b.SetParallelism(64)
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			if _, err := s.AppendResult(testResult("a", agent.Approved)); err != nil {
				b.Error(err)
			}
		}
	})
}

// BenchmarkEachTemplate10k reads 10,000 templates of 512 values, as the start of
// 1:N does.
func BenchmarkEachTemplate10k(b *testing.B) {
	s := mustOpen(b, testOptions(b))
	fill(b, s, 1000)
	for b.Loop() {
		n := 0
		must(b, s.EachTemplate("s1", func(agent.Template) error { n++; return nil }))
		if n != 10000 {
			b.Fatal(n)
		}
	}
}

func fill(b *testing.B, s *Store, subjects int) {
	b.Helper()
	for i := range subjects {
		ts := testTemplates(10)
		for j := range ts {
			ts[j].Embedding = unit(i*10+j, 512)
		}
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint("subject-", i)}, Templates: ts})
		must(b, err)
	}
}

// BenchmarkTemplates is the read of a 1:1 verification: one subject's templates.
func BenchmarkTemplates(b *testing.B) {
	s := mustOpen(b, testOptions(b))
	fill(b, s, 200)
	for b.Loop() {
		ts, err := s.Templates("subject-77")
		must(b, err)
		if len(ts) != 10 {
			b.Fatal(len(ts))
		}
	}
}

func BenchmarkEnrol(b *testing.B) {
	s := mustOpen(b, testOptions(b))
	for i := 0; b.Loop(); i++ {
		_, _, err := s.Enrol(Enrolment{Subject: agent.Subject{ID: fmt.Sprint(i)}, Templates: testTemplates(5)})
		must(b, err)
	}
}
