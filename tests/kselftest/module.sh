#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# The module on one node with three local disks: life cycle, I/O of all sizes, file system, discard,
# reload under use, persistence of the map, disk failure.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
fast=${SCRIBE_FAST:-} # fewer sizes

verify() { # NAME BLOCKSIZE SIZE EXTRA...
	local name=$1 bs=$2 size=$3
	shift 3
	fio --name=v --filename="/dev/mapper/$name" --direct=1 --ioengine=libaio --iodepth=8 --bs="$bs" \
		--size="$size" --rw=randwrite --verify=crc32c --verify_fatal=1 --do_verify=1 \
		--verify_backlog=256 --randseed=7 --group_reporting --output-format=terse "$@"
}

status_field() {
	dmsetup status "$1" | cut -d' ' -f"$2"
}

dmesg -C
check "the module loads" load_module
for d in a b c; do wipefs -qa /dev/sd$d; done
check "disks are formatted" python3 scribe_agent.py format 1 "$state" 1=/dev/sda 2=/dev/sdb 3=/dev/sdc
check "the agent opens them" start_agent owner 1 "$state" 1=/dev/sda 2=/dev/sdb 3=/dev/sdc
check "a table without a VSD id is refused" refuse dmsetup create bad --table "0 2048 scribe"
check "a table with VSD id 0 is refused" refuse dmsetup create bad --table "0 2048 scribe 0"
check "a table that does not begin with its VSD is refused" refuse \
	sh -c "printf '0 8 error\n8 2048 scribe 1\n' | dmsetup create bad"
check "a VSD of 4 GiB appears" make_vsd v1 1 4096
check "an unwritten disk reads as zeros" cmp -n 4194304 /dev/mapper/v1 /dev/zero
check "unloading under use is refused" refuse rmmod dm_scribe
dmsetup create short --table "0 1056 scribe 9" && wait_until test -b /dev/mapper/short
check "a device may be shorter than its VSD, as a firmware has it" test "$(blockdev --getsz /dev/mapper/short)" = 1056
check "all of it is written and read" verify short 4k 528k
check "behind its end there is nothing" refuse dd if=/dev/zero of=/dev/mapper/short bs=512 seek=1056 count=1 oflag=direct
check "it is thrown away and reads as zeros" sh -c "blkdiscard /dev/mapper/short && cmp -n 540672 /dev/mapper/short /dev/zero"
check "it goes" dmsetup remove short
check "an unknown message is refused" refuse dmsetup message v1 0 nonsense

sizes="512 4k 64k 1m 4m"
[ -n "$fast" ] || sizes="512 1k 2k 4k 8k 16k 32k 64k 128k 256k 512k 1m 2m 4m"
for bs in $sizes; do
	size=16m
	case $bs in 512 | 1k | 2k) size=2m ;; esac
	check "random writes of $bs verify" verify v1 "$bs" "$size" --offset=$((RANDOM % 64))m
done
check "mixed sizes from 512 B to 1 MiB over one another verify" verify v1 4k 32m --bsrange=512-1m --bs_unaligned=0 --norandommap=0
check "random small writes made a chunk be rewritten" test "$(status_field v1 14)" -gt 0
check "small writes over written data went in place" test "$(status_field v1 11)" -gt 0

mkdir -p /mnt/v
check "mkfs" mkfs.ext4 -q -E nodiscard /dev/mapper/v1
check "mount" mount /dev/mapper/v1 /mnt/v
check "files are written" sh -c 'cp -r /usr/lib/python3.11 /mnt/v/ && sync && cd /mnt/v && find . -type f | sort | xargs md5sum > /run/sums'
check "umount" umount /mnt/v
check "the map can be evicted" dmsetup message v1 0 evict
check "fsck finds nothing after the map was loaded again" fsck.ext4 -fn /dev/mapper/v1
check "mount again" mount /dev/mapper/v1 /mnt/v
echo 3 > /proc/sys/vm/drop_caches
check "the files are the same" sh -c 'cd /mnt/v && md5sum --quiet -c /run/sums'
check "fstrim" fstrim -v /mnt/v
check "the files are the same after fstrim" sh -c 'echo 3 > /proc/sys/vm/drop_caches; cd /mnt/v && md5sum --quiet -c /run/sums'
check "umount" umount /mnt/v

check "a device is removed and made again" sh -c 'dmsetup remove v1'
check "the agent ends" stop_agent
check "the module unloads" rmmod dm_scribe
check "and loads again" load_module
check "another agent goes on from the committed map" start_agent owner 1 "$state" 1=/dev/sda 2=/dev/sdb 3=/dev/sdc
check "the VSD appears" make_vsd v1 1 4096
check "mount" mount /dev/mapper/v1 /mnt/v
check "the files are the same after all that" sh -c 'cd /mnt/v && md5sum --quiet -c /run/sums'
check "umount" umount /mnt/v

check "a VSD of 256 MiB appears" make_vsd v2 2 256
check "it is filled" sh -c 'head -c 32M /dev/urandom > /run/data; dd if=/run/data of=/dev/mapper/v2 bs=1M oflag=direct conv=fsync status=none'
check "it reads back" cmp -n $((32 << 20)) /dev/mapper/v2 /run/data
check "a discard in the middle" blkdiscard -o $((5 << 20)) -l $((3 << 20)) /dev/mapper/v2
check "reads as zeros" cmp -n $((3 << 20)) -i $((5 << 20)):0 /dev/mapper/v2 /dev/zero
check "what lies before it is untouched" cmp -n $((5 << 20)) /dev/mapper/v2 /run/data
check "what lies behind it is untouched" cmp -n $((24 << 20)) -i $((8 << 20)) /dev/mapper/v2 /run/data
check "zeroing a range of 512 B" blkdiscard -z -o 512 -l 512 /dev/mapper/v2
check "zeroes just that" sh -c 'cmp -n 512 -i 512:0 /dev/mapper/v2 /dev/zero && cmp -n 512 /dev/mapper/v2 /run/data && cmp -n 3072 -i 1024 /dev/mapper/v2 /run/data'
# Each time, all that the extent for small writes held is gone, and that is committed.
check "small writes behind discards of those before them" sh -c 'for i in 1 2 3 4 5; do
	dd if=/run/data of=/dev/mapper/v2 bs=4k count=1 seek=$((40000 + i * 300)) oflag=direct conv=notrunc,fsync status=none &&
	blkdiscard -o $(((40000 + i * 300) * 4096)) -l 4096 /dev/mapper/v2 && sync /dev/mapper/v2 || exit 1
done && dd if=/run/data of=/dev/mapper/v2 bs=4k count=1 seek=50000 oflag=direct conv=notrunc,fsync status=none'
check "are there" cmp -n 4096 -i $((50000 * 4096)):0 /dev/mapper/v2 /run/data
check "a device can be grown in use" sh -c 'dmsetup load v2 --table "0 $((512 * 2048)) scribe 2" && dmsetup resume v2 && test "$(blockdev --getsize64 /dev/mapper/v2)" = $((512 << 20))'
check "its data is there" cmp -n $((5 << 20)) -i $((10 << 20)) /dev/mapper/v2 /run/data

# Each of its 16384 chunks parks until one of 1024 leaves is there.
check "a VSD of 16 GiB appears" make_vsd v3 3 16384
check "discarding all of it, with no leaf loaded, ends" timeout 600 blkdiscard /dev/mapper/v3
check "a file system that spans it" sh -c 'mkfs.ext4 -q -E nodiscard,lazy_itable_init=1 /dev/mapper/v3 && mkdir -p /mnt/w && mount /dev/mapper/v3 /mnt/w'
check "gives its free space back" timeout 600 fstrim -v /mnt/w
check "umount" umount /mnt/w
check "the agent lives" sh -c 'test -e "/proc/$(cat /run/agent.pid)" || { cat /run/agent.log; false; }'

check "wrong and random netlink attributes and damaged superblocks are refused" python3 badinput.py
check "remove all" sh -c 'dmsetup remove v1 && dmsetup remove v2 && dmsetup remove v3'
check "the agent ends" stop_agent
check "the module unloads" rmmod dm_scribe
if [ -e /sys/kernel/debug/kmemleak ]; then
	sleep 6
	echo scan > /sys/kernel/debug/kmemleak
	sleep 6
	echo scan > /sys/kernel/debug/kmemleak
	check "kmemleak finds nothing" refuse grep -A12 unreferenced /sys/kernel/debug/kmemleak
fi
finish
