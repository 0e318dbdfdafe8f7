"""Where files lie: the local mirror, the cache of downloads, and the rest of the repository."""

from __future__ import annotations

import os
from pathlib import Path

import medil


def mirror_folder() -> Path | None:
    """The folder that `MEDIL_DATA_MIRROR` names."""
    mirror = os.environ.get("MEDIL_DATA_MIRROR")
    return Path(mirror) if mirror else None


def cache_folder() -> Path:
    """The folder of downloads: `MEDIL_CACHE`, or ~/.cache/medil."""
    cache = os.environ.get("MEDIL_CACHE")
    return Path(cache) if cache else Path.home() / ".cache" / "medil"


def unpacked_folder() -> Path:
    """Where `medil.data.repository` unpacks the archive of this version."""
    return cache_folder() / f"medil-book-{medil.__version__}"


def repository_folder() -> Path | None:
    """The checkout that runs, else the unpacked archive of its version, else None.

    It holds what a wheel does not: the evaluation, the manifests, the larger weights.
    """
    places = (Path(__file__).resolve().parents[2], unpacked_folder())
    return next((place for place in places if (place / "eval/rows.py").is_file()), None)
