#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Power cuts at any moment of a workload, out of what dm-log-writes recorded of two disks.

  logwrites.py work DEVICE SEED ROUNDS WRITES...   writes and flushes; each acknowledged flush is a mark in the logs
  logwrites.py count SEED LOG LOG                  how many moments there are to choose from
  logwrites.py restore SEED NUMBER LOG LOG IMAGE IMAGE VERSIONS MAP
                                                   the disks and the map as they are at one of them
  logwrites.py verify DEVICE SEED ROUNDS ACKNOWLEDGED
                                                   what was flushed is there, or something later, and nothing else

WRITES are the log-writes devices under the module's disks, LOG the devices that they log to. The agent, too, leaves a
mark whenever its map has become durable ("map N"), and keeps each version of it. At a moment between two marks the map
is that of the last such mark; of each disk's log some entries have reached the disk, on one more of those behind the
mark than on the other.
"""

import fcntl
import mmap
import os
import random
import shutil
import struct
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

SECTOR = 512
RANGE_SECTORS = 6 * 2048  # few chunks, so that most is written again and again
OPERATIONS = 6  # of a round, at once
MOST = 128  # sectors in one
BLKZEROOUT = 0x127F
HEADER = struct.Struct("<QQQQ")
MAGIC = 0x6A736677736872
F_DISCARD, F_MARK = 4, 8
COPY_BYTES = 1 << 20


def rounds(seed, count):
    """For each: operations that do not overlap, as (number, first sector, sectors, zeroes), and whether it flushes."""
    draw = random.Random(seed)
    number = 0
    for _ in range(count):
        taken, operations = [], []
        for _ in range(OPERATIONS):
            length = draw.randint(1, MOST)
            at = draw.randrange(RANGE_SECTORS - length)
            if draw.random() < 0.7:  # as file systems do
                at, length = at // 8 * 8, (length + 7) // 8 * 8
            if any(at < t + n and t < at + length for t, n in taken):
                continue
            taken.append((at, length))
            number += 1
            operations.append((number, at, length, draw.random() < 0.15))
        yield operations, draw.random() < 0.6


def content(seed, number, sector):
    return (struct.pack("<4sIQQ", b"logw", seed, number, sector) * 22)[:SECTOR]


def aligned(length):
    return mmap.mmap(-1, (length + 4095) // 4096 * 4096)


def perform(fd, seed, operation):
    number, at, length, zero = operation
    if zero:
        fcntl.ioctl(fd, BLKZEROOUT, struct.pack("QQ", at * SECTOR, length * SECTOR))
        return
    buffer = aligned(length * SECTOR)
    for i in range(length):
        buffer[i * SECTOR:(i + 1) * SECTOR] = content(seed, number, at + i)
    assert os.pwritev(fd, [memoryview(buffer)[:length * SECTOR]], at * SECTOR) == length * SECTOR


def mark(writes, text):
    for name in writes:
        subprocess.run(["dmsetup", "message", name, "0", "mark", text], check=True)


def work(device, seed, count, *writes):
    fd = os.open(device, os.O_RDWR | os.O_DIRECT)
    with ThreadPoolExecutor(OPERATIONS) as pool:
        for index, (operations, flush) in enumerate(rounds(int(seed), int(count))):
            list(pool.map(lambda operation: perform(fd, int(seed), operation), operations))
            if flush:
                os.fdatasync(fd)
                mark(writes, f"ack-{index + 1}")


def entries(path):
    """What a log has, as (sector, sectors, flags, mark, place of the data)."""
    with open(path, "rb") as log:
        magic, _, count, sector_bytes = struct.unpack("<QQQI", log.read(28))
        assert magic == MAGIC and sector_bytes == SECTOR, path
        at = SECTOR
        for _ in range(count):
            log.seek(at)
            block = log.read(SECTOR)
            sector, sectors, flags, length = HEADER.unpack_from(block)
            text = block[HEADER.size:HEADER.size + length].decode() if flags & F_MARK else ""
            yield sector, sectors, flags, text, at + SECTOR
            at += SECTOR + (0 if flags & (F_DISCARD | F_MARK) else sectors * SECTOR)


def moments(seed, logs):
    """For each: how many entries of each log, the version of the map, the last acknowledged round."""
    draw = random.Random(seed)
    all_entries = [list(entries(log)) for log in logs]
    marks = [[(i, e[3]) for i, e in enumerate(found) if e[2] & F_MARK and e[3] != "dm-log-writes-end"]
             for found in all_entries]
    assert [t for _, t in marks[0]] == [t for _, t in marks[1]], "the logs have different marks"
    version, acknowledged, result = None, 0, []
    for place, (_, text) in enumerate(marks[0]):
        what, _, number = text.partition("-")
        if what == "map":
            version = int(number)
        else:
            acknowledged = int(number)
        if version is None:
            continue
        spans = []
        for found, own in zip(all_entries, marks):
            end = own[place + 1][0] if place + 1 < len(own) else len(found)
            spans.append((own[place][0] + 1, end))
        # Nothing of it, all of it, and some of it on each.
        for choice in ([begin for begin, _ in spans], [end for _, end in spans],
                       [draw.randint(*span) for span in spans], [draw.randint(*span) for span in spans]):
            if (choice, version, acknowledged) not in result:
                result.append((choice, version, acknowledged))
    draw.shuffle(result)
    return result


def replay(log, count, image, size):
    with open(log, "rb") as source, open(image, "wb") as target:
        target.truncate(size)
        for sector, sectors, flags, _, at in list(entries(log))[:count]:
            if flags & F_MARK:
                continue
            target.seek(sector * SECTOR)
            source.seek(at)
            left = sectors * SECTOR
            while left:
                some = min(left, COPY_BYTES)
                # A discard is only advice; what it leaves must not matter.
                target.write(b"\xdd" * some if flags & F_DISCARD else source.read(some))
                left -= some


def restore(seed, number, first, second, image, other, versions, target):
    counts, version, acknowledged = moments(int(seed), (first, second))[int(number)]
    for log, count, to in ((first, counts[0], image), (second, counts[1], other)):
        replay(log, count, to, os.path.getsize(to))
    shutil.copy(f"{versions}/{version}.json", target)
    print(acknowledged)


def verify(device, seed, count, acknowledged):
    """Each sector holds the last flushed operation on it, or one of a later round."""
    least = [{0: True}] * RANGE_SECTORS  # number -> zeroes, of all that may be there
    for index, (operations, _) in enumerate(rounds(int(seed), int(count))):
        for operation, at, length, zero in operations:
            for sector in range(at, at + length):
                allowed = {operation: zero}
                least[sector] = allowed if index < int(acknowledged) else {**least[sector], **allowed}
    fd = os.open(device, os.O_RDONLY | os.O_DIRECT)
    buffer = aligned(RANGE_SECTORS * SECTOR)
    assert os.preadv(fd, [buffer], 0) == RANGE_SECTORS * SECTOR
    wrong = []
    for sector in range(RANGE_SECTORS):
        data = buffer[sector * SECTOR:(sector + 1) * SECTOR]
        good = {bytes(SECTOR) if zero else content(int(seed), number, sector) for number, zero in least[sector].items()}
        if data not in good:
            wrong.append(f"sector {sector}: {data[:24].hex()}, not of {sorted(least[sector])}")
    print(f"{len(wrong)} wrong of {RANGE_SECTORS}")
    print("\n".join(wrong[:10]))
    return 1 if wrong else 0


def main():
    verb, *words = sys.argv[1:]
    if verb == "count":
        print(len(moments(int(words[0]), words[1:])))
        return 0
    return globals()[verb](*words) or 0


if __name__ == "__main__":
    sys.exit(main())
