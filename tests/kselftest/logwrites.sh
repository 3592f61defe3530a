#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A power cut at any moment of a workload, each disk with its own part of what was under way: what
# dm-log-writes recorded is replayed up to there, and the pool assembled from it.
# SCRIBE_MOMENTS: how many are tried, of some hundreds; SCRIBE_SEED chooses them.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
seed=${SCRIBE_SEED:-1}
tried=${SCRIBE_MOMENTS:-20}
rounds=40
mib=1024
images=/dev/shm/scribe-images

part() { # NAME DEVICE NUMBER: one of a disk's parts
	dmsetup create "$1" --table "0 $((mib * 2048)) linear $2 $(($3 * mib * 2048))"
}

logged() { # NAME LOG: a disk whose writes are recorded
	dmsetup create "w$1" --table "0 $((mib * 2048)) log-writes /dev/mapper/$1 /dev/mapper/$2"
}

end_all() {
	dmsetup remove v1 && stop_agent && rmmod dm_scribe
}

empty() { # IMAGE: of the size of a disk
	rm -f "$1" && truncate -s "${mib}M" "$1"
}

# One moment; all of it must work.
try() {
	local number=$1 acknowledged first second
	rm -rf "$state-cut" && mkdir -p "$state-cut"
	empty "$images"/a && empty "$images"/b
	acknowledged=$(python3 logwrites.py restore "$seed" "$number" /dev/mapper/la /dev/mapper/lb "$images"/a "$images"/b \
		"$state-log/versions" "$state-cut/map.json") || return 1
	first=$(losetup --show -f "$images"/a) && second=$(losetup --show -f "$images"/b) && load_module &&
		start_agent owner 1 "$state-cut" "1=$first" "2=$second" && make_vsd v1 1 6 &&
		python3 logwrites.py verify /dev/mapper/v1 "$seed" "$rounds" "$acknowledged" || return 1
	# Redundancy comes back, and it was no accident which copy was read.
	touch "$state-cut/heal"
	wait_until test -e "$state-cut/healed" &&
		python3 scribe_agent.py compare 0 "$state-cut" "1=$first" "2=$second" &&
		blockdev --flushbufs /dev/mapper/v1 &&
		python3 logwrites.py verify /dev/mapper/v1 "$seed" "$rounds" "$acknowledged" &&
		end_all && losetup -d "$first" "$second"
}

dmesg -C
mkdir -p "$images"
check "the kernel records writes" modprobe -a dm_log_writes loop
part a /dev/sda 0
part b /dev/sdb 0
part la /dev/sdc 0
part lb /dev/sdc 1
check "two disks are recorded" logged a la
check "each by itself" logged b lb
check "the module loads" load_module
check "they are formatted" python3 scribe_agent.py format 1 "$state-log" 1=/dev/mapper/wa 2=/dev/mapper/wb
export SCRIBE_MARKS="wa wb"
check "the agent opens them" start_agent owner 1 "$state-log" 1=/dev/mapper/wa 2=/dev/mapper/wb
unset SCRIBE_MARKS
check "a VSD appears" make_vsd v1 1 6
check "it is written to" python3 logwrites.py work /dev/mapper/v1 "$seed" "$rounds" wa wb
check "all of it is there" python3 logwrites.py verify /dev/mapper/v1 "$seed" "$rounds" $rounds
check "all end" end_all
check "the records are complete" dmsetup remove wa wb
total=$(python3 logwrites.py count "$seed" /dev/mapper/la /dev/mapper/lb)
echo "# $total moments, $tried of them tried, seed $seed"
check "there are enough moments" [ "$total" -gt $((rounds * 2)) ]
for ((number = 0; number < tried && number < total; number++)); do
	check "a power cut at moment $number: what was flushed is there, and both copies agree" try "$number"
	[ $failures -eq 0 ] || break # module and devices are still in use
done
for name in a b la lb; do dmsetup remove $name; done
finish
