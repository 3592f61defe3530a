# SPDX-License-Identifier: GPL-2.0
"""Cases of vms.py: the guest moves to other nodes while it runs."""

from scribe_cluster import ask, wait_until, wait_up
from the_guest import ASKED, beats, go, gone_from, lab, make_ready, others, sight, state


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
