package bustest

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// Mosquitto starts Debian's broker for a test and gives its address. Where it is not
// installed the test says so and is passed over, unless TEST_MOSQUITTO=required.
func Mosquitto(tb testing.TB) string {
	tb.Helper()
	p := StartMosquitto(tb, FreePort(tb))
	tb.Cleanup(p.Kill)
	return p.Addr
}

// Process is a broker in a process of its own.
type Process struct {
	Addr string
	cmd  *exec.Cmd
}

// Kill ends the process without warning and waits for it.
func (p *Process) Kill() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
}

// FreePort gives a port of this machine that was free just now.
func FreePort(tb testing.TB) int {
	tb.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// StartMosquitto starts the broker on a port and waits until it accepts connections.
func StartMosquitto(tb testing.TB, port int) *Process {
	tb.Helper()
	program := findMosquitto(tb)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	conf := filepath.Join(tb.TempDir(), "mosquitto.conf")
	text := fmt.Sprintf("listener %d 127.0.0.1\nallow_anonymous true\nmax_queued_messages 100000\nlog_type none\n", port)
	if os.Getuid() == 0 {
		text += "user root\n" // else it drops to a user that may not read the folder
	}
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		tb.Fatal(err)
	}
	p := &Process{Addr: addr, cmd: exec.Command(program, "-c", conf)}
	if err := p.cmd.Start(); err != nil {
		tb.Fatal(err)
	}
	WaitFor(tb, "mosquitto at "+addr, func() bool {
		c, err := net.DialTimeout("tcp", addr, time.Second)
		if err == nil {
			c.Close()
		}
		return err == nil
	})
	return p
}

func findMosquitto(tb testing.TB) string {
	tb.Helper()
	for _, name := range []string{"mosquitto", "/usr/sbin/mosquitto"} { // sbin is not on every PATH
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	if os.Getenv("TEST_MOSQUITTO") == "required" {
		tb.Fatal("mosquitto is not installed: apt-get install mosquitto")
	}
	tb.Skip("mosquitto is not installed (Debian package mosquitto): this broker is not tested here")
	return ""
}
