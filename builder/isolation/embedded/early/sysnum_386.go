package early

import "syscall"

const (
	sysStatx     = 383
	sysSetns     = 346
	sysSeccomp   = 354
	sysSetgroups = syscall.SYS_SETGROUPS32
	sysSetresgid = syscall.SYS_SETRESGID32
	sysSetresuid = syscall.SYS_SETRESUID32
	sysFchown    = syscall.SYS_FCHOWN32

	sysSocket     = 359
	sysGetsockopt = 365
	sysSendmsg    = 370
	sysRecvmsg    = 372

	tiocgptpeer = 0x5441
)
