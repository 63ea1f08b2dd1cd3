package api

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// listen serves the bench until the test ends and returns the address.
func (b *bench) listen(t *testing.T, o ServeOptions) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, b.Over(http.NotFoundHandler()), o) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
	})
	return l.Addr().String()
}

// A client that sends its header byte by byte is cut off by the time limit and costs
// no ticket.
func TestSlowLoris(t *testing.T) {
	if testing.Short() {
		t.Skip("waits for the header's time limit")
	}
	b := newBench(t)
	addr := b.listen(t, ServeOptions{})
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fmt.Fprintf(c, "POST /v3/face-match/ HTTP/1.1\r\nHost: x\r\n")
	start := time.Now()
	go func() {
		for range 1000 {
			if _, err := c.Write([]byte("X-A: b\r\n")); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	c.SetReadDeadline(start.Add(time.Minute))
	if _, err := io.ReadAll(c); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Fatal("the connection stayed open for a minute")
	}
	if len(b.gate.tickets) != 0 {
		t.Error("it holds a ticket")
	}
}

// Half a form and then silence from the other side: the request ends, nothing is kept.
func TestHalfAForm(t *testing.T) {
	b := newBench(t)
	addr := b.listen(t, ServeOptions{})
	ct, body := form(t, file("user_image", "a.jpg", picture(t, red, 40, 30)), file("ref_image", "b.jpg", picture(t, red, 40, 30)))
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprintf(c, "POST /v3/face-match/ HTTP/1.1\r\nHost: x\r\nX-Api-Key: %s\r\nContent-Type: %s\r\nContent-Length: %d\r\n\r\n", b.token, ct, len(body))
	c.Write(body[:len(body)/2])
	c.(*net.TCPConn).CloseWrite()
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	got, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	c.Close()
	if resp.StatusCode != 400 || string(got) != `{"detail":"Multipart form parse error - the body is cut short or malformed."}` {
		t.Errorf("%d %s", resp.StatusCode, got)
	}
	for i := 0; len(b.gate.tickets) > 0 && i < 1000; i++ {
		time.Sleep(time.Millisecond)
	}
	if len(b.gate.tickets) != 0 || len(b.saver.saved) != 0 {
		t.Error("something is left of it")
	}
}

// crowdOf makes the test program hold open that many connections to an address, in a
// process of its own, so that each end has a process's whole share of open files.
const crowdOf = "TEST_CROWD"

// crowd is that process: it says how many connections it got, and lets go of them when
// its standard input ends.
func crowd(addr string, n int) {
	conns := make([]net.Conn, n) // held: what nobody refers to is closed by the collector
	var open atomic.Int64
	var wg sync.WaitGroup
	for w := range 8 {
		wg.Go(func() {
			for i := w; i < n; i += 8 {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					continue
				}
				conns[i] = c
				c.Write([]byte("GET /system/ready HTTP/1.1\r\nHost: x\r\nX-A: ")) // and no end
				open.Add(1)
			}
		})
	}
	wg.Wait()
	fmt.Println(open.Load())
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(conns)
}

// Ten thousand clients hold a connection open; another one is still served, and the
// memory stays bounded.
func TestManyConnections(t *testing.T) {
	n := 10_000
	if testing.Short() {
		n = 800
	}
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if room := (int(limit.Cur) - 200) / 8 * 8; room < n {
		n = room
		t.Logf("the limit of %d open files allows %d connections", limit.Cur, n)
	}
	b := newBench(t)
	addr := b.listen(t, ServeOptions{MaxConnections: n + 10})
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)

	clients := exec.Command(os.Args[0])
	clients.Env = append(os.Environ(), crowdOf+"="+addr+","+strconv.Itoa(n))
	hold, err := clients.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	said, err := clients.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := clients.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { hold.Close(); clients.Wait() })
	var open int
	if _, err := fmt.Fscan(said, &open); err != nil || open != n {
		t.Fatalf("%d of %d connections are open: %v", open, n, err)
	}

	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 30 * time.Second}
	resp, err := client.Get("http://" + addr + "/system/ready")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	runtime.GC()
	runtime.ReadMemStats(&after)
	each := int64(after.HeapInuse+after.StackInuse-before.HeapInuse-before.StackInuse) / int64(max(1, n))
	t.Logf("%d connections, %d bytes each", n, each)
	if resp.StatusCode != 200 || each > 64<<10 {
		t.Errorf("status %d, %d bytes a connection", resp.StatusCode, each)
	}
}

// Beyond the limit of connections a client waits; it is served when another one goes.
func TestConnectionLimit(t *testing.T) {
	b := newBench(t)
	addr := b.listen(t, ServeOptions{MaxConnections: 1})
	first, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(first, "GET /system/ready HTTP/1.1\r\nHost: x\r\n")
	second, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	fmt.Fprint(second, "GET /system/ready HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	second.SetReadDeadline(time.Now().Add(200 * time.Millisecond))
	if n, _ := second.Read(make([]byte, 1)); n > 0 {
		t.Error("the second was served beside the first")
	}
	first.Close()
	second.SetReadDeadline(time.Now().Add(20 * time.Second))
	if _, err := io.ReadAll(second); err != nil {
		t.Errorf("the second was not served in the end: %v", err)
	}
}

// newCertificate writes a self-signed pair and returns the certificate.
func newCertificate(t *testing.T, dir string, serial int64) *x509.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(serial), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	for name, block := range map[string]*pem.Block{"cert.pem": {Type: "CERTIFICATE", Bytes: der}, "key.pem": {Type: "PRIVATE KEY", Bytes: keyDER}} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestTLS(t *testing.T) {
	dir := t.TempDir()
	cert := newCertificate(t, dir, 1)
	b := newBench(t)
	addr := b.listen(t, ServeOptions{CertFile: filepath.Join(dir, "cert.pem"), KeyFile: filepath.Join(dir, "key.pem")})
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	dial := func(c *tls.Config) (*tls.Conn, error) {
		c.RootCAs, c.ServerName = roots, "localhost"
		return tls.Dial("tcp", addr, c)
	}
	c, err := dial(&tls.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if v := c.ConnectionState().Version; v != tls.VersionTLS13 {
		t.Errorf("version %x", v)
	}
	c.Close()
	if c, err := dial(&tls.Config{MaxVersion: tls.VersionTLS12}); err == nil {
		c.Close()
		t.Error("TLS 1.2 was accepted")
	}
}

func TestCertificateFollowsItsFiles(t *testing.T) {
	dir := t.TempDir()
	newCertificate(t, dir, 1)
	at := &clock{t: time.Now()}
	c := &certificate{certFile: filepath.Join(dir, "cert.pem"), keyFile: filepath.Join(dir, "key.pem"), log: slog.New(slog.DiscardHandler), now: at.now}
	serial := func() int64 {
		p, err := c.get(nil)
		if err != nil {
			t.Fatal(err)
		}
		return p.Leaf.SerialNumber.Int64()
	}
	if serial() != 1 {
		t.Fatal("not the first")
	}
	newCertificate(t, dir, 2)
	future := time.Now().Add(time.Hour)
	os.Chtimes(c.certFile, future, future)
	at.add(recheck)
	if serial() != 2 {
		t.Error("the new pair is not in use")
	}
	os.WriteFile(c.certFile, []byte("damaged"), 0o600)
	at.add(recheck)
	if serial() != 2 {
		t.Error("a damaged file displaced the good pair")
	}
	newCertificate(t, dir, 3)
	at.add(recheck)
	if serial() != 3 {
		t.Error("it did not recover")
	}
}

func TestServeRefusesBadCertificate(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	err = Serve(context.Background(), l, http.NotFoundHandler(), ServeOptions{CertFile: "/nowhere", KeyFile: "/nowhere", Log: slog.New(slog.DiscardHandler)})
	if err == nil || !strings.Contains(err.Error(), "http.tls_cert") {
		t.Errorf("%v", err)
	}
}
