# SPDX-License-Identifier: GPL-2.0
"""The process that owns a lab's machines.

Every process of a lab is its child with PR_SET_PDEATHSIG, and it ends when its owner does, so
nothing outlives a crashed test. It is single-threaded, because the death signal follows the thread
that forked. Requests come as one JSON line on control.sock.
"""

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

from . import machine, paths

PR_SET_PDEATHSIG = 1


def die_with_parent():
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def build_helpers() -> Path:
    """Compiles labdisk, labnet and QEMU's plugin labcount, cached beside the images."""
    sources = [paths.HELPERS / f"{name}.c" for name in ("labdisk", "labnet", "labcount")]
    from .image import digest  # not at the top: image needs tools that a running lab does not
    dest = paths.cache_dir() / f"helpers-{digest(*(s.read_text() for s in sources))}"
    if not dest.exists():
        work = dest.with_suffix(f".part{os.getpid()}")
        work.mkdir()
        for source in sources:
            kind = ["-shared", "-fPIC"] if source.stem == "labcount" else ["-pthread"]
            subprocess.run(["cc", "-O2", "-Wall", "-Wextra", "-Werror", *kind, "-o", work / source.stem, source], check=True)
        try:
            work.rename(dest)
        except OSError:
            shutil.rmtree(work)  # somebody else was quicker
    return dest


class Supervisor:
    def __init__(self, spec: machine.Spec, owner: int):
        self.spec = spec
        self.owner = owner
        self.helpers = build_helpers()
        self.public_key = (spec.dir / "key.pub").read_text().strip()
        self.children: dict[str, subprocess.Popen] = {}
        self.log = open(spec.dir / "supervisor.log", "a", encoding="utf-8", buffering=1)

    def spawn(self, name: str, argv: list[str]):
        self.children[name] = subprocess.Popen([str(a) for a in argv], stdin=subprocess.DEVNULL, stdout=self.log,
                                               stderr=self.log, preexec_fn=die_with_parent, start_new_session=True)

    def start_network(self):
        control = self.spec.dir / "net.sock"
        self.spawn("net", [self.helpers / "labnet", control])
        machine.wait_for(control)
        for node in range(1, self.spec.nodes + 1):
            for name, segment, _ in machine.NICS:
                path = self.spec.node_dir(node) / f"{name}.sock"
                machine.ask_helper(control, f"port n{node}.{name} {segment} {node} {path}")

    def start_node(self, node: int):
        if f"qemu{node}" in self.children:
            return
        base = self.spec.node_dir(node)
        control = base / "disk.sock"
        self.spawn(f"disk{node}", [self.helpers / "labdisk", control])
        machine.wait_for(control)
        machine.ask_helper(control, f"add sys {base}/sys.qcow2 {base}/sys.sock")
        for name, _ in machine.DISKS:
            machine.ask_helper(control, f"add {name} {base}/{name}.img {base}/{name}.sock")
        argv = machine.qemu_argv(self.spec, node, self.public_key)
        if self.spec.count:
            argv += ["-plugin", f"{self.helpers}/labcount,path={base}/instructions"]
        self.spawn(f"qemu{node}", argv)

    def kill_node(self, node: int):
        for name in (f"disk{node}", f"qemu{node}"):
            child = self.children.pop(name, None)
            if child:
                child.kill()
                child.wait()

    def signal_node(self, node: int, number: int):
        """The whole process: its clocks go on, unlike with QEMU's own pause."""
        child = self.children.get(f"qemu{node}")
        if child:
            child.send_signal(number)

    def reap(self):
        for name, child in list(self.children.items()):
            if child.poll() is not None:
                self.log.write(f"{name} ended with {child.returncode}\n")
                del self.children[name]
                if name.startswith("qemu"):
                    self.kill_node(int(name[4:]))

    def handle(self, request: dict) -> dict:
        command = request.get("command")
        if command == "start":
            self.start_node(request["node"])
        elif command == "kill":
            self.kill_node(request["node"])
        elif command in ("pause", "resume"):
            self.signal_node(request["node"], signal.SIGSTOP if command == "pause" else signal.SIGCONT)
        elif command != "status":
            return {"error": f"unknown command {command}"}
        return {"running": [n for n in range(1, self.spec.nodes + 1) if f"qemu{n}" in self.children]}

    def serve(self, client: socket.socket) -> bool:
        """One request; false ends the lab."""
        with client, client.makefile("rw") as stream:
            line = stream.readline()
            if not line:
                return True  # somebody looked whether we listen
            try:
                request = json.loads(line)
                answer = {} if request.get("command") == "quit" else self.handle(request)
            except (ValueError, KeyError, SystemExit) as err:
                request, answer = {}, {"error": str(err)}
            stream.write(json.dumps(answer) + "\n")
        return request.get("command") != "quit"

    def owner_alive(self) -> bool:
        return not self.owner or Path(f"/proc/{self.owner}").exists()

    def run(self):
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(str(self.spec.dir / "control.sock"))
        listener.listen(8)
        listener.settimeout(0.5)
        self.start_network()
        for node in range(1, self.spec.nodes + 1):
            self.start_node(node)
        while self.owner_alive():
            self.reap()
            try:
                client, _ = listener.accept()
            except TimeoutError:
                continue
            try:
                if not self.serve(client):
                    break
            except OSError as err:
                self.log.write(f"control: {err}\n")
        for child in self.children.values():
            child.kill()
        for child in self.children.values():
            child.wait()
        shutil.rmtree(self.spec.dir, ignore_errors=True)


def main(name: str, owner: int):
    spec = machine.Spec(**json.loads((paths.labs_dir() / name / "lab.json").read_text()))
    os.setsid()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    Supervisor(spec, owner).run()
