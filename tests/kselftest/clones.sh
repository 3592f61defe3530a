#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Two VSDs that lead to the same extents: neither writes to what the other reads, and both hear of
# copies that moved.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

same() { # FILE DEVICE MIB: as the disks have it, not the page cache
	blockdev --flushbufs "/dev/mapper/$2" && cmp -n $(($3 << 20)) "$1" "/dev/mapper/$2"
}

one_writes() { # DEVICE SEEK-MIB FILE
	dd if="$3" of="/dev/mapper/$1" bs=1M seek="$2" oflag=direct conv=fsync,notrunc status=none
}

dmesg -C
check "the module loads" load_module
disks=("1=/dev/sda" "2=/dev/sdb" "3=/dev/sdc")
for disk in sda sdb sdc; do wipefs -qa /dev/$disk; done
check "disks are formatted" python3 scribe_agent.py format 1 "$state-c" "${disks[@]}"
check "the agent opens them" start_agent owner 1 "$state-c" "${disks[@]}"
check "a VSD appears" make_vsd v5 5 64
head -c 24M /dev/urandom > /run/old
head -c 4M /dev/urandom > /run/new
check "it is filled" one_writes v5 0 /run/old
check "it is taken away, all flushed" wait_until dmsetup remove v5
check "a clone of it appears" make_vsd v105 105 64
check "and the VSD itself again" make_vsd v5 5 64
check "the clone has what the VSD has" same /run/old v105 24
check "and so has the VSD" same /run/old v5 24

cat /run/new /run/old | head -c 24M > /run/both
tail -c 20M /run/old | dd of=/run/both bs=1M seek=4 conv=notrunc status=none
check "the clone is written to" one_writes v105 0 /run/new
check "it has what was written, and the rest as it was" same /run/both v105 24
check "the VSD is as it was" same /run/old v5 24
check "in small pieces, too" fio --name=c --filename=/dev/mapper/v105 --offset=8m --size=2m --rw=randwrite --bs=4k --direct=1 \
	--ioengine=libaio --iodepth=8 --end_fsync=1 --verify=crc32c --verify_fatal=1 --do_verify=1 --output-format=terse
check "which the VSD does not see" same /run/old v5 24
dd if=/dev/mapper/v105 of=/run/both bs=1M count=24 iflag=direct status=none

# Reads go on meanwhile: of what is being read no slot is written over before the barrier's end.
fio --name=r --filename=/dev/mapper/v5 --size=24m --rw=randread --bs=64k --direct=1 --ioengine=libaio --iodepth=8 \
	--time_based --runtime=600 --output-format=terse > /run/fio 2>&1 &
reader=$!
for round in 1 2 3; do
	rm -f "$state-c/relocated"
	touch "$state-c/relocate"
	check "what both lead to gets other slots, round $round" wait_until test -e "$state-c/relocated"
	check "the VSD reads from them" same /run/old v5 24
	check "so does the clone, and what is its own stays where it is" same /run/both v105 24
done
check "some of that is frozen all the time" grep -q 'frozen [1-9]' /sys/kernel/debug/scribe/vsds
check "copies did move" grep -q 'owner: [1-9][0-9]* copies have other slots' /run/agent.log
check "who read all the time had no error" kill -0 $reader
kill $reader
wait $reader 2> /dev/null
check "the VSD's map can be evicted" dmsetup message v5 0 evict
check "and the clone's" dmsetup message v105 0 evict
check "the VSD is the same when its map is loaded again" same /run/old v5 24
check "and so is the clone" same /run/both v105 24
check "copies are equal" python3 scribe_agent.py compare 0 "$state-c" "${disks[@]}"

# Whoever goes first: the other keeps what both led to.
check "the VSD is overwritten" one_writes v5 0 /run/both
check "the clone is as it was" same /run/both v105 24
check "the VSD ends" wait_until dmsetup remove v5
check "the clone goes on" same /run/both v105 24
check "all end" wait_until tear_down v105
finish
