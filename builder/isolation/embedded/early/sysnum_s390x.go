package early

import "syscall"

const (
	sysStatx     = 379
	sysSetns     = 339
	sysSeccomp   = 348
	sysSetgroups = syscall.SYS_SETGROUPS
	sysSetresgid = syscall.SYS_SETRESGID
	sysSetresuid = syscall.SYS_SETRESUID
	sysFchown    = syscall.SYS_FCHOWN

	sysSocket     = syscall.SYS_SOCKET
	sysGetsockopt = syscall.SYS_GETSOCKOPT
	sysSendmsg    = syscall.SYS_SENDMSG
	sysRecvmsg    = syscall.SYS_RECVMSG

	tiocgptpeer = 0x5441
)
