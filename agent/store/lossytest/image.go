package lossytest

import (
	"maps"
	"os"
	"path/filepath"
	"slices"
)

// disk is what a power cut leaves: what was synced, and by chance some of the rest.
type disk struct {
	files   map[uint64][]byte
	pending map[uint64][]op // writes since the last sync of the file
	names   map[uint64]map[string]uint64
	moves   map[uint64][]op // names since the last sync of the folder
	folders map[uint64]bool
}

// Image writes into dir what a power cut at the moment "at" of the history leaves.
func (f *FS) Image(at int, l Loss, dir string) error {
	f.mu.Lock()
	log := slices.Clone(f.log[:at])
	f.mu.Unlock()
	d := &disk{files: map[uint64][]byte{}, pending: map[uint64][]op{}, names: map[uint64]map[string]uint64{},
		moves: map[uint64][]op{}, folders: map[uint64]bool{1: true}}
	for _, o := range log {
		d.take(o)
	}
	d.cut(l)
	return d.write(1, dir)
}

func (d *disk) take(o op) {
	switch o.kind {
	case write, truncate:
		d.pending[o.node] = append(d.pending[o.node], o)
	case syncFile:
		for _, p := range d.pending[o.node] {
			d.apply(p)
		}
		delete(d.pending, o.node)
	case link, unlink:
		if o.dir {
			d.folders[o.file] = true
		}
		d.moves[o.node] = append(d.moves[o.node], o)
	case syncFolder:
		for _, m := range d.moves[o.node] {
			d.move(m)
		}
		delete(d.moves, o.node)
	}
}

func (d *disk) apply(o op) {
	b := d.files[o.node]
	if o.kind == truncate {
		d.files[o.node] = resize(b, o.off)
		return
	}
	b = resize(b, max(int64(len(b)), o.off+int64(len(o.data))))
	copy(b[o.off:], o.data)
	d.files[o.node] = b
}

func (d *disk) move(o op) {
	ns := d.names[o.node]
	if ns == nil {
		ns = map[string]uint64{}
		d.names[o.node] = ns
	}
	delete(ns, o.gone)
	if o.kind == unlink {
		delete(ns, o.name)
		return
	}
	ns[o.name] = o.file
}

// cut lets chance decide about everything that was not synced: each sector of a write
// for itself, names in their order up to some point, as a journal does.
func (d *disk) cut(l Loss) {
	for _, id := range slices.Sorted(maps.Keys(d.pending)) {
		for _, o := range d.pending[id] {
			d.tear(o, l)
		}
	}
	for _, id := range slices.Sorted(maps.Keys(d.moves)) {
		for _, o := range d.moves[id] {
			if !o.dir && !l.keeps() { // a lost folder is of no interest
				break
			}
			d.move(o)
		}
	}
}

func (d *disk) tear(o op, l Loss) {
	if o.kind == truncate {
		if l.keeps() {
			d.apply(o)
		}
		return
	}
	for from := int64(0); from < int64(len(o.data)); {
		to := min((o.off+from)/l.Sector*l.Sector+l.Sector-o.off, int64(len(o.data)))
		if l.keeps() {
			d.apply(op{kind: write, node: o.node, off: o.off + from, data: o.data[from:to]})
		}
		from = to
	}
}

// write writes the folder with this number.
func (d *disk) write(id uint64, dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	for name, file := range d.names[id] {
		path := filepath.Join(dir, name)
		if d.folders[file] {
			if err := d.write(file, path); err != nil {
				return err
			}
			continue
		}
		if err := os.WriteFile(path, d.files[file], 0o600); err != nil {
			return err
		}
	}
	return nil
}
