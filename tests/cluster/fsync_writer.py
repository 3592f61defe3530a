# SPDX-License-Identifier: GPL-2.0
"""Records that prove what a flush promised.

  fsync_writer.py write DEVICE FIRST COUNT    record i at i * 4 KiB, then fdatasync, then its number
  fsync_writer.py check DEVICE COUNT          records 0 to COUNT - 1 are all there and whole
  fsync_writer.py watch DEVICE FILE           again and again how many are there, and when, to a file

With --run N in front, records are not those of other runs: what was there before does not pass for them.
"""

import argparse
import mmap
import os
import struct
import sys
import time
import zlib

SIZE = 4096


def record(number: int, run: int) -> bytes:
    body = struct.pack("<8sII", b"scribe!!", number, run) * ((SIZE - 16) // 16)
    return body + struct.pack("<QII", number, zlib.crc32(body), 0)


def write(fd: int, run: int, first: int, count: int):
    for number in range(first, first + count):
        os.pwrite(fd, record(number, run), number * SIZE)
        os.fdatasync(fd)
        print(number, flush=True)


def watch(fd: int, run: int, path: str):
    """Direct reads: the page cache is not what is to be seen."""
    page = mmap.mmap(-1, SIZE)
    count = 0
    with open(path, "w", encoding="ascii") as log:
        while True:
            # What is behind the last one seen, and again that one.
            at = max(0, count - 1)
            os.preadv(fd, [page], at * SIZE)
            here = page[:] == record(at, run)
            if here:
                count = at + 1
                os.preadv(fd, [page], count * SIZE)
                count += page[:] == record(count, run)
            log.write(f"{time.time()} {count if here else at}\n")
            log.flush()
            os.fsync(log.fileno())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--run", type=int, default=0)
    parser.add_argument("verb", choices=("write", "check", "watch"))
    parser.add_argument("device")
    parser.add_argument("words", nargs="+")
    args = parser.parse_args()
    fd = os.open(args.device, os.O_RDWR | (os.O_DIRECT if args.verb == "watch" else 0))
    if args.verb == "write":
        write(fd, args.run, int(args.words[0]), int(args.words[1]))
    elif args.verb == "watch":
        watch(fd, args.run, args.words[0])
    else:
        count = int(args.words[0])
        wrong = [n for n in range(count) if os.pread(fd, SIZE, n * SIZE) != record(n, args.run)]
        print(f"{count} records, {len(wrong)} wrong: {wrong[:20]}")
        return 1 if wrong else 0
    return 0


sys.exit(main())
