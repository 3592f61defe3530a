# SPDX-License-Identifier: GPL-2.0
"""The module's netlink family in Python, for tests: kernel/uapi/scribe_netlink.h and scribe_disk.h.

Independent of the daemon's library on purpose: two readings of the headers find what one misses.
"""

import errno
import os
import socket
import struct

NETLINK_GENERIC = 16
NLM_F_REQUEST, NLM_F_ACK = 1, 4
NLMSG_ERROR = 2
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, NETLINK_CAP_ACK, NETLINK_EXT_ACK = 270, 1, 10, 11

COMMANDS = ("UNSPEC HELLO DEADLINE DISK_OPEN DISK_CLOSE ROUTE_SET ROUTE_DEL PEER_SET PEER_FENCE SOCKET_ADD "
            "LEASE_GRANT LEASE_RELEASE LEASE_FAIL LEAF_PUT RESERVE_ADD RESERVE_TAKE_BACK BATCH_GET BATCH_DONE WORK_GET BARRIER "
            "EXTENTS_SET VSD_FLUSH SLOTS_COPY INTENT_ADD INTENT_DROP DISKS_FLUSH SLOTS_DIGEST EXTENTS_MOVED SLOTS_GATHER PIECES_MOVED "
            "EVENT").split()
ATTRS = {name: (number, kind) for number, (name, kind) in enumerate(
    [tuple(w.split(":")) for w in
     "UNSPEC:b VERSION:I NODE_ID:I LIFE:Q CLUSTER_UUID:b DEADLINE_NS:Q DISK_ID:I DISK_LIFE:Q DISK_UUID:b PATH:s "
     "TIER:B SLOTS:Q ROLE:B SOCK_FD:I FLAGS:I VSD:Q EPOCH:Q LEAF:Q SEGS:b EXTENTS:b BATCH:Q OPS:b STALES:b "
     "WORK:b SLOTS_MOVE:b DONE:Q IDS:b RANGES:b COPIES:B TARGETS:b PIECES:b".split()])}
NAMES = {number: (name, kind) for name, (number, kind) in ATTRS.items()}

SEG = struct.Struct("=QHHHH")
COPY = struct.Struct("=IHH")
EXTENT = struct.Struct("=QII")
OP = struct.Struct("=QQHHHH")
STALE = struct.Struct("=QII")
SLOT = struct.Struct("=QQIIHHI")
RANGE = struct.Struct("=QIHHHH4x")
PIECE = struct.Struct("=QQHHHH")
WORK = struct.Struct("=IIQQ")
LEASE_WANTED, LEAF_WANTED, BATCH_READY, RESERVE_LOW, DISK_FAILED, PEER_LOST, FROZEN, INTENT_WANTED, INTENT_IDLE, FLUSH_STUCK = range(1, 11)
F_DATA_CRC, F_NOSPACE, F_REFUSED, F_RELET = 1, 2, 4, 8
EXTENT_EXCLUSIVE, EXTENT_FROZEN, EXTENT_PARTIAL = 1, 2, 4
COPY_STALE, COPY_REFRESHED = 1, 2
MAX_COPIES = 4

SB_FIRST_SECTOR, DATA_START_SECTOR, SLOT_SECTORS = 8, 16384, 2048


class NetlinkError(OSError):
    """What the kernel answered, with its text."""


def attr(name, value):
    number, kind = ATTRS[name]
    if kind == "s":
        value = value.encode() + b"\0"
    elif kind != "b":
        value = struct.pack("=" + kind, value)
    return raw_attr(number, value)


def raw_attr(number, data):
    pad = -len(data) % 4
    return struct.pack("=HH", 4 + len(data), number) + data + b"\0" * pad


def parse_attrs(data):
    at = 0
    while at + 4 <= len(data):
        length, number = struct.unpack_from("=HH", data, at)
        if length < 4:
            break
        yield number & 0x3fff, data[at + 4:at + length]
        at += length + -length % 4


class Family:
    """One netlink socket, one call at a time."""

    def __init__(self, name="scribe"):
        self.sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        self.sock.setsockopt(SOL_NETLINK, NETLINK_EXT_ACK, 1)
        self.sock.setsockopt(SOL_NETLINK, NETLINK_CAP_ACK, 1)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.sock.bind((0, 0))
        self.sequence = 0
        answer = dict(self.transact(16, 3, raw_attr(2, name.encode() + b"\0")))  # CTRL_CMD_GETFAMILY
        self.id = struct.unpack("=H", answer[1])[0]
        self.groups = {}
        for _, group in parse_attrs(answer.get(7, b"")):
            fields = dict(parse_attrs(group))
            self.groups[fields[1].rstrip(b"\0").decode()] = struct.unpack("=I", fields[2])[0]

    def transact(self, kind, command, payload, version=1):
        self.sequence += 1
        body = struct.pack("=BBH", command, version, 0) + payload
        head = struct.pack("=IHHII", 16 + len(body), kind, NLM_F_REQUEST | NLM_F_ACK, self.sequence, 0)
        self.sock.sendto(head + body, (0, 0))
        result = []
        while True:
            data = self.sock.recv(1 << 22)
            at = 0
            while at < len(data):
                length, mtype, flags, sequence, _ = struct.unpack_from("=IHHII", data, at)
                message = data[at + 16:at + length]
                at += length + -length % 4
                if sequence != self.sequence:
                    continue
                if mtype != NLMSG_ERROR:
                    result = list(parse_attrs(message[4:]))
                    continue
                code = struct.unpack_from("=i", message)[0]
                if not code:
                    return result
                text = ""
                if flags & 0x200:  # NLM_F_ACK_TLVS, after the header of our request
                    skip = 20 if flags & 0x100 else 4 + struct.unpack_from("=I", message, 4)[0]
                    text = dict(parse_attrs(message[skip:])).get(1, b"").rstrip(b"\0").decode()
                raise NetlinkError(-code, f"{os.strerror(-code)}{': ' + text if text else ''}")

    def call(self, command, **attrs):
        """HELLO(NODE_ID=1, ...) -> {"LIFE": ..., ...}; STALES is a list of all its values."""
        payload = b"".join(attr(name, value) for name, value in attrs.items())
        result = {}
        for number, data in self.transact(self.id, COMMANDS.index(command), payload):
            name, kind = NAMES[number]
            value = data if kind == "b" else struct.unpack("=" + kind, data[:struct.calcsize(kind)])[0]
            if name == "STALES":
                result.setdefault(name, []).append(value)
            else:
                result[name] = value
        return result

    def events(self):
        """A socket that becomes readable when the module wants something."""
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_GENERIC)
        sock.bind((0, 0))
        sock.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, self.groups["events"])
        return sock

    def refuses(self, code, command, **attrs):
        """Whether a call fails with this errno."""
        try:
            self.call(command, **attrs)
        except OSError as err:
            return err.errno == code
        return False


def pack_extent(number, copies, flags=EXTENT_EXCLUSIVE, stale=(), refreshed=()):
    data = EXTENT.pack(number, flags, len(copies))
    for disk, slot in copies:
        data += COPY.pack(slot, disk, (COPY_STALE if disk in stale else 0) | (COPY_REFRESHED if disk in refreshed else 0))
    return data + COPY.pack(0, 0, 0) * (MAX_COPIES - len(copies))


def crc32c(data):
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82f63b78 if byte & 1 else 0)
        table.append(byte)
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 0xff]
    return crc ^ 0xffffffff


def superblock(disk_id, cluster, uuid, sectors, generation=1, slots=None, version=1):
    """The 4096 bytes of struct scribe_superblock."""
    second = (sectors // 8 - 1) * 8
    if slots is None:
        slots = (second - DATA_START_SECTOR) // SLOT_SECTORS
    def build(checksum):
        head = struct.pack("<QII16s16sIIQQQQQQQ", 0x6b73694465624353, version, checksum, cluster, uuid, disk_id, 0,
                           generation, sectors, DATA_START_SECTOR, slots, 2048, 8192, 131072)
        return head + b"\0" * (4096 - len(head))
    return build(crc32c(build(0))), second


def device_sectors(path):
    with open(path, "rb") as dev:
        return dev.seek(0, os.SEEK_END) // 512


def format_disk(path, disk_id, cluster, uuid, **fields):
    block, second = superblock(disk_id, cluster, uuid, device_sectors(path), **fields)
    with open(path, "r+b", buffering=0) as dev:
        for sector in (SB_FIRST_SECTOR, second):
            dev.seek(sector * 512)
            dev.write(block)
        os.fsync(dev.fileno())


__all__ = [n for n in dir() if not n.startswith("_")] + ["errno"]
