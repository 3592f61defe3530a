#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Every command of the netlink family with wrong attributes: an error, a text, nothing changed.

Runs beside an owner agent on node 1 with disks 1 to 3 and VSD 1. Also throws random attributes at
every command; the kernel log is checked by the caller.
"""

import errno
import os
import random
import sys

import scribe_nl as nl
from scribe_agent import CLUSTER, disk_uuid

family = nl.Family()
failures = []


def refused(code, command, **attrs):
    if not family.refuses(code, command, **attrs):
        failures.append(f"{command} {attrs}: not refused with {errno.errorcode[code]}")


life = family.call("HELLO")["LIFE"]
refused(errno.EBUSY, "HELLO", NODE_ID=2, CLUSTER_UUID=CLUSTER)
refused(errno.EBUSY, "HELLO", NODE_ID=1, CLUSTER_UUID=b"another cluster!")
refused(errno.EINVAL, "HELLO", NODE_ID=1)
refused(errno.ERANGE, "HELLO", NODE_ID=0, CLUSTER_UUID=CLUSTER)
refused(errno.ERANGE, "HELLO", NODE_ID=256, CLUSTER_UUID=CLUSTER)
refused(errno.EINVAL, "DEADLINE", DEADLINE_NS=1)
refused(errno.ESTALE, "DEADLINE", DEADLINE_NS=1, LIFE=life + 1)
refused(errno.EINVAL, "DISK_OPEN", DISK_ID=9)
refused(errno.ERANGE, "DISK_OPEN", DISK_ID=1024, DISK_UUID=disk_uuid(1), PATH="/dev/sda", TIER=0)
refused(errno.EBUSY, "DISK_OPEN", DISK_ID=1, DISK_UUID=disk_uuid(2), PATH="/dev/sda", TIER=0)
lives = {family.call("DISK_OPEN", DISK_ID=1, DISK_UUID=disk_uuid(1), PATH="/dev/sda", TIER=1)["DISK_LIFE"]
         for _ in range(2)}
if len(lives) != 1:
    failures.append("DISK_OPEN said again: another life")
refused(errno.EBUSY, "DISK_OPEN", DISK_ID=9, DISK_UUID=disk_uuid(1), PATH="/dev/sda", TIER=0)
refused(errno.ENOENT, "DISK_OPEN", DISK_ID=9, DISK_UUID=disk_uuid(9), PATH="/dev/nothing", TIER=0)
refused(errno.ERANGE, "DISK_OPEN", DISK_ID=9, DISK_UUID=disk_uuid(9), PATH="/dev/sda", TIER=2)
refused(errno.ENOENT, "DISK_CLOSE", DISK_ID=9)
refused(errno.EBUSY, "ROUTE_SET", DISK_ID=1, NODE_ID=2, DISK_LIFE=5, TIER=0)
refused(errno.ENOENT, "ROUTE_DEL", DISK_ID=900)
refused(errno.ENOENT, "SOCKET_ADD", NODE_ID=77, LIFE=1, ROLE=0, SOCK_FD=0)
refused(errno.ENOENT, "LEASE_GRANT", VSD=999, EPOCH=1)
refused(errno.ESTALE, "LEASE_GRANT", VSD=1, EPOCH=0)
refused(errno.ESTALE, "LEASE_RELEASE", VSD=1, EPOCH=12345)
refused(errno.ESTALE, "LEAF_PUT", VSD=1, EPOCH=12345, LEAF=0)
refused(errno.EINVAL, "LEAF_PUT", VSD=1, EPOCH=1, LEAF=200, SEGS=b"short")
refused(errno.EINVAL, "LEAF_PUT", VSD=1, EPOCH=1, LEAF=200, SEGS=nl.SEG.pack(5, 0, 0, 8, 0))
refused(errno.EINVAL, "RESERVE_ADD", EXTENTS=nl.pack_extent(1 << 40, [(1, 5), (1, 6)]))
refused(errno.EINVAL, "RESERVE_ADD", EXTENTS=nl.pack_extent(0, [(1, 5), (2, 6)]))
refused(errno.EINVAL, "RESERVE_ADD", EXTENTS=b"x")
refused(errno.EINVAL, "EXTENTS_MOVED")
refused(errno.EINVAL, "EXTENTS_MOVED", EXTENTS=b"x")
refused(errno.EINVAL, "EXTENTS_MOVED", EXTENTS=nl.pack_extent(7, [(1, 5), (1, 6)]))
to = nl.pack_extent(1 << 40, [(1, 5), (2, 6)])
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=b"")
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=b"x", EXTENTS=to)
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=b"", EXTENTS=to * 2)
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=b"", EXTENTS=nl.pack_extent(7, [(1, 5), (1, 6)]))
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=nl.PIECE.pack(0, 5, 2040, 16, 0, 0), EXTENTS=to)
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=nl.PIECE.pack(0, 5, 0, 16, 0, 2040), EXTENTS=to)
refused(errno.EINVAL, "PIECES_MOVED", VSD=1, EPOCH=1, PIECES=nl.PIECE.pack(0, 5, 0, 0, 0, 0), EXTENTS=to)
refused(errno.ESTALE, "PIECES_MOVED", VSD=1, EPOCH=12345, PIECES=b"", EXTENTS=to)
refused(errno.ENOENT, "PIECES_MOVED", VSD=999, EPOCH=1, PIECES=b"", EXTENTS=to)
refused(errno.EINVAL, "SLOTS_GATHER")
refused(errno.ENOENT, "BATCH_GET", VSD=999)
refused(errno.ESTALE, "BATCH_DONE", VSD=1, EPOCH=99999, BATCH=1)

# Superblocks: a loop file for each kind of damage.
os.system("modprobe loop")
path, uuid = "/run/bad.img", disk_uuid(9)
with open(path, "wb") as image:
    image.truncate(80 << 20)
device = os.popen(f"losetup -f --show {path}").read().strip()


def damage(sector, data):
    with open(device, "r+b", buffering=0) as dev:
        dev.seek(sector * 512)
        dev.write(data)
        os.fsync(dev.fileno())


def opens():
    try:
        family.call("DISK_OPEN", DISK_ID=9, DISK_UUID=uuid, PATH=device, TIER=0)
        family.call("DISK_CLOSE", DISK_ID=9)
        return True
    except OSError as err:
        return err


second = (nl.device_sectors(device) // 8 - 1) * 8
for what, wanted, steps in (
        ("blank", False, []),
        ("good", True, [("format", {})]),
        ("first copy torn", True, [("format", {}), ("damage", 8)]),
        ("second copy torn", True, [("format", {}), ("damage", second)]),
        ("both copies torn", False, [("format", {}), ("damage", 8), ("damage", second)]),
        ("foreign cluster", False, [("format", {"cluster": b"another cluster!"})]),
        ("another disk", False, [("format", {"uuid": disk_uuid(8)})]),
        ("future version", False, [("format", {"version": 2})]),
        ("too many slots", False, [("format", {"slots": 1000})]),
        ("no slots", False, [("format", {"slots": 0})])):
    for step, arg in steps:
        if step == "format":
            fields = {"cluster": CLUSTER, "uuid": uuid, **arg}
            nl.format_disk(device, 9, fields.pop("cluster"), fields.pop("uuid"), **fields)
        else:
            damage(arg, b"\xa5" * 4096)
    result = opens()
    if (result is True) != wanted:
        failures.append(f"superblock {what}: {result}")
os.system(f"losetup -d {device}; rm {path}")

# Random attributes for every command; those that could really change something are left out.
draw = random.Random(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
harmless = [c for c in nl.COMMANDS[1:-1] if c not in ("LEASE_FAIL", "DISK_CLOSE", "LEASE_RELEASE", "RESERVE_ADD",
                                                       "RESERVE_TAKE_BACK")]
for _ in range(3000):
    payload = b""
    for _ in range(draw.randrange(6)):
        number = draw.randrange(len(nl.ATTRS) + 1)
        if number == nl.ATTRS["SOCK_FD"][0]:
            continue
        payload += nl.raw_attr(number, draw.randbytes(draw.choice((0, 1, 2, 4, 8, 16, 16, 40, 100))))
    try:
        family.transact(family.id, nl.COMMANDS.index(draw.choice(harmless)), payload)
    except OSError:
        pass

print("\n".join(failures))
sys.exit(1 if failures else 0)
