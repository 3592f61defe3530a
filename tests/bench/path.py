# SPDX-License-Identifier: GPL-2.0
"""Where the time of an operation goes: the module's tracepoints, on the node that uses the disk and on the one that has the
other copy. Only times of one node are subtracted from each other, so that their clocks need not agree."""

import re
import statistics
from collections import defaultdict, deque
from dataclasses import dataclass

from labtest import Lab
from scribe_cluster import add_disks, ask, found, join, vsd, wait_disks, wait_up

SIZE_MIB = 256
COUNT = 2000  # operations
LEASE_SECONDS = 60
JOBS = {"4 KiB random read": "--rw=randread --bs=4k", "4 KiB random write": "--rw=randwrite --bs=4k",
        "64 KiB random write": "--rw=randwrite --bs=64k", "1 MiB sequential write": "--rw=write --bs=1m",
        "4 KiB random first write": "--rw=randwrite --bs=4k"}
TRACE = "/sys/kernel/tracing/instances/bench"
# Of the trace's lines: "<task>-<pid> [cpu] flags seconds: event: words"
LINE = re.compile(r"\s(?P<at>\d+\.\d+): (?P<event>scribe_\w+): (?P<words>.*)")


@dataclass
class Event:
    at: float  # us
    name: str
    words: dict[str, str]


def events(text: str) -> list[Event]:
    out = []
    for line in text.splitlines():
        if found_here := LINE.search(line):
            words = dict(word.split("=", 1) for word in found_here["words"].split())
            out.append(Event(float(found_here["at"]) * 1e6, found_here["event"], words))
    return out


def place(event: Event) -> tuple[str, ...]:
    return event.words["disk"], event.words["op"], event.words["sector"], event.words["bytes"]


def legs_of(trace: list[Event]) -> dict[tuple[str, ...], deque[float]]:
    """How long each request to a disk took, by what it was."""
    begun: dict[tuple[str, ...], float] = {}
    took: dict[tuple[str, ...], deque[float]] = defaultdict(deque)
    for event in trace:
        if event.name == "scribe_leg_submit":
            begun[place(event)] = event.at
        elif event.name == "scribe_leg_end" and place(event) in begun:
            took[place(event)].append(event.at - begun.pop(place(event)))
    return took


def steps_of(trace: list[Event], others: dict[tuple[str, ...], deque[float]], near: set[str]) -> dict[str, list[float]]:
    """By step, how long it took in each operation. One is under way at a time."""
    out: dict[str, list[float]] = defaultdict(list)
    start = last_end = last_leg = 0.0
    begun: dict[tuple[str, ...], float] = {}
    for event in trace:
        if event.name == "scribe_io_start":
            if last_end:
                out["between operations: the user, the block layer"].append(event.at - last_end)
            start, begun = event.at, {}
        elif event.name == "scribe_leg_submit" and start:
            begun[place(event)] = event.at
        elif event.name == "scribe_leg_end" and place(event) in begun:
            took, last_leg = event.at - begun.pop(place(event)), event.at
            if event.words["disk"] in near:
                out["own disk"].append(took)
            else:
                out["other node: all"].append(took)
                if others[place(event)]:
                    out["other node: its disk"].append(others[place(event)].popleft())
        elif event.name == "scribe_io_end" and start:
            out["from the last copy to the end"].append(event.at - last_leg)
            out["operation"].append(event.at - start)
            start, last_end = 0.0, event.at
    return out


def path(args) -> list[dict]:
    lab = Lab("bench", 3, debs=True)
    found(lab, LEASE_SECONDS, "--plain-backplane" if args.plain else "")
    for node in (2, 3):
        join(lab, node)
    wait_up(lab, 1, (1, 2, 3))
    for node in (1, 2):
        add_disks(lab, node, ("hdd0",))
    wait_disks(lab, 1, 2)
    near = {str(disk["id"]) for disk in ask(lab, 1, "disk list")["disks"] if disk["node"] == 1}
    lab.run(1, f"scalectl vsd create b {SIZE_MIB}MiB && scalectl vsd open b && "
               f"dd if=/dev/zero of={vsd('b')} bs=1M count={SIZE_MIB} oflag=direct conv=fsync status=none")
    fio = f"fio --name=b --filename={vsd('b')} {{words}} --size={SIZE_MIB}m --direct=1 --ioengine=libaio --randrepeat=0 {{count}}"
    rows = []
    for job, words in JOBS.items():
        if "first" in job:
            lab.run(1, f"blkdiscard {vsd('b')}")
        else:
            lab.run(1, fio.format(words=words, count="--time_based --runtime=2"))
        for node in (1, 2):
            lab.run(node, f"mkdir -p {TRACE} && cd {TRACE} && echo 0 > tracing_on && echo 16384 > buffer_size_kb && echo > trace && "
                          "echo 1 > events/scribe/enable && echo 1 > tracing_on")
        lab.run(1, fio.format(words=words, count=f"--number_ios={COUNT}"))
        seen = {}
        for node in (1, 2):
            seen[node] = events(lab.run(node, f"cd {TRACE} && echo 0 > tracing_on && cat trace"))
        steps = steps_of(seen[1], legs_of(seen[2]), near)
        rows.append({"job": job, "steps": {step: {"p50_us": round(statistics.median(took)),
                                                  "p99_us": round(statistics.quantiles(took, n=100)[-1]),
                                                  "mean_us": round(statistics.mean(took)), "count": len(took)}
                                           for step, took in sorted(steps.items()) if len(took) > 1}})
    lab.lab("down")
    return rows


def show_path(title: str, rows: list[dict]):
    print(f"\n{title}: where the time of an operation goes, one at a time")
    for row in rows:
        print(f"  {row['job']}")
        for step, took in row["steps"].items():
            print(f"    {step:46} p50 {took['p50_us']:>7} us   p99 {took['p99_us']:>7} us   mean {took['mean_us']:>7} us   {took['count']:>6} times", flush=True)
