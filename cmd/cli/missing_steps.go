package cli

// missingStepFlags are refused by the commands that work on containers.
var missingStepFlags = []MissingFlag{
	{Command: "commit", Name: "cw", From: "buildah", Instead: noCW},
	{Command: "commit", Name: "sign-by", From: "buildah", Instead: noGPG},
}
