"""Build a patch store: volumes in small compressed chunks, of which a patch reads only a few.

A .nii.gz must be inflated from its beginning for every patch. A store is built from such
files once, with Zarr 3: one group per volume, with one shard of 64-voxel cubic chunks, a
copy on larger voxels for whole-volume steps, and indices of voxels that are not air. A volume
is written under another name and renamed, so it exists whole or not at all.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from medil.errors import InputError, WriteError
from medil.formats import STORE
from medil.io.intensity import Intensity, replace_nonfinite, robust_intensity
from medil.io.listing import Listed
from medil.io.source import as_one_of_many, suffix_of
from medil.regrid import box_average
from medil.system.files import PART, file_sha256, flush, make_folder, sweep
from medil.system.lock import only_writer
from medil.training.patches import prepare_scan
from medil.training.store import (
    META,
    Coding,
    read_facts,
    store_facts,
    write_attributes,
    zarr_3,
)
from medil.volume import Volume, load

CHUNK = 64  # voxels per axis: with 32, a 40 mm patch would read more and smaller pieces
SMALL_MM = 2.0  # approximate voxel size of the small copy
LEVELS = 2**16 - 1  # steps that 16 bits can count
COARSEST = 2**-12  # largest step on the 0 ... 1 scale; volumes that need more stay float32


@dataclass(frozen=True)
class Built:
    """Counts of what `build_store` did."""

    new: int  # volumes that were read and written
    kept: int  # files whose volume existed
    failed: list[str]  # a sentence for each file that could not be read


def build_store(
    images: Iterable[str | Path | Listed],
    folder: str | Path,
    window: tuple[float, float] | None = None,
    kind: str = "",
    progress: bool = False,
) -> Built:
    """Write images into a store, new or existing.

    A file of the same path, size and time is not opened again; one whose time alone changed
    is hashed. The volume of a file whose bytes changed is replaced. Volumes of other files
    stay. One process builds at a time; another is refused.

    Args:
        images: Images that `medil.volume.load` reads, except .nhdr. Those that
            `medil.io.listing.list_images` lists keep their name, subject, age and sex.
        folder: Folder of the store; created when missing, but its parent must exist.
        window: Intensities that become 0 and 1; by percentiles of each image when None.
        kind: What these images show, such as ``brain`` or ``head``; training weighs each kind.
        progress: Show a bar.

    Returns:
        Counts and failures: a bad file is left out and does not stop the others.

    Raises:
        InputError: No Zarr 3, a folder of something else or in use, or a store of another window.
        WriteError: The disk refused a write; volumes that were written stay.
    """
    zarr_3()
    listed = [one if isinstance(one, Listed) else Listed(Path(one)) for one in images]
    with only_writer(make_folder(folder), "medil store"):
        builder = _Builder(Path(folder), Intensity(*window) if window else None)
        return _build(
            builder, tqdm(listed, desc="store", unit="volume", disable=not progress), kind
        )


def _build(builder: _Builder, images: Iterable[Listed], kind: str) -> Built:
    new, kept, failed = 0, 0, []
    for image in images:
        try:
            written = builder.add(image, kind)
            new, kept = new + written, kept + (not written)
        except WriteError:
            raise
        except InputError as error:
            text = as_one_of_many(str(error))
            failed.append(text if str(image.path) in text else f"{image.path}: {text}")
    return Built(new, kept, failed)


class _Builder:
    """A store that is open for writing, with the file of each of its volumes."""

    def __init__(self, folder: Path, intensity: Intensity | None) -> None:
        self.folder, self.intensity = folder, intensity
        claim(folder, intensity)
        sweep(folder)
        self.facts = read_facts(folder)
        self.by_hash = {facts["sha256"]: key for key, facts in self.facts.items()}
        self.by_path = {facts["source"]: key for key, facts in self.facts.items()}

    def add(self, image: Listed, kind: str = "") -> bool:
        """Store an image unless its volume exists; returns whether it was written.

        Raises:
            InputError: The file cannot be read, or its image is constant.
        """
        name, origin = scan_name(image), origin_of(image)
        known = {"subject": image.subject, "kind": kind, **image.covariates.facts()}
        labels = {key: value for key, value in known.items() if value != ""}
        former = self.by_path.get(origin["source"])
        if former and origin.items() <= self.facts[former].items():
            self._update(former, labels)
            return False
        sha256 = sha256_of(image)
        if same := self.by_hash.get(sha256):
            moved = same == former or not Path(self.facts[same]["source"]).exists()
            self._update(same, labels | (origin if moved else {}))
            if former and former != same:
                self._remove(former)
            return False
        key = f"{re.sub(r'[^A-Za-z0-9_-]', '_', name)}-{sha256[:12]}"
        facts = {"name": name, "subject": "", "kind": "", **labels, "sha256": sha256, **origin}
        with _whole(self.folder / key) as temporary:
            volume = load(image.path, series=image.series)
            self.facts[key] = _write(temporary, volume, facts, self.intensity)
        self.by_hash[sha256], self.by_path[origin["source"]] = key, key
        if former:  # the file holds other bytes now
            self._remove(former)
        return True

    def _update(self, key: str, changed: dict[str, Any]) -> None:
        """Change attributes of a volume whose voxels stay."""
        if not changed.items() <= self.facts[key].items():
            self.facts[key] |= changed
            write_attributes(self.folder / key, self.facts[key])
            self.by_path[self.facts[key]["source"]] = key

    def _remove(self, key: str) -> None:
        doomed = self.folder / f"{PART}{key}"
        # Renamed first, so that a killed build leaves no half of it under its name.
        os.rename(self.folder / key, doomed)
        shutil.rmtree(doomed)
        del self.by_hash[self.facts.pop(key)["sha256"]]


def scan_name(image: Listed) -> str:
    """The name of an image; its file's name without a suffix where it has none.

    Raises:
        InputError: The path is not a file that a store takes.
    """
    if image.files:
        return image.name
    if not image.path.is_file():
        raise InputError(f"{image.path} is not a file.")
    suffix = suffix_of(image.path)
    if suffix == ".nhdr":
        raise InputError(f"{image.path} keeps its voxels in another file; write it as .nrrd first.")
    return image.name or image.path.name[: -len(suffix)]


def origin_of(image: Listed) -> dict[str, Any]:
    """Where an image comes from, by which an unchanged one is known without reading it."""
    files = image.files or (image.path,)
    stats = [path.stat() for path in files]
    return {
        "source": str(files[0].resolve()),
        "bytes": sum(stat.st_size for stat in stats),
        "mtime_ns": max(stat.st_mtime_ns for stat in stats),
    }


def sha256_of(image: Listed) -> str:
    """Digest of the bytes of an image: of its file, or of the digests of its DICOM files."""
    if not image.files:
        return file_sha256(image.path)
    digests = sorted(file_sha256(path) for path in image.files)
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def claim(folder: Path, intensity: Intensity | None) -> None:
    """Make a folder a store, or check that it is a store of the same window.

    Raises:
        InputError: The folder holds something else.
    """
    window = [intensity.low, intensity.high] if intensity else None
    make_folder(folder)
    if any(not path.name.startswith(".") for path in folder.iterdir()):
        has = store_facts(folder)["window"]
        if has != window:
            named = "percentiles of each image" if has is None else "{:g} to {:g}".format(*has)
            raise InputError(
                f"the store {folder} was scaled by {named}; use the same window or another folder."
            )
        return
    write_attributes(folder, {"format": str(STORE), "window": window})


@contextmanager
def _whole(final: Path) -> Iterator[Path]:
    """A temporary folder that is renamed to `final` when the block ends well."""
    temporary = final.with_name(f"{PART}{final.name}")
    try:
        yield temporary
        for path in temporary.rglob("*"):
            flush(path)
        os.rename(temporary, final)
        flush(final.parent)
    except OSError as error:
        raise WriteError(f"{final} could not be written: {error.strerror or error}.") from error
    finally:  # also on Ctrl-C
        shutil.rmtree(temporary, ignore_errors=True)


def _write(
    folder: Path, volume: Volume, facts: dict[str, Any], intensity: Intensity | None
) -> dict[str, Any]:
    """Write a volume's group; returns its attributes."""
    intensity = intensity or robust_intensity(volume.data)
    data, n_replaced = replace_nonfinite(volume.data, background=intensity.low)
    places = prepare_scan(volume.with_data(data), intensity=intensity).foreground
    source, spacing_mm = volume.source, volume.grid.spacing_mm
    lattice = source is not None and source.is_scaled and source.dtype.kind in "iu"
    levels = {"data": encoded(data, intensity, abs(source.slope) if lattice else None)}  # type: ignore[union-attr]
    small = small_copy(data, spacing_mm)
    if small is not None:
        levels["small"] = encoded(small, intensity)
    facts |= {
        "affine_vox2ras": volume.grid.affine_vox2ras.tolist(),
        "spacing_mm": list(spacing_mm),
        "intensity": [intensity.low, intensity.high],
        "replaced_voxels": n_replaced,
        "places": len(places),
        "levels": {
            name: {"shape": list(stored.shape), "base": coding.base, "unit": coding.unit}
            for name, (stored, coding) in levels.items()
        },
    }
    folder.mkdir()
    for name, (stored, _) in levels.items():
        _write_array(folder / name, stored, CHUNK if name == "data" else max(stored.shape))
    _write_array(folder / "places", np.asarray(places, dtype=np.int32), len(places))
    facts["arrays"] = {name: file_sha256(folder / name / META) for name in (*levels, "places")}
    write_attributes(folder, facts)
    return facts


def _write_array(folder: Path, values: np.ndarray, side: int) -> None:
    """One file and its metadata: a shard of chunks of this side, or a single chunk.

    Zarr encodes into memory and its files are written here: threads of its own
    would go on writing into a folder that a full disk has had removed.
    """
    chunks = tuple(min(side, n) for n in values.shape)
    codecs = zarr_3().codecs
    shard = tuple(-(-n // c) * c for n, c in zip(values.shape, chunks, strict=True))
    files: dict[str, Any] = {}
    array = zarr_3().create_array(
        zarr_3().storage.MemoryStore(files), shape=values.shape, dtype=values.dtype, chunks=chunks,
        shards=shard if shard != chunks else None,
        compressors=[codecs.BloscCodec(cname="zstd", clevel=5, shuffle="shuffle"),
                     codecs.Crc32cCodec()],  # Blosc has no check sum
        config={"write_empty_chunks": True},  # so that a missing file is an error
    )  # fmt: skip
    array[...] = values
    for name, encoded_bytes in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded_bytes.to_bytes())


# Numbers


def encoded(
    values: Tensor, intensity: Intensity, unit: float | None = None
) -> tuple[np.ndarray, Coding]:
    """Store finite image values in 16 bits, exactly for images of at most 65536 levels.

    Integers are kept, which compress best. Other values are rounded to
    65536 steps over their range; the error is half a step, and a volume whose outliers would
    make a step larger than 1/4096 of the intensity window is kept as float32. (float16 was
    measured on an N4-corrected T1w at 1 mm: an error of up to 1e-3, against 3e-5.)

    Args:
        values: Of any shape.
        intensity: Image units to 0 ... 1.
        unit: All values are a base plus multiples of it; detected when None.

    Returns:
        uint16 or float32, and how to read it.
    """
    exact = values.to(torch.float64)
    low, high = (float(v) for v in torch.aminmax(exact))
    if unit is None and bool((exact == exact.round()).all()):
        unit = 1.0
    if unit is None or high - low > LEVELS * unit:
        unit = (high - low) / LEVELS or 1.0
        if unit > COARSEST * (intensity.high - intensity.low):
            return exact.to(torch.float32).numpy(), Coding(intensity, 0.0, 1.0)
    stored = ((exact - low) / unit).round().numpy().astype(np.uint16)
    return stored, Coding(intensity, low, unit)


def small_copy(data: Tensor, spacing_mm: Sequence[float]) -> Tensor | None:
    """A volume averaged to voxels of about 2 mm; None where they are that large already."""
    factor = [max(1, int(SMALL_MM / s + 1e-6)) for s in spacing_mm]
    if max(factor) == 1:
        return None
    shape = [-(-n // f) for n, f in zip(data.shape, factor, strict=True)]
    return box_average(data.to(torch.float32), shape)
