#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Disks that fail under the module on one node: redirected writes, failed flushes, stale copies, a
# pool without space, degraded writes. The disks lie on dm devices, whose tables change.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

lay() { # NAME DEVICE: a disk that works
	dmsetup create "$1" --table "0 $(blockdev --getsz "$2") linear $2 0"
}

break_disk() { # NAME: from now on every request to it fails
	dmsetup load "$1" --table "0 $(blockdev --getsz "/dev/mapper/$1") error" && dmsetup resume "$1"
}

mend_disk() { # NAME DEVICE
	dmsetup load "$1" --table "0 $(blockdev --getsz "$2") linear $2 0" && dmsetup resume "$1"
}

lines() { # FILE COUNT: it has so many
	[ "$(wc -l < "$1")" -ge "$2" ]
}

status_field() {
	dmsetup status "$1" | cut -d' ' -f"$2"
}

stale_copies_are() { # NAME COUNT
	[ "$(status_field "$1" 17)" -eq "$2" ]
}

fill() { # FILE MIB
	head -c "$2M" /dev/urandom > "$1"
}

whole_copies() { # NAME: how many of two have what was written
	local copy count=0
	for copy in 1 2; do
		dmsetup message "$1" 0 copy $copy && blockdev --flushbufs "/dev/mapper/$1"
		cmp -sn $((32 << 20)) /run/old "/dev/mapper/$1" && count=$((count + 1))
	done
	dmsetup message "$1" 0 copy 0
	echo $count
}

close_disk() { # ID: says how it went
	python3 -c '
import errno, sys, scribe_nl
try:
    scribe_nl.Family().call("DISK_CLOSE", DISK_ID=int(sys.argv[1]))
    print("closed")
except OSError as err:
    print(errno.errorcode[err.errno])' "$1"
}

dmesg -C
check "the module loads" load_module
lay f1 /dev/sda
lay f2 /dev/sdb
lay f3 /dev/sdc
disks=("1=/dev/mapper/f1" "2=/dev/mapper/f2" "3=/dev/mapper/f3")
check "disks are formatted" python3 scribe_agent.py format 1 "$state-3" "${disks[@]}"
check "the agent opens them" start_agent owner 1 "$state-3" "${disks[@]}"
check "a VSD appears" make_vsd v1 1 256
fill /run/old 32
check "it is filled" dd if=/run/old of=/dev/mapper/v1 bs=1M oflag=direct conv=fsync,notrunc status=none

check "a second VSD appears" make_vsd v2 2 64
python3 fsync_writer.py write /dev/mapper/v2 0 100000 > /run/records &
writer=$!
fio --name=v --filename=/dev/mapper/v1 --offset=64m --size=24m --direct=1 --ioengine=libaio --iodepth=8 \
	--bsrange=4k-64k --rw=randwrite --verify=crc32c --verify_fatal=1 --do_verify=1 --randseed=3 \
	--output-format=terse > /run/fio 2>&1 &
fio=$!
check "records are written and flushed" wait_until lines /run/records 20
check "a disk fails" break_disk f1
seen=$(wc -l < /run/records)
touch "$state-3/heal"
check "records go on" wait_until lines /run/records $((seen + 50))
kill $writer
wait $writer 2> /dev/null
wait $fio
check "fio had no error and found every byte" test $? -eq 0
check "every flushed record is there" python3 fsync_writer.py check /dev/mapper/v2 "$(wc -l < /run/records)"
check "writes went elsewhere, or copies became stale" test $(($(status_field v1 13) + $(status_field v1 17) +
	$(status_field v2 13) + $(status_field v2 17))) -gt 0
check "what was written before can be read" cmp -n $((32 << 20)) /run/old /dev/mapper/v1
check "the map can be evicted" dmsetup message v1 0 evict
check "and is the same when it is loaded again" cmp -n $((32 << 20)) /run/old /dev/mapper/v1
rm -f "$state-3/healed"
check "everything has two copies on the disks that are left" wait_until test -e "$state-3/healed"
check "and the two are the same" python3 scribe_agent.py compare 0 "$state-3" "${disks[@]:1}"
check "the module reads the same from both" python3 scribe_agent.py digests 0 "$state-3" "${disks[@]:1}"
check "slots are copied, those that cannot be left out" python3 scribe_agent.py slots 0 "$state-3" "${disks[@]:1}"
check "slots were copied for that" sh -c "grep -q 'copied [1-9]' /sys/kernel/debug/scribe/node"
check "nothing stays frozen" refuse grep -q 'frozen [1-9]' /sys/kernel/debug/scribe/vsds
check "a second disk fails" break_disk f2
check "the last one has all that was written before" cmp -n $((32 << 20)) /run/old /dev/mapper/v1
check "and every flushed record" python3 fsync_writer.py check /dev/mapper/v2 "$(wc -l < /run/records)"
check "all end" tear_down v1 v2
check "the disks work again" mend_disk f1 /dev/sda
check "both of them" mend_disk f2 /dev/sdb

# Two disks: with one of them gone there is no space for two copies.
check "the module loads again" load_module
disks=("1=/dev/mapper/f1" "2=/dev/mapper/f2")
for f in f1 f2; do wipefs -qa /dev/mapper/$f; done
check "two disks are formatted" python3 scribe_agent.py format 1 "$state-2" "${disks[@]}"
check "the agent opens them" start_agent owner 1 "$state-2" "${disks[@]}"
check "a VSD appears" make_vsd v3 3 64
fill /run/new 8
check "it is filled" dd if=/run/old of=/dev/mapper/v3 bs=1M oflag=direct conv=fsync,notrunc status=none
check "one disk fails" break_disk f1
touch "$state-2/refuse"
check "what is mapped is overwritten all the same" dd if=/run/new of=/dev/mapper/v3 bs=64k oflag=direct conv=fsync,notrunc status=none
check "in place, on the copies that are left" test "$(status_field v3 18)" -gt 0
check "the missing ones are stale" test "$(status_field v3 17)" -gt 0
check "a batch that the daemon refused was flushed and offered again" refuse test -e "$state-2/refuse"
check "what is not mapped finds no space, and says so" sh -c \
	'! dd if=/run/new of=/dev/mapper/v3 bs=1M seek=40 count=1 oflag=direct conv=notrunc 2> /run/err && grep -q "No space left" /run/err'
check "the new data reads back" cmp -n $((8 << 20)) /run/new /dev/mapper/v3
touch "$state-2/heal"
check "a mover that finds no place looks again and again" wait_until grep -q '^[5-9]' "$state-2/rounds"
check "and does not say that all is well" refuse test -e "$state-2/healed"
check "the new data still reads back" cmp -n $((8 << 20)) /run/new /dev/mapper/v3
rm "$state-2/heal"
check "all end" tear_down v3
check "the disk works again" mend_disk f1 /dev/sda
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "it never reads from the copies that missed writes" cmp -n $((8 << 20)) /run/new /dev/mapper/v3
check "what lies behind is as it was" cmp -n $((24 << 20)) -i $((8 << 20)) /run/old /dev/mapper/v3
check "the other disk fails" break_disk f2
check "an error is better than old data" refuse dd if=/dev/mapper/v3 of=/dev/null bs=64k count=1 iflag=direct
check "what has two good copies is read from the other" cmp -n $((16 << 20)) -i $((16 << 20)) /run/old /dev/mapper/v3
check "all end" tear_down v3
check "the disk works again" mend_disk f2 /dev/sdb
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "it is used" cmp -n $((8 << 20)) /run/new /dev/mapper/v3
touch "$state-2/heal"
check "stale copies are made good in their place" wait_until test -e "$state-2/healed"
check "and are the same as the others" python3 scribe_agent.py compare 0 "$state-2" "${disks[@]}"
check "all end" tear_down v3

# An owner that died while it overwrote something: the copies differ.
rm -f "$state-2/heal" "$state-2/healed"
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "something is overwritten in place" dd if=/run/new of=/dev/mapper/v3 bs=64k seek=16 count=4 oflag=direct conv=fsync,notrunc status=none
check "what is written in place has intent" grep -q 'intents [1-9]' /sys/kernel/debug/scribe/vsds
check "all end" tear_down v3
check "copies differ" python3 scribe_agent.py spoil 0 "$state-2" "${disks[@]}"
check "which is seen" refuse python3 scribe_agent.py compare 0 "$state-2" "${disks[@]}"
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "it is read" dd if=/dev/mapper/v3 of=/run/first bs=1M count=32 iflag=direct status=none
touch "$state-2/heal"
check "one copy of each is chosen, and the others made equal to it" wait_until test -e "$state-2/healed"
check "they are equal" python3 scribe_agent.py compare 0 "$state-2" "${disks[@]}"
check "the map can be evicted" dmsetup message v3 0 evict
check "what was read before is read again" cmp -n $((32 << 20)) /run/first /dev/mapper/v3
check "the first disk fails" break_disk f1
check "the other has all of it" cmp -n $((32 << 20)) /run/first /dev/mapper/v3
check "all end" tear_down v3

# A write that fails on both copies and finds no other place: each of them may have it or not.
rm -f "$state-2/heal" "$state-2/healed"
check "the first disk works again" mend_disk f1 /dev/sda
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "something is overwritten in place" dd if=/run/new of=/dev/mapper/v3 bs=64k seek=32 count=1 oflag=direct conv=fsync,notrunc status=none
seen=$(status_field v3 17)
check "one disk fails" break_disk f1
check "and the other at once" break_disk f2
check "what is written there finds no space, and that is said" refuse dd if=/run/old of=/dev/mapper/v3 bs=64k seek=32 count=1 oflag=direct conv=notrunc status=none
check "just one copy counts from then on" wait_until stale_copies_are v3 $((seen + 1))
# Whoever reads it, udev say, waits for one of the disks.
check "who waits is told" python3 -c 'import scribe_nl; scribe_nl.Family().call("LEASE_FAIL", VSD=3)'
check "all end" wait_until tear_down v3
check "the first disk works again" mend_disk f1 /dev/sda
check "and the second" mend_disk f2 /dev/sdb
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "it is used" dd if=/dev/mapper/v3 of=/dev/null bs=1M count=32 iflag=direct status=none
touch "$state-2/heal"
check "the other is made equal to it" wait_until test -e "$state-2/healed"
check "so they are" python3 scribe_agent.py compare 0 "$state-2" "${disks[@]}"
check "all end" tear_down v3

# Both disks of what was written and not flushed are gone: then there is only what was flushed.
rm -f "$state-2/heal" "$state-2/healed"
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "part of it is read" dd if=/dev/mapper/v3 of=/run/first bs=1M skip=16 count=16 iflag=direct status=none
dd if=/run/new of=/dev/mapper/v3 bs=4k oflag=direct conv=notrunc status=none 2> /run/err &
writer=$!
check "data is written and not flushed" wait_until sh -c "dmsetup status v3 | cut -d' ' -f8 | grep -qv '^0$'"
check "one disk fails" break_disk f1
check "and the other at once" break_disk f2
check "the daemon hears that nothing can flush it" wait_until test -e "$state-2/relet"
wait $writer
check "who goes on writing finds no space, in the end" test $? -ne 0
check "the next flush says what was lost" wait_until refuse sync /dev/mapper/v3
check "the one behind it has nothing to say" sync /dev/mapper/v3
check "who reads waits for the disks" python3 -c 'import scribe_nl; scribe_nl.Family().call("LEASE_FAIL", VSD=3)'
check "all end" wait_until tear_down v3
check "the first disk works again" mend_disk f1 /dev/sda
check "and the second" mend_disk f2 /dev/sdb
check "the module loads again" load_module
check "the agent opens both" start_agent owner 1 "$state-2" "${disks[@]}"
check "the VSD appears" make_vsd v3 3 64
check "what was flushed is there" cmp -n $((16 << 20)) -i 0:$((16 << 20)) /run/first /dev/mapper/v3
check "the rest is read" dd if=/dev/mapper/v3 of=/dev/null bs=1M count=16 iflag=direct status=none
touch "$state-2/heal"
check "copies are made equal" wait_until test -e "$state-2/healed"
check "so they are" python3 scribe_agent.py compare 0 "$state-2" "${disks[@]}"
check "all end" tear_down v3

# A disk that does not answer any more, and does later: what waits on it ends well, nobody else waits.
check "the module loads again" load_module
echo 3 > /sys/module/dm_scribe/parameters/disk_hang_s
disks=("1=/dev/mapper/f1" "2=/dev/mapper/f2" "3=/dev/mapper/f3")
for f in f1 f2 f3; do wipefs -qa /dev/mapper/$f; done
check "three disks are formatted" python3 scribe_agent.py format 1 "$state-4" "${disks[@]}"
check "the agent opens them" start_agent owner 1 "$state-4" "${disks[@]}"
check "a VSD appears" make_vsd v4 4 64
check "it is filled" dd if=/run/old of=/dev/mapper/v4 bs=1M oflag=direct conv=fsync,notrunc status=none
for copy in 1 2; do
	dmsetup message v4 0 copy $copy
	check "copy $copy has all of it" cmp -n $((32 << 20)) /run/old /dev/mapper/v4
	blockdev --flushbufs /dev/mapper/v4
done
check "there is no copy 5 to read" refuse dmsetup message v4 0 copy 5
dmsetup message v4 0 copy 0
dmsetup suspend --nolockfs --noflush f1
dd if=/dev/mapper/v4 of=/run/late bs=1M count=32 iflag=direct status=none 2> /run/late.err &
late=$!
check "a disk that does not answer counts as failed" wait_until grep -q 'disk 1 failed' /sys/kernel/debug/scribe/disks
check "what lies there is read from the others" cmp -n $((32 << 20)) /run/old /dev/mapper/v4
check "writes go elsewhere" dd if=/run/new of=/dev/mapper/v4 bs=1M seek=40 oflag=direct conv=fsync,notrunc status=none
check "and are there" cmp -n $((8 << 20)) -i 0:$((40 << 20)) /run/new /dev/mapper/v4
check "whoever waited for the disk waits still" kill -0 $late
check "it cannot be closed yet, which is said at once" test "$(close_disk 1)" = EAGAIN
check "it answers after all" dmsetup resume f1
wait $late
check "which ends without an error" test $? -eq 0
check "and with the right data" cmp -n $((32 << 20)) /run/old /run/late
check "a copy rots on its disk" python3 scribe_agent.py rot 0 "$state-4" "${disks[@]:1}"
check "the module sees that" refuse python3 scribe_agent.py digests 0 "$state-4" "${disks[@]:1}"
check "one copy is as it should be, and the other is not" test "$(whole_copies v4) whole" = "1 whole"
check "now it can be closed" test "$(close_disk 1)" = closed
check "all end" tear_down v4
for f in f1 f2 f3; do dmsetup remove $f; done
finish
