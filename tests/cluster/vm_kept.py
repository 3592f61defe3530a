# SPDX-License-Identifier: GPL-2.0
"""Cases of vms.py: what is kept of a machine: snapshots, exports, what its firmware and its TPM know."""

import json

import firmware
import guest
from labtest import REPO
from openapi import answer_schema, problems
from scribe_cluster import ask, vsd, wait_until, wait_up
from the_guest import beats, begin, BOOTS, is_closed, lab, others, state


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
    lab.fails(1, "scalectl vm edit u --tpm off --yes", 5, "while it is off")
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
    lab.fails(1, "scalectl vm edit u --tpm off", 2, "say --yes")
    lab.run(1, "scalectl vm delete c --yes && scalectl vm edit u --tpm off --firmware bios --user-data '' --yes")
    assert not any(one["name"] in ("u-uefi", "u-tpm", "u-seed", "c-tpm") for one in ask(lab, 1, "vsd list")["vsds"])
    lab.run(1, "scalectl vm forget u@s --yes && scalectl vm delete u --yes")


def snapshots():
    """All disks at one instant, while it runs; a clone of it runs beside it, with what it had by then."""
    taken = ask(lab, 1, "vm snapshot g@s")
    assert not taken["frozen"] and taken["why_not_frozen"] == "its guest has no agent", taken
    assert [one["at_rest"] for one in taken["snapshots"] if one["name"] == "s"] == [False], taken
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

    def kept(of: str, name: str) -> bool:
        return next(one["at_rest"] for one in ask(lab, asked, "vm snapshots")["snapshots"]
                    if (one["vm"], one["name"]) == (of, name))

    def rests(at: int, frozen: int, thawed: int):
        wait_until(f"its file systems were frozen {frozen} and thawed {thawed} times",
                   lambda: guest.sight(lab, at, vsd("f-1")).rests == (frozen, thawed))

    wait_until("its agent listens", lambda: "state='connected'" in lab.run(node, "virsh dumpxml f | grep guest_agent || true"))
    taken = ask(lab, asked, "vm snapshot f@s")
    assert taken["frozen"] and not taken["why_not_frozen"] and kept("f", "s"), taken
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
    taken = ask(lab, asked, "vm snapshot f@off")
    assert not taken["frozen"] and not taken["why_not_frozen"] and kept("f", "off"), taken
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
