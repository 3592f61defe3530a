# SPDX-License-Identifier: GPL-2.0
"""Side by side: each stack does each workload, in turns, on nodes of one boot, and what that took is counted.

Beside fio's own figures, for all nodes together and without what they do when nothing is asked of them: processor time, by
/proc/stat; instructions, by the emulator, which counts the same for the same work; bytes and flushes that reached the
disks; bytes on the backplane. What it takes to start fio is measured as well, and is not counted.
"""

import json
import statistics
import time
from dataclasses import dataclass

import stacks
from labtest import Lab
from scribe_cluster import add_disks, device, found, join, wait_disks, wait_up

NODES = (1, 2, 3)
FAR = 3  # a node that has no copy of anything
LEASE_SECONDS = 60  # nothing is to be lost here, whatever stands still
WARM_SECONDS = 4
REST_SECONDS = 15
FIRST_KIB = 2048  # of first writes, so few that most are the first to their part of the disk


@dataclass
class Workload:
    name: str
    rw: str
    bs: str = "4k"
    depth: int = 1
    words: str = ""
    first: str = ""  # "empty", "snapshot": what is done before each run; such runs write FIRST_KIB
    quick: bool = False
    node: int = 1  # where it is done

    @property
    def writes(self) -> bool:
        return self.rw != "read" and self.rw != "randread"


WORKLOADS = (
    Workload("4 KiB random read, QD1", "randread", quick=True),
    Workload("4 KiB random read, QD32", "randread", depth=32, quick=True),
    Workload("4 KiB random write, QD1", "randwrite", quick=True),
    Workload("4 KiB random write, QD32", "randwrite", depth=32, quick=True),
    Workload("4 KiB random write and fsync, QD1", "randwrite", words="--fsync=1", quick=True),
    Workload("64 KiB random read, QD8", "randread", "64k", 8),
    Workload("64 KiB random write, QD8", "randwrite", "64k", 8),
    Workload("1 MiB sequential read, QD4", "read", "1m", 4),
    Workload("1 MiB sequential write, QD4", "write", "1m", 4, quick=True),
    Workload("4 KiB random, 70 % reads, QD32", "randrw", depth=32, words="--rwmixread=70"),
    Workload("4 KiB random first write, empty, QD1", "randwrite", first="empty"),
    Workload("4 KiB random first write, empty, QD32", "randwrite", depth=32, first="empty"),
    Workload("4 KiB random first write behind a snapshot, QD1", "randwrite", first="snapshot"),
    Workload("4 KiB random first write behind a snapshot, QD32", "randwrite", depth=32, first="snapshot"),
    # The last: stacks move there, and stay.
    Workload("4 KiB random read, copies on others, QD1", "randread", node=FAR),
    Workload("4 KiB random read, copies on others, QD32", "randread", depth=32, node=FAR),
    Workload("4 KiB random write, copies on others, QD1", "randwrite", node=FAR),
    Workload("4 KiB random write, copies on others, QD32", "randwrite", depth=32, node=FAR),
    Workload("1 MiB sequential write, copies on others, QD4", "write", "1m", 4, node=FAR))

# One line of each node: busy processor time in ms, its disks' written sectors and flushes, bytes sent on the backplane.
COUNTERS = r"""
set -- $(head -n 1 /proc/stat)
hz=$(getconf CLK_TCK)
busy=$(( ($2 + $3 + $4 + $7 + $8) * 1000 / hz ))
written=0 flushes=0
for disk in /sys/block/sd*; do
	set -- $(cat $disk/stat)
	written=$((written + $7)) flushes=$((flushes + ${16:-0}))
done
sent=0
for port in bp0 bp1; do sent=$((sent + $(cat /sys/class/net/$port/statistics/tx_bytes))); done
echo $busy $written $flushes $sent
"""


@dataclass
class Counts:
    """What all nodes have done since they booted."""
    at: float = 0
    busy_ms: float = 0
    written: float = 0  # bytes
    flushes: float = 0
    sent: float = 0  # bytes
    instructions: float = 0

    def __sub__(self, other: "Counts") -> "Counts":
        return Counts(*(mine - its for mine, its in zip(vars(self).values(), vars(other).values())))

    def without(self, idle: "Counts") -> "Counts":
        """What nodes do anyway, in as much time, is none of a workload's."""
        share = self.at / idle.at
        return Counts(self.at, *(max(mine - its * share, 0) for mine, its in
                                 list(zip(vars(self).values(), vars(idle).values()))[1:]))


class Bench:
    def __init__(self, quick: bool, plain: bool, names: list[str]):
        self.lab = Lab("bench", len(NODES), disk_mib=8192, debs=True, count=True)
        found(self.lab, LEASE_SECONDS, "--plain-backplane" if plain else "")
        for node in NODES[1:]:
            join(self.lab, node)
        wait_up(self.lab, 1, NODES)
        for node in (1, 2):
            add_disks(self.lab, node, ("hdd0",))
        wait_disks(self.lab, 1, 2)
        stacks.partition(self.lab)
        self.stacks = [stack for stack in (stacks.quick if quick else stacks.every)(self.lab, plain)
                       if not names or stack.name in ("VSD", *names)]
        for stack in self.stacks:
            stack.up()
        self.quick = quick
        self.rows: list[dict] = []  # also where a later workload fails
        self.idle = Counts()
        self.start = 0.0  # instructions that it takes to start fio, and to end it

    def counts(self) -> Counts:
        lines = [self.lab.run(node, COUNTERS).split() for node in NODES]
        busy, written, flushes, sent = (sum(int(line[i]) for line in lines) for i in range(4))
        counted = self.lab.lab("count", capture_output=True, text=True, check=False)
        instructions = sum(int(line) for line in counted.stdout.split()) if counted.returncode == 0 else 0
        return Counts(time.monotonic(), busy, written * 512, flushes, sent, instructions)

    def rest(self):
        """What the nodes do when nothing is asked of them. At few operations a second that is as much as what these take:
        it is measured before each workload, for long."""
        before = self.counts()
        time.sleep(REST_SECONDS)
        self.idle = self.counts() - before

    def calibrate(self):
        """What it takes to start fio."""
        self.rest()
        runs = []
        for _ in range(3):
            before = self.counts()
            self.fio(Workload("none", "randread"), self.stacks[0].path, "--number_ios=1")
            runs.append((self.counts() - before).without(self.idle).instructions)
        self.start = statistics.median(runs)

    def fio(self, work: Workload, path: str, words: str) -> dict:
        out = self.lab.run(work.node, f"fio --name=b --filename={path} --rw={work.rw} --bs={work.bs} --iodepth={work.depth} {work.words} "
                              f"--size={stacks.SIZE_MIB}m --direct=1 --ioengine=libaio --randrepeat=0 {words} "
                              "--percentile_list=50:99:99.9 --output-format=json")
        return json.loads(out[out.index("{"):])["jobs"][0]

    def fill(self, stack: stacks.Stack):
        self.lab.run(stack.at, f"dd if=/dev/zero of={stack.path} bs=1M count={stacks.SIZE_MIB} oflag=direct conv=fsync,notrunc "
                               "status=none")

    def move(self, stack: stacks.Stack, node: int):
        if stack.thin:
            stack.forget()
        self.fill(stack)
        stack.move(node)
        stack.at = node

    def measure(self, work: Workload, stack: stacks.Stack, seconds: int) -> dict:
        if work.first == "empty":
            stack.empty()
        elif work.first == "snapshot":
            stack.forget()
            self.fill(stack)
            stack.snapshot()
        if work.first:
            words = f"--io_size={FIRST_KIB}k --end_fsync=1"
        else:
            words = f"--time_based --runtime={seconds} --norandommap"
        before = self.counts()
        job = self.fio(work, stack.path, words)
        took = (self.counts() - before).without(self.idle)
        return row_of(job, took, self.start)

    def wanted(self, word: str) -> list[Workload]:
        return [work for work in WORKLOADS if (work.quick or not self.quick) and word in work.name]

    def run(self, rounds: int, seconds: int, word: str, tell):
        for stack in self.stacks:
            self.fill(stack)
        self.calibrate()
        for work in self.wanted(word):
            those = [stack for stack in self.stacks if (stack.thin or not work.first) and (stack.moves or work.node != FAR)]
            for stack in those:
                if work.node != stack.at:
                    self.move(stack, work.node)
            runs: dict[str, list[dict]] = {stack.name: [] for stack in those}
            # Not counted: DRBD learns which parts are written, a VSD has the intent to write them logged.
            for stack in those:
                if work.writes and not work.first:
                    self.measure(work, stack, WARM_SECONDS)
            self.rest()
            for _ in range(rounds):
                for stack in those:
                    runs[stack.name].append(self.measure(work, stack, seconds))
            for stack in those:
                self.rows.append({"stack": stack.name, "copies": stack.copies, "workload": work.name,
                                  **middle(runs[stack.name])})
                tell(self.rows[-1])

    def boot(self) -> dict:
        """What the figures are of."""
        return {"id": self.lab.run(1, "cat /proc/sys/kernel/random/boot_id").strip(),
                "kernel": self.lab.run(1, "uname -r").strip(), "nodes": len(NODES),
                "cpus": int(self.lab.run(1, "nproc")), "disk": device(1, "hdd0").rsplit("/", 1)[-1].split("_")[1],
                "idle_instructions_per_s": round(self.idle.instructions / max(self.idle.at, 1)),
                "settings": {stack.name: stack.settings for stack in self.stacks}}

    def end(self):
        self.lab.lab("down")


def row_of(job: dict, took: Counts, start: float) -> dict:
    sides = [job[side] for side in ("read", "write") if job[side]["total_ios"]]
    ios = sum(side["total_ios"] for side in sides)
    size = sum(side["io_bytes"] for side in sides)
    written = job["write"]["io_bytes"]
    slowest = max(sides, key=lambda side: side["clat_ns"]["mean"])
    at = slowest["clat_ns"]["percentile"]
    row = {"iops": sum(side["iops"] for side in sides), "mb_s": sum(side["bw_bytes"] for side in sides) / 1e6,
           "p50_us": at["50.000000"] / 1e3, "p99_us": at["99.000000"] / 1e3, "p999_us": at["99.900000"] / 1e3,
           "cpu_us_per_io": took.busy_ms * 1e3 / ios, "instructions_per_io": max(took.instructions - start, 0) / ios,
           "wire_per_byte": took.sent / size}
    if written:
        row["disk_per_byte"] = took.written / written
    if job["sync"]["total_ios"]:
        row["disk_flushes_per_fsync"] = took.flushes / job["sync"]["total_ios"]
        row["p50_us"] += job["sync"]["lat_ns"]["percentile"]["50.000000"] / 1e3
        row["p99_us"] += job["sync"]["lat_ns"]["percentile"]["99.000000"] / 1e3
        row["p999_us"] += job["sync"]["lat_ns"]["percentile"]["99.900000"] / 1e3
    return row


def middle(runs: list[dict]) -> dict:
    """The median of each figure; the spread is half of the distance between the extremes of the IOPS, by their median."""
    row: dict = {key: round(statistics.median(run[key] for run in runs), 3) for key in runs[0]}
    iops = [run["iops"] for run in runs]
    row["repeats"] = len(runs)
    row["spread"] = round((max(iops) - min(iops)) / 2 / max(statistics.median(iops), 1e-9), 3)
    return row


def ratios(rows: list[dict]) -> dict[str, dict[str, float]]:
    """By workload, how many times as many IOPS as each peer the VSD has."""
    out: dict[str, dict[str, float]] = {}
    for work in dict.fromkeys(row["workload"] for row in rows):
        those = {row["stack"]: row for row in rows if row["workload"] == work}
        own = those.pop("VSD")["iops"]
        out[work] = {name: round(own / max(row["iops"], 1e-9), 2) for name, row in those.items()}
    return out
