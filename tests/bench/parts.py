# SPDX-License-Identifier: GPL-2.0
"""What single parts of the system cost, each beside somebody who does the same.

On the host itself: what fully mapped disks of 1 GiB and 4 TiB cost the metadata, against the same
rows put there by plain SQL, and thousands of snapshots of them (tests/bench/metadata_bench.cc). What healing costs who uses the disks
meanwhile, against a DRBD that resyncs; the first writes behind a snapshot, against dm-thin and
dm-snapshot; reading in sequence what was written in pieces, before and behind its being put together,
against dm-thin, which does no such thing; how long what breaks takes to be whole again, against a full
compare and what the disks can do.
"""

import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
from labtest import Lab
from scribe_cluster import add_disks, ask, copied, device, disk_of, found, join, vsd, wait_disks, wait_until, wait_up, whole
from path import path, show_path
from spread import show_spread, spread
from stacks import drbd_up

SIZE_MIB = 256
SNAPSHOT_MIB = 512
FIRST_KIB = 2048  # written behind a snapshot
DEPTHS = (1, 32)
SNAPSHOTS = 50  # taken one after the other, to see how long writers wait
MAPPED_MIBS = (1 << 10, 1 << 22)  # of disks whose metadata is measured
MAPPED_MIB = 256  # of what is to be made whole again
GATHER_MIB = 64
JOBS = {"4k random write": "randwrite", "4k random read": "randread"}

def fio(lab: Lab, path: str, rw: str, seconds: int) -> dict:
    out = lab.run(1, f"fio --name=b --filename={path} --rw={rw} --bs=4k --size={SIZE_MIB}m --direct=1 "
                     f"--ioengine=libaio --iodepth=16 --time_based --runtime={seconds} --ramp_time=2 --norandommap "
                     "--randrepeat=1 --output-format=json")
    job = json.loads(out[out.index("{"):])["jobs"][0]["write" if "write" in rw else "read"]
    return {"iops": round(job["iops"]), "p99_ms": round(job["clat_ns"]["percentile"]["99.000000"] / 1e6, 1)}


def fill(lab: Lab, path: str) -> float:
    """Maps every MiB; how many a second."""
    out = lab.run(1, f"fio --name=f --filename={path} --rw=write --bs=1m --size={SIZE_MIB}m --direct=1 --ioengine=libaio "
                     "--iodepth=4 --end_fsync=1 --output-format=json")
    job = json.loads(out[out.index("{"):])["jobs"][0]["write"]
    return SIZE_MIB / (job["runtime"] / 1000)


def beside(lab: Lab, path: str, seconds: int, rounds: int, start, speed) -> dict:
    """A user's writes and reads alone, then beside a healing that start() begins and speed() measures."""
    row = {}
    for job, rw in JOBS.items():
        calm = [fio(lab, path, rw, seconds) for _ in range(rounds)]
        row[job] = {"calm": {key: statistics.median(r[key] for r in calm) for key in ("iops", "p99_ms")}}
    start()
    busy = {job: [] for job in JOBS}
    for _ in range(rounds):
        for job, rw in JOBS.items():
            busy[job].append(fio(lab, path, rw, seconds))
    row["mib_per_s_healed"] = speed()
    for job in JOBS:
        row[job]["healing"] = {key: statistics.median(r[key] for r in busy[job]) for key in ("iops", "p99_ms")}
    return row


def moved_sectors(lab: Lab, disks) -> int:
    """Read and written by disks so far."""
    out = lab.run(1, " ".join(["cat"] + [f"/sys/class/block/$(basename $(readlink -f {device(1, d)}))/stat" for d in disks]))
    return sum(int(line.split()[2]) + int(line.split()[6]) for line in out.splitlines())


def first_writes(lab: Lab, path: str, depth: int, disks) -> dict:
    """4 KiB writes, none to the same place twice, so few that most are the first to their part of the disk."""
    before = moved_sectors(lab, disks)
    out = lab.run(1, f"fio --name=s --filename={path} --rw=randwrite --bs=4k --size={SNAPSHOT_MIB}m --io_size={FIRST_KIB}k "
                     f"--direct=1 --ioengine=libaio --iodepth={depth} --randrepeat=0 --end_fsync=1 --output-format=json")
    job = json.loads(out[out.index("{"):])["jobs"][0]["write"]
    moved = (moved_sectors(lab, disks) - before) / 2
    return {"iops": round(job["iops"]), "p99_ms": round(job["clat_ns"]["percentile"]["99.000000"] / 1e6, 1),
            "moved": round(moved / FIRST_KIB, 1)}


class Thin:
    """dm-thin as lvm sets it up, with blocks of so many KiB, without zeroing."""
    disks = ("hdd1",)

    def __init__(self, lab: Lab, kib: int):
        self.lab, self.number, self.name = lab, 0, f"dm-thin, {kib} KiB blocks, one copy"
        at, meta = device(1, "hdd1"), 32 * 2048
        lab.run(1, f"modprobe dm_thin_pool; dd if=/dev/zero of={at} bs=1M count=1 oflag=direct status=none && "
                   f"dmsetup create tmeta --table '0 {meta} linear {at} 0' && size=$(($(blockdev --getsz {at}) - {meta})) && "
                   f"dmsetup create tdata --table \"0 $size linear {at} {meta}\" && "
                   f"dmsetup create tpool --table \"0 $size thin-pool /dev/mapper/tmeta /dev/mapper/tdata {kib * 2} 0 1 "
                   "skip_block_zeroing\" && dmsetup message tpool 0 'create_thin 0' && "
                   f"dmsetup create thin --table '0 {SNAPSHOT_MIB * 2048} thin /dev/mapper/tpool 0'")
        self.path = "/dev/mapper/thin"

    def snapshot(self):
        self.number += 1
        self.lab.run(1, f"dmsetup suspend thin && dmsetup message tpool 0 'create_snap {self.number} 0' && dmsetup resume thin")

    def end(self):
        self.lab.run(1, "for d in thin tpool tdata tmeta; do dmsetup remove --retry $d || exit 1; done")


class Snapshot:
    """dm-snapshot with lvm's chunks of 4 KiB; one snapshot at a time."""
    disks = ("hdd1",)
    name = "dm-snapshot, one copy"

    def __init__(self, lab: Lab):
        self.lab, at, size = lab, device(1, "hdd1"), SNAPSHOT_MIB * 2048
        lab.run(1, f"modprobe dm_snapshot; dmsetup create sbase --table '0 {size} linear {at} 0' && "
                   f"dmsetup create scow --table '0 {size} linear {at} {size}' && "
                   f"dmsetup create sorig --table '0 {size} snapshot-origin /dev/mapper/sbase'")
        self.path, self.taken = "/dev/mapper/sorig", False

    def drop(self):
        if self.taken:
            self.lab.run(1, "dmsetup remove --retry ssnap")
        self.taken = False

    def snapshot(self):
        self.drop()
        self.lab.run(1, "dd if=/dev/zero of=/dev/mapper/scow bs=1M count=1 oflag=direct status=none && dmsetup suspend sorig && "
                        f"dmsetup create ssnap --table '0 {SNAPSHOT_MIB * 2048} snapshot /dev/mapper/sbase /dev/mapper/scow P 8' "
                        "&& dmsetup resume sorig")
        self.taken = True

    def end(self):
        self.drop()
        self.lab.run(1, "for d in sorig scow sbase; do dmsetup remove --retry $d || exit 1; done")


class Scribe:
    disks = ("ssd0", "hdd0")
    name = "VSD, two copies"
    path = vsd("bench")

    def __init__(self, lab: Lab):
        self.lab, self.number, self.pauses = lab, 0, []
        lab.run(1, f"scalectl vsd create bench {SNAPSHOT_MIB}MiB && scalectl vsd open bench")

    def snapshot(self):
        self.number += 1
        self.pauses.append(ask(self.lab, 1, f"snapshot create bench@s{self.number}")["paused_ms"])

    def pause_often(self):
        """Under a writer, so that there is something to wait for."""
        busy = self.lab.start(1, f"fio --name=w --filename={self.path} --rw=randwrite --bs=4k --size={SNAPSHOT_MIB}m --direct=1 "
                                 "--ioengine=libaio --iodepth=16 --time_based --runtime=600 --output-format=terse > /dev/null")
        self.pauses = []
        for _ in range(SNAPSHOTS):
            self.snapshot()
        self.lab.run(1, "pkill -x fio; true")
        busy.wait()
        return sorted(self.pauses)

    def end(self):
        pass


def snapshots(args) -> list[dict]:
    lab = Lab("bench", 1, disk_mib=4096, debs=True)
    lab.wait(1, "systemctl is-active scaled")
    lab.run(1, "scalectl cluster create bench --single")
    wait_up(lab, 1, (1,))
    add_disks(lab, 1, ("ssd0", "hdd0"))
    wait_disks(lab, 1, 2)
    rows = []
    for make in (lambda: Thin(lab, 64), lambda: Thin(lab, 1024), lambda: Snapshot(lab), lambda: Scribe(lab)):
        one = make()
        lab.run(1, f"dd if=/dev/zero of={one.path} bs=1M count={SNAPSHOT_MIB} oflag=direct conv=fsync,notrunc status=none")
        row: dict = {"contestant": one.name}
        for depth in DEPTHS:
            for what in ("without", "behind"):
                runs = []
                for _ in range(args.rounds):
                    if what == "behind":
                        one.snapshot()
                    runs.append(first_writes(lab, one.path, depth, one.disks))
                row[f"{what} {depth}"] = {key: statistics.median(r[key] for r in runs) for key in ("iops", "p99_ms", "moved")}
        if isinstance(one, Scribe):
            row["paused_ms"] = one.pause_often()
        one.end()
        rows.append(row)
    lab.lab("down")
    return rows


def show_snapshots(title: str, rows: list[dict]):
    print(f"\n{title}: 4 KiB, random, the first behind a snapshot, and without one")
    last = rows[-1]
    for row in rows:
        cells = "".join(f"   QD{depth}: {row[f'behind {depth}']['iops']:.0f} IOPS (without {row[f'without {depth}']['iops']:.0f}), "
                        f"p99 {row[f'behind {depth}']['p99_ms']} ms, {row[f'behind {depth}']['moved']} bytes moved per byte, VSD "
                        f"x{last[f'behind {depth}']['iops'] / max(row[f'behind {depth}']['iops'], 1):.1f}" for depth in DEPTHS)
        print(f"  {row['contestant']:32}{cells}", flush=True)
    pauses = last["paused_ms"]
    print(f"  writers paused for a snapshot, {len(pauses)} times at QD16: "
          f"p50 {pauses[len(pauses) // 2]} ms, p90 {pauses[len(pauses) * 9 // 10]} ms, most {pauses[-1]} ms", flush=True)


def pauses(_args) -> dict:
    """What of a pause is not I/O that is under way: behind one small write, beside what a change of the metadata takes."""
    lab = Lab("bench", 3, debs=True)
    found(lab)
    for node in (2, 3):
        join(lab, node)
    wait_up(lab, 1, (1, 2, 3))
    for node in (1, 2, 3):
        add_disks(lab, node, ("ssd0",))
    wait_disks(lab, 1, 3)
    lab.run(1, "scalectl vsd create bench 1GiB && scalectl vsd open bench")
    row: dict = {"paused_ms": [], "entry_ms": []}
    patch = ("curl -s -o /dev/null -w '%%{time_total}' --unix-socket /run/scaled/scaled.sock -X PATCH "
             "http://x/rest/v1/cluster -d '{\"grace_seconds\": %d}'")
    for i in range(SNAPSHOTS):
        lab.run(1, f"dd if=/dev/zero of={vsd('bench')} bs=4k count=1 seek={i} oflag=direct conv=notrunc status=none")
        row["paused_ms"].append(ask(lab, 1, f"snapshot create bench@s{i}")["paused_ms"])
        row["entry_ms"].append(round(float(lab.run(1, patch % (900 + i % 2)).replace(",", ".")) * 1000))
    lab.lab("down")
    return {key: sorted(values) for key, values in row.items()}


def show_pauses(title: str, row: dict):
    print(f"\n{title}: for a snapshot, {SNAPSHOTS} times, each behind one write of 4 KiB, on three nodes")
    for key, what in (("paused_ms", "writers are paused"), ("entry_ms", "a setting is changed, for comparison")):
        times = row[key]
        print(f"  {what:40}p50 {times[len(times) // 2]} ms, p90 {times[len(times) * 9 // 10]} ms, most {times[-1]} ms", flush=True)
    ratio = row["paused_ms"][SNAPSHOTS // 2] / max(row["entry_ms"][SNAPSHOTS // 2], 1)
    print(f"  x{ratio:.1f}", flush=True)


def read_all(lab: Lab, path: str, rounds: int) -> float:
    """MiB/s, in order, a MiB at a time, one after the other."""
    runs = []
    for _ in range(rounds):
        out = lab.run(1, f"fio --name=r --filename={path} --rw=read --bs=1m --size={GATHER_MIB}m --direct=1 --ioengine=libaio "
                         "--iodepth=1 --loops=3 --output-format=json")
        runs.append(json.loads(out[out.index("{"):])["jobs"][0]["read"]["bw"] / 1024)
    return round(statistics.median(runs), 1)


def gathering(args) -> list[dict]:
    lab = Lab("bench", 1, disk_mib=4096, debs=True)
    lab.wait(1, "systemctl is-active scaled")
    lab.run(1, "scalectl cluster create bench --single")
    wait_up(lab, 1, (1,))
    add_disks(lab, 1, ("ssd0", "hdd0"))
    wait_disks(lab, 1, 2)
    rows = []
    for make in (lambda: Thin(lab, 64), lambda: Scribe(lab)):
        one = make()
        lab.run(1, f"dd if=/dev/urandom of={one.path} bs=1M count={GATHER_MIB} oflag=direct conv=fsync,notrunc status=none")
        row: dict = {"contestant": one.name, "in_order": read_all(lab, one.path, args.rounds)}
        one.snapshot()
        lab.run(1, f"fio --name=w --filename={one.path} --rw=randwrite --bs=4k --size={GATHER_MIB}m --io_size={GATHER_MIB * 100}k "
                   "--direct=1 --ioengine=libaio --iodepth=16 --end_fsync=1 --output-format=terse")
        row["scattered"] = read_all(lab, one.path, args.rounds)
        if isinstance(one, Scribe):
            row["pieces"] = ask(lab, 1, "vsd show bench")["pieces"]
            began = time.monotonic()
            wait_until("all is put together", lambda: ask(lab, 1, "vsd show bench")["pieces"] <= GATHER_MIB)
            row["seconds"] = round(time.monotonic() - began)
            row["gathered"] = read_all(lab, one.path, args.rounds)
        one.end()
        rows.append(row)
    lab.lab("down")
    return rows


def show_gathering(title: str, rows: list[dict]):
    print(f"\n{title}: reading in order, a MiB at a time; 25 writes of 4 KiB in each MiB behind a snapshot, at random")
    for row in rows:
        line = f"{row['in_order']} MiB/s as written, {row['scattered']} in pieces (x{row['scattered'] / row['in_order']:.2f})"
        if "gathered" in row:
            line += (f", {row['gathered']} when these are together (x{row['gathered'] / row['in_order']:.2f}); {row['pieces']} "
                     f"pieces were, {row['seconds']} s later, {GATHER_MIB}")
        print(f"  {row['contestant']:36}{line}", flush=True)


def healing(args) -> list[dict]:
    """The disks are as large as it takes to be at it all the time."""
    lab = Lab("bench", 3, disk_mib=8192, debs=True)
    found(lab)
    for node in (2, 3):
        join(lab, node)
    wait_up(lab, 1, (1, 2, 3))
    for node in (1, 2, 3):
        add_disks(lab, node, ("ssd0",))
    wait_disks(lab, 1, 3)
    peer = drbd_up(lab, device(1, "hdd1"), device(2, "hdd1"))
    fill(lab, peer)
    lab.run(1, "scalectl vsd create bench 4GiB && scalectl vsd open bench")
    lab.run(1, f"dd if=/dev/zero of={vsd('bench')} bs=1M count=1024 oflag=direct status=none")

    def out_of_sync() -> float:
        return int(re.search(r"oos:(\d+)", lab.run(1, "cat /proc/drbd"))[1]) / 1024

    def resync():
        lab.run(1, "drbdadm invalidate-remote bench")
        before["missing"], before["at"] = out_of_sync(), time.monotonic()

    def resynced() -> float:
        left = out_of_sync()
        assert left > 0, "it was done before the measurement was"
        return round((before["missing"] - left) / (time.monotonic() - before["at"]), 1)

    def evacuate():
        disk = next(d["id"] for d in ask(lab, 1, "disk list")["disks"] if d["node"] == 2)
        before["copied"], before["at"] = sum(copied(lab).values()), time.monotonic()
        lab.run(1, f"scalectl disk evacuate {disk}")

    def moved() -> float:
        assert ask(lab, 1, "cluster status")["redundancy"]["leaving_copies"] > 0, "it was done before the measurement was"
        return round((sum(copied(lab).values()) - before["copied"]) / (time.monotonic() - before["at"]), 1)

    before: dict = {}
    rows = [{"contestant": "DRBD, full resync", **beside(lab, peer, args.seconds, args.rounds, resync, resynced)},
            {"contestant": "VSD, a disk is emptied", **beside(lab, vsd("bench"), args.seconds, args.rounds, evacuate, moved)}]
    lab.lab("down")
    return rows


def show_healing(title: str, rows: list[dict]):
    print(f"\n{title}: p99 and IOPS, alone and beside it")
    for row in rows:
        cells = "".join(f"   {job}: {row[job]['calm']['p99_ms']} -> {row[job]['healing']['p99_ms']} ms "
                        f"x{row[job]['healing']['p99_ms'] / max(row[job]['calm']['p99_ms'], 0.1):.2f}, "
                        f"{row[job]['calm']['iops']:.0f} -> {row[job]['healing']['iops']:.0f} IOPS" for job in JOBS)
        print(f"  {row['contestant']:24}{row['mib_per_s_healed']:>6} MiB/s{cells}", flush=True)


def together(lab: Lab, mib: int) -> dict[str, float]:
    """What one disk of each node does at once, in MiB/s altogether."""
    rates = {}
    for what, words in (("write", "if=/dev/zero of={0} oflag=direct conv=fsync"), ("read", "if={0} of=/dev/null iflag=direct")):
        began = time.monotonic()
        jobs = [lab.start(n, f"dd {words.format(device(n, 'hdd1'))} bs=1M count={mib} status=none") for n in (1, 2, 3)]
        assert all(job.wait() == 0 for job in jobs), "dd failed"
        rates[what] = round(3 * mib / (time.monotonic() - began), 1)
    return rates


def recovery(_args) -> dict:
    """How long what breaks takes to be whole again, and how much is moved for it."""
    lab = Lab("bench", 3, debs=True)
    found(lab)
    for node in (2, 3):
        join(lab, node)
    wait_up(lab, 1, (1, 2, 3))
    row: dict = {}

    def tell(what: str, value):
        """At once: what comes after may fail."""
        row[what] = value
        print(f"  {what}: {value}", file=sys.stderr, flush=True)

    tell("disks_together_mib_per_s", together(lab, 192))
    for node in (1, 2, 3):
        add_disks(lab, node, ("ssd0", "hdd0"))
    wait_disks(lab, 1, 6)
    lab.run(1, f"scalectl vsd create bench {MAPPED_MIB}MiB && scalectl vsd open bench && scalectl vsd open bench --node n2")
    lab.run(1, f"dd if=/dev/urandom of={vsd('bench')} bs=1M count={MAPPED_MIB} oflag=direct conv=fsync status=none")
    tell("mapped_mib", MAPPED_MIB)
    began = time.monotonic()
    lab.run(1, f"fio --name=w --filename={vsd('bench')} --rw=write --bs=1m --direct=1 --ioengine=libaio --iodepth=8 "
               f"--size={MAPPED_MIB}m --end_fsync=1 > /dev/null")
    tell("user_writes_mib_per_s", round(MAPPED_MIB / (time.monotonic() - began), 1))

    def moved_since(before: dict[int, int], booted: int = 0) -> int:
        return sum(now - (0 if n == booted else before[n]) for n, now in copied(lab).items())

    def all_whole():
        wait_up(lab, 2, (1, 2, 3))
        wait_disks(lab, 2, 6)
        wait_until("every copy is made good", lambda: whole(lab, 2))

    before = copied(lab)
    lab.lab("reboot", 3)
    all_whole()
    tell("idle_reboot_moved_mib", moved_since(before, booted=3))

    writer = lab.start(1, f"exec fio --name=w --filename={vsd('bench')} --rw=randwrite --bs=4k --direct=1 --ioengine=libaio "
                          f"--iodepth=4 --fsync=16 --size={MAPPED_MIB // 8}m --time_based --runtime=3600 > /dev/null 2>&1")
    time.sleep(20)
    lab.kill(1)
    began = time.monotonic()
    writer.kill()
    lab.run(2, f"dd if={vsd('bench')} of=/root/page bs=4k count=1 iflag=direct status=none && "
               f"dd if=/root/page of={vsd('bench')} bs=4k count=1 oflag=direct conv=fsync,notrunc status=none")
    tell("failover_s", round(time.monotonic() - began, 1))
    tell("stale_after_cut_mib", ask(lab, 2, "cluster status")["redundancy"]["stale_copies"])
    before = copied(lab, (2, 3))
    lab.lab("start", 1)
    wait_up(lab, 2, (1, 2, 3))
    began = time.monotonic()
    wait_disks(lab, 2, 6)
    wait_until("every copy is made good", lambda: whole(lab, 2))
    tell("resync_s", round(time.monotonic() - began, 1))
    tell("resync_moved_mib", moved_since(before, booted=1))

    task, began = ask(lab, 2, "pool verify")["task"], time.monotonic()
    wait_until("all is compared", lambda: ask(lab, 2, f"task show {task}")["state"] != "running")
    tell("full_compare_s", round(time.monotonic() - began, 1))

    before = copied(lab)
    lab.lab("disk", 3, "ssd0", "fail")
    lab.run(2, f"dd if={vsd('bench')} of=/dev/null bs=1M iflag=direct status=none; scalectl vsd create notice 64MiB && "
               f"scalectl vsd open notice && dd if=/dev/urandom of={vsd('notice')} bs=1M count=32 oflag=direct status=none")
    wait_until("it is noticed", lambda: disk_of(lab, 2, "n3-ssd0")["state"] == "failed")
    began = time.monotonic()
    wait_until("all is made anew", lambda: whole(lab, 2))
    seconds = time.monotonic() - began
    tell("rebuilt_mib", moved_since(before))
    tell("rebuild_mib_per_s", round(row["rebuilt_mib"] / max(seconds, 0.1), 1))
    # Each MiB is read once and written once, by disks that do both.
    rates = row["disks_together_mib_per_s"]
    tell("rebuild_of_disks", round(row["rebuild_mib_per_s"] * (1 / rates["read"] + 1 / rates["write"]), 2))
    tell("rebuild_of_user_writes", round(row["rebuild_mib_per_s"] / row["user_writes_mib_per_s"], 2))
    lab.lab("down")
    return row


def show_recovery(title: str, row: dict):
    rates = row["disks_together_mib_per_s"]
    print(f"\n{title}, {row['mapped_mib']} MiB mapped\n"
          f"  an idle node's reboot moves {row['idle_reboot_moved_mib']} MiB\n"
          f"  the owner's power cut under random writes to an eighth of it: another node writes after {row['failover_s']} s; resync of "
          f"{row['resync_moved_mib']} MiB in {row['resync_s']} s, x{row['resync_s'] / max(row['full_compare_s'], 0.1):.2f} of "
          f"a full compare ({row['full_compare_s']} s)\n"
          f"  a failed disk: {row['rebuilt_mib']} MiB made anew at {row['rebuild_mib_per_s']} MiB/s, "
          f"x{row['rebuild_of_user_writes']:.2f} of what a user writes in long sequences ({row['user_writes_mib_per_s']} MiB/s), "
          f"x{row['rebuild_of_disks']:.2f} of what the disks can without a network (all at once, they write "
          f"{rates['write']} and read {rates['read']} MiB/s)", flush=True)


def metadata() -> list[dict]:
    """Natively: what is measured is the leader's share of an allocation, without network and etcd."""
    build = REPO / "build/release"
    subprocess.run(["cmake", "-G", "Ninja", "-S", REPO, "-B", build], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "--quiet", "-C", build, "metadata_bench"], check=True)
    rows = []
    for mib in MAPPED_MIBS:
        with tempfile.TemporaryDirectory(dir=build) as place:
            out = subprocess.run([build / "tests/bench/metadata_bench", place, str(mib)], check=True, stdout=subprocess.PIPE)
        rows.append(json.loads(out.stdout))
    return rows


def micro(_args) -> list[dict]:
    """Natively, too."""
    build = REPO / "build/release"
    subprocess.run(["cmake", "-G", "Ninja", "-S", REPO, "-B", build], check=True, stdout=subprocess.DEVNULL)
    subprocess.run(["ninja", "--quiet", "-C", build, "micro_bench"], check=True)
    out = subprocess.run([build / "tests/bench/micro_bench", "--benchmark_format=json", "--benchmark_min_time=0.2"], check=True,
                         stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return [{"name": one["name"], "ns": round(one["cpu_time"])} for one in json.loads(out.stdout)["benchmarks"]]


def show_micro(title: str, rows: list[dict]):
    print(f"\n{title}: processor time of the metadata's smallest steps, natively")
    for row in rows:
        print(f"  {row['name']:40}{row['ns']:>12,} ns", flush=True)


def show_metadata(row: dict):
    print(f"\nmetadata of a fully mapped disk of {row['mapped_mib'] / 1024:.0f} GiB, natively\n"
          f"  {row['extents_per_s']:.0f} extents/s, x{row['of_plain_sql']:.2f} of plain SQL; first leaf after opening "
          f"{row['open_to_first_leaf_ms']:.1f} ms, later ones {row['leaf_us']:.0f} us, the whole map "
          f"{row['whole_map_s']:.1f} s; database {row['database_mib']} MiB\n"
          f"  snapshots: the first take {row['snapshot_us'][0]:.0f} us, the last of {row['snapshots']} "
          f"{row['snapshot_us'][1]:.0f} us (x{row['snapshot_us'][1] / row['snapshot_us'][0]:.2f}); 4 KiB written behind one, "
          f"{row['write_behind_us'][0]:.0f} us and {row['write_behind_us'][1]:.0f} us; both take "
          f"{row['kib_per_snapshot']:.1f} KiB\n"
          f"  a leaf of a clone of a clone..., {row['clone_depth']} deep: {row['leaf_of_clone_us']:.0f} us "
          f"(x{row['leaf_of_clone_us'] / row['leaf_us']:.2f})", flush=True)


# By what `bench --only` calls it: how it is measured, and told.
PARTS = {"micro": (micro, show_micro),
         "metadata": (lambda _: metadata(), lambda _, rows: [show_metadata(row) for row in rows]),
         "snapshots": (snapshots, show_snapshots), "pauses": (pauses, show_pauses), "gathering": (gathering, show_gathering),
         "healing": (healing, show_healing), "recovery": (recovery, show_recovery), "spread": (spread, show_spread), "path": (path, show_path)}
