#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# A fully mapped disk of 1 TiB: it is there at once, since the map comes as it is used, and what is
# loaded is small, and given back under memory pressure.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# A sixteenth of the map; less on a debug kernel, whose memory is not measured: each object has its
# red zones there.
leaves=${SCRIBE_DEBUG:+256}
leaves=${leaves:-4096}
tib_mib=$((1024 * 1024))

slab_kib() { # what kmalloc and the module's caches hold
	awk '/^Slab:/ { print $2 }' /proc/meminfo
}

touch_leaves() { # COUNT: one block of each
	python3 - "$1" << 'END'
import mmap, os, sys
from concurrent.futures import ThreadPoolExecutor
fd = os.open("/dev/mapper/big", os.O_RDONLY | os.O_DIRECT)
def touch(thread):
    block = mmap.mmap(-1, 4096)
    for leaf in range(thread, int(sys.argv[1]), 8):
        os.preadv(fd, [block], leaf << 24)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(touch, range(8)))
END
}

extents() {
	sed -n 's/.* extents //p' /sys/kernel/debug/scribe/node
}

loaded() { # COUNT: so many extents are known
	[ "$(extents)" -ge "$1" ]
}

gives_back() { # the shrinker takes half and more, a pass at a time
	local tries=50
	while [ $((tries--)) -gt 0 ]; do
		echo 2 > /proc/sys/vm/drop_caches
		[ "$(extents)" -lt $((leaves * 8)) ] && return 0
	done
	extents
	return 1
}

small_enough() { # KIB for the leaves loaded
	local whole=$(($1 * 65536 / leaves / 1024))
	echo "# $whole MiB of kernel memory for each mapped TiB" >&3
	[ "$whole" -gt 32 ] && [ "$whole" -lt 128 ]
}
exec 3>&1

dmesg -C
check "the module loads" load_module
check "disks are formatted" python3 scribe_agent.py format 1 "$state-big" 1=/dev/sda 2=/dev/sdb
check "the agent opens them" start_agent owner 1 "$state-big" 1=/dev/sda 2=/dev/sdb
check "a VSD of 1 TiB appears" make_vsd big 1000 $tib_mib
began=$(date +%s%N)
check "its last block is read" dd if=/dev/mapper/big of=/dev/null bs=4k count=1 iflag=direct \
	skip=$((tib_mib * 256 - 1)) status=none
echo "# $((($(date +%s%N) - began) / 1000000)) ms from the first read to its data, lease and leaf included"
echo 3 > /proc/sys/vm/drop_caches
before=$(slab_kib)
check "one block is read of each of $leaves leaves" touch_leaves "$leaves"
after=$(slab_kib)
check "their extents are known" loaded $((leaves * 16))
[ -n "${SCRIBE_DEBUG:-}" ] || check "all of it loaded would take less than 128 MiB" small_enough $((after - before))
check "what nobody uses is given back" gives_back
check "and is loaded again" touch_leaves 64
check "the device goes" dmsetup remove big
check "the agent ends" stop_agent
check "the module unloads" rmmod dm_scribe
finish
