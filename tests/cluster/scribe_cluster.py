# SPDX-License-Identifier: GPL-2.0
"""A cluster of lab nodes with the project's packages, formed with scalectl: for tests and the demo."""

import json
import re
import time

from labtest import Lab

# Long for a lease: emulated nodes on a busy machine may not run for seconds. The default is 10.
LEASE_SECONDS = 15
PATIENCE = 400
DISKS = ("ssd0", "hdd0", "hdd1")


def device(node: int, name: str) -> str:
    """By serial number: which disk is /dev/sda may differ from boot to boot."""
    return f"/dev/disk/by-id/scsi-0QEMU_QEMU_HARDDISK_n{node}-{name}"


def vsd(name: str) -> str:
    return f"/dev/mapper/scribe-{name}"


def ask(lab: Lab, node: int, words: str) -> dict:
    return json.loads(lab.run(node, f"scalectl {words} --json"))


def found(lab: Lab, lease: int = LEASE_SECONDS, words: str = ""):
    lab.wait(1, "systemctl is-active scaled")
    lab.run(1, f"scalectl cluster create lab --lan 10.11.0.1 --backplane 10.12.0.1 --lease {lease} {words}")


def join(lab: Lab, node: int) -> str:
    token = ask(lab, 1, "cluster token")["token"]
    lab.run(node, f"scalectl cluster join 10.12.0.1 {token} --lan 10.11.0.{node} --backplane 10.12.0.{node}")
    return token


def wait_until(what: str, condition):
    deadline = time.monotonic() + PATIENCE
    while True:
        try:
            result = condition()
            if result:
                return result
            problem = "not so"
        except AssertionError as err:
            problem = str(err)
        assert time.monotonic() < deadline, f"{what}: {problem}"
        time.sleep(1)


def states(lab: Lab, asked: int) -> dict[str, str]:
    return {n["name"]: n["state"] for n in ask(lab, asked, "node list")["nodes"]}


def wait_up(lab: Lab, asked: int, nodes):
    names = [f"n{n}" for n in nodes]
    wait_until(f"{names} are up", lambda: all(states(lab, asked).get(n) == "up" for n in names))


def add_disks(lab: Lab, node: int, names=DISKS):
    for name in names:
        lab.run(node, f"scalectl disk add {device(node, name)}")


def wait_disks(lab: Lab, asked: int, count: int):
    wait_until(f"{count} disks are ok", lambda: [d["state"] for d in ask(lab, asked, "disk list")["disks"]].count("ok")
               == count)


def leader(lab: Lab, asked: int) -> int:
    """The lab's number of the node that orders changes."""
    names = {n["id"]: n["name"] for n in ask(lab, asked, "node list")["nodes"]}
    return wait_until("a node leads", lambda: int(names.get(ask(lab, asked, "cluster status")["leader"], "n0")[1:]))


def same_metadata(lab: Lab, nodes):
    """Equal hash of the chain of changes on all nodes."""
    def equal():
        seen = {(s["log_index"], s["log_hash"]) for s in (ask(lab, n, "cluster status") for n in nodes)}
        return len(seen) == 1
    wait_until("all nodes hold the same metadata", equal)


def whole(lab: Lab, asked: int) -> bool:
    """Every copy is there and has all."""
    left = ask(lab, asked, "cluster status")["redundancy"]
    return left["stale_copies"] == 0 and left["lost_copies"] == 0


def disk_of(lab: Lab, asked: int, serial: str) -> dict:
    return next(d for d in ask(lab, asked, "disk list")["disks"] if d["serial"] == serial)


def come_back(lab: Lab, node: int, name: str, disk: int):
    """A disk that is empty goes, and comes again as another."""
    lab.wait(node, f"scalectl disk remove {disk}")
    lab.fails(node, f"scalectl disk remove {disk}", 4, "no disk")
    lab.wait(node, f"scalectl disk add {device(node, name)} --wipe n{node}-{name}")
    wait_until("it is in use", lambda: disk_of(lab, node, f"n{node}-{name}")["state"] == "ok")
    assert disk_of(lab, node, f"n{node}-{name}")["id"] != disk


def copied(lab: Lab, nodes=(1, 2, 3)) -> dict[int, int]:
    """How much each node has copied between disks, in MiB, since its module was loaded."""
    return {n: int(re.search(r"copied (\d+)", lab.run(n, "cat /sys/kernel/debug/scribe/node"))[1]) for n in nodes}


def boot(lab: Lab, node: int) -> str:
    """Which run of its kernel this is."""
    return lab.run(node, "cat /proc/sys/kernel/random/boot_id")
