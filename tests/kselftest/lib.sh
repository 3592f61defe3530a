# SPDX-License-Identifier: GPL-2.0
# TAP and common steps of the module's tests; sourced. Runs in a lab node as root.
# shellcheck shell=bash

cd "$(dirname "${BASH_SOURCE[0]}")" || exit 1
export state=/run/scribe-test
tests=0
failures=0

# check DESCRIPTION COMMAND...: one line of TAP; what the command says goes into it on failure.
check() {
	local what=$1 out code
	shift
	tests=$((tests + 1))
	out=$("$@" 2>&1)
	code=$?
	if [ $code -eq 0 ]; then
		echo "ok $tests - $what"
	else
		failures=$((failures + 1))
		echo "not ok $tests - $what"
		printf '%s\n' "exit code $code" "$out" | tail -n 25 | sed 's/^/# /'
	fi
}

refuse() {
	! "$@"
}

finish() {
	check "the kernel log has no BUG, WARNING, lockdep or KASAN report" refuse bad_log
	echo "1..$tests"
	[ $failures -eq 0 ]
	exit
}

bad_log() {
	dmesg | grep -E 'BUG:|WARNING:|KASAN|possible (recursive|circular)|inconsistent lock|blocked for more than|refcount_t|Oops|unreferenced object'
}

wait_until() {
	local tries=600
	while [ $((tries--)) -gt 0 ]; do
		"$@" > /dev/null 2>&1 && return 0
		sleep 0.2
	done
	echo "waited in vain for: $*"
	return 1
}

# start_agent ROLE NODE STATE DISK...: by way of a file, since check() runs it in a subshell.
start_agent() {
	rm -f "$3/ready"
	python3 scribe_agent.py "$@" > /run/agent.log 2>&1 &
	echo $! > /run/agent.pid
	wait_until test -e "$3/ready" || { cat /run/agent.log; return 1; }
}

# Ends the agent: two would both answer the module.
stop_agent() {
	kill "$(cat /run/agent.pid)" && wait_until refuse test -e "/proc/$(cat /run/agent.pid)"
}

# udev may look at a device that was just written to.
tear_down() { # NAME...: devices, agent and module
	local name
	for name in "$@"; do wait_until dmsetup remove "$name" || return 1; done
	stop_agent && rmmod dm_scribe
}

make_vsd() { # NAME ID MIB
	dmsetup create "$1" --table "0 $(($3 * 2048)) scribe $2" &&
		wait_until test -b "/dev/mapper/$1"
}

load_module() {
	modprobe dm_mod
	insmod "${SCRIBE_KO:-/root/dm_scribe.ko}"
}
