package cli

import (
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/stratabuild/strata/builder/transport"
	"github.com/stratabuild/strata/define"
)

// registryFlags say how to reach registries.
type registryFlags struct {
	authfile, certDir, creds string
	compatAuthfile           string
	signaturePolicy          string
	tlsVerify, insecure      bool
	retry                    int
	retryDelay               string
	decryptionKeys           []string
}

func (r *registryFlags) add(cmd *cobra.Command) {
	r.addAuthfile(cmd)
	r.addTLS(cmd)
	fs := cmd.Flags()
	fs.StringVar(&r.creds, "creds", "", "log in with these `user[:password]` instead of those in the authfile")
	fs.StringVar(&r.signaturePolicy, "signature-policy", "", "take the policy of trusted images from this `file` instead of policy.json")
	fs.IntVar(&r.retry, "retry", 3, "try this many `times` more when a registry fails for a moment")
	fs.StringVar(&r.retryDelay, "retry-delay", "", "wait this `duration` between tries, such as 2s (default: grows with each try)")
}

func (r *registryFlags) addAuthfile(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.authfile, "authfile", "", "read and write credentials in this `file` (default: $REGISTRY_AUTH_FILE, else those of podman and docker)")
	_ = cmd.MarkFlagFilename("authfile")
}

func (r *registryFlags) addCompatAuthfile(cmd *cobra.Command) {
	cmd.Flags().StringVar(&r.compatAuthfile, "compat-auth-file", "", "keep credentials in this `file`, in the form of docker's config.json, instead")
	_ = cmd.MarkFlagFilename("compat-auth-file")
}

func (r *registryFlags) addTLS(cmd *cobra.Command) {
	fs := cmd.Flags()
	fs.StringVar(&r.certDir, "cert-dir", "", "take certificates (*.crt, *.cert, *.key) for the registry from this `directory`")
	fs.BoolVar(&r.tlsVerify, "tls-verify", true, "require HTTPS and verify certificates (default: as registries.conf says)")
	_ = cmd.MarkFlagDirname("cert-dir")
}

// addInsecure adds the hidden word that manifest commands of other tools have
// for --tls-verify=false.
func (r *registryFlags) addInsecure(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&r.insecure, "insecure", false, "the same as --tls-verify=false")
	_ = cmd.Flags().MarkHidden("insecure")
}

// options checks the flags; mustRead says that a file of credentials that
// was named has to exist.
func (r *registryFlags) options(cmd *cobra.Command, mustRead bool) (transport.Options, error) {
	o := transport.Options{Authfile: r.authfile, CompatAuthfile: r.compatAuthfile, CertDir: r.certDir, Creds: r.creds, SignaturePolicy: r.signaturePolicy}
	fs := cmd.Flags()
	if fs.Changed("tls-verify") {
		o.TLSVerify = &r.tlsVerify
	}
	if r.insecure {
		if fs.Changed("tls-verify") && r.tlsVerify {
			return o, fmt.Errorf("--insecure and --tls-verify: want one or the other: %w", define.ErrInvalid)
		}
		verify := false
		o.TLSVerify = &verify
	}
	if r.compatAuthfile != "" && r.authfile != "" && fs.Changed("authfile") {
		return o, fmt.Errorf("--authfile and --compat-auth-file: want one or the other: %w", define.ErrInvalid)
	}
	if mustRead && r.authfile != "" {
		if _, err := os.Stat(r.authfile); err != nil {
			return o, fmt.Errorf("--authfile: %w", err)
		}
	}
	if r.signaturePolicy != "" {
		if _, err := os.Stat(r.signaturePolicy); err != nil {
			return o, fmt.Errorf("--signature-policy: %w", err)
		}
	}
	if r.certDir != "" {
		if fi, err := os.Stat(r.certDir); err != nil {
			return o, fmt.Errorf("--cert-dir: %w", err)
		} else if !fi.IsDir() {
			return o, fmt.Errorf("--cert-dir %q: not a directory: %w", r.certDir, define.ErrInvalid)
		}
	}
	if fs.Changed("creds") {
		if user, _, _ := strings.Cut(r.creds, ":"); user == "" {
			return o, fmt.Errorf("--creds: want user[:password]: %w", define.ErrInvalid)
		}
	}
	if len(r.decryptionKeys) > 0 {
		var err error
		if o.Decryption, err = transport.NewDecryption(r.decryptionKeys); err != nil {
			return o, fmt.Errorf("--decryption-key: %w", err)
		}
	}
	if fs.Lookup("retry") == nil {
		return o, nil
	}
	switch {
	case r.retry < 0:
		return o, fmt.Errorf("--retry %d: want 0 or more: %w", r.retry, define.ErrInvalid)
	case r.retry == 0:
		o.Retry = -1 // transport's word for "never"
	default:
		o.Retry = r.retry
	}
	if r.retryDelay != "" {
		d, err := time.ParseDuration(r.retryDelay)
		if err != nil || d < 0 {
			return o, fmt.Errorf("--retry-delay %q: want a duration such as 500ms or 2s: %w", r.retryDelay, define.ErrInvalid)
		}
		o.RetryDelay = d
	}
	return o, nil
}
