package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
)

func (c *cli) keysCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "keys",
		Short: "Make, list and revoke keys of the HTTP API",
		Long: `Make, list and revoke keys of the HTTP API. A running agent takes part: keys can be
made and revoked while it serves.`,
		Example: "  postern keys create door\n  postern keys list\n  postern keys revoke abcdefghij",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(c.keysCreate(), c.keysList(), c.keysRevoke())
	return cmd
}

// keyFlags are what a new key may be limited to.
type keyFlags struct {
	scopes    []string
	workflows []string
	networks  []string
	expires   time.Duration
	sandbox   bool

	application string
}

func (c *cli) keysCreate() *cobra.Command {
	var f keyFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a key; it is shown once",
		Example: `  postern keys create door
  postern keys create reports --scope sessions=read --network 10.0.0.0/8 --expires 720h
  postern keys create desk --application visitors
  postern keys create tests --sandbox`,
		Args: args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			k, err := f.key(a[0], time.Now())
			if err != nil {
				return err
			}
			k, token, err := agent.NewAPIKey(k, rand.Reader)
			if err != nil {
				return err
			}
			if k, err = c.oneKey(cmd.Context(), keyRequest{Create: &k}); err != nil {
				return err
			}
			return c.print(newKey{publicKey(k), token}, fmt.Sprintf("%s\n", token)+
				"This is shown once: keep it where the client finds it, for example as API_KEY.\n")
		},
	}
	fl := cmd.Flags()
	fl.StringArrayVar(&f.scopes, "scope", nil, "resource=read or resource=write, repeatable; without it the key may do everything")
	fl.StringSliceVar(&f.workflows, "workflow", nil, "workflow ids that the key sees; without it all")
	fl.StringSliceVar(&f.networks, "network", nil, "networks that it may be used from, for example 10.0.0.0/8; without it all")
	fl.DurationVar(&f.expires, "expires", 0, "time until it expires, for example 720h; without it never")
	fl.StringVar(&f.application, "application", agent.DefaultApplication, "whose sessions, workflows, lists and webhooks it sees; of no other application anything")
	fl.BoolVar(&f.sandbox, "sandbox", false, "canned answers, no real data")
	return cmd
}

// key checks the flags.
func (f *keyFlags) key(name string, now time.Time) (agent.APIKey, error) {
	k := agent.APIKey{Name: name, Application: f.application, Sandbox: f.sandbox, Scopes: map[agent.Resource]agent.Access{}, Workflows: f.workflows, CreatedAt: now.UTC()}
	if err := agent.ValidateSubject("name", name); err != nil || name == "" {
		return k, &agent.Error{Code: agent.CodeInvalid, Message: "the name of the key is not 1 to 256 printable characters"}
	}
	if err := agent.CheckApplication(f.application); err != nil {
		return k, err
	}
	for _, s := range f.scopes {
		r, a, err := agent.ParseScope(s)
		if err != nil {
			return k, err
		}
		k.Scopes[r] = a
	}
	if len(f.scopes) == 0 {
		for _, r := range agent.Resources {
			k.Scopes[r] = agent.WriteAccess
		}
	}
	for _, n := range f.networks {
		p, err := netip.ParsePrefix(n)
		if err != nil {
			return k, &agent.Error{Code: agent.CodeInvalid, Message: fmt.Sprintf("network %q is not an address with a prefix length", n), Fix: "for example 10.0.0.0/8 or 192.0.2.7/32"}
		}
		k.Networks = append(k.Networks, p.Masked())
	}
	if f.expires < 0 {
		return k, &agent.Error{Code: agent.CodeInvalid, Message: "the time until the key expires is negative"}
	}
	if f.expires > 0 {
		k.ExpiresAt = now.Add(f.expires).UTC()
	}
	return k, nil
}

// shownKey is a key without its digest.
type shownKey struct {
	ID   string `json:"id"`
	Name string `json:"name"`

	Application string    `json:"application"`
	Sandbox     bool      `json:"sandbox"`
	Scopes      []string  `json:"scopes"`
	Workflows   []string  `json:"workflows"`
	Networks    []string  `json:"networks"`
	State       string    `json:"state"` // active, expired or revoked
	CreatedAt   time.Time `json:"created_at"`
	ExpiresAt   time.Time `json:"expires_at,omitzero"`
}

type newKey struct {
	shownKey
	Token string `json:"token"`
}

func publicKey(k agent.APIKey) shownKey {
	s := shownKey{ID: k.ID, Name: k.Name, Application: agent.ApplicationOr(k.Application), Sandbox: k.Sandbox, Scopes: []string{}, Workflows: k.Workflows, Networks: []string{},
		State: "active", CreatedAt: k.CreatedAt, ExpiresAt: k.ExpiresAt}
	for _, r := range agent.Resources {
		if a := k.Scopes[r]; a > agent.NoAccess {
			s.Scopes = append(s.Scopes, string(r)+"="+map[agent.Access]string{agent.ReadAccess: "read", agent.WriteAccess: "write"}[a])
		}
	}
	for _, n := range k.Networks {
		s.Networks = append(s.Networks, n.String())
	}
	if s.Workflows == nil {
		s.Workflows = []string{}
	}
	switch {
	case !k.RevokedAt.IsZero():
		s.State = "revoked"
	case !k.ExpiresAt.IsZero() && !time.Now().Before(k.ExpiresAt):
		s.State = "expired"
	}
	return s
}

func (c *cli) keysList() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List the keys; the secrets are not kept",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			keys, err := on(cmd.Context(), c, opKeys, keyRequest{})
			if err != nil {
				return err
			}
			all := make([]shownKey, len(keys))
			for i, k := range keys {
				all[i] = publicKey(k)
			}
			return c.print(all, table("ID\tNAME\tAPPLICATION\tSTATE\tKIND\tSCOPES", len(all), func(i int) string {
				kind := "live"
				if all[i].Sandbox {
					kind = "sandbox"
				}
				return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s", all[i].ID, all[i].Name, all[i].Application, all[i].State, kind, strings.Join(all[i].Scopes, " "))
			}))
		},
	}
}

func (c *cli) keysRevoke() *cobra.Command {
	return &cobra.Command{
		Use:   "revoke ID",
		Short: "Take a key out of force; at once, and for good",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			k, err := c.oneKey(cmd.Context(), keyRequest{Revoke: a[0]})
			if err != nil {
				return err
			}
			return c.print(publicKey(k), fmt.Sprintf("key %s (%s) is revoked\n", k.ID, k.Name))
		},
	}
}

// keyRequest is what is to be done about keys; the zero value lists them.
type keyRequest struct {
	Create *agent.APIKey `json:"create,omitempty"`
	Revoke string        `json:"revoke,omitempty"`
}

var opKeys = operation[keyRequest, []agent.APIKey]{"keys", func(_ context.Context, h held, q keyRequest) ([]agent.APIKey, error) {
	var k agent.APIKey
	var err error
	switch {
	case q.Create != nil:
		k, err = h.st.CreateAPIKey(*q.Create)
	case q.Revoke != "":
		k, err = h.st.RevokeAPIKey(q.Revoke)
	default:
		return h.st.APIKeys()
	}
	return []agent.APIKey{k}, err
}}

// oneKey makes or revokes a key in the data folder, or through the agent that holds it.
func (c *cli) oneKey(ctx context.Context, q keyRequest) (agent.APIKey, error) {
	keys, err := on(ctx, c, opKeys, q)
	if err != nil {
		return agent.APIKey{}, err
	}
	return keys[0], nil
}
