# SPDX-License-Identifier: GPL-2.0
"""Images for tests of media: CDs that a guest tells apart, disks in all forms, and what is refused."""

import json

from labtest import Lab

CD_BYTES = 3 * (1 << 20) + 1234  # neither whole MiB nor whole sectors
SOCKET = "curl -sS --unix-socket /run/scaled/scaled.sock"
OVF = "<Envelope><References/></Envelope>"


def make_cd(lab: Lab, node: int, label: str) -> str:
    """A file that looks like a CD, whose sector 20 says "label LABEL"; the same on each node."""
    path = f"/root/{label}.iso"
    lab.run(node, f"seq 1 900000 | head -c {CD_BYTES} > {path} && "
                  f"printf '\\001CD001\\001' | dd of={path} bs=1 seek=32768 conv=notrunc status=none && "
                  f"printf 'label {label} .' | dd of={path} bs=1 seek=40960 conv=notrunc status=none")
    return path


def digest(lab: Lab, node: int, path: str, size: int = 0) -> str:
    return lab.run(node, f"head -c {size or 1 << 40} {path} | sha256sum").split()[0]


def make_disk(lab: Lab, node: int) -> str:
    """8 MiB of a disk, with holes."""
    lab.run(node, "seq 1 200000 > /root/disk.raw && truncate -s 8M /root/disk.raw")
    return "/root/disk.raw"


def as_image(lab: Lab, node: int, form: str) -> str:
    """The disk of make_disk() in that form."""
    path = f"/root/disk.{form}"
    options = {"qcow2": "-O qcow2 -c", "vmdk": "-O vmdk -o subformat=streamOptimized",
               "mono": "-O vmdk -o subformat=monolithicSparse", "vhdx": "-O vhdx -o subformat=dynamic"}
    if form == "ova":
        lab.run(node, f"echo '{OVF}' > /root/m.ovf && cd /root && qemu-img convert {options['vmdk']} disk.raw d-1.vmdk && tar -cf {path} m.ovf d-1.vmdk")
    else:
        lab.run(node, f"qemu-img convert {options[form]} /root/disk.raw {path}")
    return path


def rest(lab: Lab, node: int, method: str, path: str, data: str = "") -> dict:
    """A call as other programs make it; `data` as curl has it."""
    body = f" --data-binary {data}" if data else ""
    return json.loads(lab.run(node, f"{SOCKET} -X {method}{body} 'http://localhost/rest/v1/{path}'"))


HOSTILE = (
    ("backing", "qemu-img create -q -f qcow2 -b /etc/shadow -F raw {path} 1M", "backing file"),
    ("elsewhere", "touch /root/data.bin && qemu-img create -q -f qcow2 -o data_file=/root/data.bin,data_file_raw=on {path} 1M",
     "its data in another file"),
    ("flat", "qemu-img create -q -f vmdk -o subformat=monolithicFlat {path} 1M", "data are in other files"),
    ("parts", "qemu-img create -q -f vmdk -o subformat=twoGbMaxExtentSparse {path} 1M", "data are in other files"),
    ("packed", "gzip -c /root/disk.raw > {path}", "is compressed"),
    ("damaged", "head -c 70000 /root/disk.ova > {path}", "cut off"),
)
