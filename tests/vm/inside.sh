#!/bin/bash
# Runs in the machine of tests/vm/run.sh, as a service of systemd's: the tests,
# as root and as a user, each result a line "VM pass|FAIL|skip NAME".
set -u
mode=$(tr ' ' '\n' </proc/cmdline | sed -n 's/^strata.mode=//p')
export PATH=/payload:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
export STRATA_BINARY=/payload/strata
echo 1 >/proc/sys/kernel/printk
mount | grep -E 'type cgroup2? ' | sed 's/^/VM note /' | tr -d '\n' | cut -c1-200
echo
echo "VM note kernel $(uname -r), security modules $(cat /sys/kernel/security/lsm 2>/dev/null)"
modprobe -a overlay tun veth bridge nf_tables fuse 2>/dev/null
chmod 666 /dev/net/tun

# say prefixes the lines that go test -v ends tests with.
say() { # prefix
	sed -nE "s/^ *--- PASS: ([^ ]+) .*/VM pass $1 \1/p; s/^ *--- FAIL: ([^ ]+) .*/VM FAIL $1 \1/p; s/^ *--- SKIP: ([^ ]+) .*/VM skip $1 \1/p" /tmp/out
	if grep -q -- '--- FAIL\|^FAIL\|^panic' /tmp/out; then
		echo "VM output $1"
		# What was done last before each failure, then the end.
		grep -aB 12 'FAIL: scripts' /tmp/out | tail -n 200
		tail -n 40 /tmp/out
		echo "VM end of output"
	fi
}

tests() { # prefix pattern as...
	local prefix=$1 pattern=$2
	shift 2
	cd /payload/src/tests || exit
	"$@" ./tests.test -test.v -test.parallel 2 -test.timeout 200m -test.run "$pattern" </dev/null >/tmp/out 2>&1
	say "$prefix"
}

binary() { # prefix program pattern as...
	local prefix=$1 program=$2 pattern=$3
	shift 3
	cd /tmp || exit
	"$@" "/payload/$program" -test.v -test.timeout 60m -test.run "$pattern" </dev/null >/tmp/out 2>&1
	say "$prefix"
}

check() { # name command...
	local name=$1
	shift
	if "$@" >/tmp/out 2>&1; then
		echo "VM pass $name"
	else
		echo "VM FAIL $name"
		echo "VM output $name"
		tail -n 50 /tmp/out
		echo "VM end of output"
	fi
}

# user is a command of the user's own, in a group that is not theirs, as in a
# session of su's; delegated, in a scope that their systemd has given them.
as="setpriv --reuid 1000 --regid 1000 --init-groups env -i HOME=/home/dev USER=dev PATH=$PATH LANG=C.UTF-8 XDG_RUNTIME_DIR=/run/user/1000 STRATA_BINARY=$STRATA_BINARY"
for _ in $(seq 60); do
	[ -S /run/user/1000/bus ] && break
	sleep 1
done

check "doctor says $mode" sh -c "strata doctor --json | grep -q '\"version\": \"$mode\"'"
binary cgroup cgroup.test '.*' env
pattern=$(cat /payload/pattern)
tests root "${pattern:-TestScripts/^(run|rootless|runtime)\$|TestScripts/^option\$/^(limits|capabilities|network|isolation.*)\$|TestScripts/^command\$/^(doctor|info).*}" env
pattern=$(cat /payload/pattern-user)
[ -z "$pattern" ] || tests user "$pattern" $as
if [ "$mode" = v2 ]; then
	tests user 'TestScripts/^run$/^(limits|memory.*|cgroup_parent|scope|namespaces)$' $as
	tests delegated 'TestScripts/^run$/^(limits|memory.*|scope)$' $as systemd-run --user --scope --quiet -p Delegate=yes
	tests no-bus 'TestScripts/^run$/^memory_user$' $as XDG_RUNTIME_DIR=/nowhere
fi
binary embedded embedded.test '.*' env
systemctl --failed --no-legend | sed 's/^/VM note failed unit: /'
echo "VM end"
sync
