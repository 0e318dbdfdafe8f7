"""Small anatomies of the release: the train label maps as tissue classes, in one file.

`pack` makes the file again, byte for byte, from the published label maps; `packed_maps` reads
it. Each map is cropped to the brain and holds its tissues and ventricles; the CSF around them
is drawn, with the rim, by `medil.anatomy.draw`.
"""

from __future__ import annotations

import functools
import io
import json
import lzma
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from medil.anatomy.classes import BRAIN, LabelMap, at_one_mm, from_freesurfer
from medil.checksums import parsed
from medil.data.releases import release_path
from medil.errors import InputError
from medil.formats import ANATOMIES, claimed
from medil.grid import Grid
from medil.synth.anatomy import OUTER_CSF, crop_box, load_labels
from medil.system.files import atomic_output

NAME = "anatomies"  # of the release
MARGIN_VOX = 4  # air around the brain
MOST_BYTES = 2**29  # of an inflated file: nine times those of the release
# Labels repeat from row to row: four bits of the byte before tell most, its place nothing.
FILTERS = [{"id": lzma.FILTER_LZMA2, "preset": 9, "lc": 4, "lp": 0, "pb": 0}]
PAIRED = {  # FreeSurfer numbers of structures of one hemisphere
    "left": (2, 3, 4, 7, 8, 10, 11, 12, 13),
    "right": (41, 42, 43, 46, 47, 49, 50, 51, 52),
}


@dataclass(frozen=True)
class PackedMap:
    """A packed anatomy.

    Args:
        name: Name of the label map that it was made from.
        tissues: The tissue map at 1 mm, RAS+, without outer CSF.
        midplane: (R, A, S, d): points right of the plane between the hemispheres have
            ``R x + A y + S z + d > 0`` (mm; the normal has length 1).
    """

    name: str
    tissues: LabelMap
    midplane: tuple[float, float, float, float]


def pack(label_maps: Iterable[Path], path: Path, force: bool = False) -> Path:
    """Pack FreeSurfer-numbered label maps into one compressed file, in their order.

    Args:
        label_maps: Files of about 1 mm, with left and right structures.
        path: The file to write, an .npz that is compressed as .xz.
        force: Replace a file that exists.

    Raises:
        InputError: A file that is no such label map.
    """
    maps = [packed_map(source) for source in label_maps]
    about = [
        {"name": m.name, "affine": m.tissues.grid.affine_vox2ras.tolist(), "midplane": m.midplane}
        for m in maps
    ]
    arrays: dict[str, Any] = {m.name: m.tissues.labels.numpy() for m in maps}
    text = json.dumps({"format": str(ANATOMIES), "maps": about}).encode()
    content = io.BytesIO()
    np.savez(content, about=np.frombuffer(text, np.uint8), **arrays)
    with atomic_output(path, force) as temporary:
        packed = lzma.compress(content.getvalue(), lzma.FORMAT_XZ, filters=FILTERS)
        Path(temporary).write_bytes(packed)
    return path


def packed_map(source: Path) -> PackedMap:
    """The packed anatomy of one label map.

    Raises:
        InputError: It is no label map with a left and a right hemisphere.
    """
    numbers, grid = load_labels(source)
    is_brain = (numbers > 0) & (numbers < 500) & (numbers != OUTER_CSF)
    if not is_brain.any():
        raise InputError(f"{source} holds no FreeSurfer brain label (1 to 499).")
    box = crop_box(is_brain, MARGIN_VOX)
    numbers, grid = numbers[box], grid.crop([s.start for s in box], is_brain[box].shape)
    sides = [np.argwhere(np.isin(numbers, PAIRED[side])) for side in ("left", "right")]
    if not (len(sides[0]) and len(sides[1])):
        raise InputError(f"{source} has no FreeSurfer numbers of both hemispheres.")
    tissues = LabelMap(torch.from_numpy(from_freesurfer(numbers)), grid)
    tissues.labels[~tissues.is_class(*BRAIN)] = 0
    left_mm, right_mm = (grid.index_to_ras(side[::7]) for side in sides)
    name = Path(source).name.split(".")[0]
    return PackedMap(name, at_one_mm(tissues), midplane(left_mm, right_mm))


def midplane(left_mm: np.ndarray, right_mm: np.ndarray) -> tuple[float, float, float, float]:
    """The plane that separates two clouds of points, by linear discriminant analysis.

    Args:
        left_mm: [N, 3] points of the left hemisphere.
        right_mm: [M, 3] points of the right one.
    """
    spread = np.cov(left_mm.T) + np.cov(right_mm.T)
    normal = np.linalg.solve(spread, right_mm.mean(0) - left_mm.mean(0))
    normal /= np.linalg.norm(normal)
    middle = (left_mm.mean(0) + right_mm.mean(0)) / 2
    right, anterior, superior = normal.round(6).tolist()
    return right, anterior, superior, round(-float(normal @ middle), 4)


def read_packed(path: str | Path) -> tuple[PackedMap, ...]:
    """The anatomies in a file of `pack`.

    Raises:
        InputError: It is not such a file.
    """
    try:
        arrays = np.load(io.BytesIO(_inflated(Path(path))), allow_pickle=False)
        about = parsed(arrays["about"].tobytes())
        claimed(about, path, ANATOMIES, "does not hold packed anatomies.")
        return tuple(_packed(arrays[entry["name"]], **entry) for entry in about["maps"])
    except InputError:
        raise
    except Exception as error:  # zipfile, NumPy and their parsers raise many kinds
        raise InputError(f"{path} does not hold packed anatomies, or is damaged.") from error


def _inflated(path: Path) -> bytes:
    """The bytes of an .xz file, which are no more than such a file needs."""
    inflate = lzma.LZMADecompressor()
    content = inflate.decompress(path.read_bytes(), MOST_BYTES)
    if not inflate.eof:
        raise EOFError("it is cut short, or inflates to far more than anatomies need")
    return content


def _packed(
    labels: np.ndarray, name: str, affine: list[list[float]], midplane: list[float]
) -> PackedMap:
    depth, height, width = labels.shape
    tissues = LabelMap(torch.from_numpy(labels), Grid((depth, height, width), np.array(affine)))
    right, anterior, superior, offset = midplane
    return PackedMap(name, tissues, (right, anterior, superior, offset))


@functools.cache
def packed_maps() -> tuple[PackedMap, ...]:
    """The anatomies of the release, read once.

    Raises:
        InputError: No copy of the file, or other bytes than published.
    """
    return read_packed(release_path(NAME))


if __name__ == "__main__":  # python -m medil.anatomy.packed OUTPUT
    import sys

    from medil.data.samples import label_map_paths

    pack(label_map_paths("train"), Path(sys.argv[1]))
