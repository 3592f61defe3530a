# SPDX-License-Identifier: GPL-2.0
"""One machine of the lab as a QEMU command line, and which accelerator really works here."""

import base64
import json
import os
import socket
import subprocess
import time
from dataclasses import dataclass, field
from pathlib import Path

from . import paths

NICS = (("lan0", 1, "01"), ("lan1", 1, "02"), ("bp0", 2, "03"), ("bp1", 2, "04"))  # name, segment, MAC tail
DISKS = (("ssd0", "ssd"), ("hdd0", "hdd"), ("hdd1", "hdd"))
PROBE_SECONDS = 8
# Under emulation reading the HPET and arming a timer cost more than most of what nodes do: the TSC is good (QEMU keeps
# the processors' in step), and timers that round to a tick take a third off etcd and two off a disk's small reads.
# A host that is busy elsewhere stops a guest for longer than a soft lockup's 20 s: a minute is one, too.
KERNEL_OPTIONS = {"kvm": "console=ttyS0 quiet panic=5 mitigations=off audit=0 net.ifnames=0"}
KERNEL_OPTIONS["tcg"] = KERNEL_OPTIONS["kvm"] + " tsc=reliable highres=off watchdog_thresh=30"


@dataclass
class Spec:
    """What a lab is made of; kept in lab.json."""
    name: str
    nodes: int
    image: str
    kernel: str  # path of the kernel image
    initrd: str
    accel: str
    disk_mib: int = 8192
    ram_mib: int = 1024
    cpus: int = 2
    count: bool = False  # its nodes' instructions
    ports: dict = field(default_factory=dict)  # node -> port of ssh on loopback

    @property
    def dir(self) -> Path:
        return paths.labs_dir() / self.name

    def node_dir(self, node: int) -> Path:
        return self.dir / f"n{node}"


def choose_accel(image: Path) -> str:
    """kvm where a guest really boots on it, else tcg. Found out once per boot of this machine."""
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    known = paths.cache_dir() / "accel.json"
    try:
        found = json.loads(known.read_text())
        if found["boot"] == boot:
            return found["accel"]
    except (OSError, ValueError, KeyError):
        pass
    accel = "kvm" if os.access("/dev/kvm", os.R_OK | os.W_OK) and guest_boots(image) else "tcg"
    known.write_text(json.dumps({"boot": boot, "accel": accel}))
    return accel


def guest_boots(image: Path) -> bool:
    """Whether Debian's kernel gets as far as its init on KVM; /dev/kvm alone proves nothing."""
    vmlinuz = sorted(image.glob("vmlinuz-*"))[0]
    argv = ["qemu-system-x86_64", "-M", "q35", "-accel", "kvm", "-cpu", "host", "-m", "256", "-nodefaults",
            "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel", str(vmlinuz),
            "-append", "console=ttyS0 panic=-1"]
    try:
        out = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=PROBE_SECONDS,
                             check=False).stdout
    except subprocess.TimeoutExpired as err:
        out = err.stdout or b""
    return b"Linux version" in out and b"Unable to mount root" in out


def create_disks(spec: Spec, node: int):
    """Sparse files; the system disk is a qcow2 overlay of the image, itself on a volatile disk."""
    base = spec.node_dir(node)
    base.mkdir(parents=True)
    system = base / "sys.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", f"{spec.image}/root.img",
                    str(system)], check=True)
    os.truncate(system, 8 << 30)  # qcow2 grows inside a device of fixed size
    for name, _ in DISKS:
        add_disk_file(spec, node, name)


def add_disk_file(spec: Spec, node: int, name: str):
    with open(spec.node_dir(node) / f"{name}.img", "xb") as out:
        out.truncate(spec.disk_mib << 20)


def disk_device(spec: Spec, node: int, name: str, media: str) -> tuple[dict, dict]:
    """QMP arguments of blockdev-add and device_add; the command line uses the same."""
    block = {"driver": "nbd", "node-name": f"blk-{name}", "discard": "unmap",
             "server": {"type": "unix", "path": str(spec.node_dir(node) / f"{name}.sock")}}
    device = {"driver": "scsi-hd", "id": name, "drive": f"blk-{name}", "bus": "scsi.0",
              "serial": f"n{node}-{name}", "rotation_rate": 1 if media == "ssd" else 7200, "write-cache": "on"}
    return block, device


def qemu_argv(spec: Spec, node: int, public_key: str) -> list[str]:
    base = spec.node_dir(node)
    key = base64.b64encode(public_key.encode()).decode()
    cpu = "host" if spec.accel == "kvm" else "max"
    accel = "kvm" if spec.accel == "kvm" else "tcg,thread=multi"
    argv = ["qemu-system-x86_64", "-name", f"{spec.name}-n{node}", "-M", "q35", "-accel", accel, "-cpu", cpu,
            "-smp", str(spec.cpus), "-m", str(spec.ram_mib), "-nodefaults", "-display", "none",
            "-kernel", spec.kernel, "-initrd", spec.initrd,
            "-append", f"{KERNEL_OPTIONS[spec.accel]} lab.node={node} lab.key={key}",
            "-chardev", f"socket,id=ser,path={base}/console.sock,server=on,wait=off,logfile={base}/serial.log,logappend=on",
            "-serial", "chardev:ser", "-qmp", f"unix:{base}/qmp.sock,server=on,wait=off",
            "-device", "virtio-rng-pci", "-device", "i6300esb", "-action", "watchdog=reset",
            "-blockdev", json.dumps({"driver": "qcow2", "node-name": "sys",
                                     "file": {"driver": "nbd", "server": {"type": "unix", "path": f"{base}/sys.sock"}},
                                     "backing": {"driver": "raw", "read-only": True,
                                                 "file": {"driver": "file", "read-only": True, "locking": "off",
                                                          "filename": f"{spec.image}/root.img"}}}),
            "-device", "virtio-blk-pci,drive=sys,write-cache=on", "-device", "virtio-scsi-pci,id=scsi"]
    for name, media in DISKS:
        block, device = disk_device(spec, node, name, media)
        argv += ["-blockdev", json.dumps(block), "-device", json.dumps(device)]
    argv += ["-netdev", f"user,id=mgmt,restrict=on,hostfwd=tcp:127.0.0.1:{spec.ports[str(node)]}-10.0.2.15:22",
             "-device", f"virtio-net-pci,netdev=mgmt,mac=52:54:00:5c:{node:02x}:05"]
    for name, _, tail in NICS:
        argv += ["-netdev", f"stream,id={name},server=off,addr.type=unix,addr.path={base}/{name}.sock",
                 "-device", f"virtio-net-pci,id=nic-{name},netdev={name},mac=52:54:00:5c:{node:02x}:{tail}"]
    return argv


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


def ask_helper(path: Path, line: str) -> None:
    """One command to labdisk or labnet."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(10)
        sock.connect(str(path))
        sock.sendall(line.encode() + b"\n")
        answer = sock.recv(200).decode().strip()
    if answer != "ok":
        raise SystemExit(f"lab: {line.split()[0]}: {answer}")


def default_cpus(accel: str, nodes: int) -> int:
    """Emulated processors that outnumber the host's spin on locks whose holders do not run, and interrupt each other
    for nothing: three nodes of one boot in two thirds of the time of three nodes of two."""
    return 2 if accel == "kvm" else max(1, min(2, (os.cpu_count() or 1) // nodes))


def qmp(path: Path, command: str, **arguments) -> dict:
    """One QMP command; the answer's return value."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(30)
        sock.connect(str(path))
        stream = sock.makefile("rw")
        stream.readline()
        for request in ({"execute": "qmp_capabilities"}, {"execute": command, "arguments": arguments}):
            stream.write(json.dumps(request) + "\n")
            stream.flush()
            while True:
                answer = json.loads(stream.readline())
                if "return" in answer or "error" in answer:
                    break
            if "error" in answer:
                raise SystemExit(f"lab: {command}: {answer['error']['desc']}")
    return answer["return"]


def wait_for(path: Path, seconds: float = 10) -> None:
    """Until somebody listens on a unix socket."""
    deadline = time.monotonic() + seconds
    while True:
        with socket.socket(socket.AF_UNIX) as sock:
            try:
                sock.connect(str(path))
                return
            except OSError:
                if time.monotonic() > deadline:
                    raise
        time.sleep(0.02)
