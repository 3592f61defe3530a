# SPDX-License-Identifier: GPL-2.0
"""Cases of vms.py: what breaks under the guest."""

import subprocess
import time

import guest
from scribe_cluster import ask, leader, vsd, wait_until, wait_up
from the_guest import ASKED, beats, begin, BOOTS, go, lab, make_ready, others, sight, state
from vm_moves import slowly


def strangers_hand():
    """Somebody else pauses or resumes it, on its node."""
    lab.run(state()["node"], "virsh suspend g")
    beats()


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
