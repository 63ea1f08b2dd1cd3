package wire

import (
	"strings"

	"postern/agent"
)

// Channel is the last level of a topic: what is said there.
type Channel string

// What a device says, under fm/up/<device>/.
const (
	ChanResults    Channel = "res"  // Results
	ChanTelemetry  Channel = "tel"  // Telemetry
	ChanHealth     Channel = "st"   // Health, retained, and the last will
	ChanCheckpoint Channel = "aud"  // Checkpoint
	ChanPull       Channel = "get"  // Pull
	ChanResponse   Channel = "rsp"  // Response
	ChanJoin       Channel = "join" // Join with a claim; the only thing that a device without a certificate may say
	ChanRenew      Channel = "csr"  // Join without one
	ChanApplied    Channel = "apl"  // Applied
	ChanErased     Channel = "era"  // Erased; also what the hub says back
)

// What a hub says, under fm/dn/<device>/.
const (
	ChanAck          Channel = "ack"  // Ack
	ChanHint         Channel = "hint" // Hint
	ChanDelta        Channel = "dlt"  // Delta
	ChanCommand      Channel = "cmd"  // Command
	ChanTelemetryAck Channel = "tak"  // Ack, of telemetry
	ChanCertificate  Channel = "crt"  // Certificate
)

const (
	upRoot   = "fm/up/"
	downRoot = "fm/dn/"
)

// MaxDevice is how long a device's name may be.
const MaxDevice = 64

// ValidDevice tells whether name can be a level of a topic: 1 to 64 of a-z, 0-9, "_"
// and "-". Brokers agree on these; dots, spaces and upper case are mapped, escaped or
// refused differently by each.
func ValidDevice(name string) bool {
	return name != "" && len(name) <= MaxDevice && !strings.ContainsFunc(name, notLevel)
}

func notLevel(r rune) bool {
	return (r < 'a' || r > 'z') && (r < '0' || r > '9') && r != '_' && r != '-'
}

// CheckDevice is ValidDevice with an error that says what to do.
func CheckDevice(name string) error {
	if ValidDevice(name) {
		return nil
	}
	return &agent.Error{Code: agent.CodeInvalid, Message: "device name " + quote(name) + " cannot be part of a topic",
		Fix: "set device to 1 to 64 characters of a-z, 0-9, _ and -"}
}

// Up is the topic on which a device says something of this kind.
func Up(device string, c Channel) string { return upRoot + device + "/" + string(c) }

// Down is the topic on which a hub tells a device something of this kind.
func Down(device string, c Channel) string { return downRoot + device + "/" + string(c) }

// AllUp is the filter for what all devices say of this kind.
func AllUp(c Channel) string { return upRoot + "+/" + string(c) }

// ParseUp takes a topic of Up apart; ok is false for any other topic.
func ParseUp(topic string) (device string, c Channel, ok bool) { return parse(topic, upRoot) }

// ParseDown takes a topic of Down apart; ok is false for any other topic.
func ParseDown(topic string) (device string, c Channel, ok bool) { return parse(topic, downRoot) }

func parse(topic, root string) (device string, c Channel, ok bool) {
	rest, ok := strings.CutPrefix(topic, root)
	if !ok {
		return "", "", false
	}
	device, last, ok := strings.Cut(rest, "/")
	if !ok || !ValidDevice(device) || !ValidDevice(last) {
		return "", "", false
	}
	return device, Channel(last), true
}
