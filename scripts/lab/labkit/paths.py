# SPDX-License-Identifier: GPL-2.0
"""Where the lab keeps things. Every other module asks here."""

import os
from pathlib import Path

REPO = Path(__file__).resolve().parents[3]
HELPERS = REPO / "scripts/lab/helpers"


def cache_dir() -> Path:
    """Images, kernels and probes that are keyed by the hash of what they are made from."""
    base = os.environ.get("SCRIBE_CACHE_DIR")
    path = Path(base) if base else Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "scribe-lab"
    path.mkdir(parents=True, exist_ok=True)
    return path


def labs_dir() -> Path:
    """Running labs. Short, because unix socket paths end at 107 bytes."""
    path = Path(os.environ.get("SCRIBE_LAB_DIR", f"/var/tmp/scribe-lab-{os.getuid()}"))
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
