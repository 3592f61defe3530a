#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Five nodes: the metadata's log gets five members, though only three of the nodes brought one when
they joined, and goes on when two nodes lose their power at once."""

import json
import sys
from pathlib import Path

from labtest import Lab
from scribe_cluster import add_disks, found, join, same_metadata, vsd, wait_disks, wait_until, wait_up

lab = Lab("five", 5, disk_mib=512, debs=True)
# Five machines on two cores: with a lease of 15 s etcd's elections never came to rest.
FIVE_LEASE_SECONDS = 60
KEYS = "/var/lib/scaled/etcd"
ETCD = (f"curl -s --fail --cacert {KEYS}/ca.crt --cert {KEYS}/node.crt --key {KEYS}/node.key -X POST -d '{{}}' "
        "https://127.0.0.1:2379/v3/cluster/member/list")


def voters() -> set[str]:
    members = json.loads(lab.run(1, ETCD))["members"]
    return {m["name"] for m in members if not m.get("isLearner") and m.get("name")}


def formation():
    found(lab, FIVE_LEASE_SECONDS)
    join(lab, 2)
    join(lab, 3)
    join(lab, 4)
    assert len(voters()) == 3, voters()
    join(lab, 5)
    wait_up(lab, 1, (1, 2, 3, 4, 5))


def five_voters():
    wait_until("etcd has five voters", lambda: len(voters()) == 5)
    # The daemon of the node that got etcd later has started anew.
    wait_up(lab, 4, (1, 2, 3, 4, 5))
    lab.wait(4, "systemctl is-active scaled scaled-etcd")
    same_metadata(lab, (1, 2, 3, 4, 5))


def two_die():
    for node in (3, 4, 5):
        add_disks(lab, node, ("ssd0",))
    wait_disks(lab, 1, 3)
    lab.run(5, "scalectl vsd create w 64MiB && scalectl vsd open w")
    lab.kill(1)
    lab.kill(2)
    wait_until("the rest goes on without two of five", lambda: "2" in lab.run(
        5, "python3 /root/fsync_writer.py write /dev/mapper/scribe-w 0 3"))
    lab.run(5, f"python3 /root/fsync_writer.py check {vsd('w')} 3")
    wait_until("the metadata changes", lambda: lab.run(4, "scalectl vsd create after 64MiB"))


def main():
    lab.lab("put", 5, Path(__file__).with_name("fsync_writer.py"))
    lab.case("five nodes join one after another; the fourth brings no member of the log", formation)
    lab.case("with the fifth, the log gets five voters by itself", five_voters)
    lab.case("two nodes' power is cut at once: disks and metadata go on", two_die)
    lab.finish((3, 4, 5))


if __name__ == "__main__":
    sys.exit(main())
