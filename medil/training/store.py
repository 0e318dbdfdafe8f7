"""Read a patch store: volumes are opened when a block is drawn from them.

`StoredVoxels` and `StoredPlaces` replace the tensor and the array of a `Scan` in memory, so
the same draws give the same blocks. `medil.training.build_store` writes stores.
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from medil.checksums import parsed, summed, without_sum
from medil.errors import InputError
from medil.formats import STORE
from medil.io.intensity import Intensity
from medil.system.files import atomic_output, file_sha256
from medil.training.patches import Scan

IDENTITY = "medil-store-1"  # part of every identity, which runs keep
OPEN = 64  # volumes whose arrays are kept open
NOTE = "store.txt"  # in a run's folder: the path of its store
META = "zarr.json"  # metadata file of Zarr 3


@dataclass(frozen=True)
class Coding:
    """How stored numbers become voxels on the 0 ... 1 scale."""

    intensity: Intensity  # image units to 0 ... 1
    base: float  # image units of a stored 0
    unit: float  # image units of a stored 1

    def voxels(self, stored: np.ndarray) -> Tensor:
        """Float32, of any shape."""
        values = stored.astype(np.float64) * self.unit + self.base
        return self.intensity.forward(torch.from_numpy(np.ascontiguousarray(values)))


@dataclass(frozen=True)
class StoredVoxels:
    """Voxels that are read from disk when sliced: see `medil.training.patches.Voxels`.

    `level` is "data" or "small"; `shape` is (D, H, W).
    """

    store: Store
    key: str
    level: str
    shape: tuple[int, ...]
    coding: Coding

    def __getitem__(self, index: Any) -> Tensor:
        return self.coding.voxels(self.store.read(self.key, self.level, index))


@dataclass(frozen=True)
class StoredPlaces:
    """Indices of voxels that are not air, read from disk: see `medil.training.patches.Places`."""

    store: Store
    key: str
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: Any) -> np.ndarray:
        places: np.ndarray = self.store.places(self.key)[index]
        return places


class Store:
    """A store, written by `build_store`, that is open for reading; arrays open at their first use.

    Raises:
        InputError: No Zarr 3, no store, or one without volumes.
    """

    def __init__(self, folder: str | Path) -> None:
        zarr_3()
        self.folder = Path(folder)
        self.window = store_facts(self.folder)["window"]
        self.facts = read_facts(self.folder)
        if not self.facts:
            raise InputError(f"the store {folder} holds no volume; run medil store again.")
        self.array = functools.lru_cache(3 * OPEN)(self._array)
        self.places = functools.lru_cache(OPEN)(self._places)

    @property
    def identity(self) -> str:
        """Twelve hexadecimal digits: of the volumes, their order and kinds, and the window."""
        volumes = [
            (key, facts["sha256"], *([facts["kind"]] if facts.get("kind") else []))
            for key, facts in self.facts.items()
        ]
        text = json.dumps([IDENTITY, self.window, volumes])
        return hashlib.sha256(text.encode()).hexdigest()[:12]

    def scans(self, weight: float = 1.0) -> list[Scan]:
        """The volumes, sorted by name, as scans whose weights sum to `weight`."""
        return [self._scan(key, weight / len(self.facts)) for key in self.facts]

    def _scan(self, key: str, weight: float) -> Scan:
        facts = self.facts[key]
        intensity = Intensity(*facts["intensity"])
        levels = {
            name: StoredVoxels(
                self, key, name, tuple(level["shape"]),
                Coding(intensity, level["base"], level["unit"]),
            )
            for name, level in facts["levels"].items()
        }  # fmt: skip
        return Scan(
            levels["data"], tuple(facts["spacing_mm"]), StoredPlaces(self, key, facts["places"]),
            weight, facts["name"], levels.get("small"), facts.get("kind", ""),
        )  # fmt: skip

    def note(self, out: Path) -> None:
        """Write the path of this store into a run's folder."""
        with atomic_output(out / NOTE, force=True) as temporary:
            temporary.write_text(f"{self.folder.resolve()}\n", "utf-8")

    def read(self, key: str, name: str, index: Any) -> np.ndarray:
        """A part of an array, as stored.

        Raises:
            InputError: The array is damaged.
        """
        try:
            return np.asarray(self.array(key, name)[index])
        except MemoryError:
            raise
        except Exception as error:  # codecs raise RuntimeError, ValueError and more
            raise damaged(self.folder, key) from error

    def _array(self, key: str, name: str) -> Any:
        folder = self.folder / key / name
        known = self.facts[key].get("arrays", {}).get(name)
        if known and known != file_sha256(folder / META):
            raise ValueError(f"{folder / META} is not what was written")
        if not any(p.is_file() for p in (folder / "c").rglob("*")):  # zeros, to Zarr
            raise FileNotFoundError(folder)
        return zarr_3().open_array(str(folder), mode="r")

    def _places(self, key: str) -> np.ndarray:
        return self.read(key, "places", ...).astype(np.int64)


def open_store(out: Path, folder: Path | None, identity: str | None) -> Store | None:
    """The store of a resumed run, unchanged since the run began; None for a run without one.

    Args:
        out: Folder of the run.
        folder: Folder of the store now; the recorded path when None.
        identity: Identity of the run's store; None for a run without one.

    Raises:
        InputError: There is no store, or it has changed.
    """
    if not identity:
        if folder:
            raise InputError(f"the run in {out} draws from no store; resume it without one.")
        return None
    noted = out / NOTE
    if not folder and not noted.is_file():
        raise InputError(f"the run in {out} draws from a store; say where it is with `store`.")
    store = Store(folder or noted.read_text("utf-8").strip())
    if store.identity != identity:
        raise InputError(
            f"the store {store.folder} has changed since the run in {out} began; "
            "restore it, or begin a new run."
        )
    return store


def store_facts(folder: Path) -> dict[str, Any]:
    """The attributes of a store.

    Raises:
        InputError: The folder is not a store, or its metadata is damaged.
    """
    try:
        facts = _attributes(folder)
    except ValueError as error:
        raise InputError(
            f"{folder / META} is damaged; write the store into another folder."
        ) from error
    if not STORE.reads(facts.get("format"), folder / META):
        raise InputError(f"{folder} is not a patch store; make one with: medil store.")
    window = facts.get("window")
    if window is not None and not _are_numbers(window, 2):
        raise InputError(f"{folder / META} is damaged; write the store into another folder.")
    return facts | {"window": window}


def read_facts(folder: Path) -> dict[str, dict[str, Any]]:
    """The attributes of each volume, by its key, sorted.

    Raises:
        InputError: Those of a volume are damaged.
    """
    keys = sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and p.is_dir())
    found = {}
    for key in keys:
        try:
            found[key] = facts = _attributes(folder / key)
        except ValueError as error:
            raise damaged(folder, key) from error
        if facts and not _is_volume(facts):
            raise damaged(folder, key)
    return {key: facts for key, facts in found.items() if facts}


def _is_volume(facts: dict[str, Any]) -> bool:
    """Whether attributes hold what a volume needs to be read."""
    texts, levels = ("name", "sha256", "source"), facts.get("levels")
    return (
        all(isinstance(facts.get(name), str) for name in texts)
        and _are_numbers(facts.get("spacing_mm"), 3)
        and _are_numbers(facts.get("intensity"), 2)
        and isinstance(facts.get("arrays", {}), dict)
        and _are_numbers([facts.get("places")], 1)
        and isinstance(levels, dict)
        and "data" in levels
        and all(_is_level(level) for level in levels.values())
    )


def _is_level(level: Any) -> bool:
    if not isinstance(level, dict):
        return False
    return _are_numbers(level.get("shape"), 3) and _are_numbers(
        [level.get("base"), level.get("unit")], 2
    )


def _are_numbers(values: Any, count: int) -> bool:
    """Whether a JSON value is a list of this many finite numbers."""
    if not isinstance(values, list) or len(values) != count:
        return False
    return all(type(v) in (int, float) and abs(v) < 1e300 for v in values)


def damaged(folder: Path, key: str) -> InputError:
    """What to say of a volume that is not what was written."""
    return InputError(
        f"the volume {key} in the store {folder} is damaged; "
        "delete its folder and run medil store again."
    )


def _attributes(folder: Path) -> dict[str, Any]:
    """Attributes of a Zarr group, read without Zarr: thousands take less than a second.

    Raises:
        ValueError: They are not what was written.
    """
    try:
        return without_sum(parsed((folder / META).read_text("utf-8"))["attributes"])
    except FileNotFoundError:
        return {}
    except (OSError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{folder / META} cannot be read") from error


def write_attributes(folder: Path, attributes: dict[str, Any]) -> None:
    """Make a folder a Zarr group with these attributes and their check sum, or change them.

    Raises:
        WriteError: The disk refused the write.
    """
    group = {"attributes": summed(attributes), "zarr_format": 3, "node_type": "group"}
    with atomic_output(folder / META, force=True) as temporary:
        temporary.write_text(json.dumps(group, indent=2), "utf-8")


def zarr_3() -> Any:
    """The module `zarr`, version 3.

    Raises:
        InputError: It is not installed.
    """
    try:
        zarr: Any = importlib.import_module("zarr")
    except ImportError:
        zarr = None
    if zarr is None or int(zarr.__version__.split(".")[0]) < 3:
        raise InputError(
            "a patch store needs Zarr 3; install it with: pip install 'medil-book[store]'."
        )
    return zarr
