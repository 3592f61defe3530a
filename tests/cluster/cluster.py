#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Three nodes as their users have them: packages, scalectl, power cuts, partitions.

  cluster.py [WORD...]   only cases with such a word in their description
"""

import json
import subprocess
import sys
import time
from pathlib import Path

from labtest import REPO, Lab, Writer
from openapi import answer_schema, problems
from scribe_cluster import (add_disks, ask, device, found, join, leader, same_metadata, states, vsd, wait_disks,
                            wait_until, wait_up)

WRITER = "python3 /root/fsync_writer.py"
FIO = ("fio --name=verify --filename={} --size=24m --rw=randwrite --bs=4k --verify=crc32c --do_verify=1 "
       "--ioengine=libaio --iodepth=8 --direct=1 --end_fsync=1 --time_based=0 --output-format=terse")

lab = Lab("cluster", 3, debs=True)


def formation():
    found(lab)
    token = join(lab, 2)
    lab.fails(3, f"scalectl cluster join 10.12.0.1 {token} --backplane 10.12.0.3", 2, "used already")
    other = ("0" if token[0] != "0" else "1") + token[1:]
    lab.fails(3, f"scalectl cluster join 10.12.0.1 {other} --backplane 10.12.0.3", 2, "token")
    join(lab, 3)
    wait_up(lab, 3, (1, 2, 3))
    lab.fails(2, "scalectl cluster create again", 5, "in a cluster already")


def disks():
    lab.run(3, f"mkfs.ext4 -q {device(3, 'hdd1')}")
    lab.fails(3, f"scalectl disk add {device(3, 'hdd1')}", 5, "holds ext4")
    lab.fails(3, f"scalectl disk add {device(3, 'hdd1')} --wipe wrong", 2, "serial number")
    lab.fails(3, "scalectl disk add /dev/vda", 5, "mounted")
    # Twice at once: it is in the pool once.
    both = [lab.start(3, f"scalectl disk add {device(3, 'hdd1')} --wipe n3-hdd1", stdout=subprocess.PIPE,
                      stderr=subprocess.STDOUT) for _ in range(2)]
    said = [lab.ended(process)[1] for process in both]
    assert sorted(process.returncode for process in both) == [0, 5], said
    assert len(ask(lab, 3, "disk list")["disks"]) == 1
    lab.fails(3, f"scalectl disk add {device(3, 'hdd1')}", 5, "it is not touched")
    for node in (1, 2, 3):
        add_disks(lab, node, ("ssd0", "hdd0"))
    wait_disks(lab, 1, 7)


def bad_input():
    for command, code, text in (
            ("vsd create", 2, "expected"),
            ("vsd create a", 2, "expected"),
            ("vsd create a b c", 2, "expected"),
            ("vsd create a 4X", 2, "no size"),
            ("vsd create a 0", 2, "no size"),
            ("vsd create a 1000", 2, "multiple of 1 MiB"),
            ("vsd create ../a 1G", 2, "no name"),
            ("vsd create a 99999999P", 2, "no size"),
            ("vsd create a 4P", 2, "2 PiB"),
            ("vsd create a 1G --copies 3", 2, "copies"),
            ("vsd show nothing", 4, "no VSD"),
            ("vsd open nothing", 4, "no VSD"),
            ("vsd delete nothing", 2, "--yes"),
            ("vsd delete nothing --yes", 4, "no VSD"),
            ("vsd paint a", 2, "no command"),
            ("cluster token --hours 0", 2, "hours"),
            ("cluster token --hours x", 2, "number"),
            ("disk add /dev/nothing", 4, "no such device"),
            ("disk add /etc/passwd", 2, "no block device"),
            ("task show 4711", 4, "no task"),
            ("task wait x", 4, "no task"),
            ("task wait 1 --seconds 61", 2, "60 seconds"),
            ("disk remove 99999", 2, "no disk number"),
            ("disk remove 1000", 4, "no disk"),
            ("disk evacuate 1000", 4, "no disk"),
            ("disk evacuate x", 2, "no disk number"),
            ("cluster set --maintenance perhaps", 2, "on or off"),
            ("cluster set --grace 99999999", 2, "grace_seconds"),
            ("node list --socket /nowhere", 3, "No such file")):
        lab.fails(1, f"scalectl {command}", code, text)
    lab.fails(1, "curl -sk --fail https://10.12.0.1:7421/rest/v1/vsd", 22)
    lab.fails(1, "curl -sk --fail -X POST https://10.12.0.1:7421/peer/propose", 22)
    lab.run(1, "curl -s --unix-socket /run/scaled/scaled.sock http://x/rest/v1/vsd -X POST -d '[1' | grep -q 'no JSON'")
    lab.run(1, "curl -s --unix-socket /run/scaled/scaled.sock http://x/rest/v1/vsd -X POST "
               "-d '{\"name\": 5, \"size_bytes\": 1048576}' | grep -q \"'name' must be a text\"")
    assert not ask(lab, 1, "vsd list")["vsds"]


def written_here_read_there():
    lab.run(1, "scalectl vsd create files 1GiB && scalectl vsd open files")
    lab.fails(1, "scalectl vsd create files 1GiB", 5, "exists")
    lab.run(1, f"mkfs.ext4 -q -E nodiscard {vsd('files')} && mkdir -p /mnt/f && mount {vsd('files')} /mnt/f && "
               "cp -r /usr/lib/python3.11/asyncio /mnt/f && cd /mnt/f && find . -type f | sort | xargs md5sum > "
               "/root/sums && cd / && umount /mnt/f")
    sums = lab.run(1, "cat /root/sums")
    lab.run(1, "scalectl vsd open files --node n2")
    there = lab.run(2, f"mkdir -p /mnt/f && mount {vsd('files')} /mnt/f && cd /mnt/f && "
                       "find . -type f | sort | xargs md5sum; cd / && umount /mnt/f")
    assert sums == there, "checksums differ"


def api_is_as_described():
    document = json.loads((REPO / "Documentation/openapi.json").read_text())
    curl = "curl -s --unix-socket /run/scaled/scaled.sock http://x/rest/v1"
    assert json.loads(lab.run(1, f"{curl}/openapi.json")) == document, "another description is served"
    wrong = []
    for path in document["paths"]:
        if "get" in document["paths"][path] and path != "/openapi.json":
            answer = json.loads(lab.run(1, curl + path.replace("{name}", "files").replace("{id}", "1")))
            wrong += problems(document, answer_schema(document, path), answer, path)
    error = json.loads(lab.run(1, f"{curl}/vsd/nothing"))
    wrong += problems(document, {"$ref": "#/components/schemas/Error"}, error, "error")
    assert not wrong, "\n".join(wrong)


def data_is_encrypted():
    for node in (1, 2, 3):
        stat = dict(line.split() for line in lab.run(node, "cat /proc/net/tls_stat").splitlines())
        assert int(stat["TlsCurrTxSw"]) > 0 and int(stat["TlsCurrRxSw"]) > 0, f"n{node}: {stat}"
    # Without a certificate: closed or reset, with an alert at most; curl's 35 and 56.
    lab.run(2, "curl -s --max-time 60 telnet://10.12.0.1:7420 < /etc/passwd > /root/said; "
               "test $? -ne 28 && test $(stat -c %s /root/said) -lt 100")
    lab.run(1, "journalctl -u scaled | grep -q 'a connection was closed: TLS'")


def busy_is_not_closed():
    lab.run(2, f"mount {vsd('files')} /mnt/f")
    lab.fails(2, "scalectl vsd close files", 5, "in use")
    lab.fails(2, "scalectl vsd delete files --yes", 5, "open")
    lab.run(2, "scalectl vsd resize files 2GiB")
    wait_until("the device has grown", lambda: lab.run(2, f"blockdev --getsize64 {vsd('files')}").strip()
               == str(2 << 30))
    lab.run(2, "umount /mnt/f")
    failed = [t for t in ask(lab, 3, "task list")["tasks"] if t["state"] == "failed"]
    assert [t["what"] for t in failed] == ["vsd close"] and "in use" in failed[0]["why"], failed
    for node in (1, 2):
        task = ask(lab, 3, f"vsd close files --node n{node} --no-wait")["task"]
        assert " done " in lab.run(node, f"scalectl task wait {task}")
    lab.fails(1, "scalectl vsd close files", 4, "not open")


def ping_pong():
    lab.run(1, "scalectl vsd create w 64MiB && scalectl vsd open w && scalectl vsd open w --node n2")
    for turn in range(6):
        lab.run(1 + turn % 2, f"{WRITER} write {vsd('w')} {turn * 5} 5 && {WRITER} check {vsd('w')} {turn * 5 + 5}")


def daemon_dies():
    writer = Writer(lab, 1, vsd("w"))
    writer.read(5)
    lab.run(1, "systemctl kill -s KILL scaled")
    writer.read(20)
    lab.run(2, f"{WRITER} check {vsd('w')} {writer.end()}")


def audit() -> dict[str, str]:
    """Each node's state; the exit code must say the same."""
    out = lab.run(1, "scalectl cluster audit --json; code=$?; echo; echo $code")
    answer, code = out.rstrip().rsplit("\n", 1)
    said = {n["name"]: n["state"] for n in json.loads(answer)["nodes"]}
    assert (code == "1") == ("differs" in said.values()), out
    return said


def metadata_is_damaged():
    document = json.loads((REPO / "Documentation/openapi.json").read_text())
    wrong = problems(document, answer_schema(document, "/cluster/audit", "post"), ask(lab, 1, "cluster audit"))
    assert not wrong, "\n".join(wrong)
    said = audit()
    assert set(said.values()) == {"equal"} and len(said) == 3, said
    copied = "journalctl -u scaled | grep -c 'metadata copied from node' || true"
    # A row that changed behind the log's back; then a file that sqlite cannot read when scaled starts.
    change = ("import sqlite3; d = sqlite3.connect('/var/lib/scaled/meta.db', timeout=60); "
              "d.execute('update node set version = 0'); d.commit()")
    lab.run(3, f'python3 -c "{change}"')
    said = audit()
    assert said == {"n1": "equal", "n2": "equal", "n3": "differs"}, said
    for times in (1, 2):
        wait_until("node 3 has another's metadata", lambda n=times: int(lab.run(3, copied)) == n)
        same_metadata(lab, (1, 2, 3))
        wait_until("nothing differs", lambda: set(audit().values()) == {"equal"})
        if times == 1:
            # systemd starts it again in a second.
            lab.run(3, "cd /var/lib/scaled && pkill -KILL -x scaled && rm -f meta.db-wal meta.db-shm && "
                       "dd if=/dev/zero of=meta.db bs=4096 count=4 conv=notrunc status=none")
    wait_up(lab, 1, (1, 2, 3))


def whole(node: int) -> bool:
    left = ask(lab, node, "cluster status")["redundancy"]
    return left["stale_copies"] == 0 and left["lost_copies"] == 0


def places(name: str) -> set[int]:
    """The disks that a virtual disk has copies on."""
    return {d["disk"] for d in ask(lab, 1, f"vsd show {name}")["spread"]}


def disk_of(serial: str) -> dict:
    return next(d for d in ask(lab, 1, "disk list")["disks"] if d["serial"] == serial)


def come_back(node: int, name: str, disk: int):
    """A disk that is empty goes, and comes again as another."""
    lab.wait(1, f"scalectl disk remove {disk}")
    lab.fails(1, f"scalectl disk remove {disk}", 4, "no disk")
    lab.wait(node, f"scalectl disk add {device(node, name)} --wipe n{node}-{name}")
    wait_disks(lab, 1, 7)
    assert disk_of(f"n{node}-{name}")["id"] != disk


def disk_fails():
    disk = disk_of("n2-ssd0")["id"]
    wait_until("it is used", lambda: disk in places("v"))
    writer = Writer(lab, 1, vsd("w"))
    writer.read(10)
    lab.lab("disk", 2, "ssd0", "failwrites")
    # Whatever it holds is to be written soon, or it would not be noticed.
    lab.run(1, f"dd if=/dev/urandom of={vsd('v')} bs=1M count=32 seek=200 oflag=direct conv=fsync,notrunc status=none")
    wait_until("the disk counts as failed", lambda: disk_of("n2-ssd0")["state"] == "failed")
    wait_until("what it held is made anew", lambda: whole(1) and disk not in places("v") | places("w"))
    writer.read(10)
    lab.run(2, f"{WRITER} check {vsd('w')} {writer.end()}")
    wait_until("its condition says what to do", lambda: f"scalectl disk remove {disk}" in
               lab.run(2, "scalectl cluster status"))
    lab.lab("disk", 2, "ssd0", "ok")
    come_back(2, "ssd0", disk)
    wait_until("no condition is left", lambda: not ask(lab, 2, "cluster status")["conditions"])


def disk_leaves():
    disk = disk_of("n1-ssd0")["id"]
    wait_until("it is used", lambda: disk in places("v"))
    lab.fails(1, f"scalectl disk remove {disk}", 5, "scalectl disk evacuate")
    lab.run(1, f"dd if={vsd('v')} bs=1M iflag=direct status=none | md5sum > /root/before")
    writer = Writer(lab, 1, vsd("w"))
    writer.read(10)
    task = ask(lab, 1, f"disk evacuate {disk}")["task"]
    wait_until("it is empty", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")
    writer.read(10)
    lab.run(2, f"{WRITER} check {vsd('w')} {writer.end()}")
    wait_until("it stays so", lambda: disk not in places("v") | places("w"))
    come_back(1, "ssd0", disk)
    lab.run(1, f"dd if={vsd('v')} bs=1M iflag=direct status=none | md5sum | cmp - /root/before")


def replica_holder_dies():
    lab.run(1, "scalectl vsd create v 256MiB && scalectl vsd open v")
    lab.run(1, "scalectl cluster set --grace 0")
    fio = lab.start(1, FIO.format(vsd("v")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until("fio writes", lambda: int(lab.run(1, "dmsetup status scribe-v").split()[9]) > 200)
    lab.kill(3)
    code, out = lab.ended(fio)
    assert code == 0, out[-2000:]
    theirs = {d["id"] for d in ask(lab, 1, "disk list")["disks"] if d["node"] == 3}
    wait_until("node 3's disks are given up", lambda: {"lost"} == {
        d["state"] for d in ask(lab, 1, "disk list")["disks"] if d["id"] in theirs})
    wait_until("what they held is made anew", lambda: whole(1))
    assert not theirs & places("v"), "copies on disks that were given up"
    lab.run(1, "scalectl cluster set --grace 15")
    lab.lab("start", 3)
    wait_up(lab, 1, (1, 2, 3))
    wait_disks(lab, 1, 7)


def owner_dies(keep: int):
    writer = Writer(lab, 1, vsd("w"))
    writer.read(20)
    lab.kill(1, keep)
    cut = time.monotonic()
    acknowledged = writer.end()
    lab.run(2, f"{WRITER} check {vsd('w')} {acknowledged} && {WRITER} write {vsd('w')} {acknowledged} 1")
    print(f"# {acknowledged} records; node 2 wrote {time.monotonic() - cut:.0f} s after the cut", flush=True)
    lab.run(2, f"{WRITER} write {vsd('w')} {acknowledged + 1} 10 && {WRITER} check {vsd('w')} {acknowledged + 11}")
    lab.lab("start", 1)
    wait_up(lab, 2, (1, 2, 3))
    wait_disks(lab, 2, 7)
    lab.wait(1, f"test -e {vsd('w')}")
    lab.run(1, f"{WRITER} check {vsd('w')} {acknowledged + 11}")
    # Of what was being overwritten one copy was chosen; the others are made equal to it.
    wait_until("every copy is made good", lambda: whole(2))


def leader_dies():
    first = leader(lab, 1)
    other = 1 if first != 1 else 2
    lab.run(other, f"scalectl vsd open w --node n{other}")
    writer = Writer(lab, other, vsd("w"))
    writer.read(10)
    lab.kill(first)
    writer.read(20)
    records = writer.end()
    lab.lab("start", first)
    wait_up(lab, other, (1, 2, 3))
    lab.run(other, f"{WRITER} check {vsd('w')} {records}")
    same_metadata(lab, (1, 2, 3))


def boot(node: int) -> str:
    return lab.run(node, "cat /proc/sys/kernel/random/boot_id")


def partition():
    """The owner is cut off: it may not write any more, another takes over, it comes back with a new life."""
    before = boot(1)
    # The power cuts before left copies that lack data. Where the only good one is on node 1, who reads it waits
    # until node 1 is back.
    wait_until("every copy is made good", lambda: whole(1))
    writer = Writer(lab, 1, vsd("w"))
    writer.read(10)
    lab.lab("partition", "1|2,3")
    wait_until("node 1 is down for the others", lambda: states(lab, 2)["n1"] == "down")
    acknowledged = writer.end()
    lab.run(2, f"{WRITER} check {vsd('w')} {acknowledged} && {WRITER} write {vsd('w')} {acknowledged} 10")
    lab.lab("heal")
    # It hears that it was declared dead.
    wait_until("node 1 has reset itself", lambda: boot(1) != before)
    wait_up(lab, 2, (1, 2, 3))
    wait_disks(lab, 2, 7)
    lab.wait(1, f"test -e {vsd('w')}")
    lab.run(1, f"{WRITER} check {vsd('w')} {acknowledged + 10}")
    same_metadata(lab, (1, 2, 3))


def all_die():
    writer = Writer(lab, 2, vsd("w"))
    writer.read(10)
    for node in (1, 2, 3):
        lab.kill(node)
    acknowledged = writer.end()
    for node in (1, 2, 3):
        lab.lab("start", node)
    wait_up(lab, 1, (1, 2, 3))
    wait_disks(lab, 1, 7)
    for node in (1, 2):
        lab.wait(node, f"test -e {vsd('w')}")
    lab.run(1, f"{WRITER} check {vsd('w')} {acknowledged}")
    same_metadata(lab, (1, 2, 3))


def space_comes_back():
    for name, nodes in (("w", (1, 2)), ("v", (1,))):
        for node in nodes:
            lab.run(1, f"scalectl vsd close {name} --node n{node}")
    for row in ask(lab, 1, "vsd list")["vsds"]:
        for place in ask(lab, 1, f"vsd show {row['name']}")["open"]:
            lab.run(1, f"scalectl vsd close {row['name']} --node {place['node']}")
        lab.run(1, f"scalectl vsd delete {row['name']} --yes")
    assert not ask(lab, 1, "vsd list")["vsds"]
    wait_until("no slot is in quarantine", lambda: not any(
        d["quarantined_bytes"] for d in ask(lab, 1, "disk list")["disks"]))


def main():
    lab.words = sys.argv[1:]
    for node in (1, 2, 3):
        lab.lab("put", node, Path(__file__).with_name("fsync_writer.py"))
    lab.case("three nodes form a cluster with tokens; a used or foreign one is refused", formation, always=True)
    lab.case("disks join; one with a file system only when its serial number is repeated", disks, always=True)
    lab.case("bad input gets a clear error, its exit code, and changes nothing", bad_input)
    lab.case("a file system written on node 1 is read on node 2 with equal checksums", written_here_read_there)
    lab.case("the API answers as its description says", api_is_as_described)
    lab.case("data between nodes is encrypted; who has no certificate is sent away", data_is_encrypted)
    lab.case("a disk in use is not closed or deleted, and grows", busy_is_not_closed)
    lab.case("two nodes write one disk in turns and see each other's records", ping_pong)
    lab.case("the daemon is killed under a writer, which goes on", daemon_dies)
    lab.case("a node whose metadata is damaged copies another's", metadata_is_damaged)
    lab.case("a replica holder's power cut under fio verify: no error; when it is given up, all is made anew",
             replica_holder_dies)
    lab.case("a disk fails under a writer: what it held is made anew, and it can be replaced", disk_fails)
    lab.case("a disk is emptied under a writer, leaves the pool and comes back", disk_leaves)
    lab.case("the owner's power cut: node 2 has every acknowledged record and writes on", owner_dies, 0)
    lab.case("the same where the drives had written half of their caches", owner_dies, 50)
    lab.case("the leader's power cut under a writer on another node", leader_dies)
    lab.case("an owner that is cut off is replaced, and comes back with a new life", partition)
    lab.case("all nodes lose power at once: everything acknowledged is there", all_die)
    lab.case("deleted disks give their space back", space_comes_back)
    lab.finish((1, 2, 3))


if __name__ == "__main__":
    sys.exit(main())
