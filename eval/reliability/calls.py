"""How a release's commands are called on the bench, and folders that they have filled before."""

from __future__ import annotations

import shutil
from functools import lru_cache
from pathlib import Path
from typing import Any

from eval.reliability.bench import Bench
from eval.reliability.releases import Release
from medil.errors import InputError

Arguments = tuple[Any, ...]  # the first one is the program of `disturbed`


def scans(bench: Bench) -> list[Path]:
    """The scans that commands read."""
    return sorted((bench.inputs / "scans").iterdir())


def store(release: Release, count: int = 3) -> Arguments:
    """Store some scans."""
    bench = release.bench
    return "medil", "store", *scans(bench)[:count], "-o", bench.place / "store"


def train(release: Release, steps: int) -> Arguments:
    """A new run from the store."""
    place = release.bench.place
    options = ("--preset", "test", "--real-share", 1, "--store", place / "store")
    return "medil", "train", "-o", place / "run", "--steps", steps, *options


def resume(release: Release, steps: int) -> Arguments:
    """Go on with the run."""
    return "medil", "train", "-o", release.bench.place / "run", "--resume", "--steps", steps


def encode(release: Release) -> Arguments:
    """Encode a scan."""
    bench = release.bench
    return "medil", "encode", scans(bench)[0], "-o", bench.place / "latent.safetensors", "--force"


def decode(release: Release) -> Arguments:
    """Render the latent."""
    place = release.bench.place
    return "medil", "decode", place / "latent.safetensors", "-o", place / "again.nii", "--force"


def evaluate(release: Release) -> Arguments:
    """A report without pages."""
    bench = release.bench
    return "evaluate", scans(bench)[0], "--out", bench.place / "report", "--workers", 0


# Folders


@lru_cache
def stored(release: Release) -> Path:
    """With a store of two scans."""
    return _kept(release, "stored", store(release, 2))


@lru_cache
def trained(release: Release) -> Path:
    """With that store, and a run of three steps from it."""
    return _kept(release, "trained", train(release, 3), stored(release))


@lru_cache
def encoded(release: Release) -> Path:
    """With a latent."""
    return _kept(release, "encoded", encode(release))


def _kept(release: Release, name: str, arguments: Arguments, start: Path | None = None) -> Path:
    """Call a command, and keep a copy of what is in the place then.

    Raises:
        InputError: It fails.
    """
    release.bench.reset(start)
    ended = release.call(*arguments)
    if ended.code:
        raise InputError(f"an undisturbed command ended with {ended.code}: {ended.said}")
    folder = release.bench.starts / name
    return Path(shutil.copytree(release.bench.place, folder))
