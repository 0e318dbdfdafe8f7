"""The training set: a cohort that is drawn once or never ends, and real scans beside it.

Subject k of a cohort is a pure function of (configuration, seed, k). An endless cohort is
a window that slides over k with the step, so that a run which is resumed sees what it
would have seen; a background process draws ahead of it, and the run waits where it must.
Only the `train` split of a manifest gets in, and splits go by subject.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import multiprocessing
import os
import re
import signal
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from medil.config import DataConfig
from medil.data import manifest
from medil.errors import InputError
from medil.synth.anatomy import Anatomy, label_anatomy, tissue_anatomy
from medil.synth.cohort import CohortConfig, subject
from medil.system.files import atomic_output
from medil.system.workers import grouped, share_out
from medil.training.patches import Scan, prepare_scan
from medil.training.store import Store
from medil.volume import load, save

REAL, LABELS = "open_ms_t1", "synthseg_labels"  # manifests
AHEAD = 2  # subjects drawn before they are needed
BEHIND = 2  # subjects kept after they left, for a run that resumes a little earlier
POLL_S = 0.1
ANATOMIES = 20  # that a background process keeps in memory, about 70 MB each
UNUSED = ("subjects", "renew_every", "real_share")  # fields that no subject depends on

Map = Path | None  # a label map, or None for the MNI152 tissue maps


class Pool:
    """The scans that a step may draw from.

    Args:
        config: How many, how mixed, and how often renewed.
        folder: Where the cohort's volumes are kept; made when missing.
        seed: Added to the cohort's own.
        maps: Label maps that the subjects take turns with; those of the manifest when None.
        draws: Whether this process draws. In a run of several processes one does, and
            the others wait for its files.
        store: Where real scans come from; from the published ones when None.
        processes: That draw the first window side by side.

    Raises:
        InputError: The folder holds another cohort, or there is nothing to draw from.
    """

    def __init__(
        self,
        config: DataConfig,
        folder: Path,
        seed: int,
        maps: Sequence[Map] | None = None,
        draws: bool = True,
        store: Store | None = None,
        processes: int = 1,
    ) -> None:
        self.config, self.folder, self.seed, self.draws = config, Path(folder), seed, draws
        self.processes = processes
        self.subjects = 0 if config.real_share == 1 else config.subjects
        self.maps = list(maps) if maps is not None else training_maps() if self.subjects else []
        self._real = real_scans(config, store)
        if store and not self._real:
            raise InputError("a store is of no use where the real share is 0; choose a larger one.")
        if not (self.subjects or self._real):
            raise InputError("without a cohort there must be real scans; name a store of them.")
        self._cohort: dict[int, Scan] = {}
        self._worker: BaseProcess | None = None
        self._first: Any = None  # of the window, shared with the worker

    def window(self, step: int) -> range:
        """The subjects that are at hand in a step."""
        first = step // self.config.renew_every if self.config.renew_every else 0
        return range(first, first + self.subjects)

    def scans_at(self, step: int) -> list[Scan]:
        """The scans of a step; the cohort's weights sum to 1.

        Args:
            step: Number of the step, in any order, though going up costs least.

        Returns:
            The window's subjects in order, then the real scans.
        """
        numbers = self.window(step)
        if list(numbers) != list(self._cohort):
            if self.draws:
                self._provide(numbers)
            kept = self._cohort
            self._cohort = {k: kept[k] if k in kept else self._read(k) for k in numbers}
        return [*self._cohort.values(), *self._real]

    def close(self) -> None:
        """End the background process; files stay for a run that is resumed."""
        if self._worker is not None:
            self._worker.terminate()
            self._worker.join()
            self._worker = None

    def _provide(self, numbers: range) -> None:
        """See to it that the window's subjects exist or are being drawn."""
        if self._worker is not None and self._worker.is_alive():
            self._first.value = numbers.start
            return
        draw_cohort(self.config, self.folder, self.seed, numbers, self.maps, self.processes)
        if self.config.renew_every:
            spawn = multiprocessing.get_context("spawn")
            self._first = spawn.Value("q", numbers.start)
            task = (self.config, self.folder, self.seed, self.maps, self._first, os.getpid())
            self._worker = spawn.Process(target=_draw_ahead, args=task, daemon=True)
            self._worker.start()

    def _read(self, index: int) -> Scan:
        """Wait for a subject and load it."""
        path = subject_path(self.folder, index)
        while not path.exists():
            if self._worker is not None and not self._worker.is_alive():
                draw_cohort(self.config, self.folder, self.seed, [index], self.maps)
            time.sleep(POLL_S)
        return read_scan(path, 1 / self.config.subjects)


def _draw_ahead(
    config: DataConfig, folder: Path, seed: int, maps: list[Map], first: Any, parent: int
) -> None:
    """Background process: keep the window and what follows drawn, until the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    if hasattr(os, "nice"):
        os.nice(10)
    torch.set_num_threads(1)
    read = functools.lru_cache(ANATOMIES)(read_anatomy)
    for rest in folder.glob(".part-*"):  # of a process that was killed while writing
        rest.unlink(missing_ok=True)
    while os.getppid() == parent:
        start = first.value
        remove_before(folder, start - BEHIND)
        wanted = range(start, start + config.subjects + AHEAD)
        missing = [k for k in wanted if not subject_path(folder, k).exists()]
        if missing:
            anatomy = read(maps[missing[0] % len(maps)])
            draw_to_file(config, folder, seed, missing[0], anatomy)
        else:
            time.sleep(POLL_S)


def remove_before(folder: Path, first: int) -> None:
    """Delete the files of subjects below a number."""
    for path in folder.glob("subject*.nii"):
        found = re.fullmatch(r"subject(\d+)\.nii", path.name)
        if found and int(found[1]) < first:
            path.unlink(missing_ok=True)


# A cohort in a folder


def training_scans(config: DataConfig, folder: Path, seed: int) -> list[Scan]:
    """The training set of a cohort that is drawn once, and real scans where they are.

    Label maps and real scans come through the manifests, their `train` split alone. Without
    them the cohort is painted on the MNI152 tissue maps.

    Args:
        config: How many, and how mixed.
        folder: Where the cohort's volumes are kept; those already there are not redrawn.
        seed: Added to the cohort's own.

    Returns:
        The scans, weighted.
    """
    return Pool(replace(config, renew_every=0), folder, seed).scans_at(0)


def real_scans(config: DataConfig, store: Store | None = None) -> list[Scan]:
    """Real scans, sharing the weight of `real_share` beside a cohort that weighs 1.

    Args:
        config: Says the share.
        store: Whose volumes they are; those of the `train` split that are here when None.

    Returns:
        The scans; those of a store are read when they are drawn from.
    """
    if not config.real_share:
        return []
    share = config.real_share / (1 - config.real_share) if config.real_share < 1 else 1.0
    if store:
        return store.scans(share)
    paths = available_files(REAL)
    return [read_scan(path, share / len(paths)) for path in paths]


def read_scan(path: Path, weight: float) -> Scan:
    """A volume's file as a scan, named after it."""
    return prepare_scan(load(path), weight, name=path.name.split(".")[0])


def training_maps() -> list[Map]:
    """Label maps of the `train` split that are here, or the MNI152 tissue maps."""
    return [*available_files(LABELS)] or [None]


def available_files(name: str) -> list[Path]:
    """Files of a manifest's `train` split that need no network."""
    return [manifest.fetch(entry) for entry in manifest.local_entries(name, "train")]


def subject_path(folder: Path, index: int) -> Path:
    """Where a subject of a cohort lies."""
    return folder / f"subject{index:03d}.nii"


def draw_cohort(
    config: DataConfig,
    folder: Path,
    seed: int,
    numbers: Iterable[int] | None = None,
    maps: Sequence[Map] | None = None,
    processes: int = 1,
) -> None:
    """Draw subjects into a folder, one anatomy after the other, keeping what is there.

    Args:
        config: How they vary.
        folder: Made when missing.
        seed: Added to the cohort's own.
        numbers: Which subjects; the first `config.subjects` when None.
        maps: Label maps; those of the manifest when None.
        processes: That draw side by side.

    Raises:
        InputError: The folder holds another cohort.
    """
    maps = list(maps) if maps is not None else training_maps()
    wanted = numbers if numbers is not None else range(config.subjects)
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, config, seed, maps)
    missing = [k for k in wanted if not subject_path(folder, k).exists()]
    draw = functools.partial(draw_on_one_map, config, folder, seed, maps)
    share_out(draw, grouped(missing, len(maps), processes), processes, "cohort")


def draw_on_one_map(
    config: DataConfig, folder: Path, seed: int, maps: Sequence[Map], numbers: Sequence[int]
) -> None:
    """Draw subjects that share a label map, which is read once."""
    anatomy = read_anatomy(maps[numbers[0] % len(maps)])
    for index in numbers:
        draw_to_file(config, folder, seed, index, anatomy)


def draw_to_file(config: DataConfig, folder: Path, seed: int, index: int, anatomy: Anatomy) -> None:
    """Draw subject `index` into a file that is whole or not there."""
    drawn = subject(anatomy, config.seed_cohort + seed, index, cohort_settings(config, index))
    save(drawn, subject_path(folder, index), force=True)


def read_anatomy(path: Map) -> Anatomy:
    """A label map's anatomy, or that of the MNI152 tissue maps; some seconds."""
    return label_anatomy(path) if path else tissue_anatomy()


def claim(folder: Path, config: DataConfig, seed: int, maps: Sequence[Map]) -> None:
    """Note which cohort a folder holds, so that no run takes another's for its own.

    Raises:
        InputError: It holds another one.
    """
    facts = {k: v for k, v in dataclasses.asdict(config).items() if k not in UNUSED}
    facts |= {"seed": seed, "maps": [path.name if path else "mni152" for path in maps]}
    digest = hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:12]
    note = folder / "cohort.txt"
    if not note.exists():
        with atomic_output(note, force=True) as temporary:
            temporary.write_text(digest + "\n")
    elif note.read_text().strip() != digest:
        raise InputError(
            f"{folder} holds a cohort of other settings, seed or label maps; "
            "delete it or choose another folder."
        )


def cohort_settings(config: DataConfig, index: int) -> CohortConfig:
    """Most subjects near 1 mm, the rest anywhere in the cohort's range; all of them tilted."""
    settings = CohortConfig(
        noise=config.noise,
        texture=config.texture,
        slice_mm=config.slice_mm,
        max_tilt_deg=config.max_tilt_deg,
    )
    if (index * 0.618) % 1 < config.near_1mm_share:
        return replace(settings, spacing_mm=(0.9, 1.1), isotropic_share=1.0)
    return settings
