#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The real firmware, which nodes of the lab cannot run (firmware.S): a guest under Secure Boot with a TPM, in QEMU on this
machine, with its variables and its TPM where a node has them. What it finds at its second start is what it left."""

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import guest

SECONDS = 900
OVMF = Path("/usr/share/OVMF")


def starts(work: Path, boot: int) -> str:
    """What the guest says of its machine."""
    tpm = work / "tpm.sock"
    subprocess.run(["swtpm", "socket", "--tpm2", "--tpmstate", f"backend-uri=file://{work}/tpm", "--ctrl",
                    f"type=unixio,path={tpm},mode=0660", "--pid", f"file={work}/tpm.pid", "--terminate", "--daemon"], check=True)
    machine = subprocess.Popen([
        "qemu-system-x86_64", "-machine", "pc-q35-7.2,smm=on", "-m", "256", "-display", "none", "-serial", f"file:{work}/serial",
        "-global", "driver=cfi.pflash01,property=secure,value=on",
        "-drive", f"if=pflash,format=raw,unit=0,readonly=on,file={OVMF}/OVMF_CODE_4M.ms.fd",
        "-drive", f"if=pflash,format=raw,unit=1,file={work}/variables",
        "-drive", f"if=virtio,format=raw,file={work}/system", "-drive", f"if=virtio,format=raw,file={work}/data",
        "-chardev", f"socket,id=tpm,path={tpm}", "-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm"],
        stdin=subprocess.DEVNULL)
    try:
        until = time.monotonic() + SECONDS
        while time.monotonic() < until and machine.poll() is None:
            said = (work / "data").read_bytes()[:512].rstrip(b"\0 ").decode(errors="replace").split()
            if said[:2] == ["boot", str(boot)]:
                return said[said.index("machine") + 1]
            time.sleep(1)
    finally:
        machine.kill()
        machine.wait()
    return "nothing; see " + (work / "serial").read_text(errors="replace")[-500:]


def main() -> int:
    with tempfile.TemporaryDirectory() as place:
        work = Path(place)
        guest.build(work / "system")
        (work / "variables").write_bytes((OVMF / "OVMF_VARS_4M.ms.fd").read_bytes())
        for name, size in (("tpm", 4 << 20), ("data", 8 << 20)):
            with open(work / name, "wb") as out:
                out.truncate(size)
        failed = 0
        for boot, what in ((1, "a signed guest starts under Secure Boot, with a TPM"), (2, "it finds what it had left in both")):
            found = starts(work, boot)
            good = found == f"uefi+secure+vars{boot - 1}+tpm{boot}"
            failed += not good
            print(f"{'ok' if good else 'not ok'} {boot} - {what}", flush=True)
            if not good:
                print(f"# {found}", flush=True)
        print("1..2")
        return failed


if __name__ == "__main__":
    sys.exit(main())
