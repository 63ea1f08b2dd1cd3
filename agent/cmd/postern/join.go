package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/cmd/fleet"
	"postern/agent/config"
	"postern/agent/keys"
	"postern/agent/store"
	"postern/sync/authority"
	"postern/sync/bus"
	"postern/sync/bus/mqtt"
	"postern/sync/identity"
	"postern/sync/registry"
)

// freshRoot opens the root key for each use: it may have been replaced meanwhile.
type freshRoot struct{ keys.Options }

func (r freshRoot) use(fn func(*keys.Root) error) error {
	root, err := r.Open(true)
	if err != nil {
		return err
	}
	defer root.Close()
	return fn(root)
}

// Wrap implements what identity needs.
func (r freshRoot) Wrap(key, ad []byte) (out []byte, err error) {
	err = r.use(func(root *keys.Root) (err error) {
		out, err = root.Wrap(key, ad)
		return err
	})
	return out, err
}

// Unwrap implements what identity needs.
func (r freshRoot) Unwrap(wrapped, ad []byte) (key []byte, current bool, err error) {
	err = r.use(func(root *keys.Root) (err error) {
		key, current, err = root.Unwrap(wrapped, ad)
		return err
	})
	return key, current, err
}

func identityPath(cfg config.Config) string { return filepath.Join(cfg.KeyDir(), identity.File) }

// rewrap takes along, when the root key is replaced, what it seals beside the store.
func rewrap(cfg config.Config) func(store.Root) error {
	return func(root store.Root) error {
		if err := identity.Rewrap(identityPath(cfg), root); err != nil {
			return err
		}
		if !authority.Exists(cfg.Data) {
			return nil
		}
		_, err := authority.Open(cfg.Data, root, time.Now())
		return err
	}
}

// authority opens the hub's own keys, and makes them for a new hub.
func (c *cli) authority(cfg config.Config) (*authority.Authority, error) {
	root, err := c.rootKey(cfg).Open(authority.Exists(cfg.Data))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	return authority.Open(cfg.Data, root, time.Now())
}

func (c *cli) authorityCard(cfg config.Config) (authority.Card, error) {
	if authority.Exists(cfg.Data) {
		return authority.Load(cfg.Data)
	}
	a, err := c.authority(cfg)
	if err != nil {
		return authority.Card{}, err
	}
	return a.Card, nil
}

func (c *cli) joinCmd() *cobra.Command {
	var claim string
	var again bool
	cmd := &cobra.Command{
		Use:   "join HUB --claim CLAIM",
		Short: "Make this device one of a hub's fleet",
		Long: `Make this device one of a hub's fleet. HUB is host or host:port of its broker; the claim
is what "postern devices claim" printed there. The device makes a key, which never leaves
it and is sealed under its root key, and gets a certificate for it. From then on "postern
run" connects with that, and renews it when it is half over.

Compare the fingerprint that is printed with the one that the hub shows.`,
		Example: "  postern join hub.example.com --claim lobby.Zm9v….YmFy…",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			parsed, err := identity.ParseClaim(claim)
			if err != nil {
				return err
			}
			if _, err := os.Stat(identityPath(cfg)); err == nil && !again {
				return &agent.Error{Code: agent.CodeConflict, Message: "this device has joined a hub already", Fix: "to replace that, add --again"}
			}
			return c.join(cmd, cfg, fleet.JoinOptions{Hub: hubAddress(a[0]), Claim: parsed})
		},
	}
	cmd.Flags().StringVar(&claim, "claim", "", "what \"postern devices claim\" printed at the hub")
	cmd.Flags().BoolVar(&again, "again", false, "replace the identity that this device has")
	_ = cmd.MarkFlagRequired("claim")
	return cmd
}

// hubAddress completes host or host:port.
func hubAddress(s string) string {
	if !strings.Contains(s, "://") {
		s = "mqtts://" + s
	}
	return s
}

func (c *cli) join(cmd *cobra.Command, cfg config.Config, o fleet.JoinOptions) error {
	if err := mqtt.CheckURL(o.Hub); err != nil {
		return err
	}
	if cfg.Sync.CA != "" {
		if _, err := authorities(cfg.Sync.CA); err != nil {
			return err
		}
		raw, err := os.ReadFile(cfg.Sync.CA)
		if err != nil {
			return err
		}
		o.Roots = string(raw)
	}
	root, err := c.rootKey(cfg).Open(used(cfg))
	if err != nil {
		return err
	}
	defer root.Close()
	id, err := fleet.Join(cmd.Context(), o)
	if err != nil {
		return err
	}
	if err := id.Save(identityPath(cfg), root); err != nil {
		return err
	}
	until := id.Leaf.NotAfter.Local().Format(time.DateTime)
	return c.print(map[string]string{"device": id.Device, "hub": id.Hub, "key": id.Fingerprint(), "until": id.Leaf.NotAfter.Format(time.RFC3339)},
		fmt.Sprintf("%s has joined %s\nkey %s\nthe certificate lasts until %s and renews itself\n", id.Device, id.Hub, id.Fingerprint(), until))
}

// used tells whether something is sealed already under this device's root key.
func used(cfg config.Config) bool {
	for _, path := range []string{filepath.Join(cfg.Data, "templates.db"), identityPath(cfg)} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}

// joined is the way of a device that has joined; nil where it has not.
func (a *app) joined() (*login, error) {
	path, root := identityPath(a.cfg), freshRoot{a.rootKey(a.cfg)}
	id, err := identity.Load(path, root)
	if agent.ErrorCode(err) == agent.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	if a.cfg.Sync.HubURL != "" {
		id.Hub = a.cfg.Sync.HubURL // the hub has moved
	}
	r := identity.NewRenewer(id, path, root, a.log.With("part", "identity"))
	return &login{url: id.Hub, name: id.Device, renewer: r}, nil
}

// dialer connects with what the login has.
func (l login) dialer() bus.Dialer {
	if l.renewer != nil {
		return fleet.Certified(l.renewer)
	}
	return &mqtt.Dialer{URL: l.url, Username: l.name, Password: l.secret, TLS: l.tls()}
}

func (c *cli) devicesClaimCmd() *cobra.Command {
	var group string
	var life time.Duration
	var approve bool
	cmd := &cobra.Command{
		Use:   "claim NAME",
		Short: "Print a claim, once, with which a device can join",
		Long: `Print a claim with which one device can join under this name, within the time given. It
holds a secret, which is not kept here: carry it to the device by a way that nobody else
reads. A claim that is used again, for another key, is refused and written to the journal.

For a device that is known the claim replaces what it has: its certificates are void as
soon as the claim is used. A revoked device comes back that way.`,
		Example: "  postern --data /var/lib/postern-hub devices claim lobby --group entrances",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			card, err := c.authorityCard(cfg)
			if err != nil {
				return err
			}
			secret, expires, err := devices(cfg).NewClaim(a[0], group, life, approve)
			if err != nil {
				return err
			}
			text := identity.Claim{Device: a[0], Secret: secret, Pin: card.Pin()}.String()
			return c.print(map[string]string{"name": a[0], "claim": text, "expires": expires.Format(time.RFC3339)}, text+"\n")
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "group of devices that it belongs to")
	cmd.Flags().DurationVar(&life, "expires", registry.DefaultClaimLife, "how long the claim may be used, at most 168h")
	cmd.Flags().BoolVar(&approve, "approve", false, "the device waits for \"postern devices approve\" after it has joined")
	return cmd
}

func (c *cli) devicesApproveCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "approve NAME",
		Short: "Let in a device that has joined and waits",
		Long:  "Let in a device that has joined and waits. Compare the key that is printed with what the device has printed.",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			d, err := devices(cfg).Approve(a[0])
			if err != nil {
				return err
			}
			return c.print(d, fmt.Sprintf("approved %s, key %s\n", d.Name, d.Certificate.Key))
		},
	}
}

func (c *cli) devicesGroupCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "group NAME [GROUP]",
		Short: "Put a device into a group, or into none",
		Args:  args(cobra.RangeArgs(1, 2)),
		RunE: func(_ *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			group := strings.Join(a[1:], "")
			if err := devices(cfg).SetGroup(a[0], group); err != nil {
				return err
			}
			return c.print(map[string]string{"name": a[0], "group": group}, fmt.Sprintf("%s is in group %s\n", a[0], orDash(group)))
		},
	}
}

func (c *cli) devicesLogCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "log",
		Short: "Show who was let in, shut out or refused",
		Long: `Show the journal of claims, joins, renewals, approvals, revocations and refusals. Each line
names the one before it, so a line that was changed, put in or taken out shows; a journal
that was cut off at its end or written anew as a whole does not.`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			events, broken := devices(cfg).Journal()
			err = c.print(events, table("TIME\tDEVICE\tWHAT\tDETAIL", len(events), func(i int) string {
				e := events[i]
				return fmt.Sprintf("%s\t%s\t%s\t%s", e.At.Local().Format(time.DateTime), e.Device, e.What, oneLine(e.Detail))
			}))
			return errors.Join(err, broken)
		},
	}
}

func (c *cli) devicesCACmd() *cobra.Command {
	return &cobra.Command{
		Use:   "ca",
		Short: "Print the certificate of this hub's own authority, in PEM",
		Long: `Print the certificate of the authority that certifies this hub and its devices, for
clients that want it in a file: sync.ca of devices that log in with a secret, other MQTT
clients, another broker. Devices that join do not need it.`,
		Args: args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			card, err := c.authorityCard(cfg)
			if err != nil {
				return err
			}
			return c.print(map[string]string{"ca": string(card.PEM()), "pin": card.Pin()}, string(card.PEM()))
		},
	}
}

// standing says in a word how a device stands.
func standing(d registry.Device) string {
	switch {
	case d.RevokedAt != nil:
		return "revoked"
	case d.Waiting:
		return "waits for approval"
	case d.Certificate != nil && time.Now().After(d.Certificate.NotAfter):
		return "certificate is over"
	case d.Certificate != nil:
		return "joined"
	case d.TokenSHA256 != "":
		return "has a secret"
	}
	return "claimed"
}
