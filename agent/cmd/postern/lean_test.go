package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

const smapsSample = `00400000-00403000 r--p 00000000 fe:00 10560096                   /opt/postern/bin/postern
Size:                 12 kB
Rss:                  12 kB
Anonymous:             0 kB
VmFlags: rd mr mw me
00403000-0132b000 r-xp 00003000 fe:00 10560096                   /opt/with a space/postern
Anonymous:             0 kB
0299a000-0299b000 r--p 02599000 fe:00 10560096                   /opt/relocated
Anonymous:             4 kB
0299b000-02aa0000 rw-p 0259a000 fe:00 10560096                   /opt/written
Anonymous:             0 kB
02ab0000-02ac0000 r--s 00000000 fe:00 10560097                   /data/templates.db
Anonymous:             0 kB
02ad0000-02ae0000 r--p 00000000 fe:00 10560098                   /opt/does not say
Rss:                   4 kB
3e156000-3fce4000 r--p 00000000 00:00 0
Anonymous:             0 kB
7ffd1000-7ffd2000 r-xp 00000000 00:00 0                          [vdso]
Anonymous:             0 kB
nonsense-0000 r--p 00000000 fe:00 1 /x
20-10 r--p 00000000 fe:00 1 /backwards
`

func TestMappingsGivenBack(t *testing.T) {
	var got []string
	for _, m := range parseMappings([]byte(smapsSample)) {
		if m.givesBack() {
			got = append(got, m.path)
		}
	}
	if want := []string{"/opt/postern/bin/postern", "/opt/with a space/postern"}; !slices.Equal(got, want) {
		t.Errorf("gives back %q, want %q", got, want)
	}
}

// TestLeanFiles: what is given back reads the same afterwards, and what was written to a
// private mapping stays.
func TestLeanFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	page := os.Getpagesize()
	if err := os.WriteFile(path, slices.Repeat([]byte("x"), 2*page), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var maps [2][]byte
	for i := range maps {
		if maps[i], err = unix.Mmap(int(f.Fd()), 0, 2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE); err != nil {
			t.Fatal(err)
		}
		defer unix.Munmap(maps[i])
	}
	maps[1][page] = 'y'
	for _, m := range maps {
		if err := unix.Mprotect(m, unix.PROT_READ); err != nil {
			t.Fatal(err)
		}
	}
	if err := leanFiles(); err != nil {
		t.Fatal(err)
	}
	if maps[0][0] != 'x' || maps[0][page] != 'x' || maps[1][0] != 'x' || maps[1][page] != 'y' {
		t.Error("memory changed")
	}
}
