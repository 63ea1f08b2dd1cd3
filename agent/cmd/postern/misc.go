package main

import (
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// version is set by the build (-ldflags "-X main.version=…").
var version = "dev"

func (c *cli) versionCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version",
		Args:  args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			v := map[string]string{"version": version, "go": runtime.Version(), "os": runtime.GOOS, "arch": runtime.GOARCH}
			if info, ok := debug.ReadBuildInfo(); ok {
				for _, s := range info.Settings {
					if s.Key == "vcs.revision" {
						v["commit"] = s.Value
					}
				}
			}
			return c.print(v, fmt.Sprintf("postern %s (%s, %s/%s)\n", version, runtime.Version(), runtime.GOOS, runtime.GOARCH))
		},
	}
}

// manCmd writes the manual pages that packages carry.
func (c *cli) manCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "man FOLDER",
		Short:  "Write the manual pages of all commands into a folder",
		Args:   args(cobra.ExactArgs(1)),
		Hidden: true,
		RunE: func(cmd *cobra.Command, a []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true // it holds the day of the build
			header := &doc.GenManHeader{Section: "1", Source: "postern", Manual: "postern"}
			return doc.GenManTree(root, header, a[0])
		},
	}
}

func (c *cli) configCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "config",
		Short: "Print the configuration in force, as YAML",
		Long: `Print the configuration in force as a YAML file: compiled defaults, then the file
given with --config, then POSTERN_* environment variables (identify.enabled is
POSTERN_IDENTIFY_ENABLED), then --set. Start your own file from it.`,
		Example: "  postern config > postern.yaml",
		Args:    args(cobra.NoArgs),
		RunE: func(*cobra.Command, []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			y, err := cfg.YAML()
			if err != nil {
				return err
			}
			_, err = c.out.Write(y)
			return err
		},
	}
}
