# SPDX-License-Identifier: GPL-2.0
"""One, two and three nodes that write at once: what they do altogether, of what one does.

Each node uses a VSD of its own, all of one pool of a disk of each node. Its users' other choice is a ring: each node mirrors
a disk to the next. Emulated nodes share this machine's processors, which are fewer than all together could use: so this
is measured once as fast as it goes, and once with a network that takes a while, where processors have time, and nothing but
the system itself could make nodes wait for each other.
"""

import json
import statistics
import subprocess
import sys

from labtest import Lab
from scribe_cluster import add_disks, device, found, join, vsd, wait_disks, wait_up
from stacks import MD, nvme_attach, nvme_offer

NODES = (1, 2, 3)
LEASE_SECONDS = 60  # nothing is to be lost here, whatever stands still
SIZE_MIB = 256
WARM_SECONDS = 4
DELAY_MS = 20  # of each of the backplane's links
JOBS = {"4 KiB random write, QD1": "--rw=randwrite --bs=4k --iodepth=1",
        "4 KiB random write, QD16": "--rw=randwrite --bs=4k --iodepth=16",
        "4 KiB random read, QD16": "--rw=randread --bs=4k --iodepth=16",
        "1 MiB sequential write, QD4": "--rw=write --bs=1m --iodepth=4"}
DELAYED_JOBS = tuple(JOBS)[:2]
FIO = ("exec fio --name=b --filename={path} {words} --size={size}m --direct=1 --ioengine=libaio --randrepeat=0 --norandommap "
       "--time_based --runtime={seconds} --ramp_time=1 --output-format=json")


def vsds(lab: Lab) -> dict[int, str]:
    for node in NODES:
        lab.run(node, f"scalectl vsd create b{node} {SIZE_MIB}MiB && scalectl vsd open b{node}")
    return {node: vsd(f"b{node}") for node in NODES}


def ring(lab: Lab) -> dict[int, str]:
    """Of halves of hdd1: the first for its own node, the second for the one before."""
    for node in NODES:
        at = device(node, "hdd1")
        lab.run(node, f"printf 'label: gpt\\nsize={SIZE_MIB + 8}MiB\\nsize={SIZE_MIB + 8}MiB\\n' | sfdisk -q {at} && udevadm settle "
                      f"&& test -e {at}-part2")
        nvme_offer(lab, node, f"{at}-part2")
    for node in NODES:
        nvme_attach(lab, node, node % len(NODES) + 1, 0)
        lab.run(node, MD.format(name="ring", local=f"{device(node, 'hdd1')}-part1", remote="/dev/nvme0n1"))
    return dict.fromkeys(NODES, "/dev/md/ring")


def at_once(lab: Lab, paths: dict[int, str], nodes: tuple[int, ...], words: str, seconds: int) -> float:
    """Operations a second, of all of them."""
    jobs = {n: lab.start(n, FIO.format(path=paths[n], words=words, size=SIZE_MIB, seconds=seconds), stdout=subprocess.PIPE,
                         stderr=subprocess.STDOUT) for n in nodes}
    total = 0.0
    for node, job in jobs.items():
        code, out = lab.ended(job)
        assert code == 0, f"fio on n{node}: {out}"
        done = json.loads(out[out.index("{"):])["jobs"][0]
        total += done["read"]["iops"] + done["write"]["iops"]
    return total


def rows_of(lab: Lab, contestants: dict[str, dict[int, str]], jobs, network: str, args) -> list[dict]:
    """In turns: rounds of contestants of one, two and three nodes."""
    rows = []
    for job in jobs:
        runs: dict[tuple[str, int], list[float]] = {}
        # Not counted: a VSD has the intent to write a part of it logged once.
        for paths in contestants.values():
            at_once(lab, paths, NODES, JOBS[job], WARM_SECONDS)
        for _ in range(args.rounds):
            for name, paths in contestants.items():
                for count in range(1, len(NODES) + 1):
                    iops = at_once(lab, paths, NODES[:count], JOBS[job], args.seconds)
                    runs.setdefault((name, count), []).append(iops)
        for name in contestants:
            rows.append({"job": job, "contestant": name, "network": network,
                         "iops": [round(statistics.median(runs[name, count])) for count in range(1, len(NODES) + 1)]})
            print(f"  {rows[-1]}", file=sys.stderr, flush=True)
    return rows


def spread(args) -> list[dict]:
    lab = Lab("bench", len(NODES), debs=True)
    found(lab, LEASE_SECONDS, "--plain-backplane" if args.plain else "")
    for node in NODES[1:]:
        join(lab, node)
    wait_up(lab, 1, NODES)
    for node in NODES:
        add_disks(lab, node, ("hdd0",))
    wait_disks(lab, 1, len(NODES))
    contestants = {"VSDs": vsds(lab), "md, NVMe/TCP": ring(lab)}
    for paths in contestants.values():
        for node, path in paths.items():
            lab.run(node, f"dd if=/dev/zero of={path} bs=1M count={SIZE_MIB} oflag=direct conv=fsync,notrunc status=none")
    rows = rows_of(lab, contestants, JOBS, "as it is", args)
    for node in NODES:
        for link in ("bp0", "bp1"):
            lab.lab("net", node, link, "delay", DELAY_MS)
    rows += rows_of(lab, contestants, DELAYED_JOBS, f"each link takes {DELAY_MS} ms", args)
    lab.lab("down")
    return rows


def show_spread(title: str, rows: list[dict]):
    print(f"\n{title}: operations a second of one, two and three nodes at once")
    for row in rows:
        one, two, three = row["iops"]
        print(f"  {row['job']:30}{row['contestant']:14}{one:>8} {two:>8} x{two / max(one, 1):.2f} {three:>8} x{three / max(one, 1):.2f}"
              f"   network: {row['network']}", flush=True)
