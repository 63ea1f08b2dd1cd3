// Package keys holds the root key of a device, from which all other keys hang,
// and the few cryptographic operations that the store builds on.
//
// A Root comes from one of three places: a key file that only the service user can
// read, a key file that the machine's TPM 2.0 has sealed, or a systemd credential,
// which systemd can tie to the TPM too. It wraps and unwraps other keys and never
// leaves this package. Start reading at Options.Open.
package keys
