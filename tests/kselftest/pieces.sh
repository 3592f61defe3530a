#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# What small writes have scattered is put together while all is in use: nobody reads anything else than before,
# and what is written meanwhile is not lost.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

same() { # FILE DEVICE MIB: as the disks have it, not the page cache
	blockdev --flushbufs "/dev/mapper/$2" && cmp -n $(($3 << 20)) "$1" "/dev/mapper/$2"
}

scatter() { # DEVICE OFFSET SIZE NAME
	fio --name="$4" --filename="/dev/mapper/$1" --offset="$2" --size="$3" --rw=randwrite --bs=4k --direct=1 --ioengine=libaio \
		--iodepth=8 --end_fsync=1 --verify=crc32c --verify_fatal=1 --do_verify="${5:-1}" --output-format=terse
}

# Some 16 pieces for each chunk: of more than 64 the module makes one by itself.
scatter_some() { # DEVICE OFFSET-MIB MIB SEED
	fio --name=h --filename="/dev/mapper/$1" --offset="$2m" --size="$3m" --rw=randwrite --bs=4k --direct=1 --ioengine=libaio --iodepth=8 \
		--end_fsync=1 --io_size=$(($3 * 64))k --randseed="$4" --output-format=terse
}

gathered() { # COUNT
	[ "$(cat "$state-g/gathered" 2> /dev/null || echo 0)" -ge "$1" ]
}

pieces() { # that are elsewhere than where an extent of the chunk's own would have them
	python3 -c 'import json, sys
maps = json.load(open(sys.argv[1]))["maps"]
print(sum(off != start for chunks in maps.values() for segs in chunks.values() for start, _, _, off in segs))' "$state-g/map.json"
}

fewer_pieces() { # THAN
	[ "$(pieces)" -lt "$1" ]
}

dmesg -C
check "the module loads" load_module
disks=("1=/dev/sda" "2=/dev/sdb" "3=/dev/sdc")
for disk in sda sdb sdc; do wipefs -qa /dev/$disk; done
check "disks are formatted" python3 scribe_agent.py format 1 "$state-g" "${disks[@]}"
check "the agent opens them" start_agent owner 1 "$state-g" "${disks[@]}"
check "a VSD appears" make_vsd v5 5 64
head -c 8M /dev/urandom > /run/old
check "half of it is filled" dd if=/run/old of=/dev/mapper/v5 bs=1M oflag=direct conv=fsync,notrunc status=none
check "and half of it written in pieces" scatter_some v5 8 8 1
dd if=/dev/mapper/v5 of=/run/old bs=1M count=16 iflag=direct status=none
check "it is taken away, all flushed" wait_until dmsetup remove v5
check "a clone of it appears" make_vsd v105 105 64
check "and the VSD itself again" make_vsd v5 5 64
check "the clone has what the VSD has" same /run/old v105 16
check "the VSD's map is read" same /run/old v5 16
check "the clone gets pieces of its own" scatter_some v105 0 12 2
dd if=/dev/mapper/v105 of=/run/new bs=1M count=16 iflag=direct status=none
before=$(pieces)
check "there are many pieces now ($before)" [ "$before" -gt 200 ]

# Both are read all the time, from maps that are older than what is gathered.
for vsd in v5 v105; do
	fio --name=r --filename=/dev/mapper/$vsd --size=16m --rw=randread --bs=64k --direct=1 --ioengine=libaio --iodepth=4 \
		--time_based --runtime=600 --output-format=terse > /run/fio.$vsd 2>&1 &
	readers="$readers $!"
done
rm -f "$state-g/gathered"
touch "$state-g/gather"
check "what is scattered is put together" wait_until fewer_pieces $((before / 4))
check "chunks of both, some of which both lead to" wait_until gathered 12
check "the VSD has the same data" same /run/old v5 16
check "and so has the clone" same /run/new v105 16
# shellcheck disable=SC2086
check "who read all the time had no error" kill -0 $readers
# shellcheck disable=SC2086
kill $readers
wait
rm "$state-g/gather"
check "the maps can be evicted" dmsetup message v5 0 evict
check "both of them" dmsetup message v105 0 evict
check "the VSD is the same when its map is loaded again" same /run/old v5 16
check "and so is the clone" same /run/new v105 16
check "copies are equal" python3 scribe_agent.py compare 0 "$state-g" "${disks[@]}"

# Where it lies now it is written in place, and into pieces again, while it is being gathered.
touch "$state-g/gather"
count=$(cat "$state-g/gathered")
for round in 1 2 3; do
	check "it is written to meanwhile, round $round" scatter v105 0 12m "w$round"
	check "as the VSD is, in pieces" scatter_some v5 0 12 "$round"
done
check "that was gathered, too" wait_until gathered $((count + 6))
check "what was written last is there" scatter v105 0 12m last
rm "$state-g/gather"
check "copies are still equal" python3 scribe_agent.py compare 0 "$state-g" "${disks[@]}"
check "nothing is frozen any more" refuse grep -q 'frozen [1-9]' /sys/kernel/debug/scribe/vsds
check "all end" wait_until tear_down v5 v105
finish
