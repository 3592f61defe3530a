#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""One server with the local log: the whole of it, a full pool, and a disk that fails."""

import sys
from pathlib import Path

from labtest import Lab, Writer
from scribe_cluster import add_disks, ask, device, vsd, wait_disks, wait_until, wait_up

FILES = "cd /mnt/f && find . -type f | sort | xargs md5sum; cd /"

lab = Lab("single", 1, disk_mib=256, debs=True)
seen: dict[str, str] = {}


def formation():
    lab.wait(1, "systemctl is-active scaled")
    lab.fails(1, "scalectl vsd list", 5, "in no cluster")
    lab.run(1, "scalectl cluster create alone --single")
    wait_up(lab, 1, (1,))
    lab.fails(1, "scalectl cluster token", 5, "--single")
    add_disks(lab, 1, ("ssd0", "hdd0"))
    wait_disks(lab, 1, 2)


def files():
    lab.run(1, "scalectl vsd create files 1GiB && scalectl vsd open files")
    lab.run(1, f"mkfs.ext4 -q -E nodiscard {vsd('files')} && mkdir -p /mnt/f && mount {vsd('files')} /mnt/f && "
               "cp -r /usr/lib/python3.11/asyncio /mnt/f && sync")
    seen["sums"] = lab.run(1, FILES)
    lab.run(1, "systemctl restart scaled && cp -r /usr/lib/python3.11/json /mnt/f && rm -r /mnt/f/json && sync")
    lab.run(1, "echo 3 > /proc/sys/vm/drop_caches")
    assert lab.run(1, FILES) == seen["sums"], "other files after the daemon's restart"
    lab.run(1, "umount /mnt/f")


def power_cut():
    lab.run(1, "scalectl vsd create w 64MiB && scalectl vsd open w")
    writer = Writer(lab, 1, vsd("w"))
    writer.read(20)
    lab.kill(1, 50)
    records = writer.end()
    lab.lab("start", 1)
    wait_up(lab, 1, (1,))
    wait_disks(lab, 1, 2)
    for name in ("w", "files"):
        lab.wait(1, f"test -e {vsd(name)}")
    lab.run(1, f"{Writer.tool()} check {vsd('w')} {records}")
    lab.run(1, f"fsck.ext4 -fp {vsd('files')} && mount {vsd('files')} /mnt/f")
    assert lab.run(1, FILES) == seen["sums"], "other files after the power cut"
    lab.run(1, "umount /mnt/f")


def pool_condition() -> bool:
    return any(c["subject"] == "pool" for c in ask(lab, 1, "cluster status")["conditions"])


def full_pool():
    lab.run(1, "scalectl vsd create ballast 64MiB && scalectl vsd open ballast && "
               f"dd if=/dev/urandom of={vsd('ballast')} bs=1M count=64 oflag=direct conv=fsync status=none")
    lab.run(1, "scalectl vsd create big 1GiB && scalectl vsd open big")
    lab.fails(1, f"dd if=/dev/zero of={vsd('big')} bs=1M oflag=direct status=none", 1, "No space left")
    wait_until("the daemon says that the pool is full", pool_condition)
    lab.run(1, f"dd if=/dev/urandom of=/root/over bs=1M count=4 status=none && dd if=/root/over of={vsd('ballast')} "
               f"bs=64k oflag=direct conv=fsync,notrunc status=none && cmp -n 4194304 /root/over {vsd('ballast')}")
    lab.run(1, "scalectl vsd close ballast && scalectl vsd delete ballast --yes")
    wait_until("what was deleted can be written again", lambda: lab.run(
        1, f"dd if=/root/over of={vsd('big')} seek=900 bs=1M count=4 oflag=direct conv=fsync,notrunc status=none") == "")
    lab.run(1, f"cmp -n 4194304 -i 0:943718400 /root/over {vsd('big')}")
    # What was given back may all lie in the node's stock of reservations; with this there is more.
    lab.run(1, "scalectl vsd close big && scalectl vsd delete big --yes")
    wait_until("the pool is not full any more", lambda: not pool_condition())
    wait_until("no deletion goes on", lambda: all(t["state"] != "running" for t in ask(lab, 1, "task list")["tasks"]))


def disk_fails():
    add_disks(lab, 1, ("hdd1",))
    wait_disks(lab, 1, 3)
    writer = Writer(lab, 1, vsd("w"), 0, 300)
    writer.read(20)
    lab.lab("disk", 1, "hdd0", "failwrites")
    writer.read(280)
    wait_until("the disk counts as failed", lambda: [d["state"] for d in ask(lab, 1, "disk list")["disks"]].count(
        "failed") == 1)
    lab.run(1, f"{Writer.tool()} check {vsd('w')} 300")
    lab.run(1, f"mount {vsd('files')} /mnt/f")
    assert lab.run(1, FILES) == seen["sums"], "other files after a disk failed"
    lab.run(1, "umount /mnt/f")
    said = lab.run(1, "scalectl cluster status")
    assert "replace it" in said and "hdd0" in said, said
    # After a restart it is still out, though it would work again.
    lab.lab("disk", 1, "hdd0", "ok")
    lab.lab("reboot", 1)
    wait_up(lab, 1, (1,))
    lab.wait(1, f"test -e {vsd('w')}")
    assert [d["state"] for d in ask(lab, 1, "disk list")["disks"]].count("failed") == 1, "a failed disk is back"
    lab.run(1, f"{Writer.tool()} check {vsd('w')} 300")
    # It holds copies; its serial number says that it is no other disk, not that they may go.
    for wipe in ("", " --wipe n1-hdd0"):
        lab.fails(1, f"scalectl disk add {device(1, 'hdd0')}{wipe}", 5, "it is not touched")


def main():
    lab.lab("put", 1, Path(__file__).with_name("fsync_writer.py"))
    lab.case("one server is a cluster of its own, and takes no other", formation)
    lab.case("files outlive the daemon's restart", files)
    lab.case("a power cut with half-written caches: every flushed record and file is there", power_cut)
    lab.case("a full pool: no space, said and shown; what is mapped is written; deleting gives space back", full_pool)
    lab.case("a disk fails under a writer, which goes on; it stays out after a restart", disk_fails)
    lab.finish((1,))


if __name__ == "__main__":
    sys.exit(main())
