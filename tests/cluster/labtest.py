# SPDX-License-Identifier: GPL-2.0
"""A test on a lab of its own: TAP lines, fault verbs, and a lab that ends with the test."""

import os
import subprocess
import sys
import time
import traceback
from pathlib import Path

REPO = Path(__file__).resolve().parents[2]
LAB = REPO / "scripts/lab/lab"
WAIT_SECONDS = 300


class Lab:
    def __init__(self, name: str, nodes: int, kernel: str = "6.1", disk_mib: int = 2048, debs: bool = False,
                 cpus: int = 0):
        self.name, self.nodes = f"{name}-{os.getpid()}", nodes
        self.count, self.failures = 0, 0
        self.words: list[str] = []
        words = []
        if debs:
            subprocess.run([REPO / "scripts/build-debs"], check=True, stdout=subprocess.DEVNULL)
            words = ["--debs", REPO / "build/debs"]
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
        process = self.start(node, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = process.communicate()
        if process.returncode:
            raise AssertionError(f"n{node}: {command}: exit code {process.returncode}\n{out}")
        return out

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
        process = self.start(node, command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        out, _ = process.communicate()
        assert process.returncode == code and text in out, f"n{node}: {command}: exit code {process.returncode}\n{out}"

    def kill(self, node: int, keep: int = 0):
        self.lab("kill", node, "--keep", keep)

    def case(self, description: str, function, *args, always: bool = False):
        """Runs one case; the test goes on after a failure. self.words choose cases by their descriptions; those that
        the others need run always."""
        if self.words and not always and not any(word in description for word in self.words):
            return
        self.count += 1
        try:
            function(*args)
        except (AssertionError, OSError, subprocess.SubprocessError, ValueError) as err:
            self.failures += 1
            print(f"not ok {self.count} - {description}")
            said = str(err) or traceback.format_exc(limit=-3)  # an assert without a text: where it is
            print("\n".join(f"# {line}" for line in said.splitlines()[-30:]), flush=True)
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
