#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A stand-in for the daemon, for tests of the module alone: metadata in a dictionary, one owner.

  scribe_agent.py owner NODE STATE DISK=PATH... [-- NODE@HOST...]
  scribe_agent.py host NODE STATE DISK=PATH...
  scribe_agent.py spoil|compare 0 STATE DISK=PATH...

`compare` fails where the current copies of something mapped differ; `spoil` makes such a difference in a
leaf with intent, as an owner that dies in the middle of a write leaves it. Once there is a file STATE/heal, the owner gives what has a stale copy, or one on a failed disk, two
good ones again, and makes a file STATE/healed when nothing is left to do. Once there is a file
STATE/relocate, it gives all copies other slots, says so, writes over the old ones and makes a file
STATE/relocated. As long as there is a file STATE/gather, it gives chunks with pieces in shared extents one
of their own, counts them in STATE/gathered, and writes over what nothing leads to any more.
VSD 100 + N begins as VSD N is when it is first used: a clone.
With SCRIBE_MARKS="NAME..." in its environment the owner keeps each version of its map, and marks its number in
these log-writes devices (logwrites.py) once it is durable.
`host` opens disks and serves them over the backplane. `owner` also opens its disks, connects to
hosts, allocates extents over all disks (two copies, on different nodes where there are hosts), and
answers what the module asks for. STATE is a directory; the owner's map.json in it is fsynced before
a batch is acknowledged, so an owner that dies can start again from it.
"""

import errno
import json
import mmap
import os
import random
import select
import shutil
import socket
import struct
import subprocess
import sys
import threading
import time

import scribe_nl as nl

CLUSTER = b"scribe-selftest!"
PORT = 7420
LEAF_CHUNKS = 16
CHUNK_SECTORS = 2048
CONNECT_SECONDS = 3
TCP_ULP, SOL_TLS, TLS_TX, TLS_RX = 31, 282, 1, 2
# VSDs from this id on are fully mapped, one extent for each chunk, though nothing was ever written:
# what a big map costs does not depend on where its extents lie, so they share the disks' slots.
FULL_FROM = 1000
CLONES_FROM = 100
LEASE_SECONDS = 24  # long: under emulation a busy node may not run us for seconds


def disk_uuid(disk):
    return b"disk%012d" % disk


def boottime_ns():
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME)


class Node:
    """What owner and host share: identity, disks, deadline."""

    def __init__(self, node, state, disks):
        self.node, self.state = node, state
        os.makedirs(state, exist_ok=True)
        self.family = nl.Family()
        self.lock = threading.Lock()
        self.life = self.family.call("HELLO", NODE_ID=node, CLUSTER_UUID=CLUSTER)["LIFE"]
        self.disks = {}  # disk -> {"life", "slots", "node", "tier"}
        self.extend_deadline()
        for disk, path in disks.items():
            answer = self.family.call("DISK_OPEN", DISK_ID=disk, DISK_UUID=disk_uuid(disk), PATH=path, TIER=disk % 2)
            self.disks[disk] = {"life": answer["DISK_LIFE"], "slots": answer["SLOTS"], "node": node, "tier": disk % 2}

    def call(self, *args, **kwargs):
        with self.lock:
            return self.family.call(*args, **kwargs)

    def extend_deadline(self):
        self.family.call("DEADLINE", DEADLINE_NS=boottime_ns() + LEASE_SECONDS * 10**9, LIFE=self.life)

    def introduce(self):
        return {"node": self.node, "life": self.life, "disks": self.disks}

    def keep_alive(self):
        while True:
            with self.lock:
                self.extend_deadline()
            time.sleep(LEASE_SECONDS / 4)


def exchange(sock, message):
    """One JSON line each way; not a byte beyond it may be read, it is the kernel's."""
    sock.sendall(json.dumps(message).encode() + b"\n")
    line = b""
    while not line.endswith(b"\n"):
        byte = sock.recv(1)
        if not byte:
            raise ConnectionError("peer closed")
        line += byte
    return json.loads(line)


def secure(sock):
    """With SCRIBE_TLS=1, from here on everything on this socket goes through the kernel's TLS, by a key that everybody knows."""
    if os.environ.get("SCRIBE_TLS") != "1":
        return nl.F_DATA_CRC
    # struct tls12_crypto_info_aes_gcm_128: TLS 1.2, the cipher; iv, key, salt, number of the next record
    info = struct.pack("=HH8s16s4s8s", 0x0303, 51, b"selftest", b"0123456789abcdef", b"salt", bytes(8))
    sock.setsockopt(socket.IPPROTO_TCP, TCP_ULP, b"tls")
    sock.setsockopt(SOL_TLS, TLS_TX, info)
    sock.setsockopt(SOL_TLS, TLS_RX, info)
    return 0


class Host(Node):
    def serve(self):
        threading.Thread(target=self.keep_alive, daemon=True).start()
        listener = socket.create_server(("0.0.0.0", PORT))
        open(f"{self.state}/ready", "w", encoding="utf-8").close()
        while True:
            sock, _ = listener.accept()
            try:
                peer = exchange(sock, self.introduce())
                self.call("PEER_SET", NODE_ID=peer["node"], LIFE=peer["life"])
                self.call("SOCKET_ADD", NODE_ID=peer["node"], LIFE=peer["life"], ROLE=1, SOCK_FD=sock.fileno(),
                          FLAGS=secure(sock))
            except OSError as err:
                print(f"host: {err}", flush=True)
            sock.close()


def drain(events):
    """An event says no more than: look. While we were busy there may have been too many to keep."""
    while select.select([events], [], [], 0)[0]:
        try:
            events.recv(65536)
        except OSError as err:
            if err.errno != errno.ENOBUFS:
                raise


def merge(segments):
    """Neighbours that continue each other in one extent are one segment, as in the module."""
    out = []
    for start, length, extent, off in segments:
        last = out[-1] if out else None
        if last and last[2] == extent and last[0] + last[1] == start and last[3] + last[1] == off:
            last[1] += length
        else:
            out.append([start, length, extent, off])
    return out


class Owner(Node):
    def __init__(self, node, state, disks, hosts):
        super().__init__(node, state, disks)
        self.hosts, self.paths = hosts, disks
        self.extents = {}  # id -> {"copies": [[disk, slot]...], "stale": [disk...]}
        self.maps = {}  # vsd -> {chunk -> [[start, len, extent, off]...]}
        self.freed = set()  # extents that nothing leads to any more
        self.epochs = {}
        self.intents = {}  # vsd -> leaves that are written in place
        self.next_extent = 1
        self.used = {}  # disk -> slots taken
        self.draw = random.Random(1)
        self.next_try = {}  # node -> when to connect again
        self.lost = set()
        self.meta = threading.RLock()  # what the mover reads and changes, too
        self.marks = os.environ.get("SCRIBE_MARKS", "").split()
        self.version = 0
        self.load()
        for host in hosts:
            self.connect(host)

    def load(self):
        try:
            with open(f"{self.state}/map.json", encoding="utf-8") as data:
                saved = json.load(data)
        except FileNotFoundError:
            return
        self.extents = {int(k): v for k, v in saved["extents"].items()}
        self.maps = {int(v): {int(c): s for c, s in m.items()} for v, m in saved["maps"].items()}
        self.epochs = {int(k): v for k, v in saved["epochs"].items()}
        self.intents = {int(k): v for k, v in saved.get("intents", {}).items()}
        self.next_extent = saved["next_extent"]
        for extent in self.extents.values():
            for disk, slot in extent["copies"]:
                self.used.setdefault(disk, set()).add(slot)

    def save(self):
        mapped = {s[2] for m in self.maps.values() for segs in m.values() for s in segs}
        saved = {"extents": {k: v for k, v in self.extents.items() if k in mapped}, "maps": self.maps,
                 "epochs": self.epochs, "intents": self.intents, "next_extent": self.next_extent}
        with open(f"{self.state}/map.new", "w", encoding="utf-8") as out:
            json.dump(saved, out)
            out.flush()
            os.fsync(out.fileno())
        os.rename(f"{self.state}/map.new", f"{self.state}/map.json")
        # The name, too: without this a power cut may bring the old map back.
        directory = os.open(self.state, os.O_RDONLY)
        os.fsync(directory)
        os.close(directory)
        if self.marks:
            self.keep_version()

    def keep_version(self):
        """Before the module hears that this version is durable, so that what it does next lies behind the mark."""
        self.version += 1
        os.makedirs(f"{self.state}/versions", exist_ok=True)
        shutil.copy(f"{self.state}/map.json", f"{self.state}/versions/{self.version}.json")
        for name in self.marks:
            subprocess.run(["dmsetup", "message", name, "0", "mark", f"map-{self.version}"], check=True)

    def connect(self, host):
        node, _, address = host.partition("@")
        for _ in range(4):
            sock = socket.create_connection((address, PORT), timeout=CONNECT_SECONDS)
            peer = exchange(sock, self.introduce())
            sock.settimeout(None)
            assert peer["node"] == int(node)
            self.call("PEER_SET", NODE_ID=peer["node"], LIFE=peer["life"])
            for disk, about in peer["disks"].items():
                self.call("ROUTE_SET", DISK_ID=int(disk), NODE_ID=peer["node"], DISK_LIFE=about["life"],
                          TIER=about["tier"])
                self.disks[int(disk)] = about
            self.call("SOCKET_ADD", NODE_ID=peer["node"], LIFE=peer["life"], ROLE=0, SOCK_FD=sock.fileno(),
                      FLAGS=secure(sock))
            sock.close()

    def reconnect(self, lost):
        for host in self.hosts:
            node = int(host.partition("@")[0])
            if node in lost and time.monotonic() > self.next_try.get(node, 0):
                try:
                    self.connect(host)
                except (OSError, nl.NetlinkError) as err:
                    print(f"owner: node {node}: {err}", flush=True)
                self.next_try[node] = time.monotonic() + 3 * CONNECT_SECONDS

    def allocate(self, lost):
        """One extent with two copies, on different nodes where there are several."""
        nodes = {}
        for disk, about in self.disks.items():
            used = self.used.setdefault(disk, set())
            if about["node"] not in lost and not about.get("failed") and len(used) < about["slots"]:
                nodes.setdefault(about["node"], []).append(disk)
        several = len({d["node"] for d in self.disks.values()}) > 1
        if several:
            if len(nodes) < 2:
                return None
            chosen = [self.draw.choice(nodes[n]) for n in self.draw.sample(sorted(nodes), 2)]
        else:
            local = nodes.get(self.node, [])
            if len(local) < 2:
                return None
            chosen = self.draw.sample(local, 2)
        copies = []
        for disk in chosen:
            slot = next(s for s in range(len(self.used[disk]) + 1) if s not in self.used[disk])
            self.used[disk].add(slot)
            copies.append([disk, slot])
        number = self.next_extent
        self.next_extent += 1
        self.extents[number] = {"copies": copies, "stale": [], "marks": 0}
        return nl.pack_extent(number, copies)

    def apply(self, vsd, ops, stales):
        chunks = self.maps.setdefault(vsd, {})
        named, lost = set(), set()
        for chunk, extent, start, length, off, _ in nl.OP.iter_unpack(ops):
            named.add(extent)
            rest = []
            for s, n, e, o in chunks.get(chunk, []):
                if s < start + length and s + n > start:
                    lost.add(e)
                if s < start:
                    rest.append([s, min(s + n, start) - s, e, o])
                if s + n > start + length:
                    begin = max(s, start + length)
                    rest.append([begin, s + n - begin, e, o + begin - s])
            if extent:
                assert extent in self.extents
                rest.append([start, length, extent, off])
            chunks[chunk] = merge(sorted(rest))
        self.free(vsd, named, lost)
        for data in stales:
            extent, disk, _ = nl.STALE.unpack(data)
            self.extents[extent]["marks"] += 1
            if disk not in self.extents[extent]["stale"]:
                self.extents[extent]["stale"].append(disk)
        self.save()

    def free(self, vsd, named, lost):
        """What no map leads to at a batch's end is another's soon: it must not be mapped again."""
        again = named & self.freed
        if again:
            print(f"VSD {vsd}: extents {sorted(again)} are mapped, and were freed", flush=True)
            os._exit(1)
        if lost:
            self.freed |= lost - set(self.users())

    def users(self):
        """Of each extent that is mapped: the VSDs that lead to it."""
        out = {}
        for vsd, chunks in self.maps.items():
            for segs in chunks.values():
                for segment in segs:
                    out.setdefault(segment[2], set()).add(vsd)
        return out

    def full_leaf(self, vsd, leaf):
        segs, extents = b"", b""
        (first, one), (second, other) = list(self.disks.items())[:2]
        for index in range(LEAF_CHUNKS):
            chunk = leaf * LEAF_CHUNKS + index
            extent = (vsd << 32) + chunk + 1
            segs += nl.SEG.pack(extent, index, 0, CHUNK_SECTORS, 0)
            extents += nl.pack_extent(extent, [[first, chunk % one["slots"]], [second, chunk % other["slots"]]])
        self.call("LEAF_PUT", VSD=vsd, EPOCH=self.epochs[vsd], LEAF=leaf, SEGS=segs, EXTENTS=extents)

    def put_leaf(self, vsd, leaf):
        if vsd >= FULL_FROM:
            return self.full_leaf(vsd, leaf)
        segs, used = b"", []
        for index in range(LEAF_CHUNKS):
            for start, length, extent, off in self.maps.get(vsd, {}).get(leaf * LEAF_CHUNKS + index, []):
                segs += nl.SEG.pack(extent, index, start, length, off)
                if extent not in used:
                    used.append(extent)
        users = self.users()
        extents = b"".join(nl.pack_extent(e, self.extents[e]["copies"], stale=self.extents[e]["stale"],
                                          flags=nl.EXTENT_EXCLUSIVE if len(users[e]) == 1 else 0) for e in used)
        self.call("LEAF_PUT", VSD=vsd, EPOCH=self.epochs[vsd], LEAF=leaf, SEGS=segs, EXTENTS=extents)

    def recover(self, vsd):
        """The last owner died: of extents that it may have been writing in place, one copy is chosen."""
        leaves = self.intents.pop(vsd, [])
        for leaf in leaves:
            for chunk in range(leaf * LEAF_CHUNKS, (leaf + 1) * LEAF_CHUNKS):
                for segment in self.maps.get(vsd, {}).get(chunk, []):
                    extent = self.extents[segment[2]]
                    good = [d for d, _ in extent["copies"] if d not in extent["stale"] and d in self.disks]
                    extent["stale"] = sorted({d for d, _ in extent["copies"] if good and d != good[0]}
                                             | set(extent["stale"]))
        return bool(leaves)

    # The mover: kernel/freeze.c has its steps.

    def good(self, disk):
        return not self.disks[disk].get("failed") and self.disks[disk]["node"] not in self.lost

    def sick(self, vsd):
        """Extents of a VSD that lack two good copies, or have one too many."""
        mapped = {s[2] for segs in self.maps.get(vsd, {}).values() for s in segs}
        for number in sorted(mapped):
            extent = self.extents[number]
            if extent["stale"] or not all(self.good(disk) for disk, _ in extent["copies"]):
                yield number

    def new_place(self, extent):
        """A slot on another disk, of another node where there are several."""
        taken = {disk for disk, _ in extent["copies"]}
        nodes = {self.disks[disk]["node"] for disk, _ in extent["copies"] if self.good(disk)}
        several = len({d["node"] for d in self.disks.values()}) > 1
        for disk, about in self.disks.items():
            used = self.used.setdefault(disk, set())
            if disk in taken or not self.good(disk) or several and about["node"] in nodes:
                continue
            slot = next((s for s in range(about["slots"]) if s not in used), None)
            if slot is not None:
                used.add(slot)
                extent["copies"].append([disk, slot])
                extent["stale"].append(disk)
                return

    def plan_move(self, number):
        """From which disk to which, and which copy is to go; None: nothing can be done now."""
        extent = self.extents[number]
        current = [d for d, _ in extent["copies"] if d not in extent["stale"] and self.good(d)]
        waiting = [d for d in extent["stale"] if self.good(d)]
        if not current:
            return None
        if len(current) < 2 and not waiting:
            self.new_place(extent)
            waiting = [d for d in extent["stale"] if self.good(d)]
            if not waiting:
                return None
        keep = current + (waiting[:1] if len(current) < 2 else [])
        drop = [d for d, _ in extent["copies"] if d not in keep][:1] if len(keep) > 1 else []
        return {"number": number, "from": current[0], "to": keep[1:][:1] if len(current) < 2 else [], "drop": drop,
                "marks": extent["marks"]}

    def pack_move(self, move, flags, drop=(), refreshed=()):
        extent = self.extents[move["number"]]
        return nl.pack_extent(move["number"], [c for c in extent["copies"] if c[0] not in drop],
                              flags=nl.EXTENT_EXCLUSIVE | flags, stale=extent["stale"], refreshed=refreshed)

    def heal(self, family, vsd):
        """One round for up to 16 extents; whether there was anything to do."""
        with self.meta:
            moves = [m for m in (self.plan_move(n) for n in list(self.sick(vsd))[:16]) if m]
            epoch = self.epochs.get(vsd)
            first = b"".join(self.pack_move(m, nl.EXTENT_FROZEN) for m in moves)
        if not moves:
            return False
        family.call("EXTENTS_SET", VSD=vsd, EPOCH=epoch, EXTENTS=first)
        family.call("BARRIER")
        family.call("VSD_FLUSH", VSD=vsd, EPOCH=epoch)
        slots = b""
        for move in moves:
            places = dict(self.extents[move["number"]]["copies"])
            for disk in move["to"]:
                slots += nl.SLOT.pack(self.disks[move["from"]]["life"], self.disks[disk]["life"], places[move["from"]],
                                      places[disk], move["from"], disk, 0)
        done = family.call("SLOTS_COPY", SLOTS_MOVE=slots)["DONE"] if slots else 0
        at = 0
        for move in moves:
            copied = not move["to"] or done >> at & 1
            at += len(move["to"])
            if copied and move["drop"]:
                try:
                    family.call("EXTENTS_SET", VSD=vsd, EPOCH=epoch,
                                EXTENTS=self.pack_move(move, nl.EXTENT_FROZEN | nl.EXTENT_PARTIAL, drop=move["drop"]))
                except nl.NetlinkError:
                    copied = False
            with self.meta:
                extent = self.extents[move["number"]]
                copied = copied and extent["marks"] == move["marks"]
                if copied:
                    extent["copies"] = [c for c in extent["copies"] if c[0] not in move["drop"]]
                    extent["stale"] = [d for d in extent["stale"] if d not in move["to"] + move["drop"]]
                    self.save()
            family.call("EXTENTS_SET", VSD=vsd, EPOCH=epoch,
                        EXTENTS=self.pack_move(move, 0, refreshed=move["to"] if copied else []))
        return True

    def relocate(self, family):
        """What VSDs share, or did, moves; of what a clone has written the module is told nonsense, not to be believed."""
        moves, shared, own, frozen = [], b"", b"", 0
        for number, vsds in sorted(self.users().items()):
            if min(vsds) >= CLONES_FROM:
                own += nl.pack_extent(number, [[disk, 0] for disk, _ in self.extents[number]["copies"]], flags=0)
                continue
            copies, before = [], self.extents[number]["copies"]
            for disk, slot in before:
                to = next(s for s in range(self.disks[disk]["slots"]) if s not in self.used[disk])
                self.used[disk].add(to)
                copies.append([disk, to])
                moves.append((disk, slot, to))
            self.extents[number]["copies"] = copies[::-1]
            shared += nl.pack_extent(number, copies[::-1], flags=0)
            # Some are frozen and stay so, as by a daemon that died.
            if min(vsds) < CLONES_FROM and frozen < 8:
                frozen += 1
                self.call("EXTENTS_SET", VSD=min(vsds), EPOCH=self.epochs[min(vsds)],
                          EXTENTS=nl.pack_extent(number, before, flags=nl.EXTENT_FROZEN))
        for at in range(0, len(moves), 64):
            some = moves[at:at + 64]
            recs = b"".join(nl.SLOT.pack(self.disks[disk]["life"], self.disks[disk]["life"], slot, to, disk, disk, 0)
                            for disk, slot, to in some)
            assert family.call("SLOTS_COPY", SLOTS_MOVE=recs)["DONE"] == (1 << len(some)) - 1
        self.save()
        family.call("EXTENTS_MOVED", EXTENTS=shared + own)
        family.call("BARRIER")
        for disk, slot, _ in moves:
            with open(self.paths[disk], "r+b", buffering=0) as dev:
                dev.seek(slot_offset(slot))
                dev.write(b"\xcd" * (nl.SLOT_SECTORS * 512))
                os.fsync(dev.fileno())
        print(f"owner: {len(moves)} copies have other slots", flush=True)

    def gather(self, family, vsd, chunk):
        """kernel/pieces.c has the steps; whether it came to an end."""
        with self.meta:
            segs = [list(s) for s in self.maps[vsd][chunk]]
            users, epoch = self.users(), self.epochs[vsd]
            named = sorted({s[2] for s in segs})
            own = [e for e in named if users[e] == {vsd}]
            room = self.allocate(self.lost)
            new = self.next_extent - 1

        def states(flags):
            return b"".join(nl.pack_extent(e, self.extents[e]["copies"], flags=nl.EXTENT_EXCLUSIVE | flags,
                                           stale=self.extents[e]["stale"]) for e in own)
        if not room or any(self.extents[e]["stale"] for e in named):
            return False
        try:
            family.call("EXTENTS_SET", VSD=vsd, EPOCH=epoch, EXTENTS=states(nl.EXTENT_FROZEN))
            family.call("BARRIER")
            family.call("VSD_FLUSH", VSD=vsd, EPOCH=epoch)
            source = {e: self.draw.choice(self.extents[e]["copies"]) for e in named}
            ranges = b"".join(nl.RANGE.pack(self.disks[source[e][0]]["life"], source[e][1], source[e][0], off, length, start)
                              for start, length, e, off in segs)
            first, end = segs[0][0], segs[-1][0] + segs[-1][1]
            targets = b"".join(nl.RANGE.pack(self.disks[disk]["life"], slot, disk, first, end - first, 0)
                               for disk, slot in self.extents[new]["copies"])
            family.call("SLOTS_GATHER", RANGES=ranges, TARGETS=targets)
            family.call("EXTENTS_SET", VSD=vsd, EPOCH=epoch, EXTENTS=states(nl.EXTENT_FROZEN | nl.EXTENT_PARTIAL))
            with self.meta:
                done = self.maps[vsd][chunk] == segs and all(not self.extents[e]["stale"] for e in named)
                if done:
                    self.lead_to(family, chunk, segs, new)
        finally:
            family.call("EXTENTS_SET", VSD=vsd, EPOCH=epoch, EXTENTS=states(0))
        if done:
            family.call("BARRIER")
            self.spoil_unused(named)
        return done

    def lead_to(self, family, chunk, segs, new):
        """Under self.meta: all that lead there, from now on, and the module hears of it."""
        again = merge([[start, length, new, start] for start, length, _, _ in segs])
        vsds = [v for v, chunks in self.maps.items() if chunks.get(chunk) == segs]
        for vsd in vsds:
            self.maps[vsd][chunk] = [list(s) for s in again]
        self.save()
        pieces = b"".join(nl.PIECE.pack(chunk, e, start, length, off, start) for start, length, e, off in segs)
        to = nl.pack_extent(new, self.extents[new]["copies"], flags=nl.EXTENT_EXCLUSIVE if len(vsds) == 1 else 0)
        for vsd in vsds:
            family.call("PIECES_MOVED", VSD=vsd, EPOCH=self.epochs[vsd], PIECES=pieces, EXTENTS=to)
        if family.refuses(errno.ESTALE, "PIECES_MOVED", VSD=vsds[0], EPOCH=self.epochs[vsds[0]] + 1, PIECES=pieces, EXTENTS=to):
            return
        print("owner: pieces moved in another epoch", flush=True)
        os._exit(1)

    def spoil_unused(self, numbers):
        users = self.users()
        for number in set(numbers) - set(users):
            self.freed.add(number)
            for disk, slot in self.extents[number]["copies"]:
                with open(self.paths[disk], "r+b", buffering=0) as dev:
                    dev.seek(slot_offset(slot))
                    dev.write(b"\xcd" * (nl.SLOT_SECTORS * 512))
                    os.fsync(dev.fileno())

    def gather_all(self, family):
        count = 0
        for vsd in list(self.epochs):
            for chunk in sorted(c for c, segs in self.maps.get(vsd, {}).items() if any(s[0] != s[3] for s in segs)):
                try:
                    count += self.gather(family, vsd, chunk)
                except nl.NetlinkError as err:
                    print(f"owner: VSD {vsd}, chunk {chunk}: {err}", flush=True)
        return count

    def keep_healing(self):
        family = nl.Family()
        rounds = gathered = 0
        while True:
            time.sleep(0.2)
            if os.path.exists(f"{self.state}/gather"):
                gathered += self.gather_all(family)
                with open(f"{self.state}/gathered", "w", encoding="utf-8") as out:
                    out.write(f"{gathered}\n")
            if os.path.exists(f"{self.state}/relocate"):
                with self.meta:
                    self.relocate(family)
                os.rename(f"{self.state}/relocate", f"{self.state}/relocated")
            if not os.path.exists(f"{self.state}/heal"):
                continue
            try:
                busy = any([self.heal(family, vsd) for vsd in list(self.epochs)])
            except nl.NetlinkError as err:
                print(f"owner: mover: {err}", flush=True)
                continue
            rounds += 1
            with open(f"{self.state}/rounds", "w", encoding="utf-8") as out:
                out.write(f"{rounds}\n")
            if not busy and not any(True for vsd in self.epochs for _ in self.sick(vsd)):
                open(f"{self.state}/healed", "w", encoding="utf-8").close()

    def check_gone(self, vsd, batch):
        """What is committed is not offered again: the lease may be another's by then."""
        try:
            again = self.call("BATCH_GET", VSD=vsd)
        except OSError as err:
            if err.errno == errno.ENOENT:
                return
            raise
        if (again["EPOCH"], again["BATCH"]) == (batch["EPOCH"], batch["BATCH"]):
            print(f"VSD {vsd}: batch {batch['BATCH']} is ready again", flush=True)
            os._exit(1)

    def serve_record(self, kind, number, vsd, arg, lost):
        if kind == nl.LEASE_WANTED:
            if CLONES_FROM <= vsd < FULL_FROM and vsd not in self.maps:
                self.maps[vsd] = {chunk: [list(s) for s in segs] for chunk, segs in self.maps[vsd - CLONES_FROM].items()}
            if self.recover(vsd):
                self.call("DISKS_FLUSH")
            self.epochs[vsd] = self.epochs.get(vsd, 0) + 1
            self.save()
            self.call("LEASE_GRANT", VSD=vsd, EPOCH=self.epochs[vsd])
        elif kind == nl.INTENT_WANTED:
            leaves = self.intents.setdefault(vsd, [])
            if arg not in leaves:
                leaves.append(arg)
                self.save()
            self.call("INTENT_ADD", VSD=vsd, EPOCH=self.epochs[vsd], IDS=struct.pack("=Q", arg))
        elif kind == nl.INTENT_IDLE:
            if self.call("INTENT_DROP", VSD=vsd, EPOCH=self.epochs[vsd], IDS=struct.pack("=Q", arg))["IDS"]:
                self.intents[vsd].remove(arg)
                self.save()
        elif kind == nl.LEAF_WANTED:
            self.put_leaf(vsd, arg)
        elif kind == nl.BATCH_READY:
            batch = self.call("BATCH_GET", VSD=vsd)
            if batch.get("STALES") and os.path.exists(f"{self.state}/refuse"):
                os.remove(f"{self.state}/refuse")
                self.call("BATCH_DONE", VSD=vsd, EPOCH=batch["EPOCH"], BATCH=batch["BATCH"], FLAGS=nl.F_REFUSED)
                return
            self.apply(vsd, batch.get("OPS", b""), batch.get("STALES", []))
            self.call("BATCH_DONE", VSD=vsd, EPOCH=batch["EPOCH"], BATCH=batch["BATCH"])
            self.check_gone(vsd, batch)
        elif kind == nl.RESERVE_LOW:
            extents = [e for e in (self.allocate(lost) for _ in range(min(arg, 256))) if e]
            self.call("RESERVE_ADD", EXTENTS=b"".join(extents), FLAGS=0 if extents else nl.F_NOSPACE)
        elif kind == nl.DISK_FAILED:
            self.disks[number]["failed"] = True

    def drop_lost_writes(self, records):
        """Flushes wait for a good copy: where its disks have all failed, the VSD goes on from what was flushed."""
        waits = {}
        for kind, number, vsd, _ in records:
            if kind == nl.FLUSH_STUCK:
                waits.setdefault(vsd, []).append(number == 0 or self.disks[number].get("failed", False))
        for vsd, gone in waits.items():
            if all(gone):
                self.call("LEASE_FAIL", VSD=vsd, EPOCH=self.epochs[vsd], FLAGS=nl.F_RELET)
                open(f"{self.state}/relet", "w", encoding="utf-8").close()

    def serve(self):
        threading.Thread(target=self.keep_alive, daemon=True).start()
        threading.Thread(target=self.keep_healing, daemon=True).start()
        events = self.family.events()
        # Leases outlive this process, not the module: go on in the epoch that it has.
        open(f"{self.state}/ready", "w", encoding="utf-8").close()
        while True:
            select.select([events], [], [], 0.5)
            drain(events)
            records = list(nl.WORK.iter_unpack(self.call("WORK_GET")["WORK"]))
            lost = {number for kind, number, _, _ in records if kind == nl.PEER_LOST}
            self.lost = lost
            self.reconnect(lost)
            for kind, number, vsd, arg in records:
                try:
                    with self.meta:
                        self.serve_record(kind, number, vsd, arg, lost)
                except nl.NetlinkError as err:
                    print(f"owner: record {kind}: {err}", flush=True)
            self.drop_lost_writes(records)


def read_direct(path, offset, length):
    """Past the page cache, which does not see what the module writes."""
    buffer = mmap.mmap(-1, length)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECT)
    try:
        assert os.preadv(fd, [buffer], offset) == length
        return bytes(buffer)
    finally:
        os.close(fd)


def mapped_ranges(state):
    """VSD, chunk, bytes within the extent, and its current copies, of all that is mapped and committed."""
    with open(f"{state}/map.json", encoding="utf-8") as data:
        saved = json.load(data)
    for vsd, chunks in saved["maps"].items():
        for chunk, segments in chunks.items():
            for _, length, extent, off in segments:
                about = saved["extents"][str(extent)]
                copies = [(d, s) for d, s in about["copies"] if d not in about["stale"]]
                intent = int(chunk) // LEAF_CHUNKS in saved["intents"].get(vsd, [])
                yield vsd, chunk, off * 512, length * 512, copies, intent


def slot_offset(slot):
    return (nl.DATA_START_SECTOR + slot * nl.SLOT_SECTORS) * 512


def compare(state, disks):
    for vsd, chunk, offset, length, copies, _ in mapped_ranges(state):
        seen = {read_direct(disks[disk], slot_offset(slot) + offset, length) for disk, slot in copies if disk in disks}
        if len(seen) > 1:
            sys.exit(f"VSD {vsd}, chunk {chunk}: copies {copies} differ")


def digests(state, disks):
    """The same by the module, which the agent that runs has opened the disks for."""
    family = nl.Family()
    lives = {disk: family.call("DISK_OPEN", DISK_ID=disk, DISK_UUID=disk_uuid(disk), PATH=path, TIER=0)["DISK_LIFE"]
             for disk, path in disks.items()}
    count = 0
    for vsd, chunk, offset, length, copies, _ in mapped_ranges(state):
        recs = [nl.RANGE.pack(lives[disk], slot, disk, offset // 512, length // 512, 0) for disk, slot in copies if disk in disks]
        reply = family.call("SLOTS_DIGEST", RANGES=b"".join(recs))
        seen = {reply["IDS"][i:i + 8] for i in range(0, len(reply["IDS"]), 8)}
        if len(seen) != 1 or reply["DONE"] != (1 << len(recs)) - 1 or seen == {bytes(8)}:
            sys.exit(f"VSD {vsd}, chunk {chunk}: {copies}: {seen}, read: {reply['DONE']:b}")
        count += len(recs)
    good = nl.RANGE.pack(lives[2], 0, 2, 0, 8, 0)
    for wrong, code in ((nl.RANGE.pack(lives[2] ^ 1, 0, 2, 0, 8, 0), errno.EAGAIN), (nl.RANGE.pack(0, 0, 9, 0, 8, 0), errno.EAGAIN),
                        (nl.RANGE.pack(lives[2], 0, 2, 2040, 16, 0), errno.EINVAL), (nl.RANGE.pack(1, 0, 0, 0, 8, 0), errno.EINVAL),
                        (nl.RANGE.pack(lives[2], 0, 2, 0, 16, 2040), errno.EINVAL)):
        if not family.refuses(code, "SLOTS_DIGEST", RANGES=wrong):
            sys.exit(f"{wrong} was read, or failed otherwise")
        # What would be written is what lies there, should it be written against all expectation.
        if not family.refuses(code, "SLOTS_GATHER", RANGES=wrong, TARGETS=good) or \
                not family.refuses(code, "SLOTS_GATHER", RANGES=good, TARGETS=wrong):
            sys.exit(f"{wrong} was gathered, or failed otherwise")
    for ranges, targets in ((b"", good), (good, b""), (good * 65, good), (good, good * 5), (b"x", good), (good, b"x")):
        if not family.refuses(errno.EINVAL, "SLOTS_GATHER", RANGES=ranges, TARGETS=targets):
            sys.exit(f"{len(ranges)} bytes of ranges to {len(targets)} of targets were gathered")
    print(f"{count} parts read")


def slots(_state, disks):
    """Slots are copied in several groups; those that cannot be leave the others alone, and their targets as they are."""
    family = nl.Family()
    (source, source_path), (target, target_path) = sorted(disks.items())[:2]
    opened = {disk: family.call("DISK_OPEN", DISK_ID=disk, DISK_UUID=disk_uuid(disk), PATH=path, TIER=0)
              for disk, path in disks.items()}
    count = 19
    first = opened[target]["SLOTS"] - count  # nothing lies there
    before = b"\xab" * (nl.SLOT_SECTORS * 512)
    with open(target_path, "r+b", buffering=0) as dev:
        for slot in range(first, first + count):
            dev.seek(slot_offset(slot))
            dev.write(before)
        os.fsync(dev.fileno())
    wrong = {1: "source's life", 6: "source's life", 11: "target's life", 17: "source's end"}
    recs = b""
    for i in range(count):
        what = wrong.get(i)
        recs += nl.SLOT.pack(opened[source]["DISK_LIFE"] ^ (what == "source's life"),
                             opened[target]["DISK_LIFE"] ^ (what == "target's life"),
                             opened[source]["SLOTS"] if what == "source's end" else i, first + i, source, target, 0)
    done = family.call("SLOTS_COPY", SLOTS_MOVE=recs)["DONE"]
    wanted = sum(1 << i for i in range(count) if i not in wrong)
    if done != wanted:
        sys.exit(f"copied {done:b}, not {wanted:b}")
    for i in range(count):
        there = read_direct(target_path, slot_offset(first + i), len(before))
        if there != (before if i in wrong else read_direct(source_path, slot_offset(i), len(before))):
            sys.exit(f"slot {i}: {wrong.get(i, 'good')}, and other data on the target")
    print(f"{count - len(wrong)} slots copied")


def spoil(state, disks):
    for _, _, offset, length, copies, intent in mapped_ranges(state):
        if intent and len(copies) == 2:
            disk, slot = copies[1]
            with open(disks[disk], "r+b", buffering=0) as dev:
                dev.seek(slot_offset(slot) + offset)
                dev.write(b"\xee" * min(length, 4096))
                os.fsync(dev.fileno())
            return
    sys.exit("nothing has intent")


def rot(state, disks):
    """A copy changes on its disk, and nobody is told."""
    for _, _, offset, _, copies, _ in mapped_ranges(state):
        if all(disk in disks for disk, _ in copies):
            disk, slot = copies[0]
            with open(disks[disk], "r+b", buffering=0) as dev:
                dev.seek(slot_offset(slot) + offset)
                dev.write(b"\xee" * 512)
                os.fsync(dev.fileno())
            return
    sys.exit("nothing lies on these disks alone")


def parse_disks(words):
    return {int(w.split("=")[0]): w.split("=")[1] for w in words}


def main():
    role, node, state, *words = sys.argv[1:]
    hosts = words[words.index("--") + 1:] if "--" in words else []
    disks = parse_disks(words[:words.index("--")] if "--" in words else words)
    if role == "format":
        for disk, path in disks.items():
            nl.format_disk(path, disk, CLUSTER, disk_uuid(disk))
    elif role in ("compare", "digests", "slots", "spoil", "rot"):
        globals()[role](state, disks)
    elif role == "host":
        Host(int(node), state, disks).serve()
    else:
        Owner(int(node), state, disks, hosts).serve()


if __name__ == "__main__":
    main()
