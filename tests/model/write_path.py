#!/usr/bin/python3
# SPDX-License-Identifier: GPL-2.0
"""A model of the write path: every state that a few writes, power cuts and owners' deaths can reach.

One range of one virtual disk lies in an extent with two copies on two of three disks, each on a node
of its own, with a volatile cache. An owner on a further node writes it, flushes, commits its map to
the log, moves a copy, reads; it may die, and another takes over. What is checked in every state:

  - a read gives the last flushed write or a later one, never garbage or another disk's data;
  - when nothing is under way, all copies that may be read are equal.

The rules are RULES below, out of R1, R2, R4, R5, take-over and slot reuse of
Documentation/architecture.md. With all of them no state within the bounds is bad; with any one left
out some state is. Not modelled: R3's stock, R6, ranges that overlap, a leaf of many ranges, a suspect
copy that takes the place of the chosen one.

  write_path.py [-v]     TAP; -v prints each counterexample
"""

import itertools
import sys
from collections import deque
from concurrent.futures import ProcessPoolExecutor
from typing import Iterator, NamedTuple

GARBAGE, FOREIGN = -1, -2  # never written; written by another virtual disk
DISKS = (0, 1, 2)
EXTENTS = (0, 1)  # where the range is mapped to, and the fresh space of a redirect; they change roles

RULES = {
    "all copies": "R1: in place only where all copies are reachable and current",
    "moves exclude": "R1: no write in place while the extent is being moved",
    "both before ack": "R2: a write completes when every copy has it",
    "batch closed first": "R4: the batch is closed before the disks are flushed",
    "flush before commit": "R4: the disks are flushed before the map is committed",
    "stale copies": "R4: a copy whose disk cannot be flushed becomes stale in the same log entry",
    "lives": "R4: requests and unflushed writes belong to one life of a disk",
    "intent": "R5: the log has the intent before a write in place",
    "intent kept to flush": "R5: intent is let go when its writes are flushed, not when they end",
    "intent kept to redirect": "R5: a failed write in place keeps its intent until its redirect is committed",
    "take-over chooses": "take-over: where there was intent one copy stays current, in reach or not are the others",
    "take-over flushes": "take-over: the disks are flushed before the first read",
    "fence": "take-over: requests of the dead owner end before",
    "quarantine": "slots: freed space is reused when the I/O under older maps has ended",
    "move flushes": "mover: a new copy is flushed before the log names it",
}


class Bounds(NamedTuple):
    """How much may happen."""

    writes: int = 2
    cuts: int = 0
    deaths: int = 0
    moves: int = 0
    reads: bool = False


class Write(NamedTuple):
    extent: int
    value: int
    pending: frozenset  # (disk, its life when the request was sent)
    delivered: bool


class Flush(NamedTuple):
    promise: int  # what was acknowledged when it began
    batch: int | None  # the map of the closed batch
    need: frozenset  # written before: (extent, disk, life)
    missed: frozenset | None  # (extent, disk) that could not be flushed; None: not tried yet
    committed: bool


class Move(NamedTuple):
    extent: int
    old: int
    new: int
    copied: bool


class State(NamedTuple):
    # Disks
    up: tuple = (True,) * 3
    life: tuple = (0,) * 3
    cached: tuple = ((0, 0, GARBAGE), (GARBAGE,) * 3)  # [extent][disk], what a read gives
    stable: tuple = ((0, 0, GARBAGE), (GARBAGE,) * 3)  # what a power cut leaves
    # The log
    intent: bool = False  # the range is being written in place
    place: tuple = ((0, 1), ())  # [extent]: its disks; () while it is free
    mapped: int = 0
    stale: frozenset = frozenset()  # (extent, disk)
    freed: frozenset = frozenset()  # extents in quarantine
    # The owner
    alive: bool = True
    map: int = 0
    acked: int = 0
    write: Write | None = None
    dirty: frozenset = frozenset()  # (extent, disk, life) written since the last flush began
    flush: Flush | None = None
    redirecting: bool = False  # a write in place failed, its redirect is not committed
    move: Move | None = None
    read: tuple | None = None  # (extent, disk, what it must give at least)
    # A dead owner's requests
    ghosts: frozenset = frozenset()  # (extent, disk, life, value)
    # What users were promised, and what happened
    floor: int = 0
    next_value: int = 1
    cuts: int = 0
    deaths: int = 0
    moves: int = 0


Step = tuple[str, State]


def put(table: tuple, extent: int, disk: int, value) -> tuple:
    row = table[extent][:disk] + (value,) + table[extent][disk + 1:]
    return table[:extent] + (row,) + table[extent + 1:]


def changed(row: tuple, index: int, value) -> tuple:
    return row[:index] + (value,) + row[index + 1:]


def flushed(s: State, disk: int) -> tuple:
    stable = s.stable
    for extent in EXTENTS:
        stable = put(stable, extent, disk, s.cached[extent][disk])
    return stable


def unflushed(s: State) -> frozenset:
    return s.dirty | s.flush.need if s.flush else s.dirty


def current(s: State, rules: frozenset, extent: int) -> list[int]:
    """Disks of the copies that the owner may read."""
    found = []
    for disk in s.place[extent]:
        lost = "lives" in rules and any(e == extent and d == disk and life != s.life[disk]
                                        for e, d, life in unflushed(s))
        if s.up[disk] and (extent, disk) not in s.stale and not lost:
            found.append(disk)
    return found


def power_cut(s: State, b: Bounds) -> Iterator[Step]:
    """Each slot's unflushed write may have reached the medium or not."""
    if s.cuts == b.cuts:
        return
    for disk in DISKS:
        if not s.up[disk]:
            continue
        results = set()
        for kept in itertools.product((False, True), repeat=len(EXTENTS)):
            cached, stable = s.cached, s.stable
            for extent in EXTENTS:
                if kept[extent]:
                    stable = put(stable, extent, disk, cached[extent][disk])
                else:
                    cached = put(cached, extent, disk, stable[extent][disk])
            results.add((cached, stable))
        for cached, stable in results:
            yield (f"power cut {disk}", s._replace(up=changed(s.up, disk, False), cached=cached, stable=stable,
                                                   life=changed(s.life, disk, s.life[disk] + 1), cuts=s.cuts + 1))


def node_return(s: State) -> Iterator[Step]:
    for disk in DISKS:
        if not s.up[disk]:
            yield f"return {disk}", s._replace(up=changed(s.up, disk, True))


def accepts(s: State, rules: frozenset, disk: int, life: int) -> bool:
    return s.up[disk] and (life == s.life[disk] or "lives" not in rules)


def redirect(s: State, value: int, what: str) -> Iterator[Step]:
    """The write goes to fresh space on any two disks that can be reached."""
    for extent in EXTENTS:
        again = s.write is not None and s.write.extent == extent  # its space is given back, other taken
        if extent == s.map or extent == s.mapped or extent in s.freed or (s.place[extent] and not again):
            continue
        for pair in itertools.combinations([d for d in DISKS if s.up[d]], 2):
            pending = frozenset((d, s.life[d]) for d in pair)
            yield (f"{what}, to extent {extent} on {pair}",
                   s._replace(place=changed(s.place, extent, pair), write=Write(extent, value, pending, False),
                              dirty=frozenset(d for d in s.dirty if d[0] != extent),
                              stale=frozenset(c for c in s.stale if c[0] != extent),
                              next_value=max(s.next_value, value + 1)))


def start_write(s: State, rules: frozenset, b: Bounds) -> Iterator[Step]:
    if s.write or s.next_value > b.writes:
        return
    good = current(s, rules, s.map)
    whole = len(good) == 2 if "all copies" in rules else bool(good)
    if s.move and s.move.extent == s.map and "moves exclude" in rules:
        whole = False
    if not whole:
        yield from redirect(s, s.next_value, f"write {s.next_value} is redirected")
        return
    yield (f"write {s.next_value} in place",
           s._replace(write=Write(s.map, s.next_value, frozenset((d, s.life[d]) for d in good), False),
                      intent="intent" in rules, next_value=s.next_value + 1))


def go_on_writing(s: State, rules: frozenset) -> Iterator[Step]:
    w = s.write
    if not w:
        return
    for disk, life in w.pending:
        if accepts(s, rules, disk, life):
            yield (f"disk {disk} has write {w.value}",
                   s._replace(cached=put(s.cached, w.extent, disk, w.value),
                              write=w._replace(pending=w.pending - {(disk, life)}, delivered=True),
                              dirty=s.dirty | {(w.extent, disk, s.life[disk])}))
        else:
            failed = s._replace(redirecting=s.redirecting or w.extent == s.map)
            yield from redirect(failed, w.value, f"write {w.value} fails on {disk}")
    if not w.pending or (w.delivered and "both before ack" not in rules):
        yield f"write {w.value} is acknowledged", s._replace(write=None, acked=w.value, map=w.extent)


def let_intent_go(s: State, rules: frozenset) -> Iterator[Step]:
    busy = s.write is not None
    if "intent kept to flush" in rules:
        busy = busy or bool(unflushed(s))
    if "intent kept to redirect" in rules:
        busy = busy or s.redirecting
    if s.intent and not busy:
        yield "intent is let go", s._replace(intent=False)


def flush(s: State, rules: frozenset) -> Iterator[Step]:
    f = s.flush
    if not f:
        if s.dirty or s.floor < s.acked:
            batch = s.map if "batch closed first" in rules else None
            yield "FLUSH begins", s._replace(flush=Flush(s.acked, batch, s.dirty, None, False), dirty=frozenset())
        return
    if f.missed is None and (f.committed or "flush before commit" in rules):
        stable, missed = s.stable, set()
        for extent, disk, life in f.need:
            if accepts(s, rules, disk, life):
                stable = flushed(s._replace(stable=stable), disk)
            elif disk in s.place[extent]:
                missed.add((extent, disk))
        mapped = s.map if f.batch is None else f.batch
        left = [d for d in s.place[mapped] if (mapped, d) not in s.stale | missed]
        if left or "stale copies" not in rules:  # else it waits
            # Out of order, the stale copies get a log entry of their own.
            late = f.committed and "stale copies" in rules
            yield "the disks are flushed", s._replace(stable=stable, stale=s.stale | missed if late else s.stale,
                                                      flush=f._replace(missed=frozenset(missed)))
    if not f.committed and (f.missed is not None or "flush before commit" not in rules):
        mapped = s.map if f.batch is None else f.batch
        stale = s.stale | (f.missed or frozenset()) if "stale copies" in rules else s.stale
        done = s._replace(mapped=mapped, stale=stale, flush=f._replace(committed=True))
        if mapped != s.mapped:
            done = done._replace(freed=s.freed | {s.mapped}, redirecting=False)
            if done.move:
                done = done._replace(move=None)  # of an extent that is no more
        yield f"extent {mapped} is committed", done
    if f.committed and f.missed is not None:
        yield f"FLUSH of write {f.promise} ends", s._replace(flush=None, floor=max(s.floor, f.promise))


def reuse_slots(s: State, rules: frozenset) -> Iterator[Step]:
    """Another virtual disk gets freed space, and writes it."""
    for extent in s.freed:
        used = (s.read is not None and s.read[0] == extent) or any(g[0] == extent for g in s.ghosts) or \
            (s.write is not None and s.write.extent == extent)
        if s.alive and s.map == extent or used and "quarantine" in rules:
            continue
        cached, stable = s.cached, s.stable
        for disk in s.place[extent]:
            cached, stable = put(cached, extent, disk, FOREIGN), put(stable, extent, disk, FOREIGN)
        yield (f"extent {extent} is reused",
               s._replace(cached=cached, stable=stable, freed=s.freed - {extent}, place=changed(s.place, extent, ()),
                          stale=frozenset(c for c in s.stale if c[0] != extent)))


def read(s: State, rules: frozenset, b: Bounds) -> Iterator[Step]:
    if s.read:
        yield "the read ends", s._replace(read=None)
    elif b.reads:
        for disk in current(s, rules, s.map):
            yield f"a read of extent {s.map} on {disk} begins", s._replace(read=(s.map, disk, s.floor))


def mover(s: State, rules: frozenset, b: Bounds) -> Iterator[Step]:
    """A copy goes to the third disk, or a stale one is refreshed where it lies."""
    m = s.move
    if not m:
        if s.moves == b.moves or s.map != s.mapped or s.write or unflushed(s):
            return
        for old in s.place[s.map]:
            for new in DISKS:
                if (new == old) == ((s.map, old) in s.stale) and (new == old or new not in s.place[s.map]):
                    yield f"copy {old} of extent {s.map} moves to {new}", s._replace(
                        move=Move(s.map, old, new, False), moves=s.moves + 1)
        return
    sources = [d for d in current(s, rules, m.extent) if d != m.new]
    if not m.copied and s.up[m.new] and sources:
        cached = put(s.cached, m.extent, m.new, s.cached[m.extent][sources[0]])
        after = s._replace(cached=cached, move=m._replace(copied=True))
        yield "the mover has copied", after._replace(stable=flushed(after, m.new)) if "move flushes" in rules else after
    if m.copied and s.up[m.new] and not s.flush:
        place = tuple(m.new if d == m.old else d for d in s.place[m.extent])
        yield "the log names the new copy", s._replace(move=None, place=changed(s.place, m.extent, place),
                                                       stale=s.stale - {(m.extent, m.old)})
    if not s.up[m.new]:
        yield "the move is given up", s._replace(move=None)


def owner_dies(s: State, b: Bounds) -> Iterator[Step]:
    if s.deaths == b.deaths:
        return
    ghosts = s.ghosts
    if s.write:
        ghosts = ghosts | {(s.write.extent, d, life, s.write.value) for d, life in s.write.pending}
    if s.move and not s.move.copied:  # what it read is on its way to the new copy
        ghosts = ghosts | {(s.move.extent, s.move.new, s.life[s.move.new], s.cached[s.move.extent][d])
                           for d in s.place[s.move.extent] if d != s.move.new and (s.move.extent, d) not in s.stale}
    lost = {e for e in EXTENTS if s.place[e] and e != s.mapped}
    yield "the owner dies", s._replace(alive=False, write=None, flush=None, dirty=frozenset(), read=None, move=None,
                                       redirecting=False, ghosts=ghosts, freed=s.freed | lost, map=s.mapped,
                                       deaths=s.deaths + 1)


def ghosts_arrive(s: State, rules: frozenset) -> Iterator[Step]:
    for ghost in s.ghosts:
        extent, disk, life, value = ghost
        left = s._replace(ghosts=s.ghosts - {ghost})
        if accepts(s, rules, disk, life):
            yield f"disk {disk} has the dead owner's write {value}", left._replace(
                cached=put(s.cached, extent, disk, value))
        else:
            yield "the dead owner's write is refused", left


def take_over(s: State, rules: frozenset) -> Iterator[Step]:
    extent = s.mapped
    listed = [d for d in s.place[extent] if s.up[d] and (extent, d) not in s.stale]
    if not listed:
        return
    stable, stale = s.stable, s.stale
    if "take-over flushes" in rules:
        for disk in DISKS:
            if s.up[disk]:
                stable = flushed(s._replace(stable=stable), disk)
    if s.intent and "take-over chooses" in rules:
        stale = stale | {(extent, d) for d in s.place[extent] if d != listed[0]}
    yield "another takes over", s._replace(alive=True, map=extent, acked=s.cached[extent][listed[0]], stable=stable,
                                           stale=stale, intent=False,
                                           ghosts=frozenset() if "fence" in rules else s.ghosts)


def steps(s: State, rules: frozenset, b: Bounds) -> Iterator[Step]:
    yield from power_cut(s, b)
    yield from node_return(s)
    yield from ghosts_arrive(s, rules)
    yield from reuse_slots(s, rules)
    if not s.alive:
        yield from take_over(s, rules)
        return
    yield from start_write(s, rules, b)
    yield from go_on_writing(s, rules)
    yield from let_intent_go(s, rules)
    yield from flush(s, rules)
    yield from read(s, rules, b)
    yield from mover(s, rules, b)
    yield from owner_dies(s, b)


def wrong(s: State, rules: frozenset) -> str:
    """What is bad about a state; empty where nothing is."""
    if not s.alive:
        return ""
    if s.read:
        extent, disk, least = s.read
        if s.up[disk] and s.cached[extent][disk] < least:
            return f"a read under way gives {s.cached[extent][disk]}, flushed was {least}"
    values = {s.cached[s.map][d] for d in current(s, rules, s.map)}
    if values and min(values) < s.floor:
        return f"a read may give {min(values)}, flushed was {s.floor}"
    if len(values) > 1 and not s.write:
        return f"readable copies differ: {sorted(values)}"
    return ""


def explore(rules: frozenset, b: Bounds) -> tuple[int, str, list[str]]:
    """Breadth first: number of states, what is wrong with the first bad one, the way there."""
    start = State()
    came: dict[State, tuple[State, str] | None] = {start: None}
    queue = deque([start])
    while queue:
        s = queue.popleft()
        problem = wrong(s, rules)
        if problem:
            way = []
            while came[s]:
                s, label = came[s]
                way.append(label)
            return len(came), problem, way[::-1]
        for label, after in steps(s, rules, b):
            if after not in came:
                came[after] = (s, label)
                queue.append(after)
    return len(came), "", []


# What is explored with all rules, and where each rule's absence shows.
WHOLE = {
    "two writes, two power cuts": Bounds(cuts=2),
    "two writes, a power cut, an owner's death": Bounds(cuts=1, deaths=1),
    "a write, two power cuts, two owners' deaths": Bounds(writes=1, cuts=2, deaths=2),
    "two writes, a power cut, a move": Bounds(writes=2, cuts=1, moves=1),
    "a write, a power cut, an owner's death, a read": Bounds(writes=1, cuts=1, deaths=1, reads=True),
    "a write, a power cut, an owner's death, a move": Bounds(writes=1, cuts=1, deaths=1, moves=1),
}
SHOWS = {
    "all copies": Bounds(cuts=1),
    "moves exclude": Bounds(moves=1),
    "both before ack": Bounds(writes=1, cuts=1),
    "batch closed first": Bounds(cuts=2, deaths=1),
    "flush before commit": Bounds(cuts=2, deaths=1),
    "stale copies": Bounds(cuts=1),
    "lives": Bounds(cuts=1),
    "intent": Bounds(writes=1, deaths=1),
    "intent kept to flush": Bounds(writes=1, cuts=1, deaths=1),
    "intent kept to redirect": Bounds(writes=1, cuts=1, deaths=1),
    "take-over chooses": Bounds(writes=1, deaths=1),
    "take-over flushes": Bounds(writes=1, cuts=1, deaths=1),
    "fence": Bounds(writes=1, deaths=1, moves=1),
    "quarantine": Bounds(writes=2, cuts=1, reads=True),
    "move flushes": Bounds(writes=1, cuts=1, moves=1),
}


def main() -> int:
    number = failed = 0

    def report(good: bool, text: str, more: str = ""):
        nonlocal number, failed
        number += 1
        failed += not good
        print(f"{'ok' if good else 'not ok'} {number} - {text}" + (f"\n# {more}" if more else ""), flush=True)

    everything = frozenset(RULES)
    with ProcessPoolExecutor() as pool:
        whole = {title: pool.submit(explore, everything, bounds) for title, bounds in WHOLE.items()}
        without = {rule: pool.submit(explore, everything - {rule}, SHOWS[rule]) for rule in RULES}
    for title, found in whole.items():
        count, problem, way = found.result()
        report(not problem, f"model: {title}: nothing is lost in {count} states",
               f"{problem}: {'; '.join(way)}" if problem else "")
    for rule, text in RULES.items():
        count, problem, way = without[rule].result()
        detail = f"{problem}: {'; '.join(way)}" if problem and "-v" in sys.argv else ""
        report(bool(problem), f"model: without '{text}' a state is bad", detail or ("" if problem else f"{count} states"))
    print(f"1..{number}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
