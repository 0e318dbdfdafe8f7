"""The training set: synthetic heads, drawn once into files, and real scans.

Subject k of a cohort is a pure function of (configuration, seed, k). Only the `train` split
of a manifest is used; all scans of one subject are in one split.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medil.config import DataConfig
from medil.data import manifest
from medil.errors import InputError
from medil.synth.anatomy import Anatomy, label_anatomy, tissue_anatomy
from medil.synth.cohort import subject
from medil.synth.subject import CohortConfig
from medil.system.files import atomic_output
from medil.system.workers import grouped, share_out
from medil.training.patches import Scan, prepare_scan
from medil.training.store import Store
from medil.volume import load, save

REAL, LABELS = ("ds002748", "open_ms_t1"), "synthseg_labels"  # manifests
POLL_S = 0.1
UNUSED = ("subjects", "real_share", "mix", "thick_share", "thick_mm")  # no subject depends on them

Map = Path | None  # a label map, or None for the MNI152 tissue maps


def training_scans(
    config: DataConfig,
    folder: Path,
    seed: int,
    maps: Sequence[Map] | None = None,
    draws: bool = True,
    store: Store | None = None,
    processes: int = 1,
) -> list[Scan]:
    """The cohort, drawn where its files are missing, then the real scans.

    Label maps and published scans come through the manifests, their `train` split alone.
    Without label maps the cohort is painted on the MNI152 tissue maps.

    Args:
        config: Number of subjects, their variation, and the share of real scans.
        folder: Folder of the cohort's volumes; created when missing.
        seed: Added to the cohort's own.
        maps: Label maps, used in turn for the subjects; those of the manifest when None.
        draws: Whether this process draws. In a run of several processes one draws, and the
            others wait for its files.
        store: Store of the real scans; the published scans when None.
        processes: Number of processes that draw.

    Returns:
        The scans; the weights of the cohort sum to 1.

    Raises:
        InputError: The folder holds another cohort, or there is nothing to draw from.
    """
    real = real_scans(config, store)
    if store and not real:
        raise InputError("a store is not used when real_share is 0; choose a larger share.")
    if config.real_share == 1:
        if not real:
            raise InputError(
                "real_share = 1 needs real scans, and there are none; name a store of them."
            )
        return real
    if draws:
        draw_cohort(config, folder, seed, maps=maps, processes=processes)
    paths = [subject_path(folder, index) for index in range(config.subjects)]
    while not all(path.exists() for path in paths):
        time.sleep(POLL_S)
    return [*(read_scan(path, 1 / config.subjects) for path in paths), *real]


def real_scans(config: DataConfig, store: Store | None = None) -> list[Scan]:
    """Real scans; their total weight gives them `real_share` beside a cohort of weight 1.

    They come from a store, which reads only the voxels that are used, or are the local files of
    the published `train` split.

    Raises:
        InputError: `mix` leaves a kind out, or names one that no scan has.
    """
    if not config.real_share:
        return []
    share = config.real_share / (1 - config.real_share) if config.real_share < 1 else 1.0
    if store:
        return mixed(store.scans(), config.weights(), share)
    entries = [entry for name in REAL for entry in manifest.local_entries(name, "train")]
    scans = [replace(read_scan(manifest.fetch(e), 1.0), kind=e.kind) for e in entries]
    return mixed(scans, config.weights(), share)


def mixed(scans: Sequence[Scan], weights: Mapping[str, float], share: float) -> list[Scan]:
    """The scans with weights that sum to `share`, by kind and evenly within a kind.

    Args:
        scans: Of any kinds.
        weights: Relative weight of each kind; every scan is equally likely when empty.
        share: Total weight.

    Raises:
        InputError: A kind has a weight and no scan, or scans and no weight.
    """
    kinds = [scan.kind if weights else "" for scan in scans]
    counts, weights = Counter(kinds), weights or {"": 1.0}
    if scans and set(counts) != set(weights):
        raise InputError(
            f"data.mix names {', '.join(sorted(weights))}, but the kinds of the real scans are "
            f"{', '.join(repr(kind) for kind in sorted(counts))}; name each of them once."
        )
    total = sum(weights.values())
    return [
        replace(scan, weight=share * weights[kind] / total / counts[kind])
        for scan, kind in zip(scans, kinds, strict=True)
    ]


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
    maps: Sequence[Map] | None = None,
    processes: int = 1,
) -> None:
    """Draw missing subjects into a folder, grouped by label map; arguments as `training_scans`.

    Raises:
        InputError: The folder holds another cohort.
    """
    maps = list(maps) if maps is not None else training_maps()
    folder.mkdir(parents=True, exist_ok=True)
    claim(folder, config, seed, maps)
    missing = [k for k in range(config.subjects) if not subject_path(folder, k).exists()]
    draw = functools.partial(draw_on_one_map, config, folder, seed, maps)
    share_out(draw, grouped(missing, len(maps), processes), processes, "cohort")


def draw_on_one_map(
    config: DataConfig, folder: Path, seed: int, maps: Sequence[Map], numbers: Sequence[int]
) -> None:
    """Draw subjects that share a label map, which is read once."""
    anatomy = read_anatomy(maps[numbers[0] % len(maps)])
    for index in numbers:
        drawn = subject(anatomy, config.seed_cohort + seed, index, cohort_settings(config, index))
        save(drawn, subject_path(folder, index), force=True)


def read_anatomy(path: Map) -> Anatomy:
    """A label map's anatomy, or that of the MNI152 tissue maps; takes some seconds."""
    return label_anatomy(path) if path else tissue_anatomy()


def claim(folder: Path, config: DataConfig, seed: int, maps: Sequence[Map]) -> None:
    """Note which cohort a folder holds, so that no run reads the cohort of another.

    Raises:
        InputError: The folder holds another cohort.
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
