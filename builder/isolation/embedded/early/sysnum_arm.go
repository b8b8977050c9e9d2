package early

import "syscall"

const (
	sysStatx     = 397
	sysSetns     = 375
	sysSeccomp   = 383
	sysSetgroups = syscall.SYS_SETGROUPS32
	sysSetresgid = syscall.SYS_SETRESGID32
	sysSetresuid = syscall.SYS_SETRESUID32
	sysFchown    = syscall.SYS_FCHOWN32

	sysSocket     = syscall.SYS_SOCKET
	sysGetsockopt = syscall.SYS_GETSOCKOPT
	sysSendmsg    = syscall.SYS_SENDMSG
	sysRecvmsg    = syscall.SYS_RECVMSG

	tiocgptpeer = 0x5441
)
