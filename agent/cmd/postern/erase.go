package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"postern/agent"
	"postern/agent/store"
)

type eraseRequest struct {
	Subject string `json:"subject"`
	Prove   bool   `json:"prove"`
	Actor   string `json:"actor"`
}

var opErase = operation[eraseRequest, store.Proof]{"erase", func(_ context.Context, h held, q eraseRequest) (p store.Proof, err error) {
	err = h.change(q.Subject, func() (err error) {
		if q.Prove {
			p, err = h.st.EraseProved(q.Subject, q.Actor)
			return err
		}
		p.Subject = q.Subject
		p.Templates, p.Tombstone, err = h.st.Erase(q.Subject, q.Actor)
		return err
	})
	return p, err
}}

func (c *cli) eraseCmd() *cobra.Command {
	var prove bool
	cmd := &cobra.Command{
		Use:   "erase SUBJECT",
		Short: "Erase a person so that no backup and no old message brings them back",
		Long: `Delete a person with all templates and the sessions about them (their vendor_data is the
person's id), destroy the keys that encrypted them, and leave a signed note that voids all enrolments made until now. A new enrolment is possible. What
old pages of the files still hold cannot be opened once the store keys are rotated,
which a running agent does within keys.purge_after.
With --prove that is done at once, the files are compacted, and every file of the data
folder is searched for the templates, in the clear and encrypted, and for the wrapped
keys, before and after. Exit code 9 when something is left. Decisions that name the
person stay until their own retention ends.`,
		Example: "  postern erase ada\n  postern erase ada --prove --json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			p, err := on(cmd.Context(), c, opErase, eraseRequest{a[0], prove, actor()})
			if err != nil {
				return err
			}
			text := fmt.Sprintf("erased %s and %s\n", p.Subject, plural(p.Templates, "template"))
			if prove {
				text += describeProof(p)
			}
			if err := c.print(p, text); err != nil {
				return err
			}
			if prove && !p.Clean {
				return &agent.Error{Code: agent.CodeStorage, Message: "something of " + p.Subject + " is left in the files named above",
					Fix: "delete those files if nothing else needs them"}
			}
			return nil
		},
	}
	cmd.AddCommand(c.eraseStatusCmd())
	cmd.Flags().BoolVar(&prove, "prove", false, "rotate and compact at once, and show that nothing is left in any file")
	return cmd
}

func describeProof(p store.Proof) string {
	text := table("WHAT\tBYTES\tBEFORE\tERASED\tFINAL", len(p.Traces), func(i int) string {
		t := p.Traces[i]
		return fmt.Sprintf("%s\t%d\t%d\t%d\t%d", t.What, t.Bytes, t.Before, t.Erased, t.Final)
	})
	for _, t := range p.Traces {
		for _, f := range t.Remains {
			text += fmt.Sprintf("LEFT  %s in %s\n", t.What, f)
		}
	}
	if p.Clean {
		text += "nothing of it is left in any file of the data folder\n"
	}
	return text
}

type consentRequest struct {
	Subject  string        `json:"subject"`
	Consent  agent.Consent `json:"consent"`
	Withdraw bool          `json:"withdraw"`
	Actor    string        `json:"actor"`
}

var opConsent = operation[consentRequest, agent.Subject]{"consent", func(_ context.Context, h held, q consentRequest) (sub agent.Subject, err error) {
	err = h.change(q.Subject, func() (err error) {
		if q.Withdraw {
			sub, err = h.st.WithdrawConsent(q.Subject, q.Actor)
			return err
		}
		sub, err = h.st.RecordConsent(q.Subject, q.Consent, q.Actor)
		return err
	})
	return sub, err
}}

// consentFlags are the flags that record a consent.
type consentFlags struct {
	giver, purpose, basis, text string
	expires                     time.Duration
}

func (f *consentFlags) add(cmd *cobra.Command) {
	fl := cmd.Flags()
	fl.StringVar(&f.giver, "consent", "", "who consented: the person, or who may speak for them")
	fl.StringVar(&f.purpose, "purpose", "", "what the templates are for, for example \"door 3\"")
	fl.StringVar(&f.basis, "basis", agent.Bases[0], "legal basis: "+fmt.Sprint(agent.Bases))
	fl.StringVar(&f.text, "consent-text", "", "version of the text that was shown")
	fl.DurationVar(&f.expires, "consent-for", 0, "time until the consent ends, for example 8760h; without it it does not")
}

// consent is the one that the flags describe; the zero value when none is given.
func (f *consentFlags) consent(now time.Time) (agent.Consent, error) {
	if f.giver == "" && f.purpose == "" {
		return agent.Consent{}, nil
	}
	c := agent.Consent{GivenBy: f.giver, Purpose: f.purpose, Basis: f.basis, Text: f.text, At: now.UTC()}
	if f.expires != 0 {
		c.Expires = c.At.Add(f.expires)
	}
	return c, c.Validate()
}

func (c *cli) consentCmd() *cobra.Command {
	var f consentFlags
	var withdraw bool
	cmd := &cobra.Command{
		Use:   "consent SUBJECT",
		Short: "Record or withdraw a person's consent",
		Long: `Record a person's consent in place of the one there is, or withdraw it. From then on
their templates are not used; "postern erase" deletes them.`,
		Example: "  postern consent ada --consent \"Ada Lovelace\" --purpose \"door 3\" --consent-for 8760h\n  postern consent ada --withdraw",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			consent, err := f.consent(time.Now())
			if err != nil {
				return err
			}
			if withdraw == consent.Given() {
				return usageError{fmt.Errorf("give either --consent and --purpose, or --withdraw (usage: %s)", cmd.UseLine())}
			}
			sub, err := on(cmd.Context(), c, opConsent, consentRequest{a[0], consent, withdraw, actor()})
			if err != nil {
				return err
			}
			return c.print(sub, fmt.Sprintf("%s: %s\n", sub.ID, describeConsent(sub.Consent)))
		},
	}
	f.add(cmd)
	cmd.Flags().BoolVar(&withdraw, "withdraw", false, "the person does not consent any more")
	return cmd
}

func describeConsent(c agent.Consent) string {
	switch {
	case !c.Given():
		return "no consent is recorded"
	case !c.Withdrawn.IsZero():
		return "consent was withdrawn on " + c.Withdrawn.Local().Format(time.DateTime)
	}
	text := fmt.Sprintf("%s consented on %s (%s) for %s", oneLine(c.GivenBy), c.At.Local().Format(time.DateTime), c.Basis, oneLine(c.Purpose))
	if !c.Expires.IsZero() {
		text += ", until " + c.Expires.Local().Format(time.DateTime)
	}
	return text
}
