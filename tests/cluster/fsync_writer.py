# SPDX-License-Identifier: GPL-2.0
"""Records that prove what a flush promised.

  fsync_writer.py write DEVICE FIRST COUNT    record i at i * 4 KiB, then fdatasync, then its number
  fsync_writer.py check DEVICE COUNT          records 0 to COUNT - 1 are all there and whole
"""

import os
import struct
import sys
import zlib

SIZE = 4096


def record(number: int) -> bytes:
    body = struct.pack("<8sQ", b"scribe!!", number) * ((SIZE - 16) // 16)
    return body + struct.pack("<QII", number, zlib.crc32(body), 0)


def main():
    verb, device, *numbers = sys.argv[1:]
    first, *rest = (int(n) for n in numbers)
    fd = os.open(device, os.O_RDWR)
    if verb == "write":
        for number in range(first, first + rest[0]):
            os.pwrite(fd, record(number), number * SIZE)
            os.fdatasync(fd)
            print(number, flush=True)
        return 0
    wrong = [n for n in range(first) if os.pread(fd, SIZE, n * SIZE) != record(n)]
    print(f"{first} records, {len(wrong)} wrong: {wrong[:20]}")
    return 1 if wrong else 0


sys.exit(main())
