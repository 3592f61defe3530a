# SPDX-License-Identifier: GPL-2.0
"""The VM "g" of vms.py and its guest: what all of its cases ask of them. Importing it boots the nodes."""

import guest
from labtest import Lab
from scribe_cluster import ask, vsd, wait_until

lab = Lab("vms", 3, debs=True)

# With guests in them, nodes that are emulated by a slow machine stand still for longer than the other labs' 15 s.
GUESTS_LEASE_SECONDS = 45

ASKED = [1]  # a node that is up
BOOTS = [0]  # how often the guest has booted


def make_ready(node: int):
    """What a machine of its own has after it has booted: KVM, which udev sees to."""
    lab.wait(node, "test -e /run/libvirt/libvirt-sock")
    lab.run(node, "modprobe -a kvm_amd tun vhost_net")


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


def is_closed(name: str):
    wait_until("all that it has is closed", lambda: not any(
        one["open"] for one in ask(lab, 1, "vsd list")["vsds"] if one["name"].startswith(f"{name}-")))


def no_medium_is_open():
    wait_until("nothing of media is open anywhere", lambda: not any(
        "medium" in lab.run(node, "ls /dev/mapper") for node in (1, 2, 3)))
