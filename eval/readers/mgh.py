"""Cases of MGH and MGZ."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import nibabel as nib
import numpy as np
from nibabel.freesurfer.mghformat import DATA_OFFSET, header_dtype

from eval.readers.case import (
    AFFINE,
    DATA,
    SHAPE,
    UNREADABLE,
    Case,
    Cases,
    bomb,
    flipped,
    patched,
    zipped,
)

# As FreeSurfer assumes it: columns to the left, rows down, slices to the front.
CORONAL = np.array([[-1.0, 0, 0, 0], [0, 0, 1, 0], [0, -1, 0, 0], [0, 0, 0, 1]])
SHORT = "missing at its end"


def cases() -> Iterator[Case]:
    """All cases."""
    made = Cases("MGH", ".mgh")
    for add in (truncated, identity, sizes, types, place, packed):
        add(made)
    yield from made


def content(data: np.ndarray = DATA, **fields: object) -> bytes:
    """An image file, with fields of its header set, however wrong."""
    return patched(nib.MGHImage(data, AFFINE).to_bytes(), header_dtype, fields)


def truncated(made: Cases) -> None:
    """Ends that come too soon, in each region of the file."""
    whole = content()
    footer = DATA_OFFSET + DATA.nbytes
    for name, end, words in [
        ("empty", 0, UNREADABLE), ("in the header", 50, UNREADABLE),
        ("behind the header", header_dtype.itemsize, SHORT), ("before the voxels", DATA_OFFSET,
        SHORT), ("in the voxels", DATA_OFFSET + 300, SHORT), ("at the last voxel", footer - 1,
        SHORT),
    ]:  # fmt: skip
        made.refused("truncated", name, whole[:end], words)
    made.read("truncated", "without a footer", whole[:footer])
    made.read("truncated", "in the footer", whole[: footer + 7])
    made.read("truncated", "tags behind it", whole + b"\0\0\0\3tags")


def identity(made: Cases) -> None:
    """Fields that say what the file is."""
    made.refused("identity", "version 2", content(version=2))
    made.refused("identity", "version 0", content(version=0))
    little = patched(content(), header_dtype.newbyteorder("<"), {"version": 1})
    made.refused("identity", "version in another byte order", little)
    made.refused("identity", "text", b"not an image, but a sentence. " * 40)
    made.refused("identity", "zeros", bytes(4000))
    made.refused("identity", "noise", np.random.default_rng(0).bytes(4000))
    made.read("identity", "degrees of freedom -1", content(dof=-1))


def sizes(made: Cases) -> None:
    """Counts of voxels that lie."""
    most = 2**31 - 1
    for name, dims, words in [
        ("size 0", [7, 0, 9, 1], "size 0"), ("size -8", [7, -8, 9, 1], "size"),
        ("-1 frames", [7, 8, 9, -1], "size"), ("petabytes", [most] * 4, ""),
        ("terabytes", [9999, 9999, 9999, 1], ""), ("gigabytes", [2000, 1000, 1000, 1], "missing"),
        ("one more slice", [7, 8, 10, 1], SHORT), ("three frames", [7, 8, 3, 3], "to pick one"),
    ]:  # fmt: skip
        made.refused("sizes", name, content(dims=dims), words)
    made.read("sizes", "frames of size 0", content(dims=[*SHAPE, 0]))


def types(made: Cases) -> None:
    """Kinds of numbers, known and unknown."""
    for code in (2, 5, 99, -1):
        made.refused("data type", f"type {code}", content(type=code), "data type")
    made.refused("data type", "float32 on the bytes of int16", content(type=3), SHORT)
    for kind in ("u1", "i2", "i4", "f4"):
        data = (DATA % 100).astype(kind)
        made.read("data type", np.dtype(kind).name, content(data), data)


def place(made: Cases) -> None:
    """Affines and voxel sizes."""
    made.refused("place", "voxel size 0", content(delta=[1, 0, 3]), "singular")
    made.refused("place", "negative voxel size", content(delta=[1, -1.5, 3]), "voxels of")
    made.refused("place", "voxel size NaN", content(delta=[1, np.nan, 3]), "")
    made.refused("place", "voxel size infinite", content(delta=[1, np.inf, 3]), "")
    made.refused("place", "directions zero", content(Mdc=np.zeros((3, 3))), "zero")
    made.refused("place", "directions NaN", content(Mdc=np.full((3, 3), np.nan)), "NaN")
    made.refused("place", "directions equal", content(Mdc=np.full((3, 3), 0.6)), "singular")
    made.refused("place", "centre NaN", content(Pxyz_c=[0, np.nan, 0]), "NaN")
    made.refused("place", "centre at 1e30 mm", content(Pxyz_c=[1e30, 0, 0]), "far")
    made.refused("place", "voxels of 1e20 mm", content(delta=[1e20] * 3), "voxel")
    coronal = CORONAL.copy()
    coronal[:3, 3] = -CORONAL[:3, :3] @ (np.array(SHAPE) / 2)
    unplaced = content(goodRASFlag=0)
    made.read("place", "no orientation", unplaced, affine=coronal, note="no orientation")
    made.read("place", "orientation flag -1", content(goodRASFlag=-1), affine=coronal,
              note="no orientation")  # fmt: skip


def packed(made: Cases) -> None:
    """Faults of the compression."""
    whole = content()
    good, add = zipped(whole), partial(made.refused, "compression", suffix=".mgz")
    read = partial(made.read, "compression", suffix=".mgz")
    for name, end in [("in its header", 5), ("in the middle", len(good) // 2),
                      ("in the check sum", -6), ("before the last byte", -1)]:  # fmt: skip
        add(f"truncated {name}", good[:end])
    for name, at in [("magic", 1), ("voxels", len(good) // 2), ("check sum", -6), ("length", -2)]:
        add(f"damaged {name}", flipped(good, at))
    add("garbage behind it", good + b"garbage behind the end")
    read("in two members", zipped(whole[:700]) + zipped(whole[700:]))
    read("not compressed", whole)
    add("a bomb behind the voxels", bomb(whole, 1000), "far more than its header")
    add("voxels that are not there", zipped(content(dims=[2000, 1000, 1000, 1])), "missing")
