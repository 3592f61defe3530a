# SPDX-License-Identifier: GPL-2.0
"""A run's figures as a page for people, one file with its plots in it, and as a table for the documentation."""

import html

COLOURS = {"VSD": "#2563ab", "dm-linear": "#8a8f98", "raw disk": "#b9bdc4"}
OTHERS = ("#c2693d", "#4f9d69", "#8f63a8", "#c9a227", "#5aa7b5", "#b5545f", "#7b8794")
STYLE = """body { font: 15px/1.5 system-ui, sans-serif; max-width: 62em; margin: 2em auto; padding: 0 1em; color: #1c2026; background: #fff }
h1, h2 { line-height: 1.2 } h2 { margin-top: 2em } table { border-collapse: collapse; margin: 1em 0 }
td, th { padding: .2em .8em; border-bottom: 1px solid #ddd; text-align: right } td:first-child, th:first-child { text-align: left }
svg { width: 100%; height: auto } .own { font-weight: 600 } .note { color: #555 }"""
COLUMNS = (("IOPS", "iops", 0), ("MB/s", "mb_s", 1), ("p50 us", "p50_us", 0), ("p99 us", "p99_us", 0), ("p99.9 us", "p999_us", 0),
           ("CPU us", "cpu_us_per_io", 0), ("instructions", "instructions_per_io", 0), ("disk/byte", "disk_per_byte", 2),
           ("wire/byte", "wire_per_byte", 2), ("flushes/fsync", "disk_flushes_per_fsync", 2), ("spread", "spread", 2))


def colour(name: str, all_names: list[str]) -> str:
    others = [one for one in all_names if one not in COLOURS]
    return COLOURS.get(name) or OTHERS[others.index(name) % len(OTHERS)]


def bars(rows: list[dict], key: str, unit: str, names: list[str]) -> str:
    """One bar for each stack, with its figure beside it."""
    height, left, width = 26, 150, 520
    most = max(row[key] for row in rows) or 1
    parts = []
    for i, row in enumerate(rows):
        y, long = i * height, row[key] / most * width
        parts.append(f'<text x="{left - 8}" y="{y + 18}" text-anchor="end" font-size="13">{html.escape(row["stack"])}</text>'
                     f'<rect x="{left}" y="{y + 4}" width="{long:.1f}" height="{height - 8}" fill="{colour(row["stack"], names)}"/>'
                     f'<text x="{left + long + 6:.1f}" y="{y + 18}" font-size="13">{row[key]:,.0f} {unit}</text>')
    return f'<svg viewBox="0 0 {left + width + 130} {len(rows) * height}" role="img">{"".join(parts)}</svg>'


def cell(row: dict, key: str, digits: int) -> str:
    return f"{row[key]:,.{digits}f}" if key in row else ""


def table(rows: list[dict]) -> str:
    head = "".join(f"<th>{title}</th>" for title, _, _ in COLUMNS)
    body = "".join(f'<tr{" class=own" if row["stack"] == "VSD" else ""}><td>{html.escape(row["stack"])}</td>' + "".join(
        f"<td>{cell(row, key, digits)}</td>" for _, key, digits in COLUMNS) + "</tr>" for row in rows)
    return f"<table><tr><th></th>{head}</tr>{body}</table>"


def page(report: dict) -> str:
    boot, rows = report["boot"], report["results"]
    names = list(dict.fromkeys(row["stack"] for row in rows))
    out = [f"<!doctype html><html lang=en><meta charset=utf-8><title>Side by side</title><style>{STYLE}</style>",
           "<h1>Side by side</h1>",
           f"<p>{boot['nodes']} virtual nodes with {boot['cpus']} processor(s) each, Linux {html.escape(boot['kernel'])}, all of one "
           "boot. Read the ratios: the machine below them is emulated and shared. IOPS, latencies and MB/s are fio's on n1; "
           "processor time, instructions, and bytes on disks and wire are those of all nodes together for each operation or "
           "byte, without what an idle node does. Medians; the spread is half of what lies between the fastest and the slowest "
           "repeat.</p><table><tr><th>stack</th><th style='text-align:left'>how it is set up</th></tr>"]
    out += [f"<tr><td>{html.escape(name)}</td><td style='text-align:left'>{html.escape(text)}</td></tr>"
            for name, text in boot["settings"].items()]
    out.append("</table>")
    for work in dict.fromkeys(row["workload"] for row in rows):
        those = [row for row in rows if row["workload"] == work]
        said = ", ".join(f"{ratio:.2f} x {html.escape(name)}" for name, ratio in report["ratios"][work].items())
        out.append(f"<h2>{html.escape(work)}</h2><p>The VSD does {said}.</p>{bars(those, 'iops', 'IOPS', names)}")
        if any(row["instructions_per_io"] for row in those):
            out.append(f"<p class=note>Instructions for each operation, on all nodes:</p>"
                       f"{bars(those, 'instructions_per_io', '', names)}")
        out.append(table(those))
    return "".join(out) + "</html>\n"


def markdown(report: dict) -> str:
    """Ratios and instructions, for the documentation."""
    boot, rows = report["boot"], report["results"]
    peers = list(dict.fromkeys(name for those in report["ratios"].values() for name in those))
    of = {(row["workload"], row["stack"]): row for row in rows}
    lines = ["# Side by side", "",
             "Written by `scripts/bench --table`; with `--quick` it has fewer stacks and workloads. How many times as many operations a",
             f"second a VSD with two copies does as each of the others, on {boot['nodes']} emulated nodes with {boot['cpus']} processor, Linux",
             f"{boot['kernel']}; all of one boot, medians of {rows[0]['repeats']}. Stacks marked * keep one copy, on the node that uses it.", "",
             "| workload | " + " | ".join(name + ("" if of_copies(rows, name) == 2 else " *") for name in peers) + " |",
             "|---" * (len(peers) + 1) + "|"]
    for work, those in report["ratios"].items():
        lines.append(f"| {work} | " + " | ".join(f"{those[name]:.2f}" if name in those else "" for name in peers) + " |")
    if any(row["instructions_per_io"] for row in rows):
        names = ["VSD", *peers]
        lines += ["", "Thousands of instructions for each operation, on all nodes together, fio's own among them:", "",
                  "| workload | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
        for work in report["ratios"]:
            lines.append(f"| {work} | " + " | ".join(
                f"{of[work, name]['instructions_per_io'] / 1e3:.0f}" if (work, name) in of else "" for name in names) + " |")
    lines += ["", "How they are set up:", ""] + [f"- {name}: {text}." for name, text in boot["settings"].items()]
    return "\n".join(lines) + "\n"


def of_copies(rows: list[dict], name: str) -> int:
    return next(row["copies"] for row in rows if row["stack"] == name)
