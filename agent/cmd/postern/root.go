package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// cli is what all commands share.
type cli struct {
	in       io.Reader
	out      io.Writer
	err      io.Writer
	environ  []string
	config   string
	data     string
	set      []string
	json     bool
	verbose  bool
	progress bool
	recover  bool // openStore replaces damaged files
}

// execute runs one command line and returns its exit code.
func execute(ctx context.Context, args, environ []string, in io.Reader, out, errw io.Writer) int {
	c := &cli{environ: environ, in: in, out: out, err: errw, progress: isTerminal(errw)}
	root := c.root()
	root.SetArgs(args)
	root.SetIn(in)
	root.SetOut(out)
	root.SetErr(errw)
	return exitCode(root.ExecuteContext(ctx), errw)
}

// variable looks up an environment variable.
func variable(environ []string, name string) string {
	for _, e := range environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

func (c *cli) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "postern",
		Short: "Face match on the device: compare, enrol, verify, watch a door",
		Long: `postern compares faces on this machine. It needs no network.

Try it:
  postern doctor                        what is installed, what is missing
  postern match a.jpg b.jpg             are these the same person?
  postern enroll ada ada1.jpg ada2.jpg  learn a person
  postern verify ada --image probe.jpg  is this ada?
  postern run                           watch the camera and serve the page`,
		Example: "  postern match badge.jpg selfie.jpg --json",
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q%s", args[0], suggestion(cmd, args[0]))}
			}
			return nil
		},
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
		SilenceErrors: true,
		SilenceUsage:  true,

		SuggestionsMinimumDistance: 2,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return usageError{fmt.Errorf("%w (see %s --help)", err, cmd.CommandPath())}
	})
	f := root.PersistentFlags()
	f.StringVarP(&c.config, "config", "c", variable(c.environ, "POSTERN_CONFIG"), "configuration file (YAML)")
	f.StringVar(&c.data, "data", "", "data folder (setting data)")
	f.StringArrayVar(&c.set, "set", nil, "change one setting, for example --set match.review=75")
	f.BoolVar(&c.json, "json", false, "answer in JSON")
	f.BoolVarP(&c.verbose, "verbose", "v", false, "log what happens")
	root.AddGroup(&cobra.Group{ID: "faces", Title: "Faces:"}, &cobra.Group{ID: "agent", Title: "The agent:"}, &cobra.Group{ID: "measure", Title: "Measure:"})
	root.AddCommand(
		in("faces", c.matchCmd()), in("faces", c.enrollCmd()), in("faces", c.verifyCmd()), in("faces", c.identifyCmd()), in("faces", c.subjectsCmd()), in("faces", c.eraseCmd()), in("faces", c.consentCmd()), in("faces", c.throttleCmd()),
		in("agent", c.runCmd()), in("agent", c.maintenanceCmd()), in("agent", c.hubCmd()), in("agent", c.devicesCmd()), in("agent", c.accessCmd()), in("agent", c.keysCmd()), in("agent", c.vaultCmd()), in("agent", c.auditCmd()), in("agent", c.resultsCmd()), in("agent", c.cameraCmd()), in("agent", c.configCmd()), in("agent", c.doctorCmd()), in("agent", c.recoverCmd()), in("agent", c.retentionCmd()), in("agent", c.holdCmd()),
		in("agent", c.joinCmd()),
		in("agent", c.backupCmd()), in("agent", c.restoreCmd()), in("agent", c.exportCmd()), in("agent", c.importCmd()),
		in("measure", c.benchCmd()), in("measure", c.evalCmd()), in("measure", c.calibrateCmd()), c.versionCmd(), c.manCmd(),
	)
	root.SetHelpTemplate(root.HelpTemplate() + "\n" + exitHelp + "\n")
	return root
}

func in(group string, cmd *cobra.Command) *cobra.Command {
	cmd.GroupID = group
	return cmd
}

func suggestion(cmd *cobra.Command, arg string) string {
	if s := cmd.SuggestionsFor(arg); len(s) > 0 {
		return fmt.Sprintf(" (did you mean %s?)", s[0])
	}
	return " (see postern --help)"
}

// args wraps cobra's argument checks so that they exit as usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usageError{fmt.Errorf("%w (usage: %s)", err, cmd.UseLine())}
		}
		return nil
	}
}

// print answers with v as JSON, or with text.
func (c *cli) print(v any, text string) error {
	if !c.json {
		_, err := io.WriteString(c.out, text)
		return err
	}
	enc := json.NewEncoder(c.out)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}
