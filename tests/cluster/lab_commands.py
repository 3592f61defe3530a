#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""The lab's own promises: other tests rest on them."""

import subprocess
import tempfile
import time
from pathlib import Path

from labtest import LAB, Lab
from three_nodes import device

PATTERN = "head -c 1048576 /dev/zero | tr '\\0' 'x'"


def exec_passes_through(lab: Lab):
    done = lab.lab("exec", 1, "--", "sh", "-c", "echo out; echo err >&2; exit 7", check=False, capture_output=True)
    assert done.returncode == 7, done.returncode
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n"), done
    done = lab.lab("exec", 1, "--", "printf", "%s|", "a b", "$HOME", "'", check=False, capture_output=True)
    assert done.stdout == b"a b|$HOME|'|", done.stdout


def files_come_back(lab: Lab):
    with tempfile.TemporaryDirectory() as temp:
        source = Path(temp, "data")
        source.write_bytes(bytes(range(256)) * 100)
        lab.lab("put", 1, source, "--to", "/root/copy")
        lab.lab("get", 1, "/root/copy", "--to", temp)
        assert Path(temp, "copy").read_bytes() == source.read_bytes()


def machine_is_as_promised(lab: Lab):
    out = lab.run(1, "lsblk -dno SERIAL,ROTA | grep n1- | sort")
    assert out.split() == ["n1-hdd0", "1", "n1-hdd1", "1", "n1-ssd0", "0"], out
    lab.run(1, "for n in lan0 lan1 bp0 bp1; do ip link show $n || exit 1; done; test -c /dev/watchdog")


def content_after_power_cut(lab: Lab, keep: int) -> list[str]:
    """Flushed x, then unflushed y on the whole MiB, then a power cut: how many of each are there?"""
    disk = device(2, "ssd0")
    lab.run(2, f"{PATTERN} | dd of={disk} bs=1M iflag=fullblock oflag=direct conv=fsync status=none")
    lab.run(2, f"{PATTERN} | tr x y | dd of={disk} bs=1M iflag=fullblock oflag=direct status=none")
    assert lab.run(2, f"dd if={disk} bs=1 count=1 iflag=fullblock status=none") == "y"
    lab.kill(2, keep)
    done = lab.lab("exec", 2, "--", "true", check=False, capture_output=True)
    assert done.returncode == 1 and b"n2 is off" in done.stderr, done
    lab.lab("start", 2)
    lab.wait(2, f"test -b {disk}")
    return lab.run(2, f"dd if={disk} bs=1M count=1 iflag=fullblock status=none | fold -w1 | sort | uniq -c").split()


def power_cut_loses_the_cache(lab: Lab):
    content = content_after_power_cut(lab, 0)
    assert content == ["1048576", "x"], content


def power_cut_keeps_a_part(lab: Lab):
    content = content_after_power_cut(lab, 50)
    assert content[1::2] == ["x", "y"] and sum(map(int, content[::2])) == 1048576, content


def partition_and_heal(lab: Lab):
    lab.wait(1, "ping -c1 -W1 10.12.0.2 && ping -c1 -W1 10.11.0.2")
    lab.lab("partition", "1|2")
    lab.wait(1, "! ping -c1 -W1 10.12.0.2 && ! ping -c1 -W1 10.11.0.2")
    lab.lab("heal")
    lab.wait(1, "ping -c1 -W2 10.12.0.2")


def links(lab: Lab):
    lab.lab("net", 1, "bp0", "down")
    lab.wait(1, "test $(cat /sys/class/net/bp0/carrier) = 0")
    lab.wait(1, "ping -c1 -W2 10.12.0.2")
    lab.lab("net", 1, "bp0", "up")
    lab.wait(1, "test $(cat /sys/class/net/bp0/carrier) = 1")


def disk_faults(lab: Lab):
    pulled = device(1, "hdd1")
    read = f"dd if={device(1, 'hdd0')} of=/dev/null bs=4k count=1 iflag=direct status=none"
    lab.run(1, read)
    lab.lab("disk", 1, "hdd0", "fail")
    lab.run(1, f"! {read}")
    lab.lab("disk", 1, "hdd0", "ok")
    lab.run(1, read)
    lab.lab("disk", 1, "hdd1", "pull")
    lab.wait(1, f"! test -b {pulled}")
    lab.lab("disk", 1, "hdd1", "add")
    lab.wait(1, f"test -b {pulled}")


def disk_hangs(lab: Lab):
    read = f"dd if={device(1, 'hdd0')} of=/dev/null bs=4k count=1 iflag=direct status=none && echo came"
    lab.run(1, read)
    lab.lab("disk", 1, "hdd0", "hang")
    waiting = lab.start(1, read, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    lab.wait(1, "cat /sys/block/sd*/inflight | grep -q [1-9]")
    assert waiting.poll() is None, "a disk that hangs has answered"
    lab.lab("disk", 1, "hdd0", "ok")
    code, out = lab.ended(waiting)
    assert code == 0 and "came" in out, out


def pause(lab: Lab):
    """Stopped, nothing runs; afterwards the clock that leases are counted with has gone on."""
    uptime = "cut -d. -f1 /proc/uptime"
    before, real = int(lab.run(1, uptime)), time.monotonic()
    lab.lab("pause", 1)
    lab.run(2, "! ping -c2 -W2 10.12.0.1")
    lab.lab("resume", 1)
    lab.wait(2, "ping -c1 -W2 10.12.0.1")
    passed = int(lab.run(1, uptime)) - before
    assert passed >= time.monotonic() - real - 3, f"its clock stood still: {passed} s"


def reboot(lab: Lab):
    lab.run(1, "touch /run/before")
    lab.lab("reboot", 1)
    lab.run(1, "! test -e /run/before")


def bad_input(lab: Lab):
    for words in (["up", "--name", "Bad Name"], ["up", "--nodes", "9"], ["exec", "--name", lab.name, "7", "--", "true"],
                  ["net", "--name", lab.name, "1", "eth7", "up"], ["net", "--name", lab.name, "1", "bp0", "delay"],
                  ["disk", "--name", lab.name, "1", "nothing", "fail"], ["disk", "--name", lab.name, "1", "hdd0", "slow"],
                  ["partition", "--name", lab.name, "1,2|2"], ["nonsense"], []):
        done = subprocess.run([str(LAB), *words], capture_output=True, check=False)
        assert done.returncode == 2 and done.stderr, f"lab {words}: {done}"
    done = subprocess.run([str(LAB), "status", "--name", "nolab"], capture_output=True, check=False)
    assert done.returncode == 1 and b"no lab named" in done.stderr, done


def owner_ends():
    """A lab goes away with the process that owns it."""
    owner = subprocess.Popen(["sleep", "1000"])
    name = f"orphan-{owner.pid}"
    subprocess.run([str(LAB), "up", "--name", name, "--nodes", "1", "--owner", str(owner.pid)], check=True,
                   stdin=subprocess.DEVNULL)
    owner.kill()
    owner.wait()
    for _ in range(100):
        found = subprocess.run(["pgrep", "-f", f"/{name}/|{name}-n1"], capture_output=True, check=False).stdout
        left = subprocess.run([str(LAB), "status", "--all"], capture_output=True, text=True, check=True).stdout
        if not found and name not in left.split():
            return
        subprocess.run(["sleep", "0.2"], check=True)
    raise AssertionError(f"left behind: {found} {left}")


def main():
    lab = Lab("labtest", 2)
    lab.case("exec passes exit code, output and words through", exec_passes_through, lab)
    lab.case("put and get bring a file back", files_come_back, lab)
    lab.case("a node has its disks with rotational flags, four links and a watchdog", machine_is_as_promised, lab)
    lab.case("a power cut loses what was not flushed and keeps what was", power_cut_loses_the_cache, lab)
    lab.case("with --keep, the drives had written some of it and not the rest", power_cut_keeps_a_part, lab)
    lab.case("a partition cuts both networks and heals", partition_and_heal, lab)
    lab.case("a link that is down loses its carrier, and the bond goes on", links, lab)
    lab.case("a disk fails, works again, is pulled and put back", disk_faults, lab)
    lab.case("a disk hangs, and goes on where it was", disk_hangs, lab)
    lab.case("a machine is paused, and its clock goes on", pause, lab)
    lab.case("a reboot is a new boot", reboot, lab)
    lab.case("bad input is refused with exit code 2", bad_input, lab)
    lab.case("a lab ends with its owner", owner_ends)
    lab.finish((1, 2))


main()
