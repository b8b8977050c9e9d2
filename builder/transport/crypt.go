package transport

import (
	"fmt"
	"slices"
	"strings"

	encconfig "github.com/containers/ocicrypt/config"
	"github.com/containers/ocicrypt/helpers"
	"github.com/stratabuild/strata/define"
	"go.podman.io/image/v5/copy"
	"go.podman.io/image/v5/pkg/cli/sigstore/params"
)

// Encryption is how layers are encrypted on their way to another place (the
// media types end in +encrypted; see containers/ocicrypt).
type Encryption struct {
	config *encconfig.EncryptConfig
	layers []int // counted from 0, from -1 downwards from the last; none is all
}

// NewEncryption reads the keys: "jwe:FILE" (RFC 7516, a public key),
// "pkcs7:FILE" (RFC 2315, a certificate), "pgp:NAME" or "provider:NAME".
// Layers are counted from 0, and from the last downwards from -1; none means
// all of them.
func NewEncryption(keys []string, layers []int) (*Encryption, error) {
	for _, k := range keys {
		if kind, value, ok := strings.Cut(k, ":"); !ok || value == "" || !slices.Contains([]string{"jwe", "pkcs7", "pgp", "provider", "pkcs11"}, kind) {
			return nil, fmt.Errorf("encryption key %q: want jwe:FILE, pkcs7:FILE, pgp:NAME or provider:NAME: %w", k, define.ErrInvalid)
		}
	}
	cc, err := helpers.CreateCryptoConfig(keys, nil)
	if err != nil {
		return nil, fmt.Errorf("encryption key: %w: %w", plain(err), define.ErrInvalid)
	}
	return &Encryption{config: cc.EncryptConfig, layers: layers}, nil
}

// Decryption holds the keys of encrypted images.
type Decryption struct{ config *encconfig.DecryptConfig }

// NewDecryption reads private keys: files, with ":pass=PASSWORD",
// ":file=FILE", ":fd=NUMBER" or the password itself behind the name of those
// that have one.
func NewDecryption(keys []string) (*Decryption, error) {
	cc, err := helpers.CreateCryptoConfig(nil, keys)
	if err != nil {
		// The words of the library quote what was given, password and all.
		var secrets []string
		for _, k := range keys {
			if _, secret, ok := strings.Cut(k, ":"); ok {
				secrets = append(secrets, secret)
			}
		}
		return nil, fmt.Errorf("decryption key: %w: %w", plain(err, secrets...), define.ErrInvalid)
	}
	cc = encconfig.CombineCryptoConfigs([]encconfig.CryptoConfig{cc})
	return &Decryption{config: cc.DecryptConfig}, nil
}

// Signing is how manifests are signed: with a private key, in the form of
// sigstore.
type Signing struct {
	// PrivateKeyFile is a key as "cosign generate-key-pair" and
	// "skopeo generate-sigstore-key" make them.
	PrivateKeyFile string
	Passphrase     []byte
}

// SigningParameters are what a file of containers-sigstore-signing-params.yaml(5)
// says: the private key's file and that of its passphrase, "" when there is
// none. Signing by a certificate of Fulcio, or with a log entry of Rekor,
// is refused.
func SigningParameters(file string) (key, passphraseFile string, err error) {
	p, err := params.ParseFile(file)
	if err != nil {
		return "", "", fmt.Errorf("%w: %w", plain(err), define.ErrInvalid)
	}
	switch {
	case p.Fulcio != nil:
		return "", "", fmt.Errorf("%s: fulcio: certificates of Fulcio are not in this version of strata; give privateKeyFile: %w", show(file), define.ErrUnsupported)
	case p.RekorURL != "":
		return "", "", fmt.Errorf("%s: rekorURL: logs of Rekor are not in this version of strata; leave it out, or sign with cosign or skopeo: %w", show(file), define.ErrUnsupported)
	case p.PrivateKeyFile == "":
		return "", "", fmt.Errorf("%s: want privateKeyFile: %w", show(file), define.ErrInvalid)
	}
	return p.PrivateKeyFile, p.PrivateKeyPassphraseFile, nil
}

// protect puts encryption and signing into opts.
func protect(opts *copy.Options, t target, o PushOptions) error {
	if e := o.Encryption; e != nil {
		if o.Format == define.FormatDocker || t.kind == kindDockerArchive {
			return fmt.Errorf("%s: only the oci format can hold encrypted layers: use --format oci: %w", t.name, define.ErrInvalid)
		}
		if o.Uncompressed {
			return fmt.Errorf("%s: layers are to be encrypted and to stay as they are: choose one: %w", t.name, define.ErrInvalid)
		}
		layers := append([]int{}, e.layers...)
		opts.OciEncryptConfig, opts.OciEncryptLayers = e.config, &layers
	}
	if s := o.Signing; s != nil {
		opts.SignBySigstorePrivateKeyFile, opts.SignSigstorePrivateKeyPassphrase = s.PrivateKeyFile, s.Passphrase
		if opts.SignSigstorePrivateKeyPassphrase == nil {
			opts.SignSigstorePrivateKeyPassphrase = []byte{}
		}
	}
	return nil
}
