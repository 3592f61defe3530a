# SPDX-License-Identifier: GPL-2.0
"""A firmware for emulated nodes, in OVMF's place: it says what it and its TPM have kept; firmware.S says why."""

import subprocess
from pathlib import Path

CODE = "/usr/share/OVMF/OVMF_CODE_4M.fd"
SAYS_AT = 0x83000  # in the variables: how often it has begun, how often its TPM was
LAST = 4096  # bytes of it, that lie at the end of OVMF's


def build(dest: Path, size: int) -> Path:
    """As long as the one in whose place it is."""
    dest.parent.mkdir(parents=True, exist_ok=True)
    work = dest.with_suffix(".o")
    subprocess.run(["gcc", "-m32", "-c", Path(__file__).with_name("firmware.S"), "-o", work], check=True)
    subprocess.run(["ld", "-m", "elf_i386", "-Ttext", hex((1 << 32) - LAST), "-e", "start", "--oformat", "binary", work,
                    "-o", dest], check=True)
    code = dest.read_bytes()
    assert len(code) == LAST, len(code)
    dest.write_bytes(b"\xff" * (size - LAST) + code)
    work.unlink()
    return dest
