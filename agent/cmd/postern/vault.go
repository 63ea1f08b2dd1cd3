package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent/keys"
	"postern/agent/store"
)

// vaultStatus is what "postern vault status" prints.
type vaultStatus struct {
	Root      keys.Label      `json:"root"`
	PublicKey string          `json:"public_key"` // Ed25519, verifies audit checkpoints and erasures
	Files     []store.KeyInfo `json:"files"`
}

type rotateRequest struct {
	Level store.Level `json:"level"`
	Actor string      `json:"actor"`
}

var (
	opVaultStatus = operation[struct{}, vaultStatus]{"vault.status", func(_ context.Context, h held, _ struct{}) (vaultStatus, error) {
		files, err := h.st.Keys()
		return vaultStatus{PublicKey: h.st.PublicKey(), Files: files}, err
	}}
	opVaultRotate = operation[rotateRequest, store.Rotation]{"vault.rotate", func(_ context.Context, h held, q rotateRequest) (store.Rotation, error) {
		return h.st.Rotate(q.Level, q.Actor)
	}}
	opVaultCompact = operation[struct{}, struct{}]{"vault.compact", func(_ context.Context, h held, _ struct{}) (struct{}, error) {
		return struct{}{}, h.st.Compact()
	}}
)

func (c *cli) vaultCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "vault",
		Short: "Show and rotate the keys that encrypt the data folder",
		Long: `Show and rotate the keys that encrypt the data folder. The root key wraps the store
keys, a store key wraps the keys of every person and session, and those encrypt the
records. A running agent takes part: keys are rotated while it serves.`,
		Example: "  postern vault status\n  postern vault rotate store",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.vaultStatus(), c.vaultRotate(), c.vaultCompact(), c.vaultNewRoot())
	return cmd
}

func (c *cli) vaultStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Where the root key is, what it protects, how old the store keys are",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			v, err := on(cmd.Context(), c, opVaultStatus, struct{}{})
			if err != nil {
				return err
			}
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			if v.Root, err = c.rootKey(cfg).Label(); err != nil {
				return err
			}
			head := fmt.Sprintf("root key: %s %s; it %s\npublic key of this device: %s\n", v.Root.Kind, v.Root.Place, v.Root.Protects, v.PublicKey)
			return c.print(v, head+table("FILE\tSTORE KEY\tMADE\tROUND\tOWNERS", len(v.Files), func(i int) string {
				f := v.Files[i]
				return fmt.Sprintf("%s\t%d\t%s\t%d\t%d", f.File, f.Version, f.Made.Local().Format(time.DateTime), f.Round, f.Owners)
			}))
		},
	}
}

func (c *cli) vaultRotate() *cobra.Command {
	return &cobra.Command{
		Use:   "rotate root|store|owners",
		Short: "Replace the keys of one level",
		Long: `Replace the keys of one level, while the agent runs if it does.
  root    a new root key; the store keys are wrapped anew
  store   new store keys; the keys of all people and sessions are wrapped anew. After
          this nothing in the folder opens what was erased before
  owners  new keys for all people and sessions; all records are encrypted anew
Killed in between, it goes on at the next start.`,
		Example:   "  postern vault rotate store",
		Args:      args(cobra.ExactArgs(1)),
		ValidArgs: []string{string(store.LevelRoot), string(store.LevelStore), string(store.LevelOwners)},
		RunE: func(cmd *cobra.Command, a []string) error {
			r, err := on(cmd.Context(), c, opVaultRotate, rotateRequest{store.Level(a[0]), actor()})
			if err != nil {
				return err
			}
			return c.print(r, fmt.Sprintf("rotated %s: %s wrapped anew, %s encrypted anew\n", r.Level, plural(r.Wrapped, "key"), plural(r.Sealed, "record")))
		},
	}
}

func (c *cli) vaultCompact() *cobra.Command {
	return &cobra.Command{
		Use:   "compact",
		Short: "Rewrite the data files without their free pages, and overwrite the old ones",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := on(cmd.Context(), c, opVaultCompact, struct{}{}); err != nil {
				return err
			}
			return c.print(struct{}{}, "compacted the data files\n")
		},
	}
}

func (c *cli) vaultNewRoot() *cobra.Command {
	var old string
	cmd := &cobra.Command{
		Use:   "new-root",
		Short: "Print a new root key, to be kept as a systemd credential",
		Long: `Print a new root key. It is a secret: pipe it into systemd-creds and into nothing else.
With --old the keys of an older credential are kept behind the new one, so that a start
can wrap everything anew; after that start make the credential without them.`,
		Example: "  postern vault new-root | systemd-creds encrypt --name=postern.root - /etc/credstore.encrypted/postern.root",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			var before []byte
			if old != "" {
				f, err := os.Open(old)
				if err != nil {
					return usageError{err}
				}
				defer f.Close()
				if before, err = io.ReadAll(io.LimitReader(f, 1<<20)); err != nil {
					return err
				}
			}
			text, err := keys.NewCredential(before, time.Now(), nil)
			if err != nil {
				return err
			}
			_, err = c.out.Write(text)
			clear(text)
			return err
		},
	}
	cmd.Flags().StringVar(&old, "old", "", "file with the present credential, whose keys are kept behind the new one")
	return cmd
}

// safely rotates and compacts when it is due; see Config.Keys.
func (a *app) safely(st *store.Store) {
	due, err := st.RotationDue(a.cfg.Keys.RotateEvery, a.cfg.Keys.PurgeAfter)
	if err != nil || !due {
		return
	}
	r, err := st.Rotate(store.LevelStore, "postern")
	if err == nil {
		err = st.Compact()
	}
	if err != nil {
		a.log.Error("the store keys could not be rotated", "err", err)
		return
	}
	a.log.Info("rotated the store keys and compacted the data files", "wrapped", r.Wrapped)
}

// offers are the operations of a running agent.
func offers() []controlled {
	return []controlled{opVaultStatus, opVaultRotate, opVaultCompact, opErase, opConsent, opAuditList, opAuditVerify, opAuditCheckpoint, opKeys,
		opBackup, opExport, importing{}, opEnrol, opGallery, opErasures, opAccess}
}

func joined(lines []string) string { return strings.Join(lines, "\n") + "\n" }
