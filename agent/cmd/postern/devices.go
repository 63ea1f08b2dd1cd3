package main

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"postern/agent/cmd/fleet"
	"postern/agent/config"
	"postern/agent/store"
	"postern/sync/hub/boltstore"
)

// fleetStatus asks the running hub; without one it is what the registry knows.
func fleetStatus(ctx context.Context, cfg config.Config) (list []fleet.DeviceStatus, live bool, err error) {
	err = fleet.Ask(ctx, cfg.Data, http.MethodGet, "/devices", nil, &list)
	if !errors.Is(err, fleet.ErrNoHub) {
		return list, true, err
	}
	known, err := devices(cfg).List()
	list = []fleet.DeviceStatus{}
	for _, d := range known {
		list = append(list, fleet.DeviceStatus{Device: d})
	}
	return list, false, err
}

func (c *cli) devicesListCmd() *cobra.Command {
	var group string
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the devices: how they stand, how far they are behind, what is odd",
		Long: `List the devices. BEHIND is how many results the device has told of that the hub does not
have, and the age of the oldest of them when the device last measured. ODD counts what
a person has to look at; --json says what. What devices tell is known while the hub runs.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			all, live, err := fleetStatus(cmd.Context(), cfg)
			if err != nil {
				return err
			}
			list := []fleet.DeviceStatus{}
			for _, d := range all {
				if group == "" || d.Group == group {
					list = append(list, d)
				}
			}
			return c.print(list, deviceTable(list, live))
		},
	}
	cmd.Flags().StringVar(&group, "group", "", "only devices of this group")
	return cmd
}

func deviceTable(list []fleet.DeviceStatus, live bool) string {
	if !live {
		return table("NAME\tGROUP\tSTANDING\tCERTIFICATE UNTIL", len(list), func(i int) string {
			return fmt.Sprintf("%s\t%s\t%s\t%s", list[i].Name, orDash(list[i].Group), standing(list[i].Device), certificateUntil(list[i]))
		}) + "the hub does not run: what devices tell is not known\n"
	}
	return table("NAME\tGROUP\tSTANDING\tLINE\tBEHIND\tTEMP\tVERSION\tODD\tCERTIFICATE UNTIL", len(list), func(i int) string {
		d := list[i]
		return fmt.Sprintf("%s\t%s\t%s\t%s\t%s\t%s\t%s\t%d\t%s", d.Name, orDash(d.Group), standing(d.Device), line(d), behind(d),
			temperature(d), orDash(d.Version), len(d.Odd), certificateUntil(d))
	})
}

func certificateUntil(d fleet.DeviceStatus) string {
	if d.Certificate == nil {
		return "-"
	}
	return d.Certificate.NotAfter.Local().Format(time.DateOnly)
}

func line(d fleet.DeviceStatus) string {
	switch {
	case d.LastSeen == nil:
		return "never seen"
	case d.Online:
		return "on"
	}
	return "off, seen " + d.LastSeen.Local().Format(time.DateTime)
}

func behind(d fleet.DeviceStatus) string {
	if d.LastSeen == nil {
		return "-"
	}
	if d.OldestUnsent > 0 {
		return fmt.Sprintf("%d (%s)", d.Behind, (time.Duration(d.OldestUnsent) * time.Second).String())
	}
	return fmt.Sprint(d.Behind)
}

func temperature(d fleet.DeviceStatus) string {
	if t, ok := d.Values["temperature_celsius"]; ok {
		return fmt.Sprintf("%.0f °C", t)
	}
	return "-"
}

func (c *cli) devicesCheckpointsCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "checkpoints NAME",
		Short: "Print the furthest ends of a device's audit logs that this hub knows, in JSON",
		Long: `Print the furthest ends of a device's audit logs that the device has told this hub, signed
by the device, in JSON. On the device "postern audit verify --checkpoint FILE" finds out
whether its log still contains them.`,
		Example: "  postern devices checkpoints lobby > lobby.json",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, a []string) error {
			cfg, err := c.settings()
			if err != nil {
				return err
			}
			var kept []boltstore.Checkpoint
			err = fleet.Ask(cmd.Context(), cfg.Data, http.MethodGet, "/devices/"+a[0]+"/checkpoints", nil, &kept)
			if errors.Is(err, fleet.ErrNoHub) {
				kept, err = keptCheckpoints(cfg, a[0])
			}
			if err != nil {
				return err
			}
			out := []store.Checkpoint{}
			for _, k := range kept {
				out = append(out, asCheckpoint(k.Checkpoint, k.At))
			}
			was := c.json
			c.json = true
			defer func() { c.json = was }()
			return c.print(out, "")
		},
	}
}

// keptCheckpoints reads the hub's file while no hub runs.
func keptCheckpoints(cfg config.Config, device string) ([]boltstore.Checkpoint, error) {
	f, err := boltstore.OpenFleet(cfg.Data)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Checkpoints(strings.ToLower(device))
}
