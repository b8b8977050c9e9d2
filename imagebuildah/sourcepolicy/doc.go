// Package sourcepolicy decides about the sources of a build by rules in the
// form of BuildKit's source policies: images (docker-image://), downloads
// (https://) and git repositories (git://) are allowed, denied, or replaced by
// other ones.
//
//	{"rules": [
//	  {"action": "DENY", "selector": {"identifier": "docker-image://*"}},
//	  {"action": "ALLOW", "selector": {"identifier": "docker-image://docker.io/library/*"}},
//	  {"action": "CONVERT", "selector": {"identifier": "docker-image://docker.io/library/alpine:*"},
//	   "updates": {"identifier": "docker-image://registry.example/alpine:${1}"}}
//	]}
//
// The last rule that fits decides between ALLOW and DENY; what no rule fits is
// allowed. A CONVERT that changes something begins anew with the changed
// source. What is not understood is an error: a rule that is not heeded would
// allow what it forbids.
package sourcepolicy
