# SPDX-License-Identifier: GPL-2.0
"""Snapshots, schedules and clones on three nodes, while what they are of is in use; cases of cluster.py."""

import calendar
import subprocess
import time

from labtest import BlockWriter, Lab, Writer
from scribe_cluster import ask, come_back, disk_of, leader, same_metadata, vsd, wait_until, wait_up, whole


def snapshots(lab: Lab):
    """Two virtual disks with writers on two nodes, kept at one instant, from a third."""
    for name, node in (("s1", 1), ("s2", 2)):
        lab.run(1, f"scalectl vsd create {name} 64MiB && scalectl vsd open {name} --node n{node}")
    writers = [Writer(lab, 1, vsd("s1")), Writer(lab, 2, vsd("s2"))]
    for writer in writers:
        writer.read(10)
    said = [writer.last + 1 for writer in writers]
    taken = ask(lab, 3, "snapshot create s1,s2@one")
    print(f"# writers waited for {taken['paused_ms']} ms", flush=True)
    assert [(s["vsd"], s["name"]) for s in taken["snapshots"]] == [("s1", "one"), ("s2", "one")], taken
    for writer in writers:
        writer.read(30)  # what was printed before, and more
    lab.run(2, "scalectl snapshot create s1@two")
    writers[0].read(10)
    ends = [writer.end() for writer in writers]
    lab.fails(3, "scalectl snapshot create s1@one", 5, "already")
    lab.fails(3, "scalectl vsd delete s2 --yes", 5, "open")
    lab.fails(3, "scalectl snapshot revert s1@one --yes", 5, "close it first")
    changes = ask(lab, 3, "snapshot diff s1@one --to s1@two")["changes"]
    assert changes and all(c["mapped"] for c in changes), changes
    # Records follow each other: what was new at the second begins where the first ends.
    assert changes[0]["offset_bytes"] >= said[0] * 4096, (changes, said)
    assert ask(lab, 3, "snapshot diff s1@two --to s1@two")["changes"] == []
    shown = ask(lab, 1, "snapshot show s1@one")
    assert shown["mapped_bytes"] == changes[0]["offset_bytes"], (shown, changes)
    for name, node, count, end in (("s1", 1, said[0], ends[0]), ("s2", 2, said[1], ends[1])):
        lab.wait(1, f"scalectl vsd close {name} --node n{node}")
        kept = ask(lab, 2, f"snapshot revert {name}@one --yes --keep now")["snapshots"][0]
        assert kept["name"] == "now", kept
        lab.run(3, f"scalectl vsd open {name} && {Writer.tool()} --run {writers[node - 1].number} check {vsd(name)} {count}")
        lab.fails(3, f"{Writer.tool()} --run {writers[node - 1].number} check {vsd(name)} {end}", 1, "wrong")
        lab.run(3, f"scalectl vsd close {name}")
        lab.run(3, f"scalectl snapshot revert {name}@now --yes --keep again && scalectl vsd open {name} && "
                   f"{Writer.tool()} --run {writers[node - 1].number} check {vsd(name)} {end}")
        # It can be written, and what a snapshot holds stays.
        lab.run(3, f"dd if=/dev/urandom of={vsd(name)} bs=1M count=8 oflag=direct conv=fsync,notrunc status=none && "
                   f"scalectl vsd close {name}")
        lab.run(3, f"scalectl snapshot revert {name}@now --yes --keep junk && scalectl vsd open {name} && "
                   f"{Writer.tool()} --run {writers[node - 1].number} check {vsd(name)} {end} && scalectl vsd close {name}")
    # Deleted before its snapshots: they are as they were.
    shown = ask(lab, 1, "snapshot show s1@one")
    gone = ask(lab, 1, "vsd show s1")["id"]
    lab.run(1, "scalectl vsd delete s1 --yes")
    lab.fails(1, "scalectl vsd show s1", 4, "no VSD")
    assert ask(lab, 2, f"snapshot show deleted:{gone}:s1@one")["mapped_bytes"] == shown["mapped_bytes"]
    lab.fails(1, f"scalectl snapshot revert deleted:{gone}:s1@one --yes", 5, "snapshot clone")
    lab.run(2, f"scalectl snapshot clone deleted:{gone}:s1@one s1 && scalectl vsd open s1 && "
               f"{Writer.tool()} --run {writers[0].number} check {vsd('s1')} {said[0]} && scalectl vsd close s1")
    # Read where it is, on two nodes at once; its disk is written meanwhile.
    lab.run(1, "scalectl vsd open s2")
    lab.run(1, f"dd if=/dev/urandom of={vsd('s2')} bs=1M count=8 oflag=direct conv=fsync,notrunc status=none")
    for node in (2, 3):
        lab.run(3, f"scalectl snapshot open s2@one --node n{node}")
    for node in (2, 3):
        lab.run(node, f"{Writer.tool()} --run {writers[1].number} check {vsd('s2@one')} {said[1]}")
        lab.fails(node, f"dd if=/dev/zero of={vsd('s2@one')} bs=4k count=1 oflag=direct status=none", 1, "")
    lab.fails(1, "scalectl snapshot delete s2@one --yes", 5, "open on 2 nodes")
    lab.run(2, f"scalectl snapshot list | grep -q 's2@one.*2 3' && {Writer.tool()} --run {writers[1].number} check "
               f"{vsd('s2@one')} {said[1]}")
    for node in (2, 3):
        lab.wait(1, f"scalectl snapshot close s2@one --node n{node}")
    lab.wait(1, "scalectl vsd close s2")
    same_metadata(lab, (1, 2, 3))
    for each in ask(lab, 1, "snapshot list")["snapshots"]:
        what = f"{each['vsd']}@{each['name']}"
        before = ask(lab, 1, f"snapshot space {what}")["freed_bytes"]
        task = ask(lab, 1, f"snapshot delete {what} --yes")["task"]
        lab.run(1, f"scalectl task wait {task}")
        assert before % (1 << 20) == 0, before
    for name in ("s1", "s2"):
        lab.run(1, f"scalectl vsd delete {name} --yes")


def schedule(lab: Lab):
    """Of two disks, one of them in use; the leader changes between two of its times."""
    for name in ("t1", "t2"):
        lab.run(1, f"scalectl vsd create {name} 64MiB")
    lab.run(2, f"scalectl vsd open t1 && dd if=/dev/urandom of={vsd('t1')} bs=1M count=2 oflag=direct conv=fsync status=none")

    def taken() -> dict[str, set[str]]:
        out: dict[str, set[str]] = {}
        for one in ask(lab, 3, "snapshot list")["snapshots"]:
            if one["schedule"] == "often":
                out.setdefault(one["name"], set()).add(one["vsd"])
        return out

    made = ask(lab, 2, "schedule create often --vsds t1,t2 --rule FREQ=MINUTELY --keep 1")
    assert made["vsds"] == ["t1", "t2"] and made["next"] > 0, made
    wait_until("the first are taken", lambda: list(taken().values()) == [{"t1", "t2"}])
    first = next(iter(taken()))
    leader = ask(lab, 1, "cluster status")["leader"]
    lab.run(leader, "systemctl restart scaled")
    wait_up(lab, 1, (1, 2, 3))
    # As if it had begun a while ago: its next time is near.
    lab.wait(2, "scalectl schedule set often --starts $(date -u -d '-45 seconds' +%FT%T)")
    wait_until("the next ones are taken, and the first are gone",
               lambda: list(taken().values()) == [{"t1", "t2"}] and first not in taken())
    assert lab.run(1, "scalectl task list").count(first) == 2
    lab.fails(1, "scalectl schedule create often --vsds t1 --rule FREQ=DAILY", 5, "exists")
    lab.fails(1, "scalectl schedule create other --vsds t1,t9 --rule FREQ=DAILY", 4, "no VSD named t9")
    lab.fails(1, "scalectl schedule create other --vsds t1 --rule FREQ=SECONDLY", 2, "too often")
    lab.fails(1, "scalectl schedule set often --zone Nowhere", 2, "no time zone")
    lab.fails(1, "scalectl schedule show other", 4, "no schedule named other")
    assert [s["name"] for s in ask(lab, 3, "schedule list")["schedules"]] == ["often"]
    kept = ask(lab, 3, "schedule show often")
    assert kept["snapshots"] == 2 and kept["keep"] == 1 and kept["rule"] == "FREQ=MINUTELY", kept
    second = next(iter(taken()))
    lab.run(3, "scalectl schedule delete often")
    assert taken() == {}
    for name in ("t1", "t2"):
        lab.run(1, f"scalectl snapshot delete {name}@{second} --yes")
    lab.wait(2, "scalectl vsd close t1")
    for name in ("t1", "t2"):
        lab.run(1, f"scalectl vsd delete {name} --yes")


def clones(lab: Lab):
    """Of a disk in use, taken again and again; all go their own ways while copies of what they share move."""
    wait_until("deletions are over", lambda: not any(t["state"] == "running" for t in ask(lab, 1, "task list")["tasks"]))
    lab.run(1, "scalectl vsd create origin 24MiB && scalectl vsd open origin")
    blocks = BlockWriter(lab, 1, vsd("origin"), 6)
    wait_until("blocks are flushed", lambda: blocks.flushed() > 200)
    instants = {}
    for node, name in ((1, "c1"), (2, "c2"), (3, "c3")):
        before = blocks.said()
        if name == "c2":
            lab.run(3, "scalectl snapshot create origin@base")
            after = blocks.said()
            lab.run(2, "scalectl snapshot clone origin@base c2")
        else:
            made = ask(lab, node, f"vsd clone origin {name}")
            after = blocks.said()
            print(f"# writers waited for {made['paused_ms']} ms", flush=True)
        lab.run(node, f"scalectl vsd open {name}")
        instants[name] = (node, before, len(after))
        wait_until("blocks are flushed", lambda n=blocks.flushed(): blocks.flushed() > n + 50)
    said = blocks.said()
    lab.fails(1, "scalectl vsd clone origin c1", 5, "exists")
    lab.fails(1, "scalectl vsd clone nothing c9", 4, "no VSD")
    lab.fails(1, "scalectl vsd clone origin a/b", 2, "no name")
    lab.fails(1, "scalectl snapshot clone origin@none c9", 4, "no snapshot")

    def same_instant(name: str, device: str = "", node: int = 0) -> str:
        where, before, end = instants[name]
        return blocks.verify_instant(node or where, vsd(device or name), before, said[end:])

    digests = {name: same_instant(name) for name in instants}
    # A clone of a clone, and one that is written to on another node.
    lab.run(3, "scalectl vsd clone c3 c4 && scalectl vsd open c4 --node n2")
    assert same_instant("c3", "c4", 2) == digests["c3"]
    own = BlockWriter(lab, 2, vsd("c4"), 6)  # a later run than what it begins with
    # What they share moves under all of them, and what was left is written over by the two that write.
    disk = disk_of(lab, 1, "n1-ssd0")["id"]
    assert any(d["disk"] == disk for d in ask(lab, 1, "vsd show c1")["spread"]), "nothing of it is to move"
    task = ask(lab, 1, f"disk evacuate {disk}")["task"]
    wait_until("a disk is empty", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")
    come_back(lab, 1, "ssd0", disk)
    for writer in (blocks, own):
        wait_until("blocks are flushed", lambda w=writer, n=writer.flushed(): w.flushed() > n + 100)
    for name, copy in (("c1", 1), ("c2", 2), ("c3", 0)):
        lab.run(instants[name][0], f"dmsetup message scribe-{name} 0 copy {copy}")
        assert same_instant(name) == digests[name], f"{name}, copy {copy}"
    # The origin goes first, its snapshot next.
    blocks.end()
    blocks.verify(1)
    lab.wait(1, "scalectl vsd close origin")
    lab.run(1, "scalectl vsd delete origin --yes")
    gone = next(s for s in ask(lab, 1, "snapshot list")["snapshots"] if s["name"] == "base")["vsd"]
    lab.run(1, f"scalectl snapshot delete {gone}@base --yes")
    # A disk fails: what a deleted virtual disk filled is made anew as well.
    lab.lab("disk", 2, "ssd0", "failwrites")
    wait_until("the disk has failed", lambda: disk_of(lab, 1, "n2-ssd0")["state"] == "failed")
    own.end()
    wait_until("every copy is made good", lambda: whole(lab, 1))
    own.verify(2)
    for name, copy in (("c1", 2), ("c2", 1), ("c3", 0)):
        lab.run(instants[name][0], f"dmsetup message scribe-{name} 0 copy {copy}")
        assert same_instant(name) == digests[name], f"{name}, copy {copy}"
    task = ask(lab, 1, "pool verify")["task"]
    wait_until("all copies were compared", lambda: ask(lab, 1, f"task show {task}")["state"] != "running")
    assert ask(lab, 1, f"task show {task}")["state"] == "done", ask(lab, 1, f"task show {task}")
    failed = disk_of(lab, 1, "n2-ssd0")["id"]
    lab.lab("disk", 2, "ssd0", "ok")
    come_back(lab, 2, "ssd0", failed)
    for name, node in (("c4", 2), ("c1", 1), ("c2", 2), ("c3", 3)):
        lab.wait(node, f"scalectl vsd close {name}")
        lab.run(1, f"scalectl vsd delete {name} --yes")
    same_metadata(lab, (1, 2, 3))


def scattered(lab: Lab):
    """In chunks that others share and in others; the daemon that puts them together is killed at it, and comes back."""
    lab.run(1, "scalectl vsd create s 64MiB && scalectl vsd open s")
    lab.run(1, f"dd if=/dev/urandom of={vsd('s')} bs=1M count=8 oflag=direct conv=fsync status=none")

    def some(offset: int, size: int, seed: int) -> str:
        return (f"fio --name=s --filename={vsd('s')} --offset={offset}m --size={size}m --rw=randwrite --bs=4k --direct=1 "
                f"--ioengine=libaio --iodepth=8 --end_fsync=1 --io_size={size * 80}k --randseed={seed} --output-format=terse")

    lab.run(1, some(8, 8, 1))
    lab.run(1, "scalectl snapshot create s@base")
    lab.run(1, some(0, 12, 2))
    lab.run(2, "scalectl snapshot clone s@base sc && scalectl vsd open sc")
    lab.run(3, "scalectl snapshot open s@base")
    readers = {(1, vsd("s")): "", (2, vsd("sc")): "", (3, vsd("s@base")): ""}

    def digest(node: int, device: str) -> str:
        return lab.run(node, f"dd if={device} bs=1M count=16 iflag=direct status=none | sha256sum").split()[0]

    for node, device in readers:
        readers[node, device] = digest(node, device)
    pieces = ask(lab, 1, "vsd show s")["pieces"]
    assert pieces > 200, pieces
    load = lab.start(2, f"fio --name=l --filename={vsd('sc')} --offset=32m --size=16m --rw=randwrite --bs=4k --direct=1 "
                        "--ioengine=libaio --iodepth=4 --verify=crc32c --verify_fatal=1 --loops=3 --output-format=terse",
                     stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until("it begins", lambda: ask(lab, 3, "vsd show s")["pieces"] < pieces)
    lab.run(1, "systemctl kill -s KILL scaled")
    wait_up(lab, 2, (1, 2, 3))
    wait_until("what is scattered is put together", lambda: ask(lab, 3, "vsd show s")["pieces"] < pieces * 0.6)
    said = lab.ended(load)[1]
    assert load.returncode == 0, said
    for (node, device), before in readers.items():
        assert digest(node, device) == before, f"node {node}"
    for copy in (1, 2):
        lab.run(1, f"dmsetup message scribe-s 0 copy {copy}")
        assert digest(1, vsd("s")) == readers[1, vsd("s")], f"copy {copy}"
    task = ask(lab, 1, "pool verify")["task"]
    wait_until("all copies were compared", lambda: ask(lab, 1, f"task show {task}")["state"] != "running")
    assert ask(lab, 1, f"task show {task}")["state"] == "done", ask(lab, 1, f"task show {task}")
    lab.wait(3, "scalectl snapshot close s@base")
    lab.run(1, "scalectl snapshot delete s@base --yes")
    for node, name in ((1, "s"), (2, "sc")):
        lab.wait(node, f"scalectl vsd close {name}")
        lab.run(1, f"scalectl vsd delete {name} --yes")


def snapshot_reader_dies(lab: Lab):
    lab.run(1, "scalectl vsd create r 32MiB && scalectl vsd open r")
    writer = Writer(lab, 1, vsd("r"))
    writer.read(30)
    lab.run(3, "scalectl snapshot create r@one && scalectl snapshot open r@one")

    def digest() -> str:
        return lab.run(3, f"dd if={vsd('r@one')} bs=1M iflag=direct status=none | sha256sum").split()[0]

    before = digest()
    asked = lab.start(3, "scalectl vsd clone r rc", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1.2)  # about when it is at it
    lab.kill(3)
    asked.wait()
    writer.read(60)
    lab.fails(1, "scalectl snapshot delete r@one --yes", 5, "open on 1 node")
    lab.fails(1, "scalectl vsd delete r --yes", 5, "open")
    lab.lab("start", 3)
    wait_up(lab, 1, (1, 2, 3))
    lab.wait(3, f"test -e {vsd('r@one')}")
    assert digest() == before
    writer.read(20)
    records = writer.end()
    made = [v["name"] for v in ask(lab, 2, "vsd list")["vsds"] if v["name"] == "rc"]
    print(f"# the clone {'came to be' if made else 'did not come to be'}", flush=True)
    if made:
        lab.run(2, f"scalectl vsd open rc && {Writer.tool()} check {vsd('rc')} 30 && scalectl vsd close rc")
        lab.run(2, "scalectl vsd delete rc --yes")
    lab.run(1, f"{Writer.tool()} check {vsd('r')} {records}")
    lab.wait(3, "scalectl snapshot close r@one")
    lab.run(2, "scalectl snapshot delete r@one --yes")
    lab.wait(1, "scalectl vsd close r")
    lab.run(1, "scalectl vsd delete r --yes")
    same_metadata(lab, (1, 2, 3))


def schedule_was_off(lab: Lab):
    lab.run(1, "scalectl vsd create o 16MiB")
    lab.run(1, "scalectl schedule create off --vsds o --rule FREQ=MINUTELY --keep 20")

    def times() -> list[int]:
        return sorted(calendar.timegm(time.strptime(s["name"], "off-%Y%m%d-%H%M%S"))
                      for s in ask(lab, 2, "snapshot list")["snapshots"] if s["vsd"] == "o")

    wait_until("the first is taken", times)
    for node in (1, 2, 3):
        lab.kill(node)
    before = int(time.time())
    wait_until("some times have passed", lambda: time.time() > before + 190)
    for node in (1, 2, 3):
        lab.lab("start", node)
    wait_up(lab, 2, (1, 2, 3))
    wait_until("it is caught up", lambda: any(at > before for at in times()))
    missed = [at for at in times() if at > before]
    assert missed[0] >= before + 120, (before, times())
    assert all(later - at == 60 for at, later in zip(missed, missed[1:])), (before, times())
    lab.run(1, "scalectl schedule delete off")
    for each in ask(lab, 1, "snapshot list")["snapshots"]:
        if each["vsd"] == "o":
            lab.run(1, f"scalectl snapshot delete o@{each['name']} --yes")
    lab.run(1, "scalectl vsd delete o --yes")
    same_metadata(lab, (1, 2, 3))


def clocks_differ(lab: Lab):
    lab.run(1, "scalectl vsd create k 16MiB")
    lab.run(1, "scalectl schedule create aged --vsds k --rule FREQ=MINUTELY --keep 50 --keep-days 1")

    def taken() -> set[str]:
        return {s["name"] for s in ask(lab, 1, "snapshot list")["snapshots"] if s["vsd"] == "k"}

    wait_until("two are taken", lambda: len(taken()) >= 2)
    before = taken()
    at = leader(lab, 1)
    other = 2 if at != 2 else 3
    lab.run(at, "date -s '+3 days'")
    wait_until("it is told", lambda: any(c["subject"] == "clock" for c in ask(lab, at, "cluster status")["conditions"]))
    lab.run(at, "date -s '-3 days'")
    assert before <= taken(), "what was young is gone"
    during = taken()
    wait_until("the clock is good again", lambda: leader(lab, other) != at or not any(
        c["subject"] == "clock" for c in ask(lab, at, "cluster status")["conditions"]))
    wait_until("the schedule goes on", lambda: len(taken() - during) >= 2)
    lab.run(1, "scalectl schedule delete aged")
    for name in taken():
        lab.run(1, f"scalectl snapshot delete k@{name} --yes")
    lab.run(1, "scalectl vsd delete k --yes")
