// Package lossytest is a file system for power-cut tests. Mounted by FUSE, it keeps
// what is written in memory and notes in which order it came and what was synced;
// Image then makes the folder that a power cut at some moment could have left.
package lossytest

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is a mounted file system with its history.
type FS struct {
	server *fuse.Server

	mu  sync.Mutex // guards all below, and the content of nodes
	log []op
	ids uint64
}

// kind says what an op did.
type kind int

const (
	write kind = iota
	truncate
	syncFile
	link // a name was given to a file: by creating, renaming or linking
	unlink
	syncFolder
)

// op is one step of the history.
type op struct {
	kind kind
	node uint64 // file or, for names, folder
	off  int64
	data []byte
	name string
	file uint64 // link: what the name means now
	gone string // link: the name in the same folder that it had before
	dir  bool   // link: file is a folder
}

// Mount mounts an empty file system on a folder. It fails where there is no FUSE or no
// right to mount.
func Mount(dir string) (*FS, error) {
	f := &FS{}
	server, err := fs.Mount(dir, f.node(), &fs.Options{MountOptions: fuse.MountOptions{DirectMount: true, FsName: "lossy", Name: "lossy"}})
	if err != nil {
		return nil, err
	}
	f.server = server
	return f, nil
}

// Close unmounts.
func (f *FS) Close() error { return f.server.Unmount() }

// Now is the present length of the history.
func (f *FS) Now() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.log)
}

func (f *FS) note(o op) { f.log = append(f.log, o) }

// node is a file or a folder; root is the first.
type node struct {
	fs.Inode
	f    *FS
	id   uint64
	data []byte
}

func (f *FS) node() *node {
	f.ids++
	return &node{f: f, id: f.ids}
}

var (
	_ fs.NodeCreater   = (*node)(nil)
	_ fs.NodeMkdirer   = (*node)(nil)
	_ fs.NodeLinker    = (*node)(nil)
	_ fs.NodeUnlinker  = (*node)(nil)
	_ fs.NodeRenamer   = (*node)(nil)
	_ fs.NodeOpener    = (*node)(nil)
	_ fs.NodeReader    = (*node)(nil)
	_ fs.NodeWriter    = (*node)(nil)
	_ fs.NodeSetattrer = (*node)(nil)
	_ fs.NodeGetattrer = (*node)(nil)
	_ fs.NodeFsyncer   = (*node)(nil)
	_ fs.NodeStatfser  = (*node)(nil)
)

func (n *node) child(ctx context.Context, name string, mode uint32) *fs.Inode {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	c := n.f.node()
	n.f.note(op{kind: link, node: n.id, name: name, file: c.id, dir: mode == syscall.S_IFDIR})
	return n.NewInode(ctx, c, fs.StableAttr{Mode: mode})
}

// Create makes a file.
func (n *node) Create(ctx context.Context, name string, _, _ uint32, _ *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return n.child(ctx, name, syscall.S_IFREG), nil, 0, 0
}

// Mkdir makes a folder.
func (n *node) Mkdir(ctx context.Context, name string, _ uint32, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return n.child(ctx, name, syscall.S_IFDIR), 0
}

// Link gives a file another name.
func (n *node) Link(_ context.Context, target fs.InodeEmbedder, name string, _ *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	t := target.(*node)
	n.f.note(op{kind: link, node: n.id, name: name, file: t.id})
	return &t.Inode, 0
}

// Unlink takes a name away.
func (n *node) Unlink(_ context.Context, name string) syscall.Errno {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	n.f.note(op{kind: unlink, node: n.id, name: name})
	return 0
}

// Rename works within a folder.
func (n *node) Rename(_ context.Context, name string, to fs.InodeEmbedder, newName string, flags uint32) syscall.Errno {
	if to.(*node) != n || flags != 0 {
		return syscall.EXDEV
	}
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	n.f.note(op{kind: link, node: n.id, name: newName, gone: name, file: n.GetChild(name).Operations().(*node).id})
	return 0
}

// Open opens a file or a folder.
func (n *node) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Read reads what is in memory.
func (n *node) Read(_ context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	from := min(off, int64(len(n.data)))
	return fuse.ReadResultData(slices.Clone(n.data[from:min(from+int64(len(dest)), int64(len(n.data)))])), 0
}

// Write writes to memory and notes it.
func (n *node) Write(_ context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	n.f.note(op{kind: write, node: n.id, off: off, data: slices.Clone(data)})
	n.data = resize(n.data, max(int64(len(n.data)), off+int64(len(data))))
	copy(n.data[off:], data)
	return uint32(len(data)), 0
}

// Setattr changes the length; other attributes are accepted and forgotten.
func (n *node) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	if size, ok := in.GetSize(); ok {
		n.f.note(op{kind: truncate, node: n.id, off: int64(size)})
		n.data = resize(n.data, int64(size))
	}
	n.attr(out)
	return 0
}

// Getattr says how long a file is.
func (n *node) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	n.attr(out)
	return 0
}

func (n *node) attr(out *fuse.AttrOut) {
	out.Size, out.Mode, out.Nlink = uint64(len(n.data)), 0o600, 1
	if n.IsDir() {
		out.Mode = 0o700
	}
}

// Fsync notes that all before it is on the disk now.
func (n *node) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno {
	n.f.mu.Lock()
	defer n.f.mu.Unlock()
	k := syncFile
	if n.IsDir() {
		k = syncFolder
	}
	n.f.note(op{kind: k, node: n.id})
	return 0
}

// Statfs says that there is room.
func (n *node) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	out.Bsize, out.Blocks, out.Bfree, out.Bavail = 4096, 1<<20, 1<<20, 1<<20
	return 0
}

func resize(b []byte, n int64) []byte {
	if n <= int64(len(b)) {
		return b[:n:n]
	}
	return append(b, make([]byte, n-int64(len(b)))...)
}

// Loss says how much of what was not synced a power cut takes.
type Loss struct {
	Keep   float64 // chance of each sector to be on the disk all the same
	Sector int64   // the disk writes so many bytes or none
	Rand   *rand.Rand
}

func (l Loss) keeps() bool { return l.Keep > 0 && l.Rand.Float64() < l.Keep }
