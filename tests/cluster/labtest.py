# SPDX-License-Identifier: GPL-2.0
"""A test on a lab of its own: TAP lines, fault verbs, and a lab that ends with the test."""

import functools
import os
import shlex
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LAB = REPO / "scripts/lab/lab"
WAIT_SECONDS = 300
RUN_SECONDS = 450  # of one command; the longest takes a tenth of that on an idle machine
DESCRIBE_SECONDS = 60

# What a node can tell of itself when a case has failed; each may hang by itself.
DESCRIBE = """
date; uptime
timeout 10 scalectl node list; timeout 10 scalectl disk list; timeout 10 scalectl vsd list
timeout 10 dmsetup status --target scribe
ps -eLo pid,stat,wchan:24,comm | grep ' D' && for task in $(ps -eLo tid,stat | awk '$2 ~ /^D/ {print $1}'); do
  echo "== task $task"; cat /proc/$task/stack; done
for file in $(ls /sys/kernel/debug/scribe/* 2>/dev/null); do test -f $file && { echo "== $file"; timeout 10 cat $file; }; done
echo "== scaled"; journalctl -b -u scaled -n 150 --no-pager
echo "== etcd"; journalctl -b -u scaled-etcd -n 30 --no-pager
echo "== kernel"; dmesg | tail -n 80
"""


TURNS = 8


@functools.cache
def whose_turn() -> int:
    """Which of the cases that take turns run: another eighth of them with another commit, the same with the same one."""
    if "SCRIBE_TURN" in os.environ:
        return int(os.environ["SCRIBE_TURN"])
    head = subprocess.run(["git", "-C", REPO, "rev-parse", "HEAD"], check=False, stdout=subprocess.PIPE, text=True).stdout
    return int(head[:8] or "0", 16) % TURNS


class Lab:
    def __init__(self, name: str, nodes: int, kernel: str = "6.1", disk_mib: int = 2048, debs: bool = False,
                 cpus: int = 0, count: bool = False):
        self.name, self.nodes = f"{name}-{os.getpid()}", nodes
        self.count, self.failures = 0, 0
        self.words: list[str] = []
        self.all = False
        words: list = []
        if debs:
            subprocess.run([REPO / "scripts/build-debs"], check=True, stdout=subprocess.DEVNULL)
            words = ["--debs", REPO / "build/debs"]
        words += ["--count"] * count
        self.lab("up", "--nodes", nodes, "--kernel", kernel, "--disk-mib", disk_mib, "--owner", os.getpid(), "--cpus", cpus,
                 *words)

    def lab(self, verb, *words, check=True, **kwargs):
        argv = [str(w) for w in (LAB, verb, "--name", self.name, *words)]
        return subprocess.run(argv, check=check, stdin=subprocess.DEVNULL, **kwargs)

    def start(self, node: int, command: str, **kwargs) -> subprocess.Popen:
        """A shell command on a node, in the background."""
        argv = [str(LAB), "exec", "--name", self.name, str(node), "--", "sh", "-c", command]
        return subprocess.Popen(argv, stdin=subprocess.DEVNULL, text=True, **kwargs)

    def run(self, node: int, command: str) -> str:
        """A shell command on a node; its output. Raises with what it said where it fails."""
        code, out = self.ended(self.start(node, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        if code:
            raise AssertionError(f"n{node}: {command}: exit code {code}\n{out}")
        return out

    @staticmethod
    def ended(process: subprocess.Popen) -> tuple[int, str]:
        """Its exit code and output; a command that hangs is ended, and has failed."""
        try:
            out, _ = process.communicate(timeout=RUN_SECONDS)
            return process.returncode, out
        except subprocess.TimeoutExpired:
            process.kill()
            out, _ = process.communicate()
            raise AssertionError(f"{shlex.join(process.args[5:])}: no end after {RUN_SECONDS} s; it said: {out}") from None

    @staticmethod
    def line(process: subprocess.Popen) -> str:
        """Its next line; an empty one where it ended, or hangs and was ended."""
        timer = threading.Timer(RUN_SECONDS, process.kill)
        timer.start()
        try:
            return process.stdout.readline()
        finally:
            timer.cancel()

    def wait(self, node: int, command: str):
        deadline = time.monotonic() + WAIT_SECONDS
        while True:
            try:
                return self.run(node, command)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)

    def fails(self, node: int, command: str, code: int, text: str = ""):
        """A command that must fail with this exit code and say this."""
        got, out = self.ended(self.start(node, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT))
        assert got == code and text in out, f"n{node}: {command}: exit code {got}\n{out}"

    def kill(self, node: int, keep: int = 0):
        self.lab("kill", node, "--keep", keep)

    def describe(self):
        """What each node tells of itself, to build/check/LAB-CASE-NODE.log."""
        for node in range(1, self.nodes + 1):
            path = REPO / f"build/check/{self.name}-{self.count}-n{node}.log"
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("w", encoding="utf-8") as log:
                process = self.start(node, DESCRIBE, stdout=log, stderr=subprocess.STDOUT)
                try:
                    process.wait(DESCRIBE_SECONDS)
                except subprocess.TimeoutExpired:
                    process.kill()
                    process.wait()

    def case(self, description: str, function, *args, always: bool = False, slow: bool = False, turn: int | None = None):
        """Runs one case; the test goes on after a failure. self.words choose cases by their descriptions; those that
        the others need run always, slow ones where they are chosen or self.all is set. Those that have a turn run in one
        of TURNS commits."""
        if self.words and not always and not any(word in description for word in self.words):
            return
        if not self.all and not self.words and (slow or turn not in (None, whose_turn())):
            return
        self.count += 1
        if not always and time.time() > float(os.environ.get("SCRIBE_CHECK_UNTIL", "inf")):
            print(f"ok {self.count} - {description} # SKIP no time left for it", flush=True)
            return
        try:
            function(*args)
        except (AssertionError, LookupError, OSError, subprocess.SubprocessError, ValueError) as err:
            self.failures += 1
            print(f"not ok {self.count} - {description}")
            said = str(err) or traceback.format_exc(limit=-3)  # an assert without a text: where it is
            print("\n".join(f"# {line}" for line in said.splitlines()[-30:]), flush=True)
            self.describe()
        else:
            print(f"ok {self.count} - {description}", flush=True)

    def clean_logs(self, nodes):
        bad = "BUG:|WARNING:|KASAN|possible recursive|possible circular|blocked for more than|refcount_t|Oops"
        for node in nodes:
            self.run(node, f"! dmesg | grep -E '{bad}'")

    def finish(self, nodes):
        self.case("no kernel log has a BUG, WARNING or lock-up", self.clean_logs, nodes, always=True)
        self.lab("down")
        print(f"1..{self.count}")
        sys.exit(1 if self.failures else 0)


class BlockWriter:
    """blockcheck on a node; what it says was flushed is kept here, outside of the cluster."""

    run = 0

    def __init__(self, lab: Lab, node: int, device: str, tag: int):
        BlockWriter.run += 1
        self.lab, self.what = lab, f"{device} {tag} {BlockWriter.run}"
        self.log = tempfile.NamedTemporaryFile()  # pylint: disable=consider-using-with
        self.process = lab.start(node, f"exec /root/blockcheck write {self.what}", stdout=self.log,
                                 stderr=subprocess.DEVNULL)

    @staticmethod
    def install(lab: Lab):
        subprocess.run(["ninja", "--quiet", "-C", REPO / "build/release", "blockcheck"], check=True)
        for node in range(1, lab.nodes + 1):
            lab.lab("put", node, REPO / "build/release/tests/tools/blockcheck")

    def flushed(self) -> int:
        """How many times one of its threads has said that everything before is flushed."""
        return Path(self.log.name).read_bytes().count(b"\n")

    def end(self):
        self.process.kill()
        self.process.wait()

    def said(self) -> str:
        return Path(self.log.name).read_text(encoding="ascii")

    def verify_instant(self, node: int, device: str, before: str, later: str) -> str:
        """Raises where a device is not what the written one was at an instant; what had been said before that, and what
        was said later. A digest of what is there."""
        return self.check(node, "instant", device, before + "taken\n" + later)

    def verify(self, node: int) -> str:
        """Raises where something flushed is missing, torn or from elsewhere; a digest of what is there."""
        return self.check(node, "verify", self.what.split()[0], self.said())

    def verify_old(self, node: int, device: str, before: str) -> str:
        """The same of another device, and what had been said by then."""
        return self.check(node, "verify", device, before)

    def check(self, node: int, how: str, device: str, log: str) -> str:
        with tempfile.NamedTemporaryFile("w") as copy:
            copy.write(log)
            copy.flush()
            self.lab.lab("put", node, copy.name, "--to", "/root/blocklog")
        tag = " ".join(self.what.split()[1:])
        said = self.lab.run(node, f"/root/blockcheck {how} {device} {tag} < /root/blocklog")
        print(f"# {said.strip().splitlines()[-1]}", flush=True)
        return said.split()[-1]


class Writer:
    """fsync_writer.py on a node: writes records and says which were flushed."""

    run = 0  # of the last one; records of another do not pass for its own

    def __init__(self, lab: Lab, node: int, device: str, first: int = 0, count: int = 1000000):
        self.lab, self.last = lab, first - 1
        Writer.run += first == 0
        self.number = Writer.run
        self.process = lab.start(node, f"{self.tool()} write {device} {first} {count}",
                                 stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)

    @staticmethod
    def tool() -> str:
        return f"python3 /root/fsync_writer.py --run {Writer.run}"

    def read(self, count: int):
        """Waits for so many more records."""
        for _ in range(count):
            line = self.lab.line(self.process)
            assert line, f"the writer ended, or hung, after record {self.last}"
            self.last = int(line)

    def end(self) -> int:
        """Stops reading, which ends the writer at its next record; how many were acknowledged in all."""
        self.process.terminate()  # of the lab's exec, which ends at once
        for line in self.process.stdout.read().split():
            self.last = max(self.last, int(line))
        self.process.wait()
        return self.last + 1
