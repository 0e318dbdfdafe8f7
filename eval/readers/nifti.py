"""Cases of NIfTI-1 and NIfTI-2."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import nibabel as nib
import numpy as np

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

KINDS: dict[str, Any] = {"NIfTI-1": nib.Nifti1Image, "NIfTI-2": nib.Nifti2Image}
FORMS = {"qform_code": 0, "sform_code": 0}
SHORT = "missing at its end"
SIZES = "size"
UNPLACED = np.diag([-1.0, 1.5, 3.0, 1.0])  # an affine of the voxel sizes alone, as in nibabel
UNPLACED[:3, 3] = -UNPLACED[:3, :3] @ (np.array(SHAPE) - 1) / 2


def cases() -> Iterator[Case]:
    """All cases of both versions."""
    for format, image_class in KINDS.items():
        made = Cases(format, ".nii")
        image = partial(content, image_class)
        for add in (truncated, identity, sizes, types, scaling, place, extensions, order, packed):
            add(made, image)
        yield from made


def content(
    image_class: Any, data: np.ndarray = DATA, affine: np.ndarray = AFFINE, codes: tuple = (1, 1),
    endian: str = "<", extension: bytes = b"", **fields: object,
) -> bytes:  # fmt: skip
    """An image file, with fields of its header set, however wrong."""
    header = image_class.header_class(endianness=endian)
    image = image_class(data, affine, header, dtype=data.dtype)
    image.set_qform(affine, codes[0], strip_shears=True)
    image.set_sform(affine, codes[1])
    image.header.set_xyzt_units("mm", "sec")
    if extension:
        image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", extension))
    return patched(image.to_bytes(), header.structarr.dtype, fields)


def head_bytes(whole: bytes) -> int:
    """Length of the header."""
    return 348 if whole[344:347] == b"n+1" else 540


def truncated(made: Cases, image: Any) -> None:
    """Ends that come too soon, in each region of the file."""
    whole, extended = image(), image(extension=b"a comment " * 20)
    n_head = head_bytes(whole)
    start = len(whole) - DATA.nbytes
    for name, end, words in [
        ("empty", 0, UNREADABLE), ("in the size of the header", 3, UNREADABLE),
        ("in the header", 100, UNREADABLE), ("before the last byte of the header", n_head - 1,
        UNREADABLE), ("behind the header", n_head, SHORT), ("before the voxels", start, SHORT),
        ("in the voxels", start + DATA.nbytes // 2, SHORT),
        ("before the last byte", len(whole) - 1, SHORT),
    ]:  # fmt: skip
        made.refused("truncated", name, whole[:end], words)
    made.refused("truncated", "in an extension", extended[: n_head + 40])


def identity(made: Cases, image: Any) -> None:
    """Fields that say what the file is and where voxels begin."""
    whole = image()
    start = len(whole) - DATA.nbytes
    pair = b"ni1" if head_bytes(whole) == 348 else b"ni2\0\r\n\032\n"
    made.refused("identity", "magic of a text file", image(magic=b"tex"))
    made.refused("identity", "no magic (Analyze)", image(magic=b"\0\0\0\0"))
    made.refused("identity", "magic of a pair", image(magic=pair), "in another file")
    if head_bytes(whole) == 348:  # NIfTI-2 is known by this size, NIfTI-1 by its magic
        made.read("identity", "header of 0 bytes", image(sizeof_hdr=0))
    else:
        made.refused("identity", "header of 0 bytes", image(sizeof_hdr=0))
    made.refused("identity", "text", b"not an image, but a sentence. " * 40)
    made.refused("identity", "zeros", bytes(4000))
    made.refused("identity", "noise", np.random.default_rng(0).bytes(4000))
    made.read("identity", "voxels at byte 0", image(vox_offset=0))
    made.refused("identity", "voxels behind the end", image(vox_offset=10**6), SHORT)
    if head_bytes(whole) == 348:  # float32
        for value in (np.nan, np.inf):
            made.refused("identity", f"voxels at byte {value}", image(vox_offset=value))
    made.refused("identity", "voxels at a negative byte", image(vox_offset=-(2**40)))
    moved = image(vox_offset=start + 64)
    made.read("identity", "voxels 64 bytes on", moved[:start] + bytes(64) + moved[start:])


def sizes(made: Cases, image: Any) -> None:
    """Counts of voxels that lie."""
    n_head = head_bytes(image())
    most = 32767 if n_head == 348 else 2**61
    for name, dim, words in [
        ("no axis", [0], "-D"), ("two axes", [2], "2-D"), ("eight axes", [8], ""),
        ("-3 axes", [-3], ""), ("size 0", [3, 7, 0, 9], "size 0"),
        ("size -8", [3, 7, -8, 9], SIZES), ("-4 volumes", [4, 7, 8, 9, -4], SIZES),
        ("petabytes", [3, most, most, most], ""), ("terabytes", [4, 9999, 9999, 9999, 4], ""),
        ("gigabytes", [3, 2000, 1000, 1000], "missing"), ("one more slice", [3, 7, 8, 10], SHORT),
        ("five axes", [5, 7, 8, 3, 3, 1], "4-D"), ("five long axes", [5, 7, 8, 1, 3, 3], "5-D"),
        ("three volumes", [4, 7, 8, 3, 3], "to pick one"),
    ]:  # fmt: skip
        made.refused("sizes", name, image(dim=dim), words)
    made.read("sizes", "volumes of size 0", image(dim=[4, 7, 8, 9, 0]))
    first = DATA.ravel("F")[: 7 * 8 * 8].reshape(7, 8, 8, order="F")
    made.read("sizes", "one slice less", image(dim=[3, 7, 8, 8]), first, note="behind its last")
    third = DATA.ravel("F")[2 * 168 :].reshape(7, 8, 3, order="F")
    made.read("sizes", "third volume", image(dim=[4, 7, 8, 3, 3]), third, volume_index=2)


def types(made: Cases, image: Any) -> None:
    """Kinds of numbers, known and unknown."""
    for name, code, words in [
        ("none", 0, UNREADABLE), ("bits", 1, UNREADABLE), ("unknown", 9999, UNREADABLE),
        ("negative", -4, UNREADABLE), ("complex64", 32, "complex"), ("complex128", 1792, "complex"),
        ("complex256", 2048, ""), ("RGB", 128, "colours"), ("RGBA", 2304, "colours"),
        ("float64 on the bytes of int16", 64, SHORT), ("float128", 1536, ""),
    ]:  # fmt: skip
        made.refused("data type", name, image(datatype=code), words)
    made.read("data type", "another number of bits", image(bitpix=64))
    for kind in ("u1", "i1", "u2", "i4", "u4", "i8", "f4", "f8"):
        data = (DATA % 100 - (50 if kind[0] == "i" else 0)).astype(kind)
        made.read("data type", np.dtype(kind).name, image(data), data)
    large = DATA.astype("u8") + 2**62
    made.read("data type", "uint64 below 2^63", image(large), large.astype("i8"))
    made.refused("data type", "uint64 beyond 2^63", image(large * 2 + 2**62), "beyond 2^63")


def scaling(made: Cases, image: Any) -> None:
    """Slopes and intercepts."""
    for slope in (0, np.nan, np.inf, -np.inf):
        made.read("scaling", f"slope {slope}", image(scl_slope=slope, scl_inter=7))
    made.read("scaling", "slope -2", image(scl_slope=-2, scl_inter=7), DATA * -2.0 + 7)
    for inter in (np.nan, np.inf):
        scaled = image(scl_slope=2, scl_inter=inter)
        made.read("scaling", f"intercept {inter}", scaled, DATA * 2.0, note="intercept")
    for slope in (1e-45, 1e-38, 3e38):
        made.read(
            "scaling", f"slope {slope}", image(scl_slope=slope, scl_inter=0),
            DATA * float(_as_held(image, slope)),
        )  # fmt: skip
    floats = DATA.astype("f4") * np.float32(1e30)
    floats[0, 0, :2] = np.nan, np.inf
    made.read(
        "scaling", "NaN beside values beyond float32", image(floats, scl_slope=1e15, scl_inter=0),
        floats.astype("f8") * float(_as_held(image, 1e15)),
    )  # fmt: skip
    small = DATA.astype("f4") * np.float32(1e-30)
    made.read(
        "scaling", "values below float32", image(small, scl_slope=1e-20, scl_inter=0),
        small.astype("f8") * float(_as_held(image, 1e-20)),
    )  # fmt: skip
    offset = image(scl_slope=1, scl_inter=2**30)
    made.read("scaling", "an offset that float32 cannot hold", offset, DATA + float(2**30))


def _as_held(image: Any, value: float) -> float:
    """A number as the header of an image holds it."""
    return value if head_bytes(image()) == 540 else float(np.float32(value))


def place(made: Cases, image: Any) -> None:
    """Affines, quaternions, voxel sizes, codes and units."""
    zero, nan, huge = np.zeros(4), np.full(4, np.nan), np.full(4, 3e38)
    rows = ("srow_x", "srow_y", "srow_z")
    for name, row, words in [
        ("zero", zero, "zero"), ("NaN", nan, "NaN"), ("infinite", nan * 0 + np.inf, "NaN or Inf"),
        ("singular", np.array([1, 0, 0, 5]), "singular"), ("huge", huge, ""),
    ]:  # fmt: skip
        fields = dict.fromkeys(rows, row)
        made.refused("place", f"sform {name}", image(**fields, qform_code=0), words)
        made.read("place", f"sform {name} beside a qform", image(**fields), note="qform is used")
    far = AFFINE.copy()
    far[:3, 3] = 1e30
    made.refused("place", "sform at 1e30 mm", image(affine=far, codes=(0, 1)), "far")
    large = np.diag([1e20, 1e20, 1e20, 1])
    made.refused("place", "voxels of 1e20 mm", image(affine=large, codes=(0, 1)), "voxel")
    small = np.diag([1e-20, 1e-20, 1e-20, 1])
    made.refused("place", "voxels of 1e-20 mm", image(affine=small, codes=(0, 1)), "voxel")
    sheared = AFFINE.copy()
    sheared[:3, 2] += sheared[:3, 1] / 2
    made.read("place", "sheared sform", image(affine=sheared, codes=(0, 1)), affine=sheared)
    left = AFFINE @ np.diag([-1, 1, 1, 1])
    mirrored = image(srow_x=left[0], srow_y=left[1], srow_z=left[2])
    made.read("place", "sform mirrors the qform", mirrored, affine=left, note="left and right")
    away = AFFINE.copy()
    away[:3, 3] += 40
    moved = image(srow_x=away[0], srow_y=away[1], srow_z=away[2])
    made.read("place", "two forms of one code", moved, affine=away, note="name one space")
    for field in ("quatern_b", "qoffset_x"):
        made.read("place", f"{field} NaN beside a sform", image(**{field: np.nan}))
        made.refused("place", f"{field} NaN", image(**{field: np.nan}, sform_code=0), "NaN")
    turned = np.diag([1, 1.5, 3, 1]) * np.array([-1, 1, -1, 1])
    long = image(affine=turned, sform_code=0, quatern_c=1.5)
    made.read("place", "quaternion of length 1.5", long, affine=turned, note="length 1.5")
    for name, sizes_mm, words in [
        ("NaN", [1, np.nan, 1.5, 3], "NaN"),
        ("infinite", [1, 1, np.inf, 3], "NaN or Inf"),
    ]:  # fmt: skip
        made.read("place", f"voxel size {name} beside a sform", image(pixdim=sizes_mm))
        made.refused("place", f"voxel size {name}", image(pixdim=sizes_mm, sform_code=0), words)
    made.read("place", "voxel size 0 beside a sform", image(pixdim=[1, 0, 0, 0]))
    ones = AFFINE @ np.diag([1, 1 / 1.5, 1 / 3, 1])
    flat = image(pixdim=[1, 0, 0, 0], sform_code=0)
    made.read("place", "voxel size 0", flat, affine=ones, note="size of 0")
    negative = image(pixdim=[1, -1, 1.5, 3], sform_code=0)
    made.read("place", "negative voxel size", negative)
    made.read("place", "handedness 0", image(**{"pixdim": [0], "sform_code": 0}))
    made.read("place", "neither form", image(**FORMS), affine=UNPLACED, note="no qform")
    for codes in ((77, 9), (0, 9), (77, -9)):
        unknown = image(qform_code=codes[0], sform_code=codes[1])
        made.read("place", f"unknown codes {codes[0]} and {codes[1]}", unknown, note="is unknown")
    made.read("place", "unit 7", image(xyzt_units=7), note="no known unit")
    metres = image(affine=np.diag([1e-3, 1e-3, 1e-3, 1]) @ AFFINE, xyzt_units=1)
    made.read("place", "metres", metres)


def extensions(made: Cases, image: Any) -> None:
    """Lengths of extensions that lie."""
    whole = image(extension=b"a comment " * 20)
    at = head_bytes(whole) + 4
    for size in (0, -16, 7, 10**9, 2**31 - 1):
        lying = whole[:at] + np.int32(size).tobytes() + whole[at + 4 :]
        made.refused("extensions", f"of {size} bytes", lying)
    unknown = whole[: at + 4] + np.int32(9999).tobytes() + whole[at + 8 :]
    made.read("extensions", "of an unknown kind", unknown)
    made.read("extensions", "with control characters", image(extension=b"\x1b[31m\0\xff" * 9))


def order(made: Cases, image: Any) -> None:
    """Bytes in the order of other processors."""
    made.read("byte order", "big endian", image(endian=">"))
    swapped = image(dim=np.array([3, *SHAPE], dtype="i8" if head_bytes(image()) == 540 else "i2")
                    .byteswap())  # fmt: skip
    made.refused("byte order", "the sizes alone", swapped, "")


def packed(made: Cases, image: Any) -> None:
    """Faults of the compression."""
    whole = image()
    good, add = zipped(whole), partial(made.refused, "compression", suffix=".nii.gz")
    read = partial(made.read, "compression", suffix=".nii.gz")
    for name, end in [("in its header", 5), ("in the middle", len(good) // 2),
                      ("in the check sum", -6), ("before the last byte", -1)]:  # fmt: skip
        add(f"truncated {name}", good[:end])
    for name, at in [("magic", 1), ("method", 2), ("voxels", len(good) // 2),
                     ("check sum", -6), ("length", -2)]:  # fmt: skip
        add(f"damaged {name}", flipped(good, at))
    add("garbage behind it", good + b"garbage behind the end")
    add("plain bytes behind it", good + whole)
    read("zeros behind it", good + bytes(512))
    read("in two members", zipped(whole[:700]) + zipped(whole[700:]))
    read("not compressed", whole)
    made.read("compression", "named as if not compressed", good)
    add("twice compressed", zipped(good))
    add("a bomb behind the voxels", bomb(whole, 1000), "far more than its header")
    add("a bomb before the voxels", bomb(image(vox_offset=2**29), 1000), "")
    add("voxels that are not there", zipped(image(dim=[3, 2000, 1000, 1000])), "missing")
