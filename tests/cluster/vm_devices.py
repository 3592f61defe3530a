# SPDX-License-Identifier: GPL-2.0
"""Cases of vms.py: what a running guest has, and what comes and goes: disks, media, network interfaces, memory."""

import json
import subprocess

import guest
import media
from labtest import REPO
from openapi import answer_schema, problems
from scribe_cluster import ask, vsd, wait_until
from the_guest import beats, BOOTS, go, gone_from, lab, no_medium_is_open, others, sight, state


def disk_grows():
    lab.run(1, "scalectl vsd resize g-1 96MiB")
    wait_until("the guest sees it", lambda: sight().sectors == 96 << 11)
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
    # Over ssh it is root who had logged in; without PAM nobody had.
    people = ("root at n1", "administrator at n1")
    assert said[0] == ("vm disk is gone", f"node n{node}") and said[1][0] == "vm disk-remove" and said[1][1] in people, said
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


def memory_grows():
    """Plugged in, it is there where the guest goes."""
    for size, code, text in (("100MiB", 5, "less while it is off"), ("200MiB", 2, "steps of 128 MiB"), ("640MiB", 2, "most memory"),
                             ("512MiB", 1, "MiB of memory left")):
        lab.fails(1, f"scalectl vm edit g --memory {size}", code, text)
    has, was = sight().memory_kib, state()["node"]
    # The daemon that is to plug it in is killed, before or behind that: another adds what is missing then, and no more.
    lab.run(was, "scalectl vm edit g --memory 256MiB > /dev/null 2>&1 & sleep 1; systemctl kill -s KILL scaled; wait; true")
    lab.wait(was, "scalectl vm edit g --memory 256MiB")
    wait_until("its guest has that", lambda: sight().memory_kib > has + (100 << 10))
    beats()
    assert lab.run(was, "virsh dumpxml g | grep -c '<memory model='").strip() == "1", "it was plugged in twice"
    go(was, others(was))
    gone_from(was)
    beats()
    assert sight().memory_kib > has + (100 << 10) and state()["memory_mib"] == 256, (sight(), state())
