#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Three nodes as their users have them: packages, scalectl, power cuts, partitions.

  cluster.py [WORD...]   only cases with such a word in their description
  cluster.py --all       those too that make check leaves out, for they take long
"""

import json
import subprocess
import sys
import time
from pathlib import Path

import versions
from labtest import REPO, BlockWriter, Lab, Writer
from openapi import answer_schema, problems
from scribe_cluster import (DISKS, add_disks, ask, boot, come_back, copied, device, disk_of, found, join, leader,
                            same_metadata, states, vsd, wait_disks, wait_until, wait_up, whole)

FIO = ("fio --name=verify --filename={} --size=24m --rw=randwrite --bs=4k --verify=crc32c --do_verify=1 "
       "--ioengine=libaio --iodepth=8 --direct=1 --end_fsync=1 --time_based=0 --output-format=terse")

lab = Lab("cluster", 3, debs=True)

SHARED = {"w": ("64MiB", {1, 2}), "v": ("256MiB", {1})}  # disks of several cases: size, and where they are open


def shared(name: str) -> str:
    """The device of such a disk. Which case comes first depends on whose turn it is, and on words."""
    size, nodes = SHARED[name]
    if name not in {row["name"] for row in ask(lab, 1, "vsd list")["vsds"]}:
        lab.run(1, f"scalectl vsd create {name} {size}")
    for node in nodes - {row["node"] for row in ask(lab, 1, f"vsd show {name}")["open"]}:
        lab.run(1, f"scalectl vsd open {name} --node n{node}")
    return vsd(name)


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
            ("vsd create a 1G --copies 4", 2, "2 or 3 copies"),
            ("vsd create a 1G --copies two", 2, "number"),
            ("vsd set a", 2, "--copies"),
            ("vsd set a --copies 3", 4, "no VSD"),
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
            ("cluster set --scrub 366", 2, "scrub_days"),
            ("cluster set --scrub often", 2, "number"),
            ("pool repair 1", 2, "--keep"),
            ("pool rebalance --automatic --stop", 2, "not both"),
            ("snapshot create a", 2, "VSD@NAME"),
            ("snapshot create a,a@b", 2, "each named once"),
            ("snapshot create a@b", 4, "no VSD"),
            ("snapshot show a@b", 4, "no VSD"),
            ("snapshot delete a@b", 2, "--yes"),
            ("snapshot diff a@b --most 0", 2, "changes at once"),
            ("snapshot revert a@b --yes --keep ../x", 2, "no name"),
            ("node remove n9", 4, "no node"),
            ("pool repair x --keep 1", 2, "number"),
            ("pool repair 1 --keep 1", 4, "not known to be damaged"),
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
    lab.run(1, "scalectl snapshot create files@api && scalectl schedule create files --vsds files --rule "
               "'FREQ=YEARLY;BYMONTH=1' --starts 2030-06-01T00:00:00 && scalectl vm create files --memory 64MiB")
    lab.run(1, f"{curl}/medium -d '{{\"name\": \"files\", \"size_bytes\": 5}}'")
    for path in document["paths"]:
        # What a VM uses is asked of one that runs, by vms.py, and so is what is in media.
        if "get" in document["paths"][path] and path not in ("/openapi.json", "/vm/{name}/stats", "/medium/{name}/data",
                                                                    "/vm_snapshot/{name}/xml"):
            name = "files@api" if path.startswith("/snapshot") else "files"
            answer = json.loads(lab.run(1, curl + path.replace("{name}", name).replace("{id}", "1")))
            wrong += problems(document, answer_schema(document, path), answer, path)
    lab.run(1, "scalectl schedule delete files && scalectl snapshot delete files@api --yes && scalectl vm delete files --yes && "
               "scalectl medium delete files --yes")
    # All others are known, and refuse what they do not know.
    for path, methods in document["paths"].items():
        for method in set(methods) & {"post", "patch", "delete"}:
            where = path.replace("{name}", "nothing@x" if path.startswith("/snapshot") else "nothing").replace("{id}", "99")
            answer = lab.run(1, f"{curl}{where} -X {method.upper()} -d '{{\"nothing\": 1}}'")
            if "error" not in json.loads(answer) or "no such call" in answer:
                wrong.append(f"{method} {where}: {answer}")
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
    shared("w")
    for turn in range(6):
        lab.run(1 + turn % 2, f"{Writer.tool()} write {vsd('w')} {turn * 5} 5 && "
                              f"{Writer.tool()} check {vsd('w')} {turn * 5 + 5}")


def lease_is_over_for_the_metadata():
    """As no node ever asks for it: the lease is dropped in the metadata, and its node's kernel has it still."""
    lab.run(1, "scalectl vsd create lost 64MiB && scalectl vsd open lost && scalectl vsd open lost --node n2")
    write = f"dd if=/dev/urandom of={vsd('lost')} bs=1M count=20 oflag=direct conv=fsync,notrunc status=none"
    lab.run(1, write)
    was = ask(lab, 1, "vsd show lost")
    assert was["lease_node"] == 1, was
    drop = {"op": "lease_drop", "vsd": was["id"], "node": 1, "epoch": was["epoch"], "clean": True}
    # In the name of a node that is none: the daemon of one that is would be a former one from then on.
    proposal = {"proposals": [{"node": 9, "session": 1, "sequence": 1, "done": 0, "body": drop}]}
    leader = ask(lab, 1, "cluster status")["leader"]
    identity = "--cert /var/lib/scaled/etcd/node.crt --key /var/lib/scaled/etcd/node.key"
    lab.run(1, f"curl -sk --fail {identity} -d '{json.dumps(proposal)}' https://10.12.0.{leader}:7421/peer/propose")
    wait_until("its kernel has no lease of an epoch that is over",
               lambda: f" owned {was['epoch']} " not in lab.run(1, "dmsetup status scribe-lost"))
    lab.run(1, "journalctl -b -u scaled | grep -q 'an epoch that is over'")
    # Whoever writes there is told once that something may be lost, and goes on.
    lab.run(1, f"{write} || {write}")
    assert ask(lab, 1, "vsd show lost")["epoch"] > was["epoch"]
    for node in (2, 1):
        lab.run(node, f"dd if={vsd('lost')} bs=1M count=20 iflag=direct status=none | md5sum > sums-of-{node}")
    assert lab.run(1, "cat sums-of-1") == lab.run(2, "cat sums-of-2"), "two nodes, two disks"
    for node in (1, 2):
        lab.wait(1, f"scalectl vsd close lost --node n{node}")
    lab.run(1, "scalectl vsd delete lost --yes")


def node_is_shut_down():
    """With a file system mounted, and what was overwritten there not yet flushed."""
    wait_until("every copy is made good", lambda: whole(lab, 1))
    lab.run(1, "scalectl vsd create quiet 64MiB && scalectl vsd open quiet --node n3 && scalectl vsd open quiet")
    write = "dd if=/dev/urandom of=/mnt/page bs=64k count=128 conv=notrunc status=none"
    lab.run(3, f"mkfs.ext4 -q {vsd('quiet')} && mount -o _netdev {vsd('quiet')} /mnt && {write} && sync && {write} && sync && "
               f"{write}")
    sums = lab.run(3, "md5sum < /mnt/page")
    before = copied(lab, (1, 2))
    lab.lab("reboot", 3)
    wait_up(lab, 1, (1, 2, 3))
    wait_disks(lab, 1, 7)
    wait_until("node 1 reaches all disks", lambda: not ask(lab, 1, "cluster status")["conditions"])
    assert lab.run(1, f"mount -o ro {vsd('quiet')} /mnt && md5sum < /mnt/page && umount /mnt") == sums, "another file"
    assert whole(lab, 1), "copies lack data"
    assert copied(lab) == {**before, 3: 0}, f"data was copied: {copied(lab)}, {before} before"
    for node in (1, 3):
        lab.wait(1, f"scalectl vsd close quiet --node n{node}")
    lab.run(1, "scalectl vsd delete quiet --yes")


def daemon_dies():
    writer = Writer(lab, 1, shared("w"))
    writer.read(5)
    lab.run(1, "systemctl kill -s KILL scaled")
    writer.read(20)
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {writer.end()}")


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


def places(name: str) -> set[int]:
    """The disks that a virtual disk has copies on."""
    return {d["disk"] for d in ask(lab, 1, f"vsd show {name}")["spread"]}


def used_anew(disk: int) -> bool:
    """New data lies on it; what is overwritten stays where it is."""
    lab.run(1, f"blkdiscard -o 200MiB -l 32MiB {shared('v')}")
    lab.run(1, f"dd if=/dev/urandom of={vsd('v')} bs=1M count=32 seek=200 oflag=direct conv=fsync,notrunc status=none")
    return disk in places("v")


def disk_fails(how: str):
    disk = disk_of(lab, 1, "n2-ssd0")["id"]
    wait_until("it is used", lambda: used_anew(disk))
    writer = Writer(lab, 1, shared("w"))
    writer.read(10)
    lab.lab("disk", 2, "ssd0", how)
    # Whatever it holds is to be written soon, or it would not be noticed.
    lab.run(1, f"dd if=/dev/urandom of={vsd('v')} bs=1M count=32 seek=200 oflag=direct conv=fsync,notrunc status=none")
    wait_until("the disk counts as failed", lambda: disk_of(lab, 1, "n2-ssd0")["state"] == "failed")
    wait_until("what it held is made anew", lambda: whole(lab, 1) and disk not in places("v") | places("w"))
    writer.read(10)
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {writer.end()}")
    wait_until("its condition says what to do", lambda: f"scalectl disk remove {disk}" in
               lab.run(2, "scalectl cluster status"))
    lab.lab("disk", 2, "ssd0", "ok")
    come_back(lab, 2, "ssd0", disk)
    wait_until("no condition is left", lambda: not ask(lab, 2, "cluster status")["conditions"])


def disk_leaves():
    disk = disk_of(lab, 1, "n1-ssd0")["id"]
    wait_until("it is used", lambda: used_anew(disk))
    lab.fails(1, f"scalectl disk remove {disk}", 5, "scalectl disk evacuate")
    lab.run(1, f"dd if={vsd('v')} bs=1M iflag=direct status=none | md5sum > /root/before")
    writer = Writer(lab, 1, shared("w"))
    writer.read(10)
    task = ask(lab, 1, f"disk evacuate {disk}")["task"]
    wait_until("it is empty", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")
    writer.read(10)
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {writer.end()}")
    wait_until("it stays so", lambda: disk not in places("v") | places("w"))
    come_back(lab, 1, "ssd0", disk)
    lab.run(1, f"dd if={vsd('v')} bs=1M iflag=direct status=none | md5sum | cmp - /root/before")


def replica_holder_dies():
    lab.run(1, "scalectl cluster set --grace 0")
    fio = lab.start(1, FIO.format(shared("v")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    wait_until("fio writes", lambda: int(lab.run(1, "dmsetup status scribe-v").split()[9]) > 200)
    lab.kill(3)
    code, out = lab.ended(fio)
    assert code == 0, out[-2000:]
    theirs = {d["id"] for d in ask(lab, 1, "disk list")["disks"] if d["node"] == 3}
    wait_until("node 3's disks are given up", lambda: {"lost"} == {
        d["state"] for d in ask(lab, 1, "disk list")["disks"] if d["id"] in theirs})
    wait_until("what they held is made anew", lambda: whole(lab, 1))
    assert not theirs & places("v"), "copies on disks that were given up"
    lab.run(1, "scalectl cluster set --grace 15")
    lab.lab("start", 3)
    wait_up(lab, 1, (1, 2, 3))
    wait_disks(lab, 1, 7)


def verify() -> int:
    return ask(lab, 1, "pool verify")["task"]


def verified(task: int) -> bool:
    return ask(lab, 1, f"task show {task}")["state"] != "running"


def copies_on_nodes(name: str) -> set[int]:
    nodes = {d["id"]: d["node"] for d in ask(lab, 1, "disk list")["disks"]}
    return {nodes[disk] for disk in places(name)}


def as_wanted(name: str, copies: int) -> bool:
    """Every extent has so many copies, all of them good."""
    left, shown = ask(lab, 1, "cluster status")["redundancy"], ask(lab, 1, f"vsd show {name}")
    return (left["wanting_extents"] == 0 and whole(lab, 1)
            and sum(d["copies"] for d in shown["spread"]) == copies * shown["extents"])


def three_copies():
    lab.run(1, "scalectl vsd create three 64MiB --copies 3 && scalectl vsd open three && head -c 20M /dev/urandom > "
               f"/root/three && dd if=/root/three of={vsd('three')} bs=1M oflag=direct conv=fsync,notrunc status=none")
    assert ask(lab, 1, "vsd show three")["copies"] == 3
    # Before the mover can have done anything: they were written so.
    assert as_wanted("three", 3) and copies_on_nodes("three") == {1, 2, 3}
    for copy in (1, 2, 3):
        lab.run(1, f"dmsetup message scribe-three 0 copy {copy} && dd if={vsd('three')} bs=1M count=20 iflag=direct "
                   "status=none | cmp - /root/three")
    lab.run(1, "dmsetup message scribe-three 0 copy 0")
    lab.run(1, "scalectl vsd set three --copies 2")
    wait_until("one of three goes", lambda: as_wanted("three", 2))
    writer = Writer(lab, 1, vsd("three"), count=100000)
    writer.read(5)
    task = ask(lab, 1, "vsd set three --copies 3")["task"]
    wait_until("there are three again", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")
    writer.read(5)
    records = writer.end()
    lab.run(2, f"scalectl vsd open three --node n2 && {Writer.tool()} check {vsd('three')} {records}")
    wait_until("all are there", lambda: as_wanted("three", 3))
    for node in (1, 2):
        lab.run(1, f"scalectl vsd close three --node n{node}")
    lab.run(1, "scalectl vsd delete three --yes")


def compared_under_load():
    """What is being written looks different on its two disks for a moment; that is not damage."""
    writer = Writer(lab, 1, shared("w"))
    writer.read(5)
    fio = lab.start(1, FIO.format(shared("v")), stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    task = verify()
    wait_until("all copies were compared", lambda: verified(task))
    writer.read(5)
    code, out = lab.ended(fio)
    assert code == 0, out[-2000:]
    assert ask(lab, 1, f"task show {task}")["state"] == "done", ask(lab, 1, f"task show {task}")
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {writer.end()}")
    assert lab.run(3, "scalectl pool status").count("20") > 1, "no times are shown"


def copy_rots():
    """With two copies nobody can tell which is right, but where it is; people can."""
    lab.run(1, "scalectl vsd create rot 64MiB && scalectl vsd open rot && dd if=/dev/urandom of=/root/rot bs=1M count=20 "
               f"status=none && dd if=/root/rot of={vsd('rot')} bs=1M oflag=direct conv=fsync,notrunc status=none")
    query = ("select c.extent, c.disk, c.slot, d.node, d.serial from copy c join extent e on e.id = c.extent join vsd v "
             "on v.id = e.vsd join disk d on d.id = c.disk where v.name = \"rot\" and c.stale = 0 "
             "order by c.extent, c.disk limit 2")
    good, bad = json.loads(lab.run(1, "python3 -c 'import json, sqlite3; print(json.dumps(sqlite3.connect("
                                      f"\"/var/lib/scaled/meta.db\").execute(\"\"\"{query}\"\"\").fetchall()))'"))
    extent, _, slot, node, serial = bad
    assert extent == good[0], (good, bad)
    lab.run(node, f"dd if=/dev/urandom of={device(node, serial.split('-')[1])} bs=4096 count=1 oflag=direct "
                  f"seek={2048 + slot * 256} conv=notrunc status=none")
    task = verify()
    wait_until("all copies were compared", lambda: verified(task))
    lab.fails(1, f"scalectl task wait {task}", 5, "damaged")
    lab.fails(2, "scalectl pool status", 1, f"extent {extent} of VSD rot")
    wait_until("there is a condition", lambda: f"extent {extent} of VSD rot" in lab.run(
        leader(lab, 1), "scalectl cluster status"))
    lab.fails(1, f"scalectl pool repair {extent}", 2, "--keep")
    lab.fails(1, f"scalectl pool repair {extent} --keep 1000", 2, "no current copy")
    lab.fails(1, "scalectl pool repair 999999 --keep 1", 4, "not known to be damaged")
    lab.run(1, f"scalectl pool repair {extent} --keep {good[1]}")
    wait_until("nothing is damaged", lambda: lab.run(1, "scalectl pool status"))
    wait_until("every copy is made good", lambda: whole(lab, 1))
    for copy in (1, 2):
        lab.run(1, f"dmsetup message scribe-rot 0 copy {copy} && dd if={vsd('rot')} bs=1M count=20 iflag=direct "
                   "status=none | cmp - /root/rot")
    task = verify()
    wait_until("all copies were compared", lambda: verified(task))
    assert ask(lab, 1, f"task show {task}")["state"] == "done", ask(lab, 1, f"task show {task}")
    lab.run(1, "scalectl vsd close rot && scalectl vsd delete rot --yes")


def owner_dies(keep: int):
    writer = Writer(lab, 1, shared("w"))
    writer.read(20)
    lab.kill(1, keep)
    cut = time.monotonic()
    acknowledged = writer.end()
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {acknowledged} && {Writer.tool()} write {vsd('w')} {acknowledged} 1")
    print(f"# {acknowledged} records; node 2 wrote {time.monotonic() - cut:.0f} s after the cut", flush=True)
    lab.run(2, f"{Writer.tool()} write {vsd('w')} {acknowledged + 1} 10 && "
               f"{Writer.tool()} check {vsd('w')} {acknowledged + 11}")
    lab.lab("start", 1)
    wait_up(lab, 2, (1, 2, 3))
    wait_disks(lab, 2, 7)
    lab.wait(1, f"test -e {vsd('w')}")
    lab.run(1, f"{Writer.tool()} check {vsd('w')} {acknowledged + 11}")
    # Of what was being overwritten one copy was chosen; the others are made equal to it.
    wait_until("every copy is made good", lambda: whole(lab, 2))


def same_in_every_copy(blocks: BlockWriter, node: int):
    """What was flushed is there in each copy, and they are the same."""
    wait_until("every copy is made good", lambda: whole(lab, node))
    digests = set()
    for copy in (1, 2, 0):
        lab.run(node, f"dmsetup message scribe-blocks 0 copy {copy}")
        digests.add(blocks.verify(node))
    assert len(digests) == 1, f"copies differ: {digests}"


def blocks_and_the_owners_cut():
    lab.run(1, "scalectl vsd create blocks 48MiB && scalectl vsd open blocks && scalectl vsd open blocks --node n2")
    blocks = BlockWriter(lab, 1, vsd("blocks"), 5)
    wait_until("blocks are flushed", lambda: blocks.flushed() > 300)
    lab.kill(1, 50)
    blocks.end()
    blocks.verify(2)
    lab.lab("start", 1)
    wait_up(lab, 2, (1, 2, 3))
    wait_disks(lab, 2, 7)
    same_in_every_copy(blocks, 2)


def blocks_and_all_that_breaks():
    """A replica holder's cut, the lease taken away again and again, the daemon killed, then all nodes' cut."""
    blocks = BlockWriter(lab, 2, vsd("blocks"), 5)
    wait_until("blocks are flushed", lambda: blocks.flushed() > 100)
    lab.kill(3, 50)
    wait_until("blocks are flushed", lambda n=blocks.flushed(): blocks.flushed() > n + 100)
    lab.lab("start", 3)
    wait_up(lab, 2, (1, 2, 3))
    for _ in range(5):
        lab.run(1, f"dd if={vsd('blocks')} of=/dev/null bs=1M count=4 iflag=direct status=none")
    lab.run(2, "systemctl kill -s KILL scaled")
    wait_until("blocks are flushed", lambda n=blocks.flushed(): blocks.flushed() > n + 100)
    for node in (1, 2, 3):
        lab.kill(node, 30)
    blocks.end()
    for node in (1, 2, 3):
        lab.lab("start", node)
    wait_up(lab, 1, (1, 2, 3))
    wait_disks(lab, 1, 7)
    lab.wait(1, f"test -e {vsd('blocks')}")
    same_in_every_copy(blocks, 1)


def leader_dies():
    first = leader(lab, 1)
    other = 1 if first != 1 else 2
    writer = Writer(lab, other, shared("w"))
    writer.read(10)
    lab.kill(first)
    writer.read(20)
    records = writer.end()
    lab.lab("start", first)
    wait_up(lab, other, (1, 2, 3))
    lab.run(other, f"{Writer.tool()} check {vsd('w')} {records}")
    same_metadata(lab, (1, 2, 3))


def partition():
    """The owner is cut off: it may not write any more, another takes over, it comes back with a new life."""
    before = boot(lab, 1)
    # The power cuts before left copies that lack data. Where the only good one is on node 1, who reads it waits
    # until node 1 is back.
    wait_until("every copy is made good", lambda: whole(lab, 1))
    writer = Writer(lab, 1, shared("w"))
    writer.read(10)
    lab.lab("partition", "1|2,3")
    wait_until("node 1 is down for the others", lambda: states(lab, 2)["n1"] == "down")
    acknowledged = writer.end()
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {acknowledged} && {Writer.tool()} write {vsd('w')} {acknowledged} 10")
    lab.lab("heal")
    # It hears that it was declared dead.
    wait_until("node 1 has reset itself", lambda: boot(lab, 1) != before)
    wait_up(lab, 2, (1, 2, 3))
    wait_disks(lab, 2, 7)
    lab.wait(1, f"test -e {vsd('w')}")
    lab.run(1, f"{Writer.tool()} check {vsd('w')} {acknowledged + 10}")
    same_metadata(lab, (1, 2, 3))


def after_a_freeze(before: str, records: int):
    """Node 1 goes on after others took over: it hears of that, and comes back with a new life."""
    wait_until("node 1 has reset itself", lambda: boot(lab, 1) != before)
    wait_up(lab, 2, (1, 2, 3))
    wait_disks(lab, 2, 7)
    lab.wait(1, f"test -e {vsd('w')}")
    for node in (1, 2):
        lab.run(node, f"{Writer.tool()} check {vsd('w')} {records}")
    same_metadata(lab, (1, 2, 3))


def daemon_freezes():
    wait_until("every copy is made good", lambda: whole(lab, 1))
    before = boot(lab, 1)
    writer = Writer(lab, 1, shared("w"))
    writer.read(10)
    assert "6300ESB" in ask(lab, 1, "cluster status")["watchdog"]
    lab.run(1, "systemctl kill -s STOP scaled")
    wait_until("node 1 is down for the others", lambda: states(lab, 2)["n1"] == "down")
    reading = f"dd if={vsd('w')} of=/dev/null bs=4k count=1 iflag=direct status=none & sleep 10; kill -0 $!"
    lab.run(1, f"({reading}) > /dev/null 2>&1")
    acknowledged = writer.end()
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {acknowledged} && {Writer.tool()} write {vsd('w')} {acknowledged} 10")
    # Nobody wakes it: the node's watchdog does.
    after_a_freeze(before, acknowledged + 10)


def machine_freezes():
    wait_until("every copy is made good", lambda: whole(lab, 1))
    before = boot(lab, 1)
    writer = Writer(lab, 1, shared("w"))
    writer.read(10)
    watch = lab.start(1, f"rm -f /root/seen; exec {Writer.tool()} watch {vsd('w')} /root/seen")
    wait_until("somebody reads", lambda: int(lab.run(1, "cat /root/seen 2> /dev/null | wc -l")) > 3)
    lab.lab("pause", 1)
    wait_until("node 1 is down for the others", lambda: states(lab, 2)["n1"] == "down")
    watch.kill()
    acknowledged = writer.end()
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {acknowledged} && {Writer.tool()} write {vsd('w')} {acknowledged} 10")
    over = time.time()
    time.sleep(30)  # longer than its reader's or writer's clock could be wrong
    lab.lab("resume", 1)
    after_a_freeze(before, acknowledged + 10)
    seen = [line.split() for line in lab.run(1, "cat /root/seen").splitlines()]
    late = [(when, count) for when, count in seen if float(when) > over + 15 and int(count) < acknowledged + 10]
    assert not late, f"old data was read on node 1 after node 2 wrote: {late}"


def forgotten(node: int) -> bool:
    return f"n{node}" not in states(lab, 1)


def node_leaves():
    """Emptied under a writer it leaves; with a new token it is a new node."""
    wait_until("every copy is made good", lambda: whole(lab, 1))
    lab.fails(1, "scalectl node remove n9", 4, "no node")
    writer = Writer(lab, 1, shared("w"))
    lab.fails(1, "scalectl node remove n2", 5, "is open on it")
    lab.run(1, f"dd if=/dev/urandom of={shared('v')} bs=1M count=128 oflag=direct conv=fsync status=none")
    writer.read(10)
    task = ask(lab, 1, "node remove n3")["task"]
    wait_until("it is empty", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")
    wait_until("it is forgotten", lambda: forgotten(3))
    writer.read(10)
    lab.run(2, f"{Writer.tool()} check {vsd('w')} {writer.end()}")
    wait_until("it knows that it is in no cluster",
               lambda: lab.fails(3, "scalectl node list", 5, "in no cluster") is None)
    lab.run(3, "test -e /var/lib/scaled/left/node.json && ! systemctl is-active scaled-etcd")
    assert ask(lab, 1, "cluster status")["disks"] == 4
    lab.fails(3, f"scalectl cluster join 10.12.0.1 {'0' * 96} --backplane 10.12.0.3", 2, "token")
    join(lab, 3)
    wait_up(lab, 1, (1, 2, 3))
    for name in DISKS:
        lab.wait(3, f"scalectl disk add {device(3, name)} --wipe n3-{name}")
    wait_disks(lab, 1, 7)
    same_metadata(lab, (1, 2, 3))
    theirs = {d["id"] for d in ask(lab, 1, "disk list")["disks"] if d["serial"].startswith("n3-")}
    used = lambda: sum(d["used_bytes"] for d in ask(lab, 1, "disk list")["disks"] if d["id"] in theirs)
    before = used()
    lab.run(1, f"md5sum {vsd('v')} > /root/before")
    task = ask(lab, 1, "pool rebalance")["task"]
    wait_until("copies have moved to it", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")
    assert used() > before + (20 << 20), f"{before} before, {used()} after"
    lab.run(1, "md5sum -c /root/before")
    assert ask(lab, 1, "pool status")["rebalance"] == "off"
    lab.run(1, "scalectl pool rebalance --automatic && scalectl pool status | grep automatic && "
               "scalectl pool rebalance --stop && scalectl pool status | grep 'rebalancing: off'")


def all_die():
    writer = Writer(lab, 2, shared("w"))
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
    lab.run(1, f"{Writer.tool()} check {vsd('w')} {acknowledged}")
    same_metadata(lab, (1, 2, 3))


def nothing_left_to_flush():
    """What node 1 wrote and did not flush was on the two others alone; what it had flushed is there."""
    own = {name: disk_of(lab, 1, f"n1-{name}")["id"] for name in ("ssd0", "hdd0")}
    for task in [ask(lab, 1, f"disk evacuate {disk}")["task"] for disk in own.values()]:
        wait_until("it is empty", lambda: ask(lab, 1, f"task wait {task}")["state"] == "done")  # pylint: disable=cell-var-from-loop
    lab.run(1, "scalectl vsd create lost 1GiB && scalectl vsd open lost")
    device = vsd("lost")
    lab.run(1, f"head -c 16M /dev/urandom > /root/kept && dd if=/root/kept of={device} bs=1M oflag=direct conv=fsync status=none")
    writer = lab.start(1, f"while dd if=/dev/urandom of={device} bs=1M seek=16 count=32 oflag=direct status=none; do :; done")
    wait_until("something is written", lambda: ask(lab, 1, "vsd show lost")["extents"] > 20)
    for node in (2, 3):
        lab.kill(node)
    for node in (2, 3):
        lab.lab("start", node)
    wait_up(lab, 1, (1, 2, 3))
    wait_disks(lab, 1, 7)
    lab.wait(1, "journalctl -u scaled | grep 'it goes on from what was'")
    lab.run(1, "pkill -x dd || true")
    writer.kill()
    writer.wait()
    lab.fails(1, f"sync {device}", 1, "Input/output error")
    lab.run(1, f"sync {device}")
    wait_until("every copy is made good", lambda: whole(lab, 1))
    for copy in (1, 2):
        lab.run(1, f"dmsetup message scribe-lost 0 copy {copy} && blockdev --flushbufs {device} && cmp -n {16 << 20} /root/kept {device}")
    lab.run(1, "dmsetup message scribe-lost 0 copy 0 && scalectl vsd close lost && scalectl vsd delete lost --yes")
    for name, disk in own.items():
        come_back(lab, 1, name, disk)


def space_comes_back():
    for row in ask(lab, 1, "vsd list")["vsds"]:
        for place in ask(lab, 1, f"vsd show {row['name']}")["open"]:
            lab.run(1, f"scalectl vsd close {row['name']} --node {place['node']}")
        lab.run(1, f"scalectl vsd delete {row['name']} --yes")
    assert not ask(lab, 1, "vsd list")["vsds"]
    wait_until("no slot is in quarantine", lambda: not any(
        d["quarantined_bytes"] for d in ask(lab, 1, "disk list")["disks"]))


def main():
    lab.words = [word for word in sys.argv[1:] if word != "--all"]
    lab.all = "--all" in sys.argv
    for node in (1, 2, 3):
        lab.lab("put", node, Path(__file__).with_name("fsync_writer.py"))
    BlockWriter.install(lab)
    lab.case("three nodes form a cluster with tokens; a used or foreign one is refused", formation, always=True)
    lab.case("disks join; one with a file system only when its serial number is repeated", disks, always=True)
    lab.case("bad input gets a clear error, its exit code, and changes nothing", bad_input, turn=0)
    lab.case("a file system written on node 1 is read on node 2 with equal checksums", written_here_read_there)
    lab.case("snapshots of disks in use, at one instant: what was flushed before is there, what came after is not",
             versions.snapshots, lab, turn=1)
    lab.case("snapshots are taken by a schedule, at one instant and once, whoever leads; so many of them are kept",
             versions.schedule, lab, turn=2)
    lab.case("clones of a disk in use are what it was at an instant, while copies move, whoever is deleted first",
             versions.clones, lab, slow=True)
    lab.case("what small writes have scattered is put together: who reads it, by snapshot and clone as well, sees nothing of it",
             versions.scattered, lab, slow=True)
    lab.case("a node dies with a snapshot open and in the middle of a clone: writers go on, and it has the snapshot again",
             versions.snapshot_reader_dies, lab, slow=True)
    lab.case("what a schedule missed while all was off is caught up once", versions.schedule_was_off, lab, slow=True)
    lab.case("the leader's clock jumps by days: nothing is deleted for its age, and schedules go on when it is back",
             versions.clocks_differ, lab, slow=True)
    lab.case("the API answers as its description says", api_is_as_described, turn=0)
    lab.case("data between nodes is encrypted; who has no certificate is sent away", data_is_encrypted, turn=3)
    lab.case("a disk in use is not closed or deleted, and grows", busy_is_not_closed)
    lab.case("two nodes write one disk in turns and see each other's records", ping_pong)
    lab.case("a lease is over for the metadata, and its node's kernel has it: it is given up there, and its users go on",
             lease_is_over_for_the_metadata, turn=2)
    lab.case("a node is shut down with a file system mounted: nothing is lost, and nothing is to be copied",
             node_is_shut_down, turn=4)
    lab.case("the daemon is killed under a writer, which goes on", daemon_dies)
    lab.case("a node whose metadata is damaged copies another's", metadata_is_damaged, turn=5)
    lab.case("a replica holder's power cut under fio verify: no error; when it is given up, all is made anew",
             replica_holder_dies, turn=3)
    lab.case("a disk fails under a writer: what it held is made anew, and it can be replaced", disk_fails, "failwrites", turn=6)
    lab.case("the same with one that does not answer any more", disk_fails, "hang",
             slow=True)
    lab.case("a disk is emptied under a writer, leaves the pool and comes back", disk_leaves, slow=True)
    lab.case("three copies on three nodes, and two, and three again under a writer", three_copies, turn=7)
    lab.case("all copies are compared under writers, and nothing is found wrong", compared_under_load, slow=True)
    lab.case("a copy rots: it is found, located, and made anew from the one that is chosen", copy_rots,
             slow=True)
    lab.case("the owner's power cut: node 2 has every acknowledged record and writes on", owner_dies, 0, slow=True)
    lab.case("the owner's power cut where the drives had written half of their caches", owner_dies, 50, slow=True)
    lab.case("blocks that describe themselves: the owner's power cut, each copy read apart", blocks_and_the_owners_cut)
    lab.case("blocks that describe themselves: all that breaks, one after the other", blocks_and_all_that_breaks, slow=True)
    lab.case("the leader's power cut under a writer on another node", leader_dies, turn=4)
    lab.case("an owner that is cut off is replaced, and comes back with a new life", partition,
             slow=True)
    lab.case("the owner's daemon is frozen: another takes over, the owner serves nothing, its watchdog resets it", daemon_freezes, turn=5)
    lab.case("the owner's whole machine is frozen for a while, and does no harm when it goes on", machine_freezes,
             slow=True)
    lab.case("a node is emptied under a writer, leaves the cluster and joins again", node_leaves, slow=True)
    lab.case("nothing is left of what was not flushed: who wrote it is told, and goes on from what was", nothing_left_to_flush,
             slow=True)
    lab.case("all nodes lose power at once: everything acknowledged is there", all_die)
    lab.case("deleted disks give their space back", space_comes_back)
    lab.finish((1, 2, 3))


if __name__ == "__main__":
    sys.exit(main())
