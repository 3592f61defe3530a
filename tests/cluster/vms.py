#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""Virtual machines on three nodes, with a real guest: its life, and what breaks under it.

  vms.py [--all] [WORD...]   only cases with such a word in their description; --all: the slow ones, too
"""

import json
import subprocess
import sys
import time

import firmware
import guest
import media
from labtest import REPO, Lab
from openapi import answer_schema, problems
from scribe_cluster import add_disks, ask, found, join, leader, vsd, wait_disks, wait_until, wait_up

lab = Lab("vms", 3, debs=True)

# With guests in them, nodes that are emulated by a slow machine stand still for longer than the other labs' 15 s.
GUESTS_LEASE_SECONDS = 45


def make_ready(node: int):
    """What a machine of its own has after it has booted: KVM, which udev sees to."""
    lab.wait(node, "test -e /run/libvirt/libvirt-sock")
    lab.run(node, "modprobe -a kvm_amd tun vhost_net")


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


ASKED = [1]  # a node that is up
BOOTS = [0]  # how often the guest has booted


def state() -> dict:
    return ask(lab, ASKED[0], "vm show g")


def sight() -> guest.Sight:
    return guest.sight(lab, state()["node"], vsd("g-1"))


def beats(boots: int = 0):
    """The guest has booted so many times more, and goes on."""
    BOOTS[0] += boots

    def later(than: int) -> int:
        now = sight()
        return now.beat if now.boot == BOOTS[0] and now.beat > than else 0
    at = wait_until(f"boot {BOOTS[0]} beats", lambda: later(0))
    wait_until("it beats on", lambda: later(at))
    # And says so to whoever asks on the LAN.
    wait_until("it answers", lambda: f"boot {BOOTS[0]} " in lab.run(
        ASKED[0], f"curl -sS -m 5 http://{guest.ADDRESS}/beat"))


def begin(name: str, more: str = ""):
    """Where that takes longer than a command waits, which it says, it is waited for."""
    lab.run(1, f"scalectl vm start {name} {more} || test $? = 7")
    wait_until(f"{name} runs", lambda: ask(lab, 1, f"vm show {name}")["state"] == "running")


def runs():
    lab.run(1, "scalectl vm create g --memory 128MiB --max-memory 512MiB --cpu baseline --screen off --disks vsd:system,64MiB "
               "--cdroms '' --nics lan --prefer n2 --apart pair --tags web --description 'a <guest>'")
    lab.fails(1, "scalectl vm create g --memory 128MiB", 5, "exists")
    lab.fails(1, "scalectl vm list --state going", 2, "no state")
    lab.fails(1, "scalectl vm list --node n9", 4, "no node")
    for words, found in (("--text '<GUEST> '", 0), ("--text '<GUEST>'", 1), ("--tags web --state off", 1), ("--tags we", 0),
                         ("--node n2", 0)):
        assert len(ask(lab, 1, f"vm list {words}")["vms"]) == found, words
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


def disk_grows():
    lab.run(1, "scalectl vsd resize g-1 96MiB")
    wait_until("the guest sees it", lambda: sight().sectors == 96 << 11)
    beats()


def strangers_hand():
    """Somebody else pauses or resumes it, on its node."""
    lab.run(state()["node"], "virsh suspend g")
    beats()


def disks_change():
    """Another disk comes, is limited, and goes while its guest runs; its data stays."""
    node = state()["node"]
    lab.run(1, "scalectl vm disk-add g 64MiB --iops 1000")
    lab.fails(1, "scalectl vm disk-add g 64MiB --bus sata", 5, "while it is off")
    lab.fails(1, "scalectl vm disk-add g vsd:system", 5, "is a disk of VM")
    wait_until("its guest has three disks", lambda: sight().disks == 3)
    assert "1000" in lab.run(node, "virsh blkdeviotune g vdc | grep total_iops_sec")
    used = ask(lab, 1, "vm stats g")
    document = json.loads((REPO / "Documentation/openapi.json").read_text(encoding="utf-8"))
    assert not (wrong := problems(document, answer_schema(document, "/vm/{name}/stats"), used)), wrong
    assert used["node"] == node and used["cpu_ns"] > 0 and used["memory_bytes"] > 32 << 20, used
    assert [one["disk"] for one in used["disks"]] == [0, 1, 2] and used["disks"][1]["flushes"] > 0, used
    assert used["nics"][0]["sent_packets"] > 0, used
    lab.run(others(node), "scalectl vm stats g")
    lab.run(1, "scalectl vm disk-edit g 2 --bandwidth 1MiB --iops 0")
    lab.wait(node, "virsh blkdeviotune g vdc | grep -q 'total_bytes_sec *: *1048576' && "
                   "virsh blkdeviotune g vdc | grep -q 'total_iops_sec *: *0'")
    lab.fails(1, "scalectl vsd delete g-2 --yes", 5, "is a disk of VM g")
    lab.fails(1, "scalectl vm disk-remove g 9", 4, "no disk 9")
    lab.fails(1, "scalectl vm disk-edit g 2", 2, "what of it")
    lab.run(1, "scalectl vm disk-remove g 2")
    wait_until("its guest has let go of it", lambda: sight().disks == 2)
    wait_until("it is no disk of it any more", lambda: len(state()["disks"]) == 2 and not ask(lab, 1, "vsd show g-2")["open"])
    assert [one["state"] for one in ask(lab, 1, "task list")["tasks"] if one["what"] == "vm disk-remove"] == ["done"]
    said = [(one["what"], one["who"]) for one in ask(lab, 2, "event list --about g")["events"]]
    assert said[:2] == [("vm disk is gone", f"node n{node}"), ("vm disk-remove", "administrator at n1")], said
    lab.run(1, "scalectl vsd delete g-2 --yes")
    beats()


def medium(name: str) -> dict:
    return ask(lab, 1, f"medium show {name}")


def media_come():
    """An upload is cut off, goes on at another node, and is the same file anywhere."""
    for node in (1, 2):
        path = media.make_cd(lab, node, "first")
    want = media.digest(lab, 1, path)
    lab.fails(1, f"scalectl medium upload {path} --sha256 {want[::-1]}", 2, "has the SHA-256")
    lab.fails(1, "scalectl medium upload /root/none.iso", 2, "no file")
    lab.fails(1, "scalectl medium upload /root/none.iso --name ../x", 2, "no name")
    for body in ({"name": "../first.iso", "size_bytes": 5}, {"name": "a", "size_bytes": 0},
                 {"name": "a", "size_bytes": 1 << 60}, {"name": "a", "size_bytes": 5, "sha256": "x"}):
        refused = media.rest(lab, 1, "POST", "medium", f"'{json.dumps(body)}'")
        assert refused["error"]["code"] == "invalid", refused
    about = {"name": "first.iso", "size_bytes": media.CD_BYTES, "sha256": want}
    media.rest(lab, 1, "POST", "medium", f"'{json.dumps(about)}'")
    lab.run(1, f"head -c 1048576 {path} > /root/piece")
    for _ in range(2):  # the second time it is there already
        now = media.rest(lab, 1, "PUT", "medium/first.iso/data?offset=0", "@/root/piece")
        assert now["state"] == "uploading" and now["received_bytes"] == 1 << 20, now
    wrong = media.rest(lab, 1, "PUT", "medium/first.iso/data?offset=2097152", "@/root/piece")
    assert "go on there" in wrong["error"]["text"], wrong
    lab.fails(1, "scalectl vm cdrom-edit g 0 --medium first.iso", 5, "is uploading")
    lab.fails(1, "scalectl vsd import x --medium first.iso", 5, "is uploading")
    lab.run(2, f"scalectl medium upload {path}")
    now = medium("first.iso")
    assert (now["state"], now["sha256"], now["format"]) == ("ready", want, "iso"), now
    document = json.loads((REPO / "Documentation/openapi.json").read_text(encoding="utf-8"))
    for what, words in (("/medium", "medium list"), ("/medium/{name}", "medium show first.iso")):
        assert not (wrong := problems(document, answer_schema(document, what), ask(lab, 1, words))), wrong
    lab.run(1, f"scalectl medium upload {path}")  # it is there
    media.make_cd(lab, 3, "second")
    lab.fails(3, "scalectl medium upload /root/second.iso --name first.iso", 5, "another medium named")
    lab.run(3, "scalectl medium upload /root/second.iso")
    lab.run(3, "head -c 700000 /root/first.iso > /root/copy.iso.part 2> /dev/null; scalectl medium download first.iso /root/copy.iso")
    assert media.digest(lab, 3, "/root/copy.iso") == want
    lab.fails(3, "scalectl medium download first.iso /root/copy.iso", 2, "exists")
    assert not [one["name"] for one in ask(lab, 1, "vsd list")["vsds"] if "medium" in one["name"]]


def no_medium_is_open():
    wait_until("nothing of media is open anywhere", lambda: not any(
        "medium" in lab.run(node, "ls /dev/mapper") for node in (1, 2, 3)))


def media_are_in_drives():
    """Put in, exchanged and taken out while the guest runs; one stays in it for what comes next."""
    def sees(label: str):
        try:
            wait_until(f"its guest sees {label}", lambda: sight().cd == label)
        except AssertionError as err:
            raise AssertionError(f"{err}\n" + lab.run(
                state()["node"], "virsh dumpxml g | grep -A 9 cdrom; virsh qemu-monitor-command g '{\"execute\": \"query-block\"}'; "
                "dmsetup table; for d in /dev/mapper/scribe-medium*; do dd if=$d bs=2k skip=20 count=1 iflag=direct | head -c 20; "
                "done; scalectl cluster status; journalctl --no-pager -u scaled | tail -n 20")) from err
    lab.run(1, "scalectl vm cdrom-edit g 0 --medium first.iso")
    sees("first")
    lab.fails(1, "scalectl medium delete first.iso --yes", 5, "in drive 0 of VM g")
    lab.run(1, "scalectl vm cdrom-edit g 0 --medium second.iso")
    sees("second")
    lab.run(1, "scalectl medium delete first.iso --yes")
    lab.fails(1, "scalectl medium show first.iso", 4, "no medium")
    lab.fails(1, "scalectl vm cdrom-add g", 5, "while it is off")
    lab.fails(1, "scalectl vm cdrom-edit g 7 --medium second.iso", 4, "no drive 7")
    lab.run(1, "scalectl vm cdrom-edit g 0 --medium ''")
    sees("none")
    no_medium_is_open()
    lab.run(1, "scalectl vm cdrom-edit g 0 --medium second.iso")
    sees("second")


def disks_are_imported():
    """From each form, the same bytes; what leads elsewhere, or is none, is refused."""
    raw = media.make_disk(lab, 1)
    want = media.digest(lab, 1, raw)
    forms = ("qcow2", "vmdk", "mono", "vhdx", "ova") if lab.all else ("ova",)
    for form in forms:
        lab.run(1, f"scalectl medium upload {media.as_image(lab, 1, form)}")
        assert medium(f"disk.{form}")["disk_bytes"] == 8 << 20, medium(f"disk.{form}")
        lab.fails(1, f"scalectl vm cdrom-edit g 0 --medium disk.{form}", 5, "image of a disk")
    lab.run(1, f"scalectl medium upload {raw}")
    for form in (*forms, "raw"):
        task = ask(lab, 2, f"vsd import from-{form} --medium disk.{form}")["task"]
        if task:
            lab.run(1, f"scalectl task wait {task}")
        lab.run(3, f"scalectl vsd open from-{form}")
        assert media.digest(lab, 3, vsd(f"from-{form}"), 8 << 20) == want, form
        lab.run(3, f"scalectl vsd close from-{form}")
        if form != "raw":
            lab.run(3, f"scalectl vsd delete from-{form} --yes")
        lab.run(1, f"scalectl medium delete disk.{form} --yes")
    # And back.
    lab.fails(2, "scalectl vsd export from-raw out.qcow2 --format vmdk", 2, "raw or qcow2")
    lab.run(2, "scalectl vsd export from-raw out.qcow2")
    lab.fails(2, "scalectl vsd export from-raw out.qcow2", 5, "exists")
    wait_until("it is exported", lambda: medium("out.qcow2")["state"] == "ready")
    lab.run(2, "scalectl medium download out.qcow2 /root/out.qcow2 && qemu-img convert -O raw /root/out.qcow2 /root/out.raw")
    assert media.digest(lab, 2, "/root/out.raw", 8 << 20) == want
    assert not ask(lab, 1, "snapshot list")["snapshots"], "what was taken for the export is left"
    lab.run(2, "scalectl medium delete out.qcow2 --yes && scalectl vsd delete from-raw --yes")
    for name, make, why in media.HOSTILE:
        lab.run(1, make.format(path=f"/root/{name}"))
        lab.fails(1, f"scalectl medium upload /root/{name}", 2, why)
        assert medium(name)["state"] == "refused"
        lab.fails(1, f"scalectl vsd import x --medium {name}", 5, "is refused")
        lab.run(1, f"scalectl medium delete {name} --yes")
    assert not [one for one in ask(lab, 1, "medium list")["media"] if one["format"] != "iso"]


def machine_comes_back():
    """Exported while it runs, imported, it goes on counting where the snapshot was."""
    lab.run(1, "scalectl vm snapshot g@x && scalectl vm export g@x /root/machine && scalectl vm forget g@x --yes")
    lab.fails(1, "scalectl vm export g@nothing /root/other", 4, "no such snapshot")
    lab.fails(1, "scalectl vm export g@x /root/machine", 2, "exists")
    was = BOOTS[0]
    lab.run(1, "scalectl vm import /root/machine back && scalectl vm edit back --nics ''")
    back = ask(lab, 1, "vm show back")
    assert [one["vsd"] for one in back["disks"]] == ["back-0", "back-1"] and len(back["cdroms"]) == 1, back
    assert back["uuid"] != state()["uuid"], "two machines with one UUID"
    begin("back", f"--node n{others(state()['node'])}")
    node = ask(lab, 1, "vm show back")["node"]
    wait_until("it boots", lambda: guest.sight(lab, node, vsd("back-1")).boot == was + 1)
    lab.run(1, "scalectl vm stop back")
    wait_until("its disks are closed", lambda: not ask(lab, 1, "vsd show back-1")["open"])
    lab.run(1, "scalectl vm delete back --yes")
    assert not ask(lab, 1, "medium list")["media"], "what was made for it is left"


def firmware_says(boots: int, resets: int, name: str = "u") -> int:
    """How often it has begun, and how often its TPM was; the node that runs it."""
    now = wait_until(f"{name} runs", lambda: (now := ask(lab, 1, f"vm show {name}"))["state"] == "running" and now)
    wait_until(f"its firmware has begun {boots} times, its TPM {resets}", lambda: lab.run(
        now["node"], f"dd if={vsd(name + '-uefi')} bs=1 skip={firmware.SAYS_AT} count=2 status=none | od -An -tu1"
    ).split() == [str(boots), str(resets)])
    return now["node"]


def is_told(node: int, words: str):
    """What cloud-init would find in the guest."""
    lab.run(node, f"test $(blkid -o value -s LABEL {vsd('u-seed')}) = cidata && grep -aq '#cloud-config {words}' {vsd('u-seed')}")


def is_closed(name: str):
    wait_until("all that it has is closed", lambda: not any(
        one["open"] for one in ask(lab, 1, "vsd list")["vsds"] if one["name"].startswith(f"{name}-")))


def machine_has_uefi():
    """A TPM and cloud-init, too, and a move to another node, which is none to its firmware."""
    for node in (1, 2, 3):
        code = firmware.build(REPO / "build/check/firmware.fd", int(lab.run(node, f"stat -c %s {firmware.CODE}")))
        lab.lab("put", node, code, "--to", firmware.CODE)
    lab.run(1, "echo '#cloud-config first' > user-data")
    lab.run(1, "scalectl vm clone g u --memory 64MiB --nics '' --firmware uefi --tpm on --user-data user-data")
    lab.fails(1, "scalectl vsd resize u-uefi 2MiB", 5, "size")
    was = others(state()["node"])
    begin("u", f"--node n{was}")
    lab.fails(1, "scalectl vm edit u --tpm off", 5, "while it is off")
    assert firmware_says(1, 1) == was
    assert not [one for one in ask(lab, was, "cluster status")["conditions"] if "VM u" in json.dumps(one)]
    is_told(was, "first")
    to = others(was, state()["node"])
    lab.run(1, f"scalectl vm migrate u --node n{to} || test $? = 7")
    wait_until("it has moved", lambda: ask(lab, 1, "vm show u")["state"] == "running")
    assert firmware_says(1, 1) == to
    wait_until("nothing of its TPM is left", lambda: not lab.run(was, "ls /run/scribe-tpm; pgrep swtpm || true").split())


def machine_keeps_what_it_knows():
    """QEMU is killed, it is stopped, changed and cloned: what its firmware and its TPM knew is there, or is another's."""
    node = ask(lab, 1, "vm show u")["node"]
    lab.run(node, "pkill -9 -f [g]uest=u,")
    firmware_says(2, 2)
    lab.run(1, "scalectl vm stop u && echo '#cloud-config second' > user-data")
    is_closed("u")
    lab.run(1, "scalectl vm edit u --user-data user-data && scalectl vm snapshot u@s")
    begin("u", f"--node n{others(ask(lab, 1, 'vm show g')['node'], node)}")
    is_told(firmware_says(3, 3), "second")
    lab.run(1, "scalectl vm stop u && scalectl vm clone u@s c")
    begin("c")
    firmware_says(3, 1, "c")
    lab.run(1, "scalectl vm stop c")
    is_closed("c")
    is_closed("u")
    lab.run(1, "scalectl vm delete c --yes && scalectl vm edit u --tpm off --firmware bios --user-data ''")
    assert not any(one["name"] in ("u-uefi", "u-tpm", "u-seed", "c-tpm") for one in ask(lab, 1, "vsd list")["vsds"])
    lab.run(1, "scalectl vm forget u@s --yes && scalectl vm delete u --yes")


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


def answers(node: int, via: str = "", seconds: int = 5) -> bool:
    """The guest does, to somebody on that node's LAN."""
    code, out = lab.ended(lab.start(node, f"{via}curl -sS -m {seconds} http://{guest.ADDRESS}/beat", stdout=subprocess.PIPE,
                                    stderr=subprocess.STDOUT))
    return code == 0 and f"boot {BOOTS[0]} " in out


def plugged(node: int, count: int):
    wait_until(f"its guest has {count} network interfaces", lambda: lab.run(
        node, "virsh domiflist g").count("52:54:00") == count)


def network_changes():
    """Its cable is pulled, it is put into a VLAN, it gets another interface, while it runs."""
    node = state()["node"]
    other = others(node)
    mac = state()["nics"][0]["mac"]
    lab.run(1, "scalectl vm nic-edit g 0 --cable out")
    wait_until("it cannot be reached", lambda: not answers(other))
    lab.run(1, "scalectl vm nic-edit g 0 --cable in --at vlan:7")
    lab.wait(other, "ip netns add far && ip link add far0 type veth peer name far1 netns far && ip link set far0 master "
                    "scribe-br7 up && ip -n far address add 10.11.0.60/24 dev far1 && ip -n far link set far1 up || "
                    "{ ip netns del far; false; }")
    wait_until("it is reached from another node in its VLAN", lambda: answers(other, "ip netns exec far "))
    assert not answers(other), "it is reached from outside of its VLAN"
    lab.run(other, "ip netns del far")
    lab.run(1, "scalectl vm nic-edit g 0 --at lan && scalectl vm nic-add g --at vlan:7 --mac 52:54:00:00:00:77")
    plugged(node, 2)
    lab.fails(1, "scalectl vm nic-add g --mac 52:54:00:00:00:77", 2, "have the MAC")
    lab.fails(1, "scalectl vm nic-edit g 7 --cable out", 4, "no network interface 7")
    lab.fails(1, "scalectl vm nic-edit g 0", 2, "what of it")
    lab.run(1, "scalectl vm nic-remove g 1")
    plugged(node, 1)
    for each in (node, other):
        wait_until("nothing of the VLAN is left", lambda: "scribe-br7" not in lab.run(each, "ip -br link"))  # pylint: disable=cell-var-from-loop
    assert state()["nics"] == [{"nic": 0, "bridge": "", "vlan": 0, "model": "virtio", "mac": mac, "connected": True}]
    beats()


def port_fails():
    """The other one is used, and that one again when it is back; the switches know at once where the guest is."""
    node = state()["node"]
    other = others(node)

    def condition() -> str:
        return str([one for one in ask(lab, node, "cluster status")["conditions"] if one["subject"] == "link lan0"])

    def at_once() -> bool:
        # Where no switch was told, the asker's own ARP finds it after some 15 s.
        return answers(other, seconds=12)

    def used(port: str) -> bool:
        return lab.run(node, "cat /sys/class/net/lan/bonding/active_slave /sys/class/net/scribe-lan/bonding/active_slave "
                             "2> /dev/null || true").split() == [port]
    wait_until("it answers", lambda: answers(other))
    lab.lab("net", node, "lan0", "down")
    wait_until("the other port is used", lambda: used("lan1"))
    assert at_once(), "it is not reached by the other port"
    wait_until("it is told of", lambda: "without a carrier" in condition())
    lab.lab("net", node, "lan0", "up")
    wait_until("the primary port is used again", lambda: used("lan0"))
    assert at_once(), "it is not reached by the primary port"
    assert "without a carrier" not in condition(), condition()


def snapshots():
    """All disks at one instant, while it runs; a clone of it runs beside it, with what it had by then."""
    taken = ask(lab, 1, "vm snapshot g@s")
    assert not taken["frozen"] and taken["why_not_frozen"] == "its guest has no agent", taken
    lab.fails(1, "scalectl vm snapshot g@s", 5, "is a snapshot system@s already")
    lab.fails(1, "scalectl vm snapshot g", 2, "no snapshot")
    lab.fails(1, "scalectl snapshot delete g-1@s --yes", 5, "part of one of a VM")
    lab.fails(1, "scalectl vm revert g@s --keep before --yes", 5, "stop it first")
    lab.fails(1, "scalectl vm revert g@nothing --keep before --yes", 4, "no such snapshot")
    document = json.loads((REPO / "Documentation/openapi.json").read_text(encoding="utf-8"))
    assert not (wrong := problems(document, answer_schema(document, "/vm_snapshot"), ask(lab, 1, "vm snapshots"))), wrong
    lab.run(1, "scalectl vm clone g copy --nics '' --template on")
    lab.fails(1, "scalectl vm start copy", 5, "is a template")
    lab.run(1, "scalectl vm edit copy --template off --nics lan")
    lab.fails(1, "scalectl vm clone g copy", 5, "exists")
    assert [one["name"] for one in ask(lab, 1, "vm snapshots")["snapshots"]] == ["s"], "what was taken for the clone is left"
    mac = ask(lab, 1, "vm show copy")["nics"][0]["mac"]
    assert mac != state()["nics"][0]["mac"], "two machines with one MAC"
    lab.run(1, "scalectl vm edit copy --nics ''")
    # Its guest goes on counting where the other was.
    begin("copy", "--node n3")
    wait_until("the clone boots", lambda: guest.sight(lab, 3, vsd("copy-1")).boot == BOOTS[0] + 1)
    beats()
    lab.run(1, "scalectl vm stop copy")
    wait_until("its disks are closed", lambda: not ask(lab, 1, "vsd show copy-1")["open"])
    lab.run(1, "scalectl vm delete copy --yes && scalectl vm forget g@s --yes")
    assert not ask(lab, 1, "vm snapshots")["snapshots"]


def is_at_rest():
    """Its agent sees to that for a snapshot; never for more than 10 s, whoever is lost, and never on another node."""
    lab.run(1, "echo '#cloud-config agent' > user-data")
    lab.run(1, "scalectl vm clone g f --memory 192MiB --nics '' --user-data user-data")
    node = others(state()["node"])
    asked = others(node, state()["node"])
    begin("f", f"--node n{node}")

    def rests(at: int, frozen: int, thawed: int):
        wait_until(f"its file systems were frozen {frozen} and thawed {thawed} times",
                   lambda: guest.sight(lab, at, vsd("f-1")).rests == (frozen, thawed))

    wait_until("its agent listens", lambda: "state='connected'" in lab.run(node, "virsh dumpxml f | grep guest_agent || true"))
    taken = ask(lab, asked, "vm snapshot f@s")
    assert taken["frozen"] and not taken["why_not_frozen"], taken
    rests(node, 1, 1)
    # Whoever asks for it is lost.
    lab.run(asked, """python3 -c "import json; me = json.load(open('/var/lib/scaled/node.json')); """
                   """[open('as-' + name, 'w').write(me[name]) for name in ('cert', 'key')]" """)
    said = json.dumps({"uuid": ask(lab, 1, "vm show f")["uuid"], "run": int(lab.run(
        node, "virsh dumpxml f | sed -n \"s/.*scribe:vm.* run=.\\([0-9]*\\).*/\\1/p\""))})
    freeze = f"curl -sk --fail --cert as-cert --key as-key -d '{said}' https://10.12.0.{node}:7421/peer/freeze"
    lab.run(asked, freeze)
    rests(node, 2, 2)
    # And its node's daemon.
    lab.run(asked, freeze)
    lab.run(node, "pkill -9 -x scaled")
    rests(node, 3, 3)
    wait_up(lab, asked, (1, 2, 3))
    # It waits with a move until it goes on.
    lab.run(asked, freeze)
    to = others(node, asked)
    lab.run(1, f"scalectl vm migrate f --node n{to} || test $? = 7")
    wait_until("it has moved", lambda: (now := ask(lab, 1, "vm show f"))["state"] == "running" and now["node"] == to)
    rests(to, 4, 4)
    lab.run(1, "scalectl vm stop f")
    is_closed("f")
    taken = ask(lab, 1, "vm snapshot f@off")
    assert not taken["frozen"] and not taken["why_not_frozen"], taken
    lab.run(1, "scalectl vm forget f@s --yes && scalectl vm forget f@off --yes && scalectl vm delete f --yes")


def snapshots_by_schedule():
    """Taken each minute, while it runs; the newest is kept."""
    def taken() -> list[str]:
        return [one["name"] for one in ask(lab, 1, "vm snapshots")["snapshots"]]
    lab.fails(1, "scalectl schedule create often --rule FREQ=MINUTELY", 2, "one at least")
    lab.fails(1, "scalectl schedule create often --vms x --rule FREQ=MINUTELY", 4, "no VM named x")
    made = ask(lab, 1, "schedule create often --vms g --rule FREQ=MINUTELY --keep 1")
    document = json.loads((REPO / "Documentation/openapi.json").read_text(encoding="utf-8"))
    assert made["vms"] == ["g"] and not (wrong := problems(document, answer_schema(document, "/schedule/{name}"), made)), wrong
    first = wait_until("the first is taken", taken)
    wait_until("the next is kept instead", lambda: len(taken()) == 1 and taken() != first)
    assert ask(lab, 1, "schedule show often")["snapshots"] == 1
    lab.run(1, "scalectl schedule delete often")
    for name in taken():
        lab.run(1, f"scalectl vm forget g@{name} --yes")
    beats()


def others(*nodes: int) -> int:
    """A node that is none of these."""
    return next(node for node in (1, 2, 3) if node not in nodes)


def gone_from(node: int):
    """Nothing of the guest is left there."""
    wait_until(f"nothing of it is on node {node}", lambda: "g" not in lab.run(
        node, "virsh list --all --name").split() and f"n{node}" not in str(
            [ask(lab, ASKED[0], f"vsd show {one}")["open"] for one in ("system", "g-1")]))


def go(asked: int, to: int):
    lab.run(asked, f"scalectl vm migrate g --node n{to} --no-wait")
    now = wait_until(f"it is on node {to}", lambda: (now := state())["state"] == "running" and now)
    assert now["node"] == to and now["to_node"] == 0, now


def moves():
    """Back and forth, under its own load; each time it is on one node alone, and has not booted."""
    for _ in range(2 if lab.all else 1):
        before, was = sight(), state()["node"]
        to = others(was)
        go(others(was, to), to)
        gone_from(was)
        beats()
        after = sight()
        assert after.beat > before.beat and after.rounds > before.rounds and after.cd == before.cd, (before, after)
        print(f"# it stood still for {wait_until('its pause is told', lambda: state()['paused_ms'])} ms", flush=True)
    lab.fails(1, f"scalectl vm migrate g --node n{to}", 5, "runs on that node")
    lab.fails(1, "scalectl vm migrate g --node n9", 4, "no node")
    lab.fails(1, "scalectl vm migrate g --cancel --no-wait", 2, "no other option")
    lab.fails(1, "scalectl vm migrate g --cancel", 5, "does not move")


def slowly() -> tuple[int, int]:
    """It is on its way, which takes long: from where and to where."""
    was = state()["node"]
    to = others(was, ASKED[0])
    lab.run(was, "virsh migrate-setspeed g 1")
    lab.run(ASKED[0], f"scalectl vm migrate g --node n{to} --no-wait")
    now = wait_until("it is on its way", lambda: (now := state()).get("moved_bytes", 0) > 1 << 20 and now)
    assert now["state"] == "migrating" and now["to_node"] == to and now["node"] == was, now
    return was, to


def stays(was: int, to: int):
    wait_until("it does not move any more", lambda: state()["state"] == "running")
    assert state()["node"] == was and state()["to_node"] == 0, state()
    gone_from(to)
    beats()


def carrier_dies(side: int, unit: str):
    ends = slowly()
    lab.run(ends[side], f"systemctl kill -s KILL {unit}")
    lab.wait(ends[side], f"systemctl is-active {unit} || systemctl is-active {unit}.socket")
    stays(*ends)


def move_fails():
    """Cancelled, or whoever carries it is killed on either side: it goes on where it was."""
    was, to = slowly()
    lab.fails(1, f"scalectl vm migrate g --node n{to}", 5, "already")
    lab.fails(1, "scalectl vsd close g-1 --node n{to}".format(to=to), 5, "moves there")
    lab.run(1, "scalectl vm migrate g --cancel")
    stays(was, to)
    for side, unit in ((0, "scaled"), (1, "libvirtd")):
        carrier_dies(side, unit)
    failed = [one for one in ask(lab, 1, "task list")["tasks"] if one["what"] == "vm move" and one["state"] == "failed"]
    assert len(failed) == 3 and "cancelled" in failed[0]["why"], failed


def move_fails_otherwise():
    for side, unit in ((1, "scaled"), (0, "libvirtd")):
        carrier_dies(side, unit)
    was, to = slowly()
    lab.kill(to)
    wait_until("it stays", lambda: state()["to_node"] == 0)
    assert state()["node"] == was
    beats()
    lab.lab("start", to)
    wait_up(lab, ASKED[0], (1, 2, 3))
    make_ready(to)
    gone_from(to)


def moves_often():
    """Twenty times, from one to the next."""
    before = sight()
    for turn in range(20):
        was = state()["node"]
        go(ASKED[0], others(was) if turn % 2 else was % 3 + 1)
        gone_from(was)
        beats()
    print(f"# {sight().beat - before.beat} beats, {sight().rounds - before.rounds} rounds of noise", flush=True)


def qemu_dies_on_its_way():
    was, to = slowly()
    lab.run(was, "pkill -KILL qemu-system")
    beats(1)
    assert state()["to_node"] == 0
    for node in {was, to} - {state()["node"]}:
        gone_from(node)


def daemon_dies():
    node = state()["node"]
    lab.run(node, "systemctl kill -s KILL scaled")
    lab.wait(node, "systemctl is-active scaled")
    beats()
    assert state()["state"] == "running"


def qemu_dies():
    lab.run(state()["node"], "pkill -KILL qemu-system")
    beats(1)


def drains(node: int) -> str:
    return next(one["drain"] for one in ask(lab, ASKED[0], "node list")["nodes"] if one["id"] == node)


def node_is_shut_down():
    """Its guest moves away before, and may come back after that."""
    node = state()["node"]
    ASKED[0] = others(node)
    lab.lab("reboot", node)
    beats()
    assert state()["node"] != node, "it came back to the node that was shut down"
    wait_up(lab, ASKED[0], (1, 2, 3))
    make_ready(node)
    wait_until("it may run guests again", lambda: drains(node) == "")
    ASKED[0] = 1


def node_is_shut_down_alone():
    """There is no room elsewhere: the guest powers off before its disks go, and begins anew when there is."""
    node = state()["node"]
    ASKED[0] = others(node)
    rest = [other for other in (1, 2, 3) if other != node]
    for other in rest:
        lab.run(ASKED[0], f"scalectl node drain --node n{other}")
        assert drains(other) == "on"
    said = lab.run(ASKED[0], f"scalectl node drain --node n{node}")
    assert "VM g stays" in said and "is drained" in said, said
    lab.fails(ASKED[0], f"scalectl vm migrate g --node n{rest[0]}", 1, "is drained")
    lab.run(ASKED[0], f"scalectl node drain --node n{rest[0]} --cancel")
    wait_until("it moves where there is room", lambda: state()["node"] == rest[0])
    beats()
    lab.run(ASKED[0], f"scalectl node drain --node n{node} --cancel")
    go(ASKED[0], node)
    lab.run(ASKED[0], f"scalectl node drain --node n{rest[0]}")
    lab.run(node, "systemctl unmask libvirt-guests && systemctl start libvirt-guests")
    lab.lab("reboot", node)
    lab.run(ASKED[0], f"scalectl node drain --cancel --node n{rest[0]}")
    beats(1)
    lab.run(ASKED[0], f"scalectl node drain --cancel --node n{rest[1]}")
    wait_up(lab, ASKED[0], (1, 2, 3))
    make_ready(node)
    ASKED[0] = 1


def node_dies():
    before = sight()
    victim = state()["node"]
    ASKED[0] = others(victim)
    _, to = slowly()
    lab.kill(victim)
    cut = time.monotonic()
    wait_until("it begins anew elsewhere", lambda: state()["node"] not in (0, victim))
    assert state()["node"] == to, state()
    print(f"# begun anew {time.monotonic() - cut:.0f} s after the cut, with {before.beat} beats before", flush=True)
    beats(1)
    print(f"# it beats {time.monotonic() - cut:.0f} s after the cut", flush=True)
    lab.lab("start", victim)
    wait_up(lab, ASKED[0], (1, 2, 3))
    make_ready(victim)
    assert "g" not in lab.run(victim, "virsh list --name").split()
    beats()
    ASKED[0] = 1


def cut_off():
    """Its guest is held before another begins anew: it never runs twice."""
    victim = state()["node"]
    others = [node for node in (1, 2, 3) if node != victim]
    ASKED[0] = others[0]
    lab.lab("partition", f"{victim}|{others[0]},{others[1]}")
    lab.wait(victim, "virsh domstate g | grep -q paused")
    assert state()["node"] == victim, "it was begun anew before its guest was held"
    wait_until("it begins anew elsewhere", lambda: state()["node"] not in (0, victim))
    assert "paused" in lab.run(victim, "virsh domstate g"), "two of it run"
    beats(1)
    lab.lab("heal")
    wait_until("the node that was cut off comes back with a new life", lambda: "g" not in lab.run(
        victim, "test -e /run/libvirt/libvirt-sock && virsh list --all --name").split())
    wait_up(lab, ASKED[0], (1, 2, 3))
    make_ready(victim)
    beats()
    ASKED[0] = 1


def three_begin_anew():
    """Three guests' node loses power: the most important ones begin first."""
    home = state()["node"]
    ASKED[0] = others(home)
    clones = {"low": 1, "high": 9}
    for name, priority in clones.items():
        lab.run(1, f"scalectl vm clone g {name} --nics '' --priority {priority}")
        begin(name, f"--node n{home}")
        wait_until("the clone boots", lambda: guest.sight(lab, home, vsd(f"{name}-1")).boot == BOOTS[0] + 1)  # pylint: disable=cell-var-from-loop
    last = ask(lab, ASKED[0], "event list --limit 1")["events"][0]["id"]
    lab.kill(home)
    cut = time.monotonic()
    at = {name: wait_until(f"{name} begins anew elsewhere", lambda: (  # pylint: disable=cell-var-from-loop
        node := ask(lab, ASKED[0], f"vm show {name}")["node"]) != home and node) for name in ("g", *clones)}  # pylint: disable=cell-var-from-loop
    order = [one["about"] for one in ask(lab, ASKED[0], "event list")["events"]
             if one["id"] > last and one["what"] == "vm begins anew"]
    assert order[::-1] == ["VM high", "VM g", "VM low"], order
    beats(1)
    for name in clones:
        wait_until(f"{name} boots", lambda: guest.sight(lab, at[name], vsd(f"{name}-1")).boot == BOOTS[0] + 1)  # pylint: disable=cell-var-from-loop
    print(f"# three beat {time.monotonic() - cut:.0f} s after the cut", flush=True)
    lab.lab("start", home)
    wait_up(lab, ASKED[0], (1, 2, 3))
    make_ready(home)
    for name in clones:
        lab.run(ASKED[0], f"scalectl vm stop {name}")
        wait_until("its disks are closed", lambda: not ask(lab, ASKED[0], f"vsd show {name}-1")["open"])  # pylint: disable=cell-var-from-loop
        lab.run(ASKED[0], f"scalectl vm delete {name} --yes")
    ASKED[0] = 1


def cold_start():
    """All nodes lose power, and come back in an order of their own: nobody has to do anything."""
    for node in (1, 2, 3):
        lab.kill(node)
    for node in (3, 1, 2):
        lab.lab("start", node)
    for node in (1, 2, 3):
        make_ready(node)
    wait_up(lab, 1, (1, 2, 3))
    wait_until("it runs", lambda: state()["state"] == "running")
    beats(1)


def headroom():
    """Were its node lost there would be room; not for a second one that needs what all but one have."""
    def conditions() -> str:
        return str(ask(lab, leader(lab, 1), "cluster status")["conditions"])
    assert "headroom" not in conditions()
    least = 400
    for name in ("x", "y", "z"):
        lab.run(1, f"scalectl vm create {name} --memory {least}MiB")
        code, _ = lab.ended(lab.start(1, f"scalectl vm start {name} --no-wait", stdout=subprocess.DEVNULL,
                                      stderr=subprocess.DEVNULL))
        assert code in (0, 1)
    wait_until("there is no headroom", lambda: "would be no room for" in conditions())
    for name in ("x", "y", "z"):
        # The one that found no room is off already.
        lab.ended(lab.start(1, f"scalectl vm stop {name}", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        wait_until("it is off", lambda: ask(lab, 1, f"vm show {name}")["state"] == "off")  # pylint: disable=cell-var-from-loop
        lab.run(1, f"scalectl vm delete {name} --yes")
    wait_until("there is again", lambda: "headroom" not in conditions())


def memory_grows():
    """Plugged in, it is there where the guest goes."""
    for size, code, text in (("100MiB", 5, "less while it is off"), ("200MiB", 2, "steps of 128 MiB"), ("640MiB", 2, "most memory"),
                             ("512MiB", 1, "MiB of memory left")):
        lab.fails(1, f"scalectl vm edit g --memory {size}", code, text)
    has, was = sight().memory_kib, state()["node"]
    lab.run(1, "scalectl vm edit g --memory 256MiB")
    wait_until("its guest has that", lambda: sight().memory_kib > has + (100 << 10))
    beats()
    go(was, others(was))
    gone_from(was)
    beats()
    assert sight().memory_kib > has + (100 << 10) and state()["memory_mib"] == 256, (sight(), state())


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
    lab.case("its disk grows while it runs, and the guest sees that", disk_grows, turn=1)
    lab.case("another disk is plugged in while it runs, limited, and taken out", disks_change, turn=3)
    lab.case("its network changes while it runs: cable, VLAN, another interface", network_changes, slow=True)
    lab.case("a port of its node's LAN fails, and comes back: it is reached by the other one, then by that", port_fails, turn=3)
    lab.case("somebody pauses it behind our back: it goes on", strangers_hand, slow=True)
    lab.case("it is kept as it is, and cloned, while it runs", snapshots, turn=4)
    lab.case("its file systems are at rest in a snapshot, and go on whatever is lost", is_at_rest, turn=0)
    lab.case("a schedule has it kept each minute, and keeps the newest", snapshots_by_schedule, slow=True)
    lab.case("a CD's image is uploaded, from two nodes in turn, and is what it was", media_come, turn=5)
    lab.case("it is in the guest's drive, is taken out, and exchanged", media_are_in_drives, turn=5)
    lab.case("disks are made of images of all kinds; hostile ones are refused", disks_are_imported, turn=1)
    lab.case("it is exported while it runs, and comes back as another machine", machine_comes_back, slow=True)
    lab.case("another machine has UEFI, a TPM and cloud-init, and moves", machine_has_uefi, slow=True)
    lab.case("what its firmware and its TPM know is kept; a clone has a TPM of its own", machine_keeps_what_it_knows, slow=True)
    lab.case("it moves to other nodes while it runs, and writes", moves)
    lab.case("it is on its way when that is cancelled, or fails: it goes on where it was", move_fails, turn=6)
    lab.case("it is on its way when whoever carries it is killed at the other end, or all of that: it goes on",
             move_fails_otherwise, slow=True)
    lab.case("it is on its way when QEMU is killed: it begins anew, once", qemu_dies_on_its_way, slow=True)
    lab.case("it moves twenty times, and writes", moves_often, slow=True)
    lab.case("its node's daemon is killed: it does not notice", daemon_dies, turn=2)
    lab.case("QEMU is killed: it begins anew", qemu_dies, turn=2)
    lab.case("its node is shut down: it moves away before", node_is_shut_down, slow=True)
    lab.case("its node is shut down, and there is no room elsewhere: it powers off, and begins anew",
             node_is_shut_down_alone, slow=True)
    lab.case("its node's power is cut while it leaves that: it begins anew elsewhere, and its node comes back without it", node_dies, turn=7)
    lab.case("its node is cut off: it is held there, and begins anew elsewhere", cut_off, turn=6)
    lab.case("the power of three guests' node is cut: they begin anew, the most important first", three_begin_anew, turn=3)
    lab.case("all nodes lose power: it begins anew without a hand", cold_start, turn=0)
    lab.case("a node whose guests would fit nowhere else is told of", headroom, slow=True)
    lab.case("more memory is plugged in while it runs, and moves with it", memory_grows, turn=4)
    lab.case("its guest powers off when asked; exported and imported it is the same; it is cut off when told, and goes "
             "with its disks", ends)
    lab.finish((1, 2, 3))


if __name__ == "__main__":
    sys.exit(main())
