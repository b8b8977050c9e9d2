//go:build !386 && !arm

package early

import "syscall"

const fcntl = syscall.SYS_FCNTL
