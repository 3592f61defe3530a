# SPDX-License-Identifier: GPL-2.0
"""The node image: Debian packages, then this project's own packages on top.

Two layers, each cached under the hash of everything that goes into it:

  rootfs   a directory, mmdebstrap of NODE_PACKAGES plus both supported kernels
  node     an ext4 image: rootfs with the project's .deb files installed by dpkg

Kernels are unpacked, not installed: the lab boots them directly with an initrd of its
own (busybox and a dozen modules), which takes half the time of Debian's under emulation.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from . import paths

SUITE = "bookworm"

NODE_PACKAGES = """
systemd systemd-sysv udev dbus openssh-server iproute2 iputils-ping kmod ethtool
dmsetup e2fsprogs xfsprogs util-linux-extra fdisk fio jq sqlite3 procps bash-completion less
etcd-server etcd-client drbd-utils mdadm nbd-server nbd-client strace psmisc python3
gcc make dkms libc6-dev
libsqlite3-0 libnl-3-200 libnl-genl-3-200 libssl3 openssl
libboost-program-options1.81.0 libboost-json1.81.0 libboost-url1.81.0 libspdlog1.10 libfmt9 libdevmapper1.02.1 libblkid1 libudev1
libsystemd0 libxxhash0 libical3 curl
libvirt0 libpugixml1v5 libvirt-daemon-system libvirt-daemon-driver-qemu libvirt-clients qemu-system-x86 qemu-utils seabios
bubblewrap ovmf swtpm swtpm-tools xorriso
""".split()

KERNEL_METAS = ("linux-image-amd64", "linux-image-6.12-amd64")

# All that a node's devices need: udev, whose search takes most of a minute under emulation, is
# limited to block devices.
INITRD_MODULES = ("ext4", "virtio_blk", "virtio_pci", "crc32c_generic", "crc32c_intel", "aesni_intel", "virtio_net",
                  "virtio_rng", "virtio_scsi", "sd_mod", "i6300esb")


def run(*argv, **kwargs):
    return subprocess.run([str(a) for a in argv], check=True, **kwargs)


def output(*argv) -> str:
    return subprocess.run([str(a) for a in argv], check=True, capture_output=True, text=True).stdout


def kernel_packages() -> dict[str, str]:
    """Maps each kernel release, as in uname -r, to its image package."""
    found = {}
    for meta in KERNEL_METAS:
        depends = output("apt-cache", "depends", "--important", meta)
        image = next(w for w in depends.split() if w.startswith("linux-image-"))
        if image == meta:
            image = [w for w in depends.split() if w.startswith("linux-image-")][1]
        found[image.removeprefix("linux-image-")] = image
    return found


def digest(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def rootfs_key() -> str:
    kernels = [f"{r}={output('apt-cache', 'show', p).split('Version: ')[1].split()[0]}"
               for r, p in kernel_packages().items()]
    return digest(SUITE, *NODE_PACKAGES, *kernels, Path(__file__).read_text())


def build_rootfs(log) -> Path:
    """Returns the directory of the base layer, building it where the cache lacks it."""
    dest = paths.cache_dir() / f"rootfs-{rootfs_key()}"
    if dest.exists():
        return dest
    work = dest.with_suffix(".part")
    remove_tree(work)
    log("building the node's root file system from Debian packages (about two minutes)")
    headers = " ".join(f"linux-headers-{release}" for release in kernel_packages())
    packages = ",".join(NODE_PACKAGES)
    with open(paths.cache_dir() / "mmdebstrap.log", "w", encoding="utf-8") as out:
        try:
            run("mmdebstrap", "--mode=root", "--variant=minbase", f"--include={packages}",
                "--aptopt=APT::Install-Recommends false", "--dpkgopt=path-exclude=/usr/share/doc/*",
                "--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*",
                f"--customize-hook=chroot $1 apt-get install -y --no-install-recommends {headers}",
                "--customize-hook=rm -rf $1/var/cache/apt/archives/*.deb",
                SUITE, work, "/etc/apt/sources.list" if has_sources_list() else "-",
                stdin=sources_stdin(), stdout=out, stderr=out)
        except subprocess.CalledProcessError as err:
            raise SystemExit(f"lab: mmdebstrap failed, see {out.name}") from err
    for release, package in kernel_packages().items():
        unpack_kernel(work, release, package)
    configure_rootfs(work)
    work.rename(dest)
    drop_old("rootfs-", keep=dest)
    return dest


def has_sources_list() -> bool:
    path = Path("/etc/apt/sources.list")
    return path.exists() and any(l.startswith("deb") for l in path.read_text().splitlines())


def sources_stdin():
    """The machine's own deb822 sources: the node image comes from where the machine's packages do."""
    if has_sources_list():
        return None
    read, write = os.pipe()
    text = "\n".join(p.read_text() for p in sorted(Path("/etc/apt/sources.list.d").glob("*.sources")))
    os.write(write, text.encode())
    os.close(write)
    return read


def unpack_kernel(root: Path, release: str, package: str):
    debs = root / "kernel-debs"
    debs.mkdir(exist_ok=True)
    run("apt-get", "download", "-q", "-o", "APT::Sandbox::User=root", package, cwd=debs, stdout=subprocess.DEVNULL)
    for deb in debs.glob(f"{package}_*.deb"):
        # Not dpkg-deb -x: it would put a directory in the place of the symbolic link /lib.
        run("sh", "-c", 'dpkg-deb --fsys-tarfile "$1" | tar -x --keep-directory-symlink -C "$2"', "sh", deb, root)
    shutil.rmtree(debs)
    modules = root / "lib/modules" / release
    for unused in ("drivers/gpu", "drivers/media", "drivers/net/wireless", "sound", "drivers/infiniband",
                   "drivers/staging", "drivers/iio", "drivers/net/ethernet"):
        shutil.rmtree(modules / "kernel" / unused, ignore_errors=True)
    run("depmod", "-b", root, release)


def configure_rootfs(root: Path):
    """Everything about a node that is the lab's, not the product's."""
    def write(name: str, text: str):
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    write("etc/fstab", "/dev/vda / ext4 rw,noatime 0 0\n")
    write("etc/systemd/system.conf.d/lab.conf", "[Manager]\nDefaultTimeoutStopSec=20s\n")
    write("etc/systemd/journald.conf.d/lab.conf",
          "[Journal]\nStorage=volatile\nForwardToConsole=yes\nTTYPath=/dev/ttyS0\nMaxLevelConsole=warning\n")
    write("etc/systemd/system/systemd-udev-trigger.service.d/lab.conf",
          "[Service]\nExecStart=\nExecStart=udevadm trigger --type=devices --action=add --subsystem-match=block\n")
    write("etc/systemd/system/lab-node.service", LAB_NODE_UNIT)
    write("usr/local/sbin/lab-node", LAB_NODE_SCRIPT)
    (root / "usr/local/sbin/lab-node").chmod(0o755)
    write("etc/ssh/sshd_config.d/lab.conf", "PermitRootLogin prohibit-password\nUseDNS no\nMaxSessions 200\n"
          "MaxStartups 100\nPerSourceMaxStartups none\nUsePAM no\n")  # a session with logind costs seconds
    run("systemctl", f"--root={root}", "-q", "enable", "lab-node.service", "ssh.service")
    run("systemctl", f"--root={root}", "-q", "mask", "systemd-networkd.service", "serial-getty@ttyS0.service",
        "getty@tty1.service", "systemd-logind.service", "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount",
        "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service", "systemd-user-sessions.service",
        "systemd-sysusers.service", "dev-hugepages.mount", "dev-mqueue.mount", "modprobe@drm.service",
        "modprobe@efi_pstore.service", "modprobe@fuse.service", "modprobe@loop.service", "sys-fs-fuse-connections.mount",
        "kmod-static-nodes.service",
        "etcd.service", "drbd.service", "apt-daily.timer", "apt-daily-upgrade.timer", "e2scrub_all.timer",
        "e2scrub_reap.service", "fstrim.timer", "systemd-networkd-wait-online.service", "dpkg-db-backup.timer",
        "logrotate.timer", "systemd-pstore.service", "motd-news.timer", "libvirt-guests.service")
    # Its socket starts it where somebody asks.
    run("systemctl", f"--root={root}", "-q", "disable", "libvirtd.service")
    run("systemctl", f"--root={root}", "-q", "enable", "libvirtd.socket")
    run("chroot", root, "/usr/bin/ssh-keygen", "-q", "-A")


LAB_NODE_UNIT = """[Unit]
Description=Lab node identity and network from the kernel command line
DefaultDependencies=no
After=systemd-remount-fs.service
Wants=network-online.target
Before=sysinit.target network-online.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/usr/local/sbin/lab-node

[Install]
WantedBy=sysinit.target
"""

# As few processes as possible: each takes a second while three nodes boot.
LAB_NODE_SCRIPT = """#!/bin/sh
# Host name, addresses and the ssh key come from the kernel command line: lab.node=N lab.key=BASE64
read -r cmdline < /proc/cmdline
for word in $cmdline; do
	case $word in
	lab.node=*) n=${word#*=} ;;
	lab.key=*) key=$(echo "${word#*=}" | base64 -d) ;;
	esac
done
[ -n "$n" ] || exit 0
echo "n$n" > /proc/sys/kernel/hostname
# The first boot alone writes: a later one may find the disk full.
if ! [ -e /root/.ssh/authorized_keys ]; then
	echo "n$n" > /etc/hostname
	{
		echo "127.0.0.1 localhost"
		for i in 1 2 3 4 5 6 7 8; do echo "10.11.0.$i n$i"; echo "10.12.0.$i n$i-bp"; done
	} > /etc/hosts
	mkdir -p -m 700 /root/.ssh
	echo "$key" > /root/.ssh/authorized_keys
	sync
fi
modprobe bonding max_bonds=0
# NICs are named by their addresses. A kernel that has their driver built in shows them late.
until [ -e /sys/class/net/eth4 ]; do sleep 0.1; done
for nic in /sys/class/net/eth*; do
	read -r mac < "$nic/address"
	case $mac in
	*:01) name=lan0 ;;
	*:02) name=lan1 ;;
	*:03) name=bp0 ;;
	*:04) name=bp1 ;;
	*) name=mgmt ;;
	esac
	echo "link set ${nic##*/} name $name"
done > /run/lab-node.ip
for bond in lan:10.11.0 bp:10.12.0; do
	name=${bond%%:*}
	echo "link add $name type bond mode active-backup miimon 100"
	for port in 0 1; do echo "link set $name$port down"; echo "link set $name$port master $name"; done
	echo "address add ${bond#*:}.$n/24 dev $name"
	[ $name = lan ] || echo "link set $name mtu 9000"
	echo "link set $name up"
done >> /run/lab-node.ip
echo "address add 10.0.2.15/24 dev mgmt
link set mgmt up
link set lo up" >> /run/lab-node.ip
ip -batch /run/lab-node.ip
"""

INIT_SCRIPT = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sysfs /sys
/bin/busybox mount -t devtmpfs dev /dev
while read -r module; do /bin/busybox insmod "/modules/$module"; done < /modules/order
n=0
until /bin/busybox mount -t ext4 -o noatime /dev/vda /root; do
	n=$((n + 1)); [ $n -gt 100 ] && exec /bin/busybox poweroff -f
	/bin/busybox usleep 100000
done
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /sys
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /lib/systemd/systemd
"""


def make_initrd(root: Path, release: str, dest: Path):
    """A cpio archive that loads what the root file system needs and hands over to systemd."""
    work = dest.with_suffix(".d")
    remove_tree(work)
    for name in ("bin", "modules", "proc", "sys", "dev", "root"):
        (work / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", work / "bin/busybox")
    order = []
    for module in INITRD_MODULES:
        listing = subprocess.run(["modprobe", "-d", str(root), "-S", release, "--show-depends", module],
                                 capture_output=True, text=True, check=False).stdout
        for line in listing.splitlines():
            if not line.startswith("insmod "):
                continue
            path = Path(line.split()[1])
            if path.name not in order:
                order.append(path.name)
                shutil.copy(path, work / "modules" / path.name)
    (work / "modules/order").write_text("".join(f"{m}\n" for m in order))
    (work / "init").write_text(INIT_SCRIPT)
    (work / "init").chmod(0o755)
    with open(dest, "wb") as out:
        run("sh", "-c", "find . | cpio -o -H newc --quiet", cwd=work, stdout=out)
    shutil.rmtree(work)


def node_image(debs: list[Path], log) -> Path:
    """Returns the directory of the node image: root.img, and vmlinuz-R and initrd-R per kernel.

    debs: the project's packages, in the order to install them; none gives the bare base image.
    """
    with building():
        return build_node_image(debs, log)


def build_node_image(debs: list[Path], log) -> Path:
    base = build_rootfs(log)
    contents = [hashlib.sha256(d.read_bytes()).hexdigest() for d in debs]
    dest = paths.cache_dir() / f"node-{digest(base.name, *contents, INIT_SCRIPT)}"
    if dest.exists():
        os.utime(dest)
        return dest
    work = dest.with_suffix(".part")
    remove_tree(work)
    work.mkdir()
    log("building the node image with this build's packages")
    releases = sorted(r.name for r in (base / "lib/modules").iterdir())
    for release in releases:
        shutil.copy(base / f"boot/vmlinuz-{release}", work / f"vmlinuz-{release}")
        make_initrd(base, release, work / f"initrd-{release}")
    (work / "debs").mkdir()
    for deb in debs:
        shutil.copy(deb, work / "debs" / deb.name)
    names = " ".join(f"/var/tmp/debs/{d.name}" for d in debs)
    install = INSTALL_DEBS.format(names=names) if debs else "true"
    script = MAKE_IMAGE.format(base=base, work=work, install=install)
    with open(work / "build.log", "w", encoding="utf-8") as out:
        code = subprocess.run(["unshare", "-m", "sh", "-euc", script], stdout=out, stderr=out, check=False).returncode
    if code != 0:
        text = (work / "build.log").read_text()
        raise SystemExit(f"lab: the node image could not be built:\n{text[-4000:]}")
    work.rename(dest)
    drop_old("node-", keep=dest, spare=3)
    return dest


# dpkg runs in a chroot on an overlay, so that the base layer stays as it was built. There is no
# running systemd and no matching kernel in there: policy-rc.d keeps services off, and DKMS builds
# for the kernels that are installed.
INSTALL_DEBS = """
printf '#!/bin/sh\\nexit 101\\n' > $m/usr/sbin/policy-rc.d; chmod 755 $m/usr/sbin/policy-rc.d
mkdir -p $m/var/tmp/debs; cp $w/debs/*.deb $m/var/tmp/debs/
mount -t proc proc $m/proc; mount -t devtmpfs dev $m/dev 2>/dev/null || mount --bind /dev $m/dev
chroot $m dpkg -i {names}
umount $m/dev $m/proc
rm -rf $m/var/tmp/debs $m/usr/sbin/policy-rc.d
"""

MAKE_IMAGE = """
w={work}; m=$w/merged; mkdir -p $m $w/tmp
mount -t tmpfs -o size=6g tmpfs $w/tmp
mkdir $w/tmp/upper $w/tmp/work
mount -t overlay overlay -o lowerdir={base},upperdir=$w/tmp/upper,workdir=$w/tmp/work $m
{install}
truncate -s 6G $w/root.img
mke2fs -q -t ext4 -O ^has_journal -E lazy_itable_init=1,lazy_journal_init=1 -d $m $w/root.img
tune2fs -O has_journal -J size=32 $w/root.img
umount $m; umount $w/tmp; rmdir $m $w/tmp
"""


def remove_tree(path: Path):
    """Removes a directory of the cache, never through a mount that a killed build left in it."""
    if not path.exists():
        return
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mount in sorted((m for m in mounts if m.startswith(f"{path}/")), reverse=True):
        run("umount", mount)
    shutil.rmtree(path)


@contextlib.contextmanager
def building():
    """One build of images at a time on this machine; others wait and then find it done."""
    with open(paths.cache_dir() / "image.lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def drop_old(prefix: str, keep: Path, spare: int = 0):
    """Removes older entries of the cache, all but the newest `spare` of them."""
    old = [p for p in paths.cache_dir().iterdir()
           if p.name.startswith(prefix) and p != keep and not p.suffix.startswith(".part")]
    old.sort(key=lambda p: p.stat().st_mtime, reverse=True)
    for path in old[spare:]:
        shutil.rmtree(path, ignore_errors=True)
