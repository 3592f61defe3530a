# SPDX-License-Identifier: GPL-2.0
"""A disk that a PC boots from, with a guest that tells on its second disk that it lives.

Debian's kernel and busybox, 64 MiB. A BIOS begins with syslinux, a UEFI with Debian's shim and GRUB, which are signed,
as the kernel is. The first sector of the second disk says
"boot B beat N of S disks D rounds R wrong W cd L machine M rests F T cpus C memory K .":
B grows each time the guest boots, N each second, flushed; S is that disk's size in sectors, D how many it has. Beside that it writes 256 KiB
of noise, flushed, eight places in turn, R times so far; what lies there from the turn before is read back, and was not
what it had written W times. L is the word behind the first one of sector 20 of the CD in its drive, or "none".
M is "bios" or "uefi", and what it has beside that: "+secure", Secure Boot is on; "+varsV", a variable of the UEFI that
the boot V has written, the newest; "+tpmT", a TPM that has been begun T times; "+seedW", cloud-init's file system,
whose user data has W behind its first blank. Where W is "agent", Debian's qemu-guest-agent runs, with a file system to
freeze, and did so F times, and thawed T times. C is how many CPUs it has, K how much
memory, in KiB. Where it has a network interface it is
10.11.0.50 there, and says the same at http://10.11.0.50/beat. It powers off when it is asked to.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

REPO = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(REPO / "scripts/lab"))
from labkit import image  # noqa: E402  pylint: disable=wrong-import-position

SECTORS = 64 << 11
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "button", "evdev", "ahci", "sr_mod", "efivarfs", "isofs",
           "virtio_console", "vfat", "nls_cp437", "nls_ascii")
AGENT_MODULES = ("loop", "ext4", "crc32c_generic")
ADDRESS = "10.11.0.50"
APPLETS = ("sh", "mount", "dd", "cat", "cut", "echo", "sleep", "mv", "poweroff", "acpid", "insmod", "ip", "httpd",
           "md5sum", "cmp", "od", "head", "umount", "printf", "tar", "grep")

INIT = """#!/bin/sh
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod /modules/$module; done < /modules/order
acpid -d > /dev/console 2>&1 &
if ip link set eth0 up 2> /dev/null; then
	ip address add 10.11.0.50/24 dev eth0
	httpd -h /www
fi
said=$(dd if=/dev/vdb bs=512 count=1 2> /dev/null | cut -d' ' -f2)
case $said in [0-9]*) boot=$((said + 1)) ;; *) boot=1 ;; esac
variables=/sys/firmware/efi/efivars
machine=bios
if [ -d $variables ]; then
	machine=uefi
	mount -t efivarfs efivarfs $variables
	set -- $(od -An -tu1 $variables/SecureBoot-*) # four bytes of attributes before its own
	[ "$5" = 1 ] && machine=$machine+secure
	id=5c1bebe5-0000-4000-8000-000000000000
	newest=0
	while [ -e $variables/Boots$((newest + 1))-$id ]; do newest=$((newest + 1)); done
	machine=$machine+vars$newest
	printf '\\007\\000\\000\\000x' > $variables/Boots$((newest + 1))-$id
fi
if [ -e /dev/tpm0 ]; then
	# TPM2_ReadClock, whose answer has the count of resets in bytes 26 to 29.
	exec 3<> /dev/tpm0
	printf '\\200\\001\\000\\000\\000\\012\\000\\000\\001\\201' >&3
	head -c 35 <&3 > /clock
	exec 3>&-
	set -- $(od -An -tu1 -j28 -N2 /clock)
	machine=$machine+tpm$(($1 * 256 + $2))
fi
seed=
for disk in /dev/vd[c-z]; do
	if mount -r -t iso9660 $disk /seed 2> /dev/null; then
		seed=$(head -n 1 /seed/user-data | cut -s -d' ' -f2)
		machine=$machine+seed$seed
		umount /seed
	fi
done
echo "0 0" > /rests
agent() {
	for port in /sys/class/virtio-ports/*; do
		[ "$(cat $port/name)" = org.qemu.guest_agent.0 ] || continue
		mount -r -t vfat /dev/vda /boot
		tar -xf /boot/agent.tar -C /
		umount /boot
		while read -r module; do insmod /agent/modules/$module; done < /agent/modules/order
		mount -t ext4 -o loop /agent/disk /agent/data
		/agent/lib/ld-linux-x86-64.so.2 --library-path /agent/lib /agent/qemu-ga -p /dev/${port##*/} \
			-t /agent -f /agent/pid -F/agent/hook > /dev/console 2>&1
	done
}
[ "$seed" != agent ] || agent &
noise() {
	turns=0
	wrong=0
	while :; do
		at=$((turns % 8))
		if [ -e /sums/$at ]; then
			echo 1 > /proc/sys/vm/drop_caches
			dd if=/dev/vdb bs=256k skip=$((at + 4)) count=1 2> /dev/null | md5sum | cmp -s - /sums/$at ||
				wrong=$((wrong + 1))
		fi
		dd if=/dev/urandom of=/block bs=256k count=1 2> /dev/null
		md5sum < /block > /sums/$at
		dd if=/block of=/dev/vdb bs=256k seek=$((at + 4)) conv=notrunc,fsync 2> /dev/null
		turns=$((turns + 1))
		echo "rounds $turns wrong $wrong" > /turns.new
		mv /turns.new /turns
		sleep 1
	done
}
echo "rounds 0 wrong 0" > /turns
noise &
beat=0
while :; do
	beat=$((beat + 1))
	set -- /sys/block/vd*
	for cpu in /sys/devices/system/cpu/cpu[0-9]*/online; do # no udev does that here
		[ "$(cat $cpu 2> /dev/null)" != 0 ] || echo 1 > $cpu
	done
	for memory in /sys/devices/system/memory/memory[0-9]*/state; do
		[ "$(cat $memory 2> /dev/null)" != offline ] || echo online > $memory
	done
	read -r _ memory_kib _ < /proc/meminfo
	cd=$(dd if=/dev/sr0 bs=2k skip=20 count=1 2> /dev/null | cut -s -d' ' -f2)
	echo "boot $boot beat $beat of $(cat /sys/block/vdb/size) disks $# $(cat /turns) cd ${cd:-none} machine $machine rests $(cat /rests) cpus $(grep -c ^processor /proc/cpuinfo) memory $memory_kib ." > /www/beat
	cat /www/beat | dd of=/dev/vdb bs=512 count=1 conv=sync,fsync 2> /dev/null
	sleep 1
done
"""

BOOT = """DEFAULT guest
PROMPT 0
TIMEOUT 1
LABEL guest
 KERNEL vmlinuz
 APPEND initrd=initrd console=ttyS0 quiet panic=5 no_timer_check mitigations=off random.trust_cpu=on swiotlb=1024
"""


GRUB = """set timeout=0
linux /vmlinuz console=ttyS0 quiet panic=5 no_timer_check mitigations=off random.trust_cpu=on swiotlb=1024
initrd /initrd
boot
"""


class Sight(NamedTuple):
    """What a guest has said last."""
    boot: int
    beat: int
    sectors: int
    disks: int
    rounds: int
    cd: str
    machine: str
    rests: tuple[int, int]  # how often its file systems were frozen, and thawed
    cpus: int
    memory_kib: int


def sight(lab, node: int, device: str) -> Sight:
    """What a guest has said on that disk, which is open on the node. It never reads anything but what it wrote."""
    out = lab.run(node, f"dd if={device} bs=512 count=1 iflag=direct status=none | tr -d '\\0'")
    said = re.match(r"boot (\d+) beat (\d+) of (\d+) disks (\d+) rounds (\d+) wrong (\d+) cd (\S+) machine (\S+) "
                    r"rests (\d+) (\d+) cpus (\d+) memory (\d+) \.", out)
    assert said, out
    assert said[6] == "0", f"the guest read what it had not written: {out}"
    return Sight(*(int(said[n]) for n in range(1, 6)), said[7], said[8], (int(said[9]), int(said[10])), int(said[11]), int(said[12]))


def unpacked(work: Path) -> Path:
    """What of Debian's the guest has beside its kernel and busybox."""
    debs = work / "debs"
    debs.mkdir()
    subprocess.run(["apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", "shim-signed", "grub-efi-amd64-signed",
                    "qemu-guest-agent"], check=True, cwd=debs, stdout=subprocess.DEVNULL)
    for deb in debs.glob("*.deb"):
        subprocess.run(["dpkg-deb", "-x", deb, debs], check=True)
    return debs


def signed(debs: Path, work: Path) -> dict[str, Path]:
    """Debian's shim and GRUB for UEFI, by where they lie on a disk."""
    return {"EFI/BOOT/BOOTX64.EFI": debs / "usr/lib/shim/shimx64.efi.signed",
            "EFI/BOOT/grubx64.efi": debs / "usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed",
            "EFI/debian/grub.cfg": work / "grub.cfg"}


def put_modules(names: tuple[str, ...], root: Path, release: str, to: Path):
    """Kernel modules and what they need, in the order of their names in the file "order"."""
    order: list[str] = []
    for module in names:
        listing = subprocess.run(["modprobe", "-d", root, "-S", release, "--show-depends", module], check=True,
                                 capture_output=True, text=True).stdout
        for path in (Path(line.split()[1]) for line in listing.splitlines() if line.startswith("insmod ")):
            if path.name not in order:
                order.append(path.name)
                shutil.copy(path, to / path.name)
    (to / "order").write_text("".join(f"{name}\n" for name in order), encoding="ascii")


HOOK = """#!/bin/sh
read -r frozen thawed < /rests
case $1 in
freeze) echo "$((frozen + 1)) $thawed" > /rests ;;
thaw) echo "$frozen $((thawed + 1))" > /rests ;;
esac
"""


def agent(debs: Path, root: Path, release: str, work: Path) -> Path:
    """An archive of /agent, which few guests unpack: qemu-guest-agent with its libraries, and a file system."""
    tree = work / "agent-tree/agent"
    for name in ("lib", "modules", "data"):
        (tree / name).mkdir(parents=True)
    program = shutil.copy(debs / "usr/sbin/qemu-ga", tree / "qemu-ga")
    linker = root / "lib64/ld-linux-x86-64.so.2"
    libraries = subprocess.run([linker, "--library-path", root / "usr/lib/x86_64-linux-gnu", "--list", program], check=True,
                               capture_output=True, text=True).stdout
    for library in (linker, *re.findall(r"=> (\S+)", libraries)):
        shutil.copy(library, tree / "lib")
    put_modules(AGENT_MODULES, root, release, tree / "modules")
    (tree / "hook").write_text(HOOK, encoding="ascii")
    (tree / "hook").chmod(0o755)
    with open(tree / "disk", "wb") as disk:
        disk.truncate(4 << 20)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", tree / "disk"], check=True)
    subprocess.run(["tar", "-cf", work / "agent.tar", "-C", tree.parent, "agent"], check=True)
    return work / "agent.tar"


def build(dest: Path) -> Path:
    """The disk's image; made anew each time, in some seconds."""
    with image.building():
        root = image.build_rootfs(print)
    release = sorted(path.name for path in (root / "lib/modules").iterdir() if path.name.startswith("6.1."))[0]
    work = dest.with_suffix(".d")
    shutil.rmtree(work, ignore_errors=True)
    for name in ("bin", "modules", "proc", "sys", "dev", "www", "sums", "seed", "boot", "etc/acpi/PWRF"):
        (work / "root" / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", work / "root/bin/busybox")
    for applet in APPLETS:
        (work / "root/bin" / applet).symlink_to("busybox")
    put_modules(MODULES, root, release, work / "root/modules")
    for path, text in (("init", INIT), ("etc/acpi/PWRF/00000080", "#!/bin/sh\npoweroff -f\n")):
        (work / "root" / path).write_text(text, encoding="ascii")
        (work / "root" / path).chmod(0o755)
    (work / "syslinux.cfg").write_text(BOOT, encoding="ascii")
    (work / "grub.cfg").write_text(GRUB, encoding="ascii")
    with open(work / "initrd", "wb") as out:
        subprocess.run("find . | cpio -o -H newc --quiet | gzip -1", shell=True, check=True, cwd=work / "root", stdout=out)
    with open(dest, "wb") as out:
        out.truncate(SECTORS * 512)
    env = {**os.environ, "MTOOLS_SKIP_CHECK": "1"}
    subprocess.run(["mformat", "-i", dest, "-T", str(SECTORS), "-h", "16", "-s", "63", "::"], check=True, env=env)
    subprocess.run(["mmd", "-i", dest, "::EFI", "::EFI/BOOT", "::EFI/debian"], check=True, env=env)
    debs = unpacked(work)
    files = {"vmlinuz": root / f"boot/vmlinuz-{release}", "initrd": work / "initrd", "syslinux.cfg": work / "syslinux.cfg",
             "agent.tar": agent(debs, root, release, work), **signed(debs, work)}
    for name, source in files.items():
        subprocess.run(["mcopy", "-i", dest, source, f"::{name}"], check=True, env=env)
    subprocess.run(["syslinux", "--install", dest], check=True, env=env)
    shutil.rmtree(work)
    return dest
