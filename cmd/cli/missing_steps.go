package cli

// missingStepFlags are refused by the commands that work on containers.
var missingStepFlags = []MissingFlag{
	{Command: "add", Name: "allow-empty-wildcard", From: "buildah"},
	{Command: "add", Name: "blob-cache", From: "buildah"},
	{Command: "add", Name: "decryption-key", From: "buildah"},
	{Command: "add", Name: "no-follow-symlinks", From: "buildah"},
	{Command: "add", Name: "remove-signatures", From: "buildah"},
	{Command: "commit", Name: "blob-cache", From: "buildah"},
	{Command: "commit", Name: "cw", From: "buildah"},
	{Command: "commit", Name: "encrypt-layer", From: "buildah"},
	{Command: "commit", Name: "encryption-key", From: "buildah"},
	{Command: "commit", Name: "sign-by", From: "buildah"},
	{Command: "copy", Name: "allow-empty-wildcard", From: "buildah"},
	{Command: "copy", Name: "blob-cache", From: "buildah"},
	{Command: "copy", Name: "decryption-key", From: "buildah"},
	{Command: "copy", Name: "no-follow-symlinks", From: "buildah"},
	{Command: "copy", Name: "remove-signatures", From: "buildah"},
}
