package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/envelope"
	"postern/agent/store"
)

// lockFlags say to whom a file is encrypted.
type lockFlags struct {
	recipients []string
	passphrase string
}

func (f *lockFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringArrayVarP(&f.recipients, "recipient", "r", nil, "age1…: who may open the file (may be repeated)")
	cmd.Flags().StringVar(&f.passphrase, "passphrase-file", "", "file with the passphrase, at least 12 characters, to use instead")
}

func (f *lockFlags) to() (envelope.To, error) {
	p, err := secretFrom(f.passphrase)
	return envelope.To{Recipients: f.recipients, Passphrase: p}, err
}

// openFlags say how a file is opened.
type openFlags struct{ identity, passphrase string }

func (f *openFlags) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&f.identity, "identity", "i", "", "age identity file that opens the file")
	cmd.Flags().StringVar(&f.passphrase, "passphrase-file", "", "file with the passphrase to use instead")
}

// open decrypts a file.
func (f *openFlags) open(path string) (io.Reader, io.Closer, error) {
	var by envelope.By
	var err error
	if by.Identity, err = secretFrom(f.identity); err != nil {
		return nil, nil, err
	}
	if by.Passphrase, err = secretFrom(f.passphrase); err != nil {
		return nil, nil, err
	}
	file, err := os.Open(path)
	if err != nil {
		return nil, nil, &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("cannot read %q", path), Err: err}
	}
	r, err := envelope.Decrypt(file, by)
	if err != nil {
		file.Close()
		return nil, nil, err
	}
	return r, file, nil
}

// secretFrom reads a file with one secret; no name is no secret.
func secretFrom(path string) (string, error) {
	if path == "" {
		return "", nil
	}
	f, err := os.Open(path)
	if err != nil {
		return "", &agent.Error{Code: agent.CodeNotFound, Message: fmt.Sprintf("cannot read %q", path), Err: err}
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, 64<<10))
	return strings.TrimRight(string(b), "\r\n"), err
}

// streamed is something that writes an encrypted file: on the store itself, or on
// the agent that holds the folder, which then encrypts.
type streamed struct {
	name string
	do   func(ctx context.Context, h held, w io.Writer, q streamRequest) error
}

type streamRequest struct {
	To       envelope.To `json:"to"`
	Subjects []string    `json:"subjects,omitempty"`
	Actor    string      `json:"actor"`
}

var (
	opBackup = streamed{"backup", func(_ context.Context, h held, w io.Writer, q streamRequest) error {
		_, err := h.st.Backup(w, q.Actor)
		return err
	}}
	opExport = streamed{"export", func(_ context.Context, h held, w io.Writer, q streamRequest) error {
		t, err := h.st.Export(w, q.Subjects, q.Actor)
		for _, r := range t.Refused {
			h.log.Warn("not exported", "subject", r.Subject, "reason", r.Reason)
		}
		return err
	}}
)

func (o streamed) pattern() string { return "POST /stream/" + o.name }

func (o streamed) write(ctx context.Context, h held, w io.Writer, q streamRequest) error {
	e := &lateEnvelope{w: w, to: q.To}
	if err := o.do(ctx, h, e, q); err != nil {
		return err // without Close, so that the file is not whole
	}
	return e.Close()
}

// lateEnvelope begins with the first bytes: an error before them leaves nothing.
type lateEnvelope struct {
	w  io.Writer
	to envelope.To
	e  io.WriteCloser
}

func (l *lateEnvelope) Write(p []byte) (int, error) {
	if l.e == nil {
		var err error
		if l.e, err = envelope.Encrypt(l.w, l.to); err != nil {
			return 0, err
		}
	}
	return l.e.Write(p)
}

func (l *lateEnvelope) Close() error {
	if l.e == nil {
		return nil
	}
	return l.e.Close()
}

// serve streams. An error in the middle breaks the connection, so the other side
// does not take a part for the whole.
func (o streamed) serve(h held) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		var q streamRequest
		err := json.NewDecoder(io.LimitReader(r.Body, controlLimit)).Decode(&q)
		begun := &begins{w: w}
		if err == nil {
			err = o.write(r.Context(), h, begun, q)
		}
		if err == nil {
			return
		}
		if begun.yes {
			h.log.Error("an answer on the agent's socket broke off", "what", o.name, "err", err)
			panic(http.ErrAbortHandler)
		}
		w.WriteHeader(http.StatusConflict)
		json.NewEncoder(w).Encode(failureOf(err))
	}
}

// begins notes whether anything was written: an error before that can be told in words.
type begins struct {
	w   io.Writer
	yes bool
}

func (b *begins) Write(p []byte) (int, error) {
	b.yes = true
	return b.w.Write(p)
}

// toFile writes the file beside its name and renames it when it is whole.
func (o streamed) toFile(ctx context.Context, c *cli, path string, q streamRequest) (size int64, err error) {
	cfg, err := c.settings()
	if err != nil {
		return 0, err
	}
	tmp, err := os.CreateTemp(filepath.Dir(path), filepath.Base(path)+".part-")
	if err != nil {
		return 0, &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot write %q", path), Err: err}
	}
	defer os.Remove(tmp.Name())
	defer tmp.Close()
	body, err := json.Marshal(q)
	if err != nil {
		return 0, err
	}
	resp, err := control(ctx, cfg.Data, "/stream/"+o.name, bytes.NewReader(body))
	switch {
	case errors.Is(err, errNoAgent):
		err = c.withStore(func(st *store.Store) error {
			return o.write(ctx, held{cfg: cfg, st: st, log: c.logger(cfg, true)}, tmp, q)
		})
	case err == nil:
		_, err = io.Copy(tmp, resp.Body)
		err = errors.Join(err, resp.Body.Close())
	}
	if err != nil {
		return 0, err
	}
	fi, err := tmp.Stat()
	if err = errors.Join(err, tmp.Sync(), os.Rename(tmp.Name(), path)); err != nil {
		return 0, &agent.Error{Code: agent.CodeStorage, Message: fmt.Sprintf("cannot write %q", path), Err: err}
	}
	return fi.Size(), nil
}

type written struct {
	File  string `json:"file"`
	Bytes int64  `json:"bytes"`
}

func (c *cli) backupCmd() *cobra.Command {
	var f lockFlags
	cmd := &cobra.Command{
		Use:   "backup FILE",
		Short: "Write an encrypted backup of the whole data folder, also while the agent runs",
		Long: `Write the state of one moment of the whole data folder, with the keys that open it, to
a file encrypted with age: to recipients, whose identities age-keygen makes, or under a
passphrase. Whoever can open the file has everything: keep identities apart from it.`,
		Example: "  postern backup door7.age --recipient age1…\n  postern backup door7.age --passphrase-file words.txt",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			to, err := f.to()
			if err != nil {
				return err
			}
			n, err := opBackup.toFile(cmd.Context(), c, a[0], streamRequest{To: to, Actor: actor()})
			if err != nil {
				return err
			}
			return c.print(written{a[0], n}, fmt.Sprintf("wrote a backup of %d bytes to %s\n", n, a[0]))
		},
	}
	f.add(cmd)
	return cmd
}

func (c *cli) restoreCmd() *cobra.Command {
	var f openFlags
	var nobody, confirm bool
	cmd := &cobra.Command{
		Use:   "restore FILE",
		Short: "Replace the data folder by a backup; who was erased since stays erased",
		Long: `Replace the data folder by a backup, once the whole of it has been read and verified.
Stop the agent before. Who was erased since the backup was made is erased again: the
folder of the keys remembers erasures. On a machine that has no such memory nobody can
know, so the restored people are not compared until you have erased again who was
erased, and say so: postern restore --confirm. --nobody-erased says it at once.`,
		Example: "  postern restore door7.age --identity key.txt\n  postern restore --confirm",
		Args:    args(cobra.MaximumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			if confirm != (len(a) == 0) {
				return usageError{errors.New("give either a file or --confirm (usage: " + cmd.UseLine() + ")")}
			}
			if confirm {
				return c.confirmRestore()
			}
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			r, file, err := f.open(a[0])
			if err != nil {
				return err
			}
			defer file.Close()
			res, err := store.Restore(r, c.storeOptions(cfg, c.logger(cfg, true)), nobody)
			if err != nil {
				return err
			}
			return c.print(res, describeRestored(res))
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&nobody, "nobody-erased", false, "I know that nobody has been erased since the backup was made")
	cmd.Flags().BoolVar(&confirm, "confirm", false, "who was erased since the backup has been erased again: use the restored people")
	return cmd
}

func (c *cli) confirmRestore() error {
	return c.withStore(func(st *store.Store) error {
		if err := st.Confirm(actor()); err != nil {
			return err
		}
		return c.print(struct{}{}, "the restored people are compared from now on\n")
	})
}

func describeRestored(r store.Restored) string {
	text := fmt.Sprintf("restored the state of %s: %s, %s\n", r.At.Local().Format(time.DateTime), plural(r.Subjects-r.ErasedAgain, "subject"), plural(r.Results, "result"))
	if r.ErasedAgain > 0 {
		text += fmt.Sprintf("%s of the backup had been erased since and stays erased\n", plural(r.ErasedAgain, "subject"))
	}
	if !r.Confirmed {
		text += "this machine remembers no erasures: NOBODY IS COMPARED until you have erased again who was\nerased since then, and said so: postern restore --confirm\n"
	}
	return text
}

func (c *cli) exportCmd() *cobra.Command {
	var f lockFlags
	cmd := &cobra.Command{
		Use:   "export FILE [SUBJECT...]",
		Short: "Write enrolments to an encrypted file, to take them to another device",
		Long: `Write the enrolments of these people, of all without a name, with their consent, to a
file encrypted with age. Who has no consent that holds does not leave the device.`,
		Example: "  postern export team.age ada bob --recipient age1…",
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			to, err := f.to()
			if err != nil {
				return err
			}
			n, err := opExport.toFile(cmd.Context(), c, a[0], streamRequest{To: to, Subjects: a[1:], Actor: actor()})
			if err != nil {
				return err
			}
			return c.print(written{a[0], n}, fmt.Sprintf("wrote enrolments to %s (%d bytes)\n", a[0], n))
		},
	}
	f.add(cmd)
	return cmd
}

// importing enrols the people of an export: on the store itself, or in the agent that
// holds the folder, which knows them from then on.
type importing struct{}

func (importing) pattern() string { return "POST /import" }

func (importing) do(h held, r io.Reader, actor string) (store.Transfer, error) {
	space, err := h.space()
	if err != nil {
		return store.Transfer{}, err
	}
	t, err := h.st.Import(r, space, actor)
	for _, id := range t.Taken { // also when it broke off: these are enrolled
		err = errors.Join(err, h.change(id, func() error { return nil }))
	}
	return t, err
}

func (i importing) serve(h held) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		// As long as it takes: whoever may use the socket may do anything.
		err := http.NewResponseController(w).SetReadDeadline(time.Time{})
		var t store.Transfer
		if err == nil {
			t, err = i.do(h, r.Body, r.URL.Query().Get("actor"))
		}
		if err != nil {
			w.WriteHeader(http.StatusConflict)
			json.NewEncoder(w).Encode(failureOf(err))
			return
		}
		json.NewEncoder(w).Encode(t)
	}
}

// from sends a decrypted export to the agent that holds the folder, or imports it itself.
func (i importing) from(ctx context.Context, c *cli, r io.Reader) (t store.Transfer, err error) {
	cfg, err := c.settings()
	if err != nil {
		return t, err
	}
	resp, err := control(ctx, cfg.Data, "/import?actor="+url.QueryEscape(actor()), r)
	if errors.Is(err, errNoAgent) {
		err = c.withStore(func(st *store.Store) (err error) {
			t, err = i.do(held{cfg: cfg, st: st, log: c.logger(cfg, true)}, r, actor())
			return err
		})
		return t, err
	}
	if err != nil {
		return t, err
	}
	defer resp.Body.Close()
	return t, json.NewDecoder(io.LimitReader(resp.Body, operationLimit)).Decode(&t)
}

// space is the embedding space in which people are compared.
func (h held) space() (string, error) {
	if h.svc != nil {
		return h.svc.Space(), nil
	}
	set, err := modelsOf(h.cfg)
	if err != nil {
		return "", err
	}
	return set.Embedder.Manifest.Embedder.Space, nil
}

func (c *cli) importCmd() *cobra.Command {
	var f openFlags
	cmd := &cobra.Command{
		Use:   "import FILE",
		Short: "Enrol the people of another device's export, also while the agent runs",
		Long: `Enrol the people of an export under this device's own keys. It refuses who was erased
here after that enrolment was made, who comes without a consent that holds, and
templates that this device's network cannot compare. It can be repeated: who is here
already, no older, is left alone. A running agent takes the people over and knows them
at once.`,
		Example: "  postern import team.age --identity key.txt",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			r, file, err := f.open(a[0])
			if err != nil {
				return err
			}
			defer file.Close()
			t, err := importing{}.from(cmd.Context(), c, r)
			if err != nil {
				return err
			}
			text := fmt.Sprintf("imported %s, %d were here already\n", plural(len(t.Taken), "subject"), len(t.Skipped))
			for _, no := range t.Refused {
				text += fmt.Sprintf("  refused %s: %s\n", no.Subject, no.Reason)
			}
			if err := c.print(t, text); err != nil {
				return err
			}
			if len(t.Refused) > 0 {
				return &agent.Error{Code: agent.CodeConflict, Message: plural(len(t.Refused), "subject") + " of the export refused"}
			}
			return nil
		},
	}
	f.add(cmd)
	return cmd
}
