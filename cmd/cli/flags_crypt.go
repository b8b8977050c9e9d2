package cli

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// addDecryption adds the flag of commands that fetch images.
func (r *registryFlags) addDecryption(cmd *cobra.Command) {
	cmd.Flags().StringSliceVar(&r.decryptionKeys, "decryption-key", nil, "open encrypted images with this `key[:passphrase]`, a file")
}

// encryptFlags are about layers that are encrypted on their way out.
type encryptFlags struct {
	keys   []string
	layers []int
}

func (f *encryptFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringSliceVar(&f.keys, "encryption-key", nil, "encrypt layers so that the owner of this `key` can read them: jwe:FILE (a public key), pkcs7:FILE (a certificate), pgp:NAME or provider:NAME")
	fs.IntSliceVar(&f.layers, "encrypt-layer", nil, "encrypt the layer of this `number` only: from 0 upwards, or from -1, the last, downwards")
}

func (f *encryptFlags) options() (*transport.Encryption, error) {
	if len(f.keys) == 0 {
		if len(f.layers) > 0 {
			return nil, fmt.Errorf("--encrypt-layer wants --encryption-key: %w", define.ErrInvalid)
		}
		return nil, nil
	}
	e, err := transport.NewEncryption(f.keys, f.layers)
	if err != nil {
		return nil, fmt.Errorf("--encryption-key: %w", err)
	}
	return e, nil
}

// signFlags are about signatures that pushed images get.
type signFlags struct{ parameters, key, passphraseFile string }

func (f *signFlags) add(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&f.parameters, "sign-by-sigstore", "", "sign with the private key that this `file` of parameters names (containers-sigstore-signing-params.yaml)")
	fs.StringVar(&f.key, "sign-by-sigstore-private-key", "", "sign with the sigstore private key in this `file`")
	fs.StringVar(&f.passphraseFile, "sign-passphrase-file", "", "read the private key's passphrase from this `file`")
	for _, name := range []string{"sign-by-sigstore", "sign-by-sigstore-private-key", "sign-passphrase-file"} {
		_ = cmd.MarkFlagFilename(name)
	}
}

// maxPassphrase bounds the file of a passphrase, in bytes.
const maxPassphrase = 1 << 16

func (f *signFlags) options() (*transport.Signing, error) {
	s := &transport.Signing{PrivateKeyFile: f.key}
	passphrase, flag := f.passphraseFile, "sign-by-sigstore-private-key"
	switch {
	case f.parameters == "" && f.key == "":
		if f.passphraseFile != "" {
			return nil, fmt.Errorf("--sign-passphrase-file wants --sign-by-sigstore-private-key: %w", define.ErrInvalid)
		}
		return nil, nil
	case f.parameters != "" && f.key != "":
		return nil, fmt.Errorf("--sign-by-sigstore and --sign-by-sigstore-private-key: want one or the other: %w", define.ErrInvalid)
	case f.parameters != "":
		flag = "sign-by-sigstore"
		key, file, err := transport.SigningParameters(f.parameters)
		if err != nil {
			return nil, fmt.Errorf("--sign-by-sigstore: %w", err)
		}
		s.PrivateKeyFile = key
		if passphrase == "" {
			passphrase = file
		}
	}
	if _, err := os.Stat(s.PrivateKeyFile); err != nil {
		return nil, fmt.Errorf("--%s: %w", flag, err)
	}
	if passphrase == "" {
		return s, nil
	}
	data, err := readSmall(passphrase)
	if err != nil {
		return nil, fmt.Errorf("passphrase of --%s: %w", flag, err)
	}
	// The first line, as podman and skopeo read it.
	s.Passphrase, _, _ = bytes.Cut(data, []byte("\n"))
	return s, nil
}

func readSmall(name string) ([]byte, error) {
	file, err := os.Open(filepath.Clean(name))
	if err != nil {
		return nil, err
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxPassphrase+1))
	if err == nil && len(data) > maxPassphrase {
		err = fmt.Errorf("%s has more than %d bytes: %w", name, maxPassphrase, define.ErrInvalid)
	}
	return data, err
}

// addBlobCache adds a flag whose wish is granted without it.
func addBlobCache(cmd *cobra.Command) {
	cmd.Flags().String("blob-cache", "", "accepted for buildah's sake, without effect: the store remembers the compressed form of what was fetched and sent, and sends no layer that is there; a `directory`")
}
