#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The module on three nodes (three_nodes.py). Faults: garbage on the wire, hosts out of reach, a replica holder's
power cut under load, the owner's power cut with lost write caches.

  backplane.py [KERNEL [tls]]     by default Debian's 6.1, and checksums in place of TLS
"""

import sys
import time
from subprocess import DEVNULL

from labtest import Lab, Writer
from three_nodes import TLS, install, redirected, stale_copies, start_host, start_owner, written

KERNEL = sys.argv[1] if len(sys.argv) > 1 else "6.1"
FIO = ("fio --name=v --filename=/dev/mapper/v1 --direct=1 --ioengine=libaio --iodepth=8 --rw=randwrite --bs=4k "
       "--verify=crc32c --verify_fatal=1 --randseed=3 --group_reporting --output-format=terse ")


def local_and_remote(lab: Lab):
    lab.run(1, FIO + "--size=16m --do_verify=1")
    lab.run(1, FIO + "--size=64m --offset=64m --bs=512k --do_verify=1")
    for disk in (21, 22, 23, 31, 32, 33):
        fields = lab.run(1, f"grep '^disk {disk} ' /sys/kernel/debug/scribe/disks").split()
        assert int(fields[fields.index("writes") + 1]) > 0, f"nothing was written to disk {disk}"


def garbage(lab: Lab):
    script = """
import json, os, socket, sys
sys.path.insert(0, "/root")
import scribe_agent, scribe_nl as nl
life = nl.Family().call("HELLO")["LIFE"]
for attempt in range(20):
    sock = socket.create_connection(("n2-bp", 7420))
    scribe_agent.exchange(sock, {"node": 1, "life": life, "disks": {}})
    sock.settimeout(30)
    data = os.urandom(64 if attempt % 2 else 4096)
    try:
        sock.sendall(data)
        assert sock.recv(1) == b"", "the connection was not ended"
    except ConnectionError:
        pass
"""
    lab.run(1, f"python3 -c '{script}'")
    why = "receive failed" if TLS else "bad magic"  # TLS finds it before the module does
    lab.wait(2, f"dmesg | grep -q 'target connection ended: {why}'")
    lab.run(1, FIO + "--size=8m --do_verify=1")


def old_life(lab: Lab):
    """A request that names another life of the disk is refused and writes nothing."""
    before = lab.run(2, "dmesg | grep -c 'refused operation' || true")
    life = lab.run(1, "grep '^disk 21 ' /sys/kernel/debug/scribe/disks").split()[6]
    script = """
import sys; sys.path.insert(0, "/root")
import scribe_nl as nl
nl.Family().call("ROUTE_SET", DISK_ID=21, NODE_ID=2, DISK_LIFE=int(sys.argv[1], 16), TIER=1)
"""
    lab.run(1, f"python3 -c '{script}' 1234")
    lab.run(1, FIO + "--size=8m --offset=200m --do_verify=1")
    lab.run(1, f"python3 -c '{script}' {life}")
    after = lab.run(2, "dmesg | grep -c 'refused operation' || true")
    assert int(after) > int(before), "no request of the wrong life was refused"
    assert redirected(lab) > 0, "no write was redirected"


def peers(lab: Lab, name: str) -> int:
    lines = lab.run(1, "grep -v 'initiators 0' /sys/kernel/debug/scribe/peers").splitlines()
    return sum(int((words := line.split())[words.index(name) + 1]) for line in lines)


def sent_by_writers(lab: Lab):
    """By the tasks that write, as far as sockets take it at once; some are killed meanwhile. Now and then there is next to no memory
    for sockets. They take a part then, for the sender to send the rest: a module that is built for tests sees to that always."""
    assert peers(lab, "pushed") > 0, "no message was sent by whoever wrote"
    errors, part = peers(lab, "errors"), "/sys/module/dm_scribe/parameters/push_bytes"
    fio = lab.start(1, FIO.replace("--bs=4k", "--bsrange=4k-16k") + "--size=24m --offset=400m --do_verify=1 --numjobs=2 "
                       "--offset_increment=64m", stdout=DEVNULL)
    lab.run(1, "cd /proc/sys/net/ipv4 && mem=$(cat tcp_mem) && for i in $(seq 40); do "
               "timeout -s KILL 0.$((i % 9 + 1)) dd if=/dev/zero of=/dev/mapper/v1 bs=16k seek=40000 oflag=direct status=none & "
               f"test -e {part} && echo $((i * i)) > {part}; "
               "sleep 0.3; echo 1 2 3 > tcp_mem; sleep 0.1; echo $mem > tcp_mem; wait; done")
    assert lab.ended(fio)[0] == 0, "fio saw an error"
    assert peers(lab, "partly") > 0 or not (TLS or KERNEL == "debug"), "no message went out in part"
    assert peers(lab, "errors") == errors, "a connection ended"
    lab.run(1, f"test ! -e {part} || echo {(1 << 32) - 1} > {part}")


def all_hosts_gone(lab: Lab):
    """Longer than a peer's timeout. The disks lost nothing: what was written is flushed when they are back."""
    lab.run(1, "dmsetup create v2 --table '0 131072 scribe 2'")
    writer = Writer(lab, 1, "/dev/mapper/v2")
    writer.read(20)
    lab.lab("partition", "1|2,3")
    lab.wait(1, "test $(grep -c 'initiators 0' /sys/kernel/debug/scribe/peers) = 2")
    lab.lab("heal")
    writer.read(20)
    lab.run(1, f"{Writer.tool()} check /dev/mapper/v2 {writer.end()}")
    lab.wait(1, "dmsetup remove v2")


def replica_dies(lab: Lab):
    lab.wait(1, "! grep 'initiators 0' /sys/kernel/debug/scribe/peers")  # or none of what is written goes there
    before = redirected(lab)
    # Rate-limited, so that on a fast machine too it is still writing when the power goes.
    fio = lab.start(1, FIO + "--size=24m --offset=300m --do_verify=1 --loops=2 --rate_iops=400", stdout=DEVNULL)
    started = written(lab)
    while written(lab) < started + 200:
        time.sleep(0.2)
    lab.kill(3)
    assert lab.ended(fio)[0] == 0, "fio saw an error after a replica holder's power cut"
    assert redirected(lab) > before, "no write was redirected"
    lab.run(1, "dmsetup message v1 0 flush")
    assert stale_copies(lab) > 0, "no copy was marked stale"


def still_readable(lab: Lab):
    lab.run(1, "dmsetup message v1 0 evict && echo 3 > /proc/sys/vm/drop_caches")
    lab.run(1, FIO + "--size=24m --offset=300m --verify_only")
    lab.run(1, FIO + "--size=16m --verify_only")


def owner_dies(lab: Lab, keep: int, first: int):
    """Every record that was acknowledged outside the cluster is there after the owner's power cut."""
    writer = Writer(lab, 1, "/dev/mapper/v1", first)
    writer.read(40)
    lab.kill(1, keep)
    acknowledged = writer.end()
    lab.lab("start", 1)
    start_owner(lab, fresh=False, hosts="2@n2-bp")
    lab.run(1, f"{Writer.tool()} check /dev/mapper/v1 {acknowledged}")
    lab.run(1, f"{Writer.tool()} write /dev/mapper/v1 {acknowledged} 20")
    lab.run(1, f"{Writer.tool()} check /dev/mapper/v1 {acknowledged + 20}")
    return acknowledged + 20


def deadline_holds(lab: Lab):
    """Past the node's deadline I/O waits; a new deadline lets it go on."""
    lab.run(1, "pkill -STOP -f [s]cribe_agent.py")
    lab.wait(1, "grep -q 'remaining_ms 0' /sys/kernel/debug/scribe/node")
    reader = lab.start(1, "dd if=/dev/mapper/v1 of=/dev/null bs=4k count=1 iflag=direct status=none")
    time.sleep(3)
    assert reader.poll() is None, "a read was answered past the deadline"
    lab.run(1, "pkill -CONT -f [s]cribe_agent.py")
    assert lab.ended(reader)[0] == 0


def unload(lab: Lab):
    lab.run(1, "dmsetup remove v1 && pkill -f [s]cribe_agent.py; sleep 1; rmmod dm_scribe")
    lab.run(2, "pkill -f [s]cribe_agent.py; sleep 1; rmmod dm_scribe")


def main():
    lab = Lab("backplane", 3, KERNEL, cpus=2)  # whatever that costs under emulation: for the module's races
    install(lab)
    lab.case("two hosts serve their disks", lambda: [start_host(lab, n) for n in (2, 3)])
    lab.case("an owner connects and has a VSD over nine disks", start_owner, lab)
    lab.case("data verifies, and every disk of every node holds some", local_and_remote, lab)
    lab.case("garbage on the backplane ends that connection, nothing else", garbage, lab)
    lab.case("a request for an old life of a disk is refused, the write goes elsewhere", old_life, lab)
    lab.case("writers send by themselves, in part where sockets are full, and are killed: all is whole", sent_by_writers, lab)
    lab.case("all hosts are out of reach for a while: I/O waits and goes on, nothing is lost", all_hosts_gone, lab)
    lab.case("a replica holder's power cut under fio verify: no error, no wrong byte", replica_dies, lab)
    lab.case("everything reads back from the copies that are left", still_readable, lab)
    lab.case("past its deadline the owner holds I/O and goes on when it is renewed", deadline_holds, lab)
    lab.case("the owner's power cut, all caches lost: every acknowledged record is there", owner_dies, lab, 0, 0)
    lab.case("the same where the drives had written half of their caches", owner_dies, lab, 50, 0)
    lab.case("the module unloads on both live nodes", unload, lab)
    lab.finish((1, 2))


main()
