#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Virtual machines on three nodes, with a real guest: its life, and what breaks under it.

  vms.py [--all] [WORD...]   only cases with such a word in their description; --all: the slow ones, too
"""

import json
import sys
import time

import guest
import vm_devices
import vm_faults
import vm_kept
import vm_moves
from labtest import REPO
from openapi import answer_schema, problems
from scribe_cluster import add_disks, ask, found, join, vsd, wait_disks, wait_until, wait_up
from the_guest import beats, begin, GUESTS_LEASE_SECONDS, lab, make_ready, no_medium_is_open, others, sight, state


def networks():
    """Each node's LAN becomes a bridge; that of one is a bare port before, as after Debian's installation."""
    lab.run(3, "ip link del lan && ip link set lan0 up && ip address add 10.11.0.3/24 dev lan0 && ip route add 10.99.0.0/16 via "
               "10.11.0.1")
    lab.run(3, "ip link del bp && ip link set bp0 mtu 9000 && ip link set bp1 mtu 9000 && ip link set bp0 up && "
               "ip address add 10.12.0.3/24 dev bp0")
    for node in (1, 2, 3):
        lab.run(1, f"scalectl node bond n{node} lan --ports lan0,lan1 --primary lan0 && "
                   f"scalectl node bond n{node} backplane --ports bp0,bp1")
    for node in (1, 2, 3):
        wait_until("it has a bridge on its LAN", lambda: next(
            one for one in ask(lab, 1, "node list")["nodes"] if one["id"] == node)["networks"]["lan_bridge"] == "scribe-br0")  # pylint: disable=cell-var-from-loop
        lab.run(node, f"ip -o address show dev scribe-br0 | grep -q 10.11.0.{node}/24")
    lab.run(3, "ip route show 10.99.0.0/16 | grep -q scribe-br0 && grep -q scribe-lan /sys/class/net/lan1/master/uevent")
    lab.wait(3, "ping -c 1 -W 1 10.11.0.1 && ping -c 1 -W 1 10.11.0.2")
    # Large frames, too, on the backplane.
    lab.wait(3, "ip -o address show dev scribe-bp | grep -q 10.12.0.3/24 && ping -c 1 -W 1 -M do -s 8900 10.12.0.1")


def formation():
    found(lab, GUESTS_LEASE_SECONDS)
    for node in (2, 3):
        join(lab, node)
    wait_up(lab, 1, (1, 2, 3))
    for node in (1, 2, 3):
        add_disks(lab, node, ("ssd0",))
        make_ready(node)
    networks()
    wait_disks(lab, 1, 3)
    path = guest.build(REPO / "build/check/guest.img")
    lab.lab("put", 1, path, "--to", "/root/guest.img")
    lab.run(1, "scalectl vsd create system 64MiB && scalectl vsd open system && "
               f"dd if=/root/guest.img of={vsd('system')} bs=1M oflag=direct conv=fsync,notrunc status=none && "
               "scalectl vsd close system")


def bad_input():
    for command, code, text in (
            ("vm create", 2, "expected"),
            ("vm create a", 2, "--memory"),
            ("vm create a --memory 4X", 2, "no size"),
            ("vm create a --memory 1000", 2, "multiple of 1 MiB"),
            ("vm create a --memory 1MiB", 2, "16 MiB to 4 TiB"),
            ("vm create a --memory 1GiB --max-memory 512MiB", 2, "what it has, or more"),
            ("vm create a --memory 1GiB --max-memory 1000", 2, "--max-memory is a multiple of 1 MiB"),
            ("vm create ../a --memory 1GiB", 2, "no name"),
            ("vm create a --memory 1GiB --vcpus 0", 2, "1 to 128 vCPUs"),
            ("vm create a --memory 1GiB --vcpus x", 2, "number"),
            ("vm create a --memory 1GiB --firmware coreboot", 2, "bios, uefi or uefi-secure"),
            ("vm create a --memory 1GiB --tpm 1.2", 2, "--tpm is on or off"),
            ("vm create a --memory 1GiB --user-data /etc/hostname", 2, "#cloud-config"),
            ("vm create a --memory 1GiB --user-data none", 2, "cannot be read"),
            ("vm create a --memory 1GiB --network-config /etc/hostname", 2, "user data"),
            ("vm create a --memory 1GiB --cpu best", 2, "host or baseline"),
            ("vm create a --memory 1GiB --priority 12", 2, "0 to 11"),
            ("vm create a --memory 1GiB --disks 1000", 2, "multiple of 1 MiB"),
            ("vm create a --memory 1GiB --disks vsd:nothing", 4, "no VSD"),
            ("vm create a --memory 1GiB --disks vsd:../x", 2, "no name"),
            ("vm create a --memory 1GiB --disks vsd:system,vsd:system", 5, "is a disk of VM"),
            ("vm create a --memory 1GiB --disks 1GiB --bus ide", 2, "virtio, scsi or sata"),
            ("vm create a --memory 1GiB --disks 1GiB --copies 4", 2, "2 or 3 copies"),
            ("vm create a --memory 1GiB --tags 'a b'", 2, "no tag"),
            ("vm create a --memory 1GiB --prefer n9", 4, "no node"),
            ("vm create a --memory 1GiB --apart 'a b'", 2, "no name of a group"),
            ("vm create a --memory 1GiB --nics ../x", 2, "no name of a bridge"),
            ("vm create a --memory 1GiB --nics vlan:4095", 2, "1 to 4094"),
            ("vm create a --memory 1GiB --nics vlan:x", 2, "number"),
            ("node bond n9 lan --ports eth0", 4, "no node"),
            ("node bond n1 wan --ports eth0", 2, "lan or backplane"),
            ("node bond n1 lan --ports ../x", 2, "no name of a port"),
            ("node bond n1 lan --ports lan0 --primary lan1", 2, "none of the ports"),
            ("node bond n1 backplane --ports lan0,bp0", 5, "one of the lan"),
            ("vm create a --memory 1GiB --nics lan --nic-model ne2k", 2, "virtio or e1000e"),
            ("vm create a --memory 1GiB --nic-model virtio", 2, "--nics"),
            ("vm create a --memory 1GiB --bus scsi", 2, "--disks"),
            ("vm show nothing", 4, "no VM"),
            ("vm stats nothing", 4, "no VM"),
            ("event list --limit 0", 2, "1 to 10000"),
            ("event list --limit x", 2, "1 to 10000"),
            ("vm start nothing", 4, "no VM"),
            ("vm delete nothing", 2, "--yes"),
            ("vm delete nothing --yes", 4, "no VM")):
        lab.fails(1, f"scalectl {command}", code, text)
    assert not ask(lab, 1, "vm list")["vms"]
    assert [one["name"] for one in ask(lab, 1, "vsd list")["vsds"]] == ["system"], "a refused VM left a disk"
    lab.run(1, "scalectl vm create big --memory 1TiB")
    lab.fails(1, "scalectl vm start big", 1, "MiB of memory left")
    lab.fails(1, "scalectl vm start big --node n9", 4, "no node")
    lab.fails(1, "scalectl vm stop big", 5, "is off")
    lab.run(1, "scalectl vm delete big --yes")


def runs():
    lab.run(1, "scalectl vm create g --memory 128MiB --max-memory 512MiB --cpu baseline --screen off --disks vsd:system,64MiB "
               "--cdroms '' --nics lan --prefer n2 --apart pair --tags web --description 'a <guest>'")
    lab.fails(1, "scalectl vm create g --memory 128MiB", 5, "exists")
    lab.fails(1, "scalectl vm list --state going", 2, "no state")
    lab.fails(1, "scalectl vm list --node n9", 4, "no node")
    for words, many in (("--text '<GUEST> '", 0), ("--text '<GUEST>'", 1), ("--tags web --state off", 1), ("--tags we", 0),
                         ("--node n2", 0)):
        assert len(ask(lab, 1, f"vm list {words}")["vms"]) == many, words
    begin("g")
    assert state()["state"] == "running" and state()["node"] == 2, state()
    beats(1)
    lab.fails(1, "scalectl vm start g", 5, "is running already")
    lab.fails(1, "scalectl vm edit g --max-memory 256MiB", 5, "while it is off")
    lab.fails(1, "scalectl vm edit g --vcpus 5", 5, "4 vCPUs as long as it runs")
    lab.fails(1, "scalectl vm delete g --yes", 5, "stop it first")
    lab.fails(1, "scalectl vsd delete g-1 --yes", 5, "is a disk of VM g")
    lab.fails(1, "scalectl vsd close g-1 --node n2", 5, "is a disk of VM g")
    xml = lab.run(2, "virsh dumpxml g")
    assert "/dev/mapper/scribe-system" in xml and "source file" not in xml, xml
    document = json.loads((REPO / "Documentation/openapi.json").read_text(encoding="utf-8"))
    for path, words in (("/vm", "vm list"), ("/vm/{name}", "vm show g"), ("/task", "task list")):
        assert not (wrong := problems(document, answer_schema(document, path), ask(lab, 1, words))), wrong


def paused():
    lab.run(1, "scalectl vm pause g")
    lab.fails(1, "scalectl vm reboot g", 5, "is paused")
    assert state()["state"] == "paused"
    before = sight()
    time.sleep(5)
    assert sight() == before, "it goes on though it is paused"
    lab.run(1, "scalectl vm resume g")
    beats()


def begins_anew(how: str):
    lab.run(others(state()["node"]), f"scalectl vm {how} g")
    beats(1)


def is_seen():
    """Its serial console, and the screen of one that has one, from the node that runs it and from another."""
    node = state()["node"]
    lab.fails(1, "scalectl vm screen g", 5, "no screen")
    # It needs nothing to have one.
    lab.run(1, "scalectl vm create s --memory 16MiB")
    begin("s", f"--node n{node}")
    for at in (node, others(node)):
        asked = ask(lab, at, "vm screen s")
        assert asked["node"] == node, asked
        greeting = ("import socket, sys; s = socket.socket(socket.AF_UNIX); s.settimeout(60); s.connect(sys.argv[1]); "
                    "print(s.recv(12).decode())")
        assert lab.run(at, f'python3 -c "{greeting}" {asked["socket"]}').startswith("RFB 003.")
        # What is typed there comes back from the guest's terminal.
        lab.run(at, "rm -f console; (for i in $(seq 60); do echo hello-$i; sleep 1; done) | "
                    "timeout 60 script -qfc 'scalectl vm console g' console > /dev/null & "
                    "for i in $(seq 60); do grep -q 'Connected to domain' console && "
                    "test $(grep -ac hello- console) -gt 2 && exit 0; sleep 1; done; cat console; exit 1")
    lab.run(1, "scalectl vm stop s && scalectl vm delete s --yes")
    lab.fails(1, "scalectl vm screen nobody", 4, "no VM named nobody")
    lab.fails(1, "scalectl vm console nobody", 4, "no VM named nobody")


def ends():
    lab.run(1, "scalectl vm shutdown g --no-wait")
    wait_until("it is off", lambda: state()["state"] == "off" and state()["node"] == 0)
    wait_until("its disks are closed", lambda: not any(
        ask(lab, 1, f"vsd show {one}")["open"] for one in ("system", "g-1")))
    was = state()
    lab.run(1, "scalectl vm export-xml g > /root/g.xml && scalectl vm delete g --keep-disks --yes")
    lab.run(1, "sed 's,/dev/mapper/scribe-system,/etc/shadow,' /root/g.xml > /root/bad.xml")
    lab.fails(1, "scalectl vm import-xml /root/bad.xml", 2, "no virtual disk")
    lab.fails(1, "scalectl vm import-xml /root/none.xml", 2, "cannot be read")
    lab.run(1, "scalectl vm import-xml /root/g.xml")
    for what in ("uuid", "memory_mib", "max_memory_mib", "nics", "disks", "machine", "cpu", "description"):
        assert state()[what] == was[what], (what, was, state())
    begin("g")
    beats(1)
    lab.run(1, "scalectl vm stop g")
    lab.run(1, "scalectl vm edit g --memory 160MiB --name h --tags ''")
    assert ask(lab, 1, "vm show h")["memory_mib"] == 160
    wait_until("its disks are closed", lambda: not any(
        ask(lab, 1, f"vsd show {one}")["open"] for one in ("system", "g-1")))
    lab.run(1, "scalectl vm delete h --yes")
    for one in ask(lab, 1, "medium list")["media"]:
        lab.run(1, f"scalectl medium delete {one['name']} --yes")
    no_medium_is_open()
    assert not ask(lab, 1, "vm list")["vms"]
    assert not ask(lab, 1, "vsd list")["vsds"]


def main():
    lab.words = [word for word in sys.argv[1:] if word != "--all"]
    lab.all = "--all" in sys.argv
    lab.case("three nodes that can run guests, and a disk that boots", formation, always=True)
    lab.case("what no VM can be is refused, and leaves nothing", bad_input, turn=0)
    lab.case("a VM runs on the node that was named, on its disks", runs, always=True)
    lab.case("it is paused, and goes on", paused, turn=2)
    lab.case("it is asked to begin anew, and does", begins_anew, "reboot", slow=True)
    lab.case("it is reset", begins_anew, "reset", slow=True)
    lab.case("its screen and its console are seen from any node", is_seen, turn=1)
    lab.case("its disk grows while it runs, and the guest sees that", vm_devices.disk_grows, turn=1)
    lab.case("another disk is plugged in while it runs, limited, and taken out", vm_devices.disks_change, turn=3)
    lab.case("its network changes while it runs: cable, VLAN, another interface", vm_devices.network_changes, slow=True)
    lab.case("a port of its node's LAN fails, and comes back: it is reached by the other one, then by that", vm_devices.port_fails, turn=3)
    lab.case("somebody pauses it behind our back: it goes on", vm_faults.strangers_hand, slow=True)
    lab.case("it is kept as it is, and cloned, while it runs", vm_kept.snapshots, turn=4)
    lab.case("its file systems are at rest in a snapshot, and go on whatever is lost", vm_kept.is_at_rest, turn=0)
    lab.case("a schedule has it kept each minute, and keeps the newest", vm_kept.snapshots_by_schedule, slow=True)
    lab.case("a CD's image is uploaded, from two nodes in turn, and is what it was", vm_devices.media_come, turn=5)
    lab.case("it is in the guest's drive, is taken out, and exchanged", vm_devices.media_are_in_drives, turn=5)
    lab.case("disks are made of images of all kinds; hostile ones are refused", vm_devices.disks_are_imported, turn=1)
    lab.case("it is exported while it runs, and comes back as another machine", vm_kept.machine_comes_back, slow=True)
    lab.case("another machine has UEFI, a TPM and cloud-init, and moves", vm_kept.machine_has_uefi, slow=True)
    lab.case("what its firmware and its TPM know is kept; a clone has a TPM of its own", vm_kept.machine_keeps_what_it_knows, slow=True)
    lab.case("it moves to other nodes while it runs, and writes", vm_moves.moves)
    lab.case("it is on its way when that is cancelled, or fails: it goes on where it was", vm_moves.move_fails, turn=6)
    lab.case("it is on its way when whoever carries it is killed at the other end, or all of that: it goes on",
             vm_moves.move_fails_otherwise, slow=True)
    lab.case("it is on its way when QEMU is killed: it begins anew, once", vm_moves.qemu_dies_on_its_way, slow=True)
    lab.case("it moves twenty times, and writes", vm_moves.moves_often, slow=True)
    lab.case("its node's daemon is killed: it does not notice", vm_faults.daemon_dies, turn=2)
    lab.case("QEMU is killed: it begins anew", vm_faults.qemu_dies, turn=2)
    lab.case("its node is shut down: it moves away before", vm_faults.node_is_shut_down, slow=True)
    lab.case("its node is shut down, and there is no room elsewhere: it powers off, and begins anew",
             vm_faults.node_is_shut_down_alone, slow=True)
    lab.case("its node's power is cut while it leaves that: it begins anew elsewhere, and its node comes back without it", vm_faults.node_dies, turn=7)
    lab.case("its node is cut off: it is held there, and begins anew elsewhere", vm_faults.cut_off, turn=6)
    lab.case("the power of three guests' node is cut: they begin anew, the most important first", vm_faults.three_begin_anew, turn=3)
    lab.case("all nodes lose power: it begins anew without a hand", vm_faults.cold_start, turn=0)
    lab.case("a node whose guests would fit nowhere else is told of", vm_faults.headroom, slow=True)
    lab.case("more memory is plugged in while it runs, and moves with it", vm_devices.memory_grows, turn=4)
    lab.case("its guest powers off when asked; exported and imported it is the same; it is cut off when told, and goes "
             "with its disks", ends)
    lab.finish((1, 2, 3))


if __name__ == "__main__":
    sys.exit(main())
