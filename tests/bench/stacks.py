# SPDX-License-Identifier: GPL-2.0
"""What is measured side by side: this system's disk, and what others would take instead, on the same nodes and disks.

Each of the peers has a partition of its own on the disk hdd1 of the nodes n1 and n2, set up as its makers advise; the
pool is the disk hdd0 of each. Whoever uses them is on n1, later on n3, which has no copy. All promise the same for a
flush: it is on stable storage of every copy.
"""

from labtest import Lab
from scribe_cluster import device, vsd

PART_MIB = 1100  # a disk of which every block is written anew behind a snapshot, and 32 MiB of dm-thin's metadata
SIZE_MIB = 512   # of each stack's disk
SETS = ("dm-linear", "dm-thin 64 KiB", "dm-thin 1 MiB", "md, NVMe/TCP", "DRBD C", "md, NBD")  # in the order of partitions


def part(node: int, name: str) -> str:
    return f"{device(node, 'hdd1')}-part{SETS.index(name) + 1}"


def partition(lab: Lab):
    table = "\n".join(["label: gpt"] + [f"size={PART_MIB}MiB"] * len(SETS))
    for node in (1, 2):
        lab.run(node, f"echo '{table}' | sfdisk -q {device(node, 'hdd1')} && udevadm settle && test -e {part(node, SETS[-1])}")


class Stack:
    """One of them: up() makes it, path is its device where it is used, settings say how it is set up."""
    name = ""
    copies = 1
    path = ""
    settings = ""
    thin = False  # it can be emptied, and have snapshots
    moves = False  # it can be used on a node that has no copy

    def __init__(self, lab: Lab):
        self.lab = lab
        self.at = 1  # the node that uses it

    def up(self):
        raise NotImplementedError

    def empty(self):
        """As if nothing had ever been written."""
        self.lab.run(1, f"blkdiscard -f {self.path}")

    def snapshot(self):
        """Another one, of what is there now."""
        raise NotImplementedError

    def forget(self):
        """The snapshot that is there, if any: the disk is to hold one at a time."""
        raise NotImplementedError

    def move(self, node: int):
        """It is used on that node from here on."""
        raise NotImplementedError


class Linear(Stack):
    name = "dm-linear"
    path = "/dev/mapper/linear"
    settings = "one copy, on n1: the floor of the machine"

    def up(self):
        at = part(1, self.name)
        self.lab.run(1, f"dmsetup create linear --table '0 {SIZE_MIB * 2048} linear {at} 0'")


class Raw(Stack):
    name = "raw disk"
    settings = "the partition below dm-linear"

    def up(self):
        self.path = part(1, "dm-linear")


class Thin(Stack):
    """As lvm sets it up, with its metadata on the same disk."""
    thin = True

    def __init__(self, lab: Lab, kib: int):
        super().__init__(lab)
        self.kib, self.taken = kib, 0
        self.name = f"dm-thin {kib} KiB" if kib < 1024 else f"dm-thin {kib // 1024} MiB"
        self.path = f"/dev/mapper/thin{kib}"
        self.settings = f"one copy, on n1; blocks of {kib} KiB, skip_block_zeroing, discards passed down"

    def up(self):
        at, meta, name = part(1, self.name), 32 * 2048, f"thin{self.kib}"
        self.lab.run(1, f"modprobe dm_thin_pool; dd if=/dev/zero of={at} bs=1M count=1 oflag=direct status=none && "
                        f"dmsetup create {name}meta --table '0 {meta} linear {at} 0' && "
                        f"size=$(($(blockdev --getsz {at}) - {meta})) && "
                        f"dmsetup create {name}data --table \"0 $size linear {at} {meta}\" && "
                        f"dmsetup create {name}pool --table \"0 $size thin-pool /dev/mapper/{name}meta /dev/mapper/{name}data "
                        f"{self.kib * 2} 0 1 skip_block_zeroing\" && dmsetup message {name}pool 0 'create_thin 0' && "
                        f"dmsetup create {name} --table '0 {SIZE_MIB * 2048} thin /dev/mapper/{name}pool 0'")

    def snapshot(self):
        name = f"thin{self.kib}"
        self.taken += 1
        self.lab.run(1, f"dmsetup suspend {name} && dmsetup message {name}pool 0 'create_snap {self.taken} 0' && "
                        f"dmsetup resume {name}")

    def forget(self):
        if self.taken:
            self.lab.run(1, f"dmsetup message thin{self.kib}pool 0 'delete {self.taken}'")


MD = ("mdadm --create /dev/md/{name} --run --quiet --level=1 --raid-devices=2 --metadata=1.2 --bitmap=internal --assume-clean "
      "{local} --write-mostly {remote}")


def nvme_offer(lab: Lab, node: int, at: str):
    """That device of a node to whoever asks."""
    top = "/sys/kernel/config/nvmet"
    lab.run(node, f"modprobe -a nvmet nvmet_tcp && cd {top} && mkdir -p subsystems/n{node}/namespaces/1 ports/1 && "
                  f"echo 1 > subsystems/n{node}/attr_allow_any_host && cd subsystems/n{node}/namespaces/1 && "
                  f"echo -n $(readlink -f {at}) > device_path && echo 1 > enable && cd {top}/ports/1 && echo tcp > addr_trtype && "
                  f"echo ipv4 > addr_adrfam && echo 10.12.0.{node} > addr_traddr && echo 4420 > addr_trsvcid && "
                  f"ln -s {top}/subsystems/n{node} subsystems/n{node}")


def nvme_attach(lab: Lab, node: int, whose: int, nth: int):
    """What another node offers, as the nth such disk of this one."""
    lab.run(node, f"modprobe -a nvme_tcp raid1 && echo -n transport=tcp,traddr=10.12.0.{whose},trsvcid=4420,nqn=n{whose},"
                  "hostnqn=nqn.2014-08.org.nvmexpress:uuid:5c1bebe5-0000-4000-8000-000000000001 > /dev/nvme-fabrics")
    lab.wait(node, f"test -b /dev/nvme{nth}n1")


class MdNvme(Stack):
    name = "md, NVMe/TCP"
    copies = 2
    path = "/dev/md/nvme"
    settings = ("raid1 of a disk of n1 and one of n2 by nvmet-tcp; internal bitmap, n2's half write-mostly, so that reads are "
                "local; on n3 both halves by nvmet-tcp")
    moves = True

    def up(self):
        nvme_offer(self.lab, 2, part(2, self.name))
        nvme_attach(self.lab, 1, 2, 0)
        self.lab.run(1, MD.format(name="nvme", local=part(1, self.name), remote="/dev/nvme0n1"))

    def move(self, node: int):
        self.lab.run(1, f"mdadm --stop --quiet {self.path} && for c in /sys/class/nvme/*/delete_controller; do echo 1 > $c; done")
        nvme_offer(self.lab, 1, part(1, self.name))
        nvme_attach(self.lab, node, 1, 0)
        nvme_attach(self.lab, node, 2, 1)
        # What the device manager has put together by itself by now has another name.
        self.lab.run(node, f"udevadm settle && mdadm --stop --scan --quiet; "
                           f"mdadm --assemble --run --quiet {self.path} /dev/nvme0n1 /dev/nvme1n1")


class MdNbd(Stack):
    name = "md, NBD"
    copies = 2
    path = "/dev/md/nbd"
    settings = "raid1 of a disk of n1 and one of n2 by nbd-server with flush and FUA; internal bitmap, the remote half write-mostly"

    def up(self):
        self.lab.run(2, "mkdir -p /etc/nbd-server && printf '[generic]\\nuser = root\\ngroup = root\\n[bench]\\nexportname = %s\\n"
                        f"flush = true\\nfua = true\\ntrim = true\\n' $(readlink -f {part(2, self.name)}) > /etc/nbd-server/config && "
                        "nbd-server")
        self.lab.run(1, "modprobe -a nbd raid1 && nbd-client 10.12.0.2 /dev/nbd0 -N bench")
        self.lab.run(1, MD.format(name="nbd", local=part(1, self.name), remote="/dev/nbd0"))


DRBD = """
resource bench {{
	net {{ protocol C; max-buffers 8000; max-epoch-size 8000; }}
	disk {{ al-extents 6007; }}
	device /dev/drbd0;
	meta-disk internal;
	on n1 {{ disk {0}; address 10.12.0.1:7789; }}
	on n2 {{ disk {1}; address 10.12.0.2:7789; }}
}}
"""


def drbd_up(lab: Lab, *disks: str) -> str:
    """On a disk of n1 and one of n2, equal as they are; its device on n1."""
    config = DRBD.format(*disks)
    for node in (1, 2):
        lab.run(node, f"cat > /etc/drbd.d/bench.res <<'END'\n{config}END\n"
                      "modprobe drbd && drbdadm create-md --force bench && drbdadm up bench")
    lab.wait(1, "drbdadm dstate bench | grep -q Inconsistent/Inconsistent")
    lab.run(1, "drbdadm -- --clear-bitmap new-current-uuid bench && drbdadm primary bench")
    return "/dev/drbd0"


class Drbd(Stack):
    name = "DRBD C"
    copies = 2
    path = "/dev/drbd0"
    settings = "Debian's kernel's, protocol C, internal metadata; al-extents 6007, max-buffers and max-epoch-size 8000"

    def up(self):
        drbd_up(self.lab, part(1, self.name), part(2, self.name))


class Scribe(Stack):
    """A VSD with a copy on n1 and one on n2, used on n1; encrypted between them as users have it, or plain."""
    copies = 2
    thin = True
    moves = True

    def __init__(self, lab: Lab, plain: bool):
        super().__init__(lab)
        self.taken = 0
        self.path = vsd("bench")
        self.name = "VSD"
        self.settings = "a copy on n1 and one on n2, " + ("not encrypted between them" if plain else "TLS between them")

    def up(self):
        self.lab.run(1, f"scalectl vsd create bench {SIZE_MIB}MiB && scalectl vsd open bench")

    def snapshot(self):
        self.taken += 1
        self.lab.run(1, f"scalectl snapshot create bench@s{self.taken}")

    def forget(self):
        if self.taken:
            self.lab.run(1, f"scalectl snapshot delete bench@s{self.taken} --yes")

    def move(self, node: int):
        self.lab.run(1, "scalectl vsd close bench")
        self.lab.run(node, "scalectl vsd open bench")


def every(lab: Lab, plain: bool) -> list[Stack]:
    return [Scribe(lab, plain), Linear(lab), Drbd(lab), MdNvme(lab), MdNbd(lab), Thin(lab, 64), Thin(lab, 1024), Raw(lab)]


def quick(lab: Lab, plain: bool) -> list[Stack]:
    """The two leading peers, and the floor."""
    return [Scribe(lab, plain), Linear(lab), Drbd(lab), MdNvme(lab)]
