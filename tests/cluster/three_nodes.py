# SPDX-License-Identifier: GPL-2.0
"""The module on three nodes over the backplane, without the daemon: set-up that tests and demo share.

    n1 owner: VSD, map, disks 11-13      n2 host: disks 21-23      n3 host: disks 31-33
       '------------------ initiator connections ------------------'
"""

import sys
from pathlib import Path

from labtest import REPO, Lab

TLS = "tls" in sys.argv[1:]  # by a key that everybody knows; else data goes with checksums
AGENT = f"cd && rm -f state/ready; SCRIBE_TLS={int(TLS)} setsid -f python3 scribe_agent.py"


def device(node: int, name: str) -> str:
    """By serial number: which disk is /dev/sda may differ from boot to boot."""
    return f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_n{node}-{name}"


def disks(node: int) -> str:
    return " ".join(f"{node}{i}={device(node, name)}" for i, name in ((1, "ssd0"), (2, "hdd0"), (3, "hdd1")))


def install(lab: Lab):
    """Copies module, agent and tools to every node."""
    release = lab.run(1, "uname -r").strip()
    module = REPO / "build/module" / ("debug" if "debug" in release else release) / "dm_scribe.ko"
    for node in range(1, lab.nodes + 1):
        lab.lab("put", node, module, *sorted((REPO / "tests/kselftest").glob("*.py")),
                Path(__file__).with_name("fsync_writer.py"))


def prepare(lab: Lab, node: int, fresh: bool):
    lab.run(node, "modprobe -q dm_mod; insmod dm_scribe.ko")
    if fresh:
        lab.run(node, f"cd /root && python3 scribe_agent.py format {node} /root/state {disks(node)}")


def start_host(lab: Lab, node: int, fresh: bool = True):
    prepare(lab, node, fresh)
    lab.run(node, f"{AGENT} host {node} /root/state {disks(node)} > agent.log 2>&1 < /dev/null")
    lab.wait(node, "test -e /root/state/ready")


def start_owner(lab: Lab, fresh: bool = True, hosts: str = "2@n2-bp 3@n3-bp", gib: int = 1):
    prepare(lab, 1, fresh)
    lab.run(1, f"{AGENT} owner 1 /root/state {disks(1)} -- {hosts} > agent.log 2>&1 < /dev/null")
    lab.wait(1, "test -e /root/state/ready")
    lab.run(1, f"dmsetup create v1 --table '0 {gib << 21} scribe 1'")


def written(lab: Lab) -> int:
    return int(lab.run(1, "dmsetup status v1").split()[9])


def redirected(lab: Lab) -> int:
    return int(lab.run(1, "dmsetup status v1").split()[12])


def stale_copies(lab: Lab) -> int:
    return int(lab.run(1, "dmsetup status v1").split()[16])
