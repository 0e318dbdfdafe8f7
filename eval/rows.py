"""Recorded results: one row per number, with its full provenance.

A row says what was measured (experiment, subject, arm, condition, metric), on which data,
weights and configuration (three hashes), and by what (commit, versions, device, seed).
`eval.rows_file` keeps rows. A table is always made from rows, never typed.
"""

from __future__ import annotations

import hashlib
import json
import math
import platform
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import UnionType
from typing import Any, get_args, get_type_hints

import numpy as np
import pandas as pd
import torch

import medil
from medil.errors import InputError
from medil.grid import Grid
from medil.system.checkout import checkout

RESULTS = Path(__file__).parent / "results"
WHAT = ("experiment", "subject", "arm", "condition", "metric")
IDENTITY = (*WHAT, "config_hash", "data_sha256", "weights_sha256")
Identity = tuple[str, ...]  # the values of those fields
MOMENT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?(Z|[+-]([01]\d|2[0-3]):[0-5]\d)?", re.ASCII
)
NO_WEIGHTS = ""  # of arms that have none: codecs, interpolation


@dataclass(frozen=True)
class Provenance:
    """Code, device and seed of one run; the same for all its rows."""

    commit: str  # of the checkout, "unknown" outside one
    dirty: bool  # whether files differed from that commit
    seed: int
    device: str  # "cpu", or the accelerator's name
    threads: int
    versions: dict
    profile: str  # quick, gpu or paper

    @classmethod
    def now(cls, profile: str, seed: int = 0, device: str = "cpu") -> Provenance:
        """The provenance of this process."""
        commit, dirty = checkout()
        commit = commit or "unknown"
        return cls(commit, dirty, seed, device, torch.get_num_threads(), _versions(), profile)


@dataclass(frozen=True)
class Measurement:
    """What a row measures, but for the metric: one arm on one subject under one condition."""

    experiment: str  # the module that measures it, such as ``reconstruction``
    subject: str  # public name of the volume
    arm: str  # the model, or a rival
    condition: str  # what was encoded and rendered, such as ``native -> 2 mm``
    config_hash: str  # of all settings (`digest`)
    data_sha256: str  # of the bytes, or of the recipe of a synthetic volume
    weights_sha256: str  # `NO_WEIGHTS` where the arm has none

    def rows(
        self, values: Mapping[str, float], units: Mapping[str, str], sampling: Sampling,
        time_s: float, provenance: Provenance,
    ) -> list[Row]:  # fmt: skip
        """One row per metric; a value that is not finite becomes None."""
        about = vars(self) | vars(sampling)
        about |= {"time_s": time_s, "recorded_at": now_utc(), "provenance": provenance}
        numbers = {m: float(v) if math.isfinite(v) else None for m, v in values.items()}
        return [Row(metric=m, value=v, unit=units[m], **about) for m, v in numbers.items()]


@dataclass(frozen=True)
class Sampling:
    """Voxel sizes of what was encoded and rendered, and how much was kept."""

    spacing_in_mm: str  # such as ``0.72 x 0.72 x 3``
    spacing_out_mm: str
    numbers_kept: int  # of the volume, by the arm
    n_voxels: int  # of the volume that was encoded

    @classmethod
    def of(cls, grid: Grid, target: Grid, numbers_kept: float) -> Sampling:
        """Of a volume on `grid` that is rendered on `target`."""
        return cls(spacing_text(grid), spacing_text(target), int(numbers_kept), grid.n_voxels)

    @classmethod
    def of_cell(cls, spacing_mm: float, channels: int) -> Sampling:
        """Of a model by itself: one cell of its latent, counted in voxels of 1 mm."""
        return cls("any", "any", channels, max(1, round(spacing_mm**3)))


@dataclass(frozen=True)
class Row(Sampling, Measurement):
    """One measured number."""

    metric: str  # a name from `eval.metrics`, or another quantity
    value: float | None  # finite; None where the metric has no bound here (PSNR of an exact copy)
    unit: str  # "1" when the value has none
    time_s: float  # that the arm took for this subject and condition
    recorded_at: str  # UTC, ISO 8601
    provenance: Provenance  # flattened into the row on disk

    @property
    def identity(self) -> Identity:
        """The fields that identify this measurement (`IDENTITY`)."""
        return tuple(getattr(self, name) for name in IDENTITY)

    def to_record(self) -> dict[str, Any]:
        """The flat mapping that is one line of the file; checked."""
        record = vars(self) | asdict(self.provenance)
        record["numbers_per_voxel"] = self.numbers_kept / self.n_voxels
        del record["provenance"]
        check_record(record)
        return record


SCHEMA = get_type_hints(Row) | get_type_hints(Provenance) | {"numbers_per_voxel": float}
del SCHEMA["provenance"]
KINDS = {name: get_args(k) if isinstance(k, UnionType) else (k,) for name, k in SCHEMA.items()}
NEVER_EMPTY = (*WHAT, "unit", "config_hash", "data_sha256")


def identities(wanted: Iterable[tuple[Measurement, Iterable[str]]]) -> frozenset[Identity]:
    """The identities (`IDENTITY`) of the rows that measurements of these metrics will give."""
    return frozenset(
        tuple(metric if name == "metric" else getattr(measurement, name) for name in IDENTITY)
        for measurement, metrics in wanted
        for metric in metrics
    )


def spacing_text(grid: Grid) -> str:
    """Voxel size such as ``1`` or ``0.72 x 0.72 x 3``, in mm."""
    texts = [f"{s:.2f}".rstrip("0").rstrip(".") for s in grid.spacing_mm]
    return texts[0] if len(set(texts)) == 1 else " x ".join(texts)


def check_record(record: Mapping[str, Any]) -> None:
    """Reject a record with wrong fields.

    Raises:
        InputError: A field is missing, unknown, of another type, empty or not finite.
    """
    if wrong := SCHEMA.keys() ^ record.keys():
        raise InputError(f"a row has missing or unknown fields: {', '.join(sorted(wrong))}.")
    for name, kinds in KINDS.items():
        value = record[name]
        if type(value) not in kinds and (isinstance(value, bool) or not isinstance(value, kinds)):
            raise InputError(f"a row's {name} cannot be {value!r} ({type(value).__name__}).")
        if isinstance(value, float) and not math.isfinite(value):
            raise InputError(f"a row's {name} must be finite, not {value}.")
        if not value and name in NEVER_EMPTY:
            raise InputError(f"a row's {name} must not be empty.")
    if not _is_moment(record["recorded_at"]):
        raise InputError("a row's recorded_at must be a moment in ISO 8601.")
    if record["n_voxels"] < 1 or record["numbers_kept"] < 0:
        raise InputError("a row needs at least one voxel and no negative count of numbers.")


def _is_moment(text: str) -> bool:
    if not MOMENT.fullmatch(text):
        return False
    try:
        return 1970 < datetime.fromisoformat(text).year < 2262  # those that pandas counts in ns
    except ValueError:
        return False


def newest(
    frame: pd.DataFrame,
    latest_by: tuple[str, ...] = ("config_hash", "weights_sha256"),
    key: tuple[str, ...] = WHAT,
) -> pd.DataFrame:
    """The rows that count, in the order of recording: each arm in its newest configuration.

    Within an arm, only rows that agree with its newest one in the fields `latest_by` are kept;
    of rows that agree in the fields `key`, the newest.
    """
    ordered = frame.sort_values("recorded_at", kind="stable")
    for name in latest_by:
        ordered = ordered[ordered[name] == ordered.groupby("arm")[name].transform("last")]
    return ordered.drop_duplicates(list(key), keep="last").reset_index(drop=True)


def latest(frame: pd.DataFrame) -> pd.DataFrame:
    """The newest row for each experiment, subject, arm, condition and metric."""
    return newest(frame, ())


def identity(record: Mapping[str, Any]) -> Identity:
    """The fields of a record that identify its measurement (`IDENTITY`)."""
    return tuple(record[name] for name in IDENTITY)


def now_utc() -> str:
    """This moment, ISO 8601, UTC, to the microsecond."""
    return datetime.now(UTC).isoformat(timespec="microseconds")


def digest(choices: Any) -> str:
    """SHA-256 of any JSON value; it does not depend on the order of keys."""
    return hashlib.sha256(json.dumps(choices, sort_keys=True).encode()).hexdigest()


def array_digest(values: np.ndarray, affine_vox2ras: np.ndarray) -> str:
    """SHA-256 of a volume's shape, kind, numbers and place."""
    state = hashlib.sha256(f"{values.shape} {values.dtype.str}".encode())
    state.update(np.ascontiguousarray(values).tobytes())
    state.update(np.asarray(affine_vox2ras, dtype=np.float64).tobytes())
    return state.hexdigest()


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "medil": medil.__version__}
    for name in ("torch", "numpy", "scipy", "scikit-image"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = "unknown"
    return versions
