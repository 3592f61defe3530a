#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The fault matrix: each fault in each phase of a cluster's life, on three nodes as their users have them.

  matrix.py [--seed N] [--minutes N]    cells in an order that the seed decides; disks and nodes too
  matrix.py --cell FAULT/PHASE ...      these, in this order; a word chooses all that contain it
  matrix.py --sample                    those that make check has time for
  matrix.py --table                     prints Documentation/fault-matrix.md

In each cell blockcheck writes sectors that describe themselves, and flushes; what it says was flushed is kept
outside of the cluster. Whatever the fault, afterwards each flushed sector or a later one is there, the same in each
copy, all copies are there again with no other hand than that which repairs what was broken, and all nodes have the
same metadata.
"""

import argparse
import random
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from typing import Callable

from labtest import BlockWriter, Lab, whose_turn
from scribe_cluster import (DISKS, LEASE_SECONDS, add_disks, ask, boot, come_back, disk_of, found, join,
                            same_metadata, states, vsd, wait_disks, wait_until, wait_up, whole)

NODES = (1, 2, 3)
JOINER = 4  # in no cluster but while it joins
DATA_DISKS = len(NODES) * len(DISKS)
DISK_MIB = 320  # small, so that it can be filled
BLOCKS = "48MiB"
BALLAST_MIB = 96
WRITES_ON = 40  # so many more flushes are progress
JOINER_CUT = 0.3  # how often it dies as well
SNAPSHOTS = 6  # at most: each makes what is written behind it new space, of which there is little
KEEP = 50  # percent of a drive's cache that a power cut leaves behind


@dataclass
class Taken:
    """A snapshot that was asked for: what the writer had said before, and how much of it when the answer came."""
    name: str
    before: str
    end: int = 0  # 0: no answer, or an error
    calm: bool = False  # the answer came before the fault


class Cell:
    """One fault in one phase: who writes, whom it hits."""

    def __init__(self, lab: Lab, rng: random.Random, hits_owner: bool):
        self.lab = lab
        self.owner, self.reader, self.third = rng.sample(NODES, 3)
        self.victim = self.owner if hits_owner else rng.choice((self.reader, self.third))
        self.asked = next(n for n in (self.reader, self.third) if n != self.victim)
        self.disk = rng.choice(DISKS)
        self.boots = {n: boot(lab, n) for n in NODES}
        self.rng = rng
        self.joiner_is_off = False
        self.joining: subprocess.Popen | None = None
        self.writer: BlockWriter | None = None
        self.helped: list[int] = []
        self.taker: threading.Thread | None = None
        self.taken: list[Taken] = []
        self.no_more = False
        self.is_hit = False

    def write(self):
        self.writer = BlockWriter(self.lab, self.owner, vsd("blocks"), 5)
        self.progress()

    def help(self, node: int, command: str):
        """Something that goes on on a node until no_help()."""
        self.lab.start(node, f"echo $$ > /run/helper; while sleep 0.5; do {command}; done > /dev/null 2>&1")
        self.helped.append(node)

    def no_help(self):
        for node in self.helped:
            self.lab.wait(node, "kill $(cat /run/helper) 2> /dev/null; rm -f /run/helper")

    def join(self, sponsor: int):
        """Asks a member to let one more in; what becomes of that is told by the members' list alone."""
        token = ask(self.lab, sponsor, "cluster token")["token"]
        self.joining = self.lab.start(JOINER, f"exec scalectl cluster join 10.12.0.{sponsor} {token} --lan 10.11.0.{JOINER} "
                                              f"--backplane 10.12.0.{JOINER}", stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL)

    def progress(self):
        """The writer goes on; where it has ended, this says so at once."""
        before = self.writer.flushed()

        def more():
            assert self.writer.process.poll() is None, "the writer ended"
            return self.writer.flushed() >= before + WRITES_ON
        wait_until(f"n{self.owner} writes on", more)

    def stop(self):
        """Ends the writer for good: what it had asked for is done, or failed, when this returns."""
        self.writer.end()
        self.lab.wait(self.owner, "! pkill -KILL -x blockcheck || ! sleep 1")

    def down(self, node: int):
        wait_until(f"n{node} is down for the others", lambda: states(self.lab, self.asked)[f"n{node}"] == "down")

    def links(self, verb: str):
        for link in ("bp0", "bp1"):
            self.lab.lab("net", self.victim, link, *verb.split())


@dataclass
class Fault:
    """`outcome`: goes on (the writer is not disturbed for good), lost (its node is; another has all it had flushed),
    held (it waits, and goes on by itself when that is over), all (everything stands still and comes back), any
    (slower, or as lost; only what is there afterwards is judged)."""
    name: str
    hits_owner: bool
    outcome: str
    expected: str
    begin: Callable[[Cell], None]
    end: Callable[[Cell], None]
    takes_copies: bool = False  # for good


@dataclass
class Phase:
    """`weak`: some data has one good copy then. Another fault may make it wait, and must not take that copy."""
    name: str
    what: str
    begin: Callable[[Cell], None]
    end: Callable[[Cell], None]
    weak: bool = False
    proof: Callable[[Cell, Fault], None] = lambda cell, fault: None


def nothing(_: Cell):
    pass


# Faults of disks

def disk(verb: str) -> Callable[[Cell], None]:
    def act(cell: Cell):
        cell.lab.lab("disk", cell.victim, cell.disk, verb)
        if verb in ("ok", "add"):
            return
        # What is written may all lie elsewhere.
        cell.lab.run(cell.asked, f"dd if=/dev/urandom of={vsd('ballast')} bs=1M count={BALLAST_MIB} oflag=direct "
                                 "conv=fsync,notrunc status=none")
        serial = f"n{cell.victim}-{cell.disk}"
        wait_until("the disk counts as failed", lambda: disk_of(cell.lab, cell.asked, serial)["state"] == "failed")
    return act


# Faults of nodes

def cut(cell: Cell):
    cell.lab.kill(cell.victim, KEEP)


def start(cell: Cell):
    cell.lab.lab("start", cell.victim)


def freeze(cell: Cell):
    cell.lab.lab("pause", cell.victim)
    cell.down(cell.victim)


def thaw(cell: Cell):
    cell.lab.lab("resume", cell.victim)


def kill_daemon(cell: Cell):
    cell.lab.run(cell.victim, "systemctl kill -s KILL scaled")


def hang_daemon(cell: Cell):
    cell.lab.run(cell.victim, "systemctl kill -s STOP scaled")
    cell.down(cell.victim)


def cut_all(cell: Cell):
    for node in NODES:
        cell.lab.kill(node, KEEP)


def start_all(cell: Cell):
    for node in NODES:
        cell.lab.lab("start", node)


# Faults of networks

def one_link_down(cell: Cell):
    cell.lab.lab("net", cell.victim, "bp0", "down")


def one_link_up(cell: Cell):
    cell.lab.lab("net", cell.victim, "bp0", "up")


def links(verb: str, until_down: bool = False) -> Callable[[Cell], None]:
    def act(cell: Cell):
        cell.links(verb)
        if until_down:
            cell.down(cell.victim)
    return act


# Faults of the log, of clocks, of space

def stop_member(cell: Cell):
    cell.lab.run(cell.victim, "systemctl stop scaled-etcd")


def start_member(cell: Cell):
    cell.lab.run(cell.victim, "systemctl start --no-block scaled-etcd")


def stop_quorum(cell: Cell):
    for node in NODES[:2]:
        cell.lab.run(node, "systemctl stop scaled-etcd")


def start_quorum(cell: Cell):
    for node in NODES[:2]:
        cell.lab.run(node, "systemctl start --no-block scaled-etcd")


def clock_forward(cell: Cell):
    cell.lab.run(cell.victim, "date -s '+1 hour'")


def clock_back(cell: Cell):
    cell.lab.run(cell.victim, "date -s '-1 hour'")


def fill_pool(cell: Cell):
    cell.lab.run(cell.asked, "scalectl vsd create filler 8GiB && scalectl vsd open filler && "
                             f"! dd if=/dev/zero of={vsd('filler')} bs=1M oflag=direct status=none")
    wait_until("a condition says so", lambda: "no space" in cell.lab.run(cell.asked, "scalectl cluster status"))


def empty_pool(cell: Cell):
    cell.lab.run(cell.asked, "scalectl vsd close filler && scalectl vsd delete filler --yes")


def fill_system_disk(cell: Cell):
    cell.lab.run(cell.victim, "fallocate -l $(($(stat -f -c %f / ) * $(stat -f -c %S /) - (8 << 20))) /var/lib/filler; "
                              "! dd if=/dev/zero of=/var/lib/filler bs=4k oflag=append conv=notrunc status=none")
    # So that something must be written there.
    cell.lab.run(cell.asked, "scalectl vsd create more 64MiB && scalectl vsd delete more --yes")
    time.sleep(2 * LEASE_SECONDS)


def empty_system_disk(cell: Cell):
    cell.lab.wait(cell.victim, "rm -f /var/lib/filler")


FAULTS = (
    Fault("a disk fails", False, "goes on", "what it held gets a new second copy at once", disk("fail"), disk("ok"),
          True),
    Fault("a disk hangs", False, "goes on", "it is failed after the limit; as above", disk("hang"), disk("ok"), True),
    Fault("a disk vanishes", False, "goes on", "as above; what comes back is not read", disk("pull"), disk("add"),
          True),
    Fault("power cut of another node", False, "goes on", "writes go elsewhere; what it missed is made anew", cut, start),
    Fault("power cut of the owner", True, "lost", "another node has all that was flushed", cut, start),
    Fault("another node freezes", False, "goes on", "it is down; it resets itself when it goes on", freeze, thaw),
    Fault("the owner freezes", True, "lost", "as above; another node has all that was flushed", freeze, thaw),
    Fault("the owner's daemon is killed", True, "goes on", "I/O waits for the next one", kill_daemon, nothing),
    Fault("the owner's daemon hangs", True, "lost", "its node is down, and reset by its watchdog", hang_daemon, nothing),
    Fault("one backplane link of the owner is down", True, "goes on", "the bond's other link carries all", one_link_down,
          one_link_up),
    Fault("another node is cut off", False, "goes on", "it is down; it resets itself when it hears of that",
          links("down", True), links("up")),
    Fault("the owner is cut off", True, "lost", "it holds its I/O; another node has all that was flushed",
          links("down", True), links("up")),
    Fault("what another node sends is lost", False, "goes on", "it is down, as if cut off", links("loss 100", True),
          links("loss 0")),
    Fault("what the owner sends is lost", True, "lost", "as if cut off", links("loss 100", True), links("loss 0")),
    Fault("a third of what the owner sends is lost", True, "any", "slower; down where no lease can be renewed",
          links("loss 30"), links("loss 0")),
    Fault("what another node sends takes 200 ms", False, "goes on", "slower", links("delay 200"), links("delay 0")),
    Fault("a member of the log is down", False, "goes on", "nothing is lost but redundancy of the log", stop_member,
          start_member),
    Fault("most members of the log are down", False, "held", "I/O waits from the lease's end; no node is declared dead",
          stop_quorum, start_quorum),
    Fault("the owner's clock jumps by an hour and back", True, "goes on", "leases are counted on another clock",
          clock_forward, clock_back),
    Fault("power cut of all nodes", True, "all", "all come back with no hand", cut_all, start_all),
    Fault("the pool is full", False, "any", "no new space: \"No space left on device\"; space comes back when a disk is deleted",
          fill_pool, empty_pool),
    Fault("another node's system disk is full", False, "goes on", "at worst that node is down until there is space",
          fill_system_disk, empty_system_disk),
    Fault("the owner's system disk is full", True, "any", "as above", fill_system_disk, empty_system_disk),
)


# Phases

def writing(cell: Cell):
    cell.write()


def idle(cell: Cell):
    cell.write()
    cell.stop()


def allocating(cell: Cell):
    cell.lab.run(cell.owner, f"blkdiscard {vsd('blocks')}")
    cell.write()
    # Each file is new space, and each goes again.
    cell.help(cell.owner, f"dd if=/dev/urandom of={vsd('ballast')} bs=64k count=64 oflag=direct conv=notrunc; "
                          f"blkdiscard -l 4MiB {vsd('ballast')}")


def in_turns(cell: Cell):
    cell.write()
    cell.help(cell.reader, f"dd if={vsd('blocks')} of=/dev/null bs=1M count=4 iflag=direct")


def refreshing(cell: Cell):
    """A node that was away comes back to what was written meanwhile."""
    cell.write()
    away = cell.asked
    cell.lab.kill(away, KEEP)
    cell.progress()
    cell.lab.lab("start", away)


def healing(cell: Cell):
    cell.write()
    name = next(d for d in DISKS if d != cell.disk)
    cell.lab.lab("disk", cell.asked, name, "fail")


def heal_over(cell: Cell):
    name = next(d for d in DISKS if d != cell.disk)
    cell.lab.lab("disk", cell.asked, name, "ok")


def balancing(cell: Cell):
    cell.write()
    cell.lab.run(cell.asked, "scalectl pool rebalance --automatic")


def balanced(cell: Cell):
    cell.lab.wait(cell.asked, "scalectl pool rebalance --stop")


def emptying(cell: Cell):
    cell.write()
    name = next(d for d in DISKS if d != cell.disk)
    number = disk_of(cell.lab, cell.asked, f"n{cell.asked}-{name}")["id"]
    cell.lab.run(cell.asked, f"scalectl disk evacuate {number}")


def joining(cell: Cell):
    cell.write()
    cell.join(cell.victim)
    time.sleep(cell.rng.uniform(0, 10))  # a join takes some 15 s here
    if cell.rng.random() < JOINER_CUT:
        print(f"# n{JOINER}'s power is cut, too", flush=True)
        cell.lab.kill(JOINER, KEEP)
        cell.joining.kill()
        cell.joiner_is_off = True


def joined(cell: Cell):
    """Whatever became of its first attempt, another with a new token lets it in; then it leaves."""
    if cell.joiner_is_off:
        cell.lab.lab("start", JOINER)

    def inside():
        if states(cell.lab, cell.asked).get(f"n{JOINER}") == "up":
            return True
        if cell.joining.poll() is not None:
            cell.join(cell.asked)
        return False
    wait_until("another node is in", inside)
    cell.lab.wait(cell.asked, f"scalectl node remove n{JOINER}")
    wait_until("it is forgotten", lambda: f"n{JOINER}" not in states(cell.lab, cell.asked))
    wait_until("it knows that", lambda: cell.lab.fails(JOINER, "scalectl node list", 5, "in no cluster") is None)


def take_snapshots(cell: Cell):
    """Some of the calls fail while the fault lasts."""
    for number in range(SNAPSHOTS):
        if cell.no_more:
            return
        one = Taken(f"m{number}", cell.writer.said())
        cell.taken.append(one)
        try:
            cell.lab.run(cell.asked, f"scalectl snapshot create blocks@{one.name}")
            one.calm, one.end = not cell.is_hit, len(cell.writer.said())
        except AssertionError as err:
            print(f"# {one.name}: {str(err).splitlines()[0]}", flush=True)
        time.sleep(cell.rng.uniform(0, 4))


def snapshots(cell: Cell):
    cell.lab.run(cell.owner, f"blkdiscard {vsd('blocks')}")
    cell.write()
    cell.taker = threading.Thread(target=take_snapshots, args=(cell,))
    cell.taker.start()
    wait_until("a snapshot is taken", lambda: any(one.end for one in cell.taken))


def no_more_snapshots(cell: Cell):
    cell.no_more = True
    cell.taker.join()


def each_is_of_an_instant(cell: Cell, fault: Fault):
    """What a snapshot has is what the disk had at one instant; where the writer may have been lost before it, at
    least what was flushed. Each is read from each copy."""
    lab, said = cell.lab, cell.writer.said()
    names = {s["name"] for s in ask(lab, cell.asked, "snapshot list")["snapshots"]}
    exact = 0
    for one in cell.taken:
        assert one.name in names or not one.end, f"snapshot {one.name} is gone"
        if one.name not in names:
            continue
        device = vsd(f"blocks@{one.name}")
        lab.run(cell.asked, f"scalectl snapshot open blocks@{one.name}")
        digests = set()
        for copy in (1, 2, 0):
            lab.run(cell.asked, f"dmsetup message {device} 0 copy {copy}")
            if one.end and (one.calm or fault.outcome in ("goes on", "held")):
                digests.add(cell.writer.verify_instant(cell.asked, device, one.before, said[one.end:]))
                exact += 1
            else:
                digests.add(cell.writer.verify_old(cell.asked, device, one.before))
        assert len(digests) == 1, f"copies of {one.name} differ: {digests}"
        lab.wait(cell.asked, f"scalectl snapshot close blocks@{one.name}")
        lab.run(cell.asked, f"scalectl snapshot delete blocks@{one.name} --yes")
    print(f"# {len(names)} of {len(cell.taken)} snapshots were taken, {exact // 3} verified to the sector", flush=True)
    assert exact, "nothing was verified"


PHASES = (
    Phase("idle", "nothing is written", idle, nothing),
    Phase("writes", "eight threads write and flush at random places", writing, nothing),
    Phase("new space", "as above where nothing is mapped yet, while other space comes and goes", allocating, nothing),
    Phase("in turns", "another node reads what is written, so that the lease moves", in_turns, nothing),
    Phase("refresh", "a node came back, and what it missed is copied", refreshing, nothing, True),
    Phase("healing", "another disk has failed", healing, heal_over, True),
    Phase("balancing", "copies move from full disks to others", balancing, balanced),
    Phase("emptying", "another disk is emptied", emptying, nothing),
    Phase("snapshots", "snapshots are taken one after the other; each is read afterwards", snapshots,
          no_more_snapshots, proof=each_is_of_an_instant),
    Phase("joining", "a fourth node joins, let in by the node that is hit; afterwards it leaves", joining, joined),
)

# What cluster.py has not, within make check's time.
SAMPLE = ("what the owner sends is lost/in turns", "most members of the log are down/snapshots")


def left(lab: Lab, asked: int) -> int:
    redundancy = ask(lab, asked, "cluster status")["redundancy"]
    return sum(redundancy[what] for what in ("stale_copies", "lost_copies", "leaving_copies", "wanting_extents"))


def calm(lab: Lab):
    """All nodes are there, each extent has its copies, and disks that failed or were emptied are in use anew."""
    wait_up(lab, 1, NODES)
    for node in NODES:
        lab.wait(node, f"test -e {vsd('blocks')}")
    wait_until("every copy is made good", lambda: whole(lab, 1) and left(lab, 1) == 0)
    for row in ask(lab, 1, "disk list")["disks"]:
        if row["state"] == "failed" or row["leaving"]:
            node, name = row["serial"][1:].split("-")
            come_back(lab, int(node), name, row["id"])
    wait_disks(lab, 1, DATA_DISKS)


def same_in_every_copy(lab: Lab, writer: BlockWriter, node: int):
    digests = set()
    for copy in (1, 2, 0):
        lab.run(node, f"dmsetup message scribe-blocks 0 copy {copy}")
        digests.add(writer.verify(node))
    assert len(digests) == 1, f"copies differ: {digests}"


def during(cell: Cell, fault: Fault, phase: Phase):
    """What must be so while it lasts."""
    if phase.name == "idle" or phase.weak or fault.outcome == "any":
        return
    if fault.outcome == "goes on":
        cell.progress()
    elif fault.outcome == "lost":
        if fault.begin is cut:
            cell.down(cell.victim)
        cell.writer.verify(cell.asked)
    elif fault.outcome == "held":
        time.sleep(2 * LEASE_SECONDS)
        before = cell.writer.flushed()
        time.sleep(LEASE_SECONDS)
        assert cell.writer.flushed() == before, "it writes without a lease"


def run(lab: Lab, fault: Fault, phase: Phase, seed: str):
    cell = Cell(lab, random.Random(seed), fault.hits_owner)
    print(f"# n{cell.owner} writes, n{cell.victim}'s {cell.disk} or itself is hit", flush=True)
    phase.begin(cell)
    try:
        cell.is_hit = True
        fault.begin(cell)
        during(cell, fault, phase)
    finally:
        fault.end(cell)
        phase.end(cell)
    wait_up(lab, cell.asked, NODES)
    cell.no_help()
    if phase.name != "idle" and fault.outcome in ("goes on", "held"):
        cell.progress()
    if fault.outcome == "held" and not phase.weak:
        assert all(boot(lab, n) == cell.boots[n] for n in NODES), "a node has reset itself"
    cell.stop()
    calm(lab)
    same_in_every_copy(lab, cell.writer, cell.asked)
    phase.proof(cell, fault)
    same_metadata(lab, NODES)


def form(lab: Lab):
    found(lab)
    for node in NODES[1:]:
        join(lab, node)
    wait_up(lab, 1, NODES)
    if lab.nodes >= JOINER:
        lab.wait(JOINER, "systemctl is-active scaled")
    for node in NODES:
        add_disks(lab, node)
    wait_disks(lab, 1, DATA_DISKS)
    lab.run(1, f"scalectl vsd create blocks {BLOCKS} && scalectl vsd create ballast {BALLAST_MIB}MiB")
    for node in NODES:
        for name in ("blocks", "ballast"):
            lab.run(1, f"scalectl vsd open {name} --node n{node}")
    lab.run(1, f"dd if=/dev/urandom of={vsd('ballast')} bs=1M count={BALLAST_MIB} oflag=direct status=none")


def proven(lab: Lab):
    """Every reference, copy and slot is accounted for, and all copies are equal."""
    task = ask(lab, 1, "pool verify")["task"]
    wait_until("all copies were compared", lambda: ask(lab, 1, f"task show {task}")["state"] != "running")
    lab.run(1, f"scalectl task wait {task} && scalectl pool status")


def promised(fault: Fault, phase: Phase) -> bool:
    """Not where the only copy of something may be lost."""
    return not (fault.takes_copies and phase.weak)


def chosen(args) -> list[tuple[Fault, Phase]]:
    every = [(fault, phase) for fault in FAULTS for phase in PHASES if promised(fault, phase)]
    if args.sample:
        return [(f, p) for f, p in every if f"{f.name}/{p.name}" == SAMPLE[whose_turn() % len(SAMPLE)]]
    if args.cell:
        return [(f, p) for word in args.cell for f, p in every if word in f"{f.name}/{p.name}"]
    random.Random(args.seed).shuffle(every)
    return every


def table() -> str:
    lines = ["# The fault matrix", "",
             "Generated by `tests/cluster/matrix.py --table`, which also runs it: each fault of the rows in each phase of",
             "the columns, on three virtual nodes. `make soak` takes cells at random from a seed that it prints;",
             "those marked **x** take turns in `make check`, by the commit (or `SCRIBE_TURN=0` to 7). Whatever the fault: each",
             "flushed sector or a later one is there",
             "afterwards, the same in each copy; all copies are there again; all nodes have the same metadata. The",
             "*owner* is the node that writes. In phases marked + some data has one good copy, so that a second fault may",
             "make it wait, and a disk's loss (-) may be more than two copies bear.", "", "Phases:", ""]
    lines += [f"- *{phase.name}*{' +' if phase.weak else ''}: {phase.what}" for phase in PHASES]
    lines += ["", "| fault | the writer | expected | " + " | ".join(p.name for p in PHASES) + " |",
              "|" + "---|" * (3 + len(PHASES))]
    says = {"goes on": "goes on", "lost": "is lost", "held": "waits", "all": "is lost", "any": "goes on, or is lost"}
    for fault in FAULTS:
        marks = " | ".join("-" if not promised(fault, phase) else "**x**" if f"{fault.name}/{phase.name}" in SAMPLE
                           else "x" for phase in PHASES)
        lines.append(f"| {fault.name} | {says[fault.outcome]} | {fault.expected} | {marks} |")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(prog="matrix.py", description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--minutes", type=int, default=0, help="begin no cell after that; 0: all of them")
    parser.add_argument("--cell", nargs="+", default=[])
    parser.add_argument("--sample", action="store_true")
    parser.add_argument("--table", action="store_true")
    args = parser.parse_args()
    if args.table:
        print(table())
        return
    cells = chosen(args)
    if not cells:
        parser.error("no such cell")
    began = time.monotonic()
    lab = Lab("matrix", JOINER if any(phase.begin is joining for _, phase in cells) else len(NODES), disk_mib=DISK_MIB, debs=True)
    BlockWriter.install(lab)
    lab.case("three nodes, nine disks, two virtual disks on all nodes", form, lab)
    for fault, phase in cells:
        if args.minutes and time.monotonic() - began > args.minutes * 60:
            break
        name = f"{fault.name}/{phase.name}"
        lab.case(f"{name} (seed {args.seed})", run, lab, fault, phase, f"{args.seed} {name}")
        if lab.failures:
            break  # what comes after would tell of this
    lab.case("all is proven to be as it should", proven, lab)
    lab.finish(range(1, lab.nodes + 1))


if __name__ == "__main__":
    sys.exit(main())
