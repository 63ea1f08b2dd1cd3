// Package wire is what agents and hubs say to each other over MQTT: topics,
// messages and their encoding. docs/mqtt.md describes it for other clients.
//
// A payload is one byte, the version of the wire, and one CBOR map (RFC 8949) with
// small integers as keys. Within a version keys are only ever added: a reader passes
// over keys that it does not know, and a record inside a batch travels as the bytes
// that its author wrote, so that a hub keeps what only a newer hub will understand.
// Another version is refused by name, never guessed at.
//
// CBOR was chosen over protobuf and JSON: it needs no generator, has a standard and
// decoders in every language, says numbers and bytes exactly, and its decoder can be
// held to limits of depth, elements and size. What makes batches small is deflate:
// records keep the names of their JSON fields, and names repeat.
//
// Pictures and templates do not travel in results: a test walks the type of a result
// and refuses byte strings in it.
package wire
