"""Compressed images inside DICOM files, unpacked with imagecodecs.

A codestream names its own size and ends in a marker. Both are checked first: decoders ask for
memory by that size, and what some do with a stream that stops early has no end.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from medil.errors import InputError, needs

END = b"\xff\xd9"  # of JPEG, JPEG-LS and JPEG 2000
JPEG_2000 = b"\xff\x4f\xff\x51"  # the begin: start of codestream, then the marker of its size
NO_FRAMES = (0xC4, 0xC8, 0xCC)  # among the markers 0xC0 to 0xCF, which else begin an image
JPEG_LS_FRAME = 0xF7
SMALL_BYTES = 2**24  # images that are unpacked whatever their compression
MOST_RATIO = 1000  # of the compression of others; those of scans are below 100
DECODERS = {  # transfer syntax -> function of imagecodecs
    "1.2.840.10008.1.2.4.50": "jpeg8_decode",  # JPEG baseline
    "1.2.840.10008.1.2.4.51": "jpeg8_decode",  # JPEG extended
    "1.2.840.10008.1.2.4.57": "jpeg8_decode",  # JPEG lossless
    "1.2.840.10008.1.2.4.70": "jpeg8_decode",  # JPEG lossless, first-order prediction
    "1.2.840.10008.1.2.4.80": "jpegls_decode",
    "1.2.840.10008.1.2.4.81": "jpegls_decode",  # near-lossless
    "1.2.840.10008.1.2.4.90": "jpeg2k_decode",  # lossless
    "1.2.840.10008.1.2.4.91": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.201": "jpeg2k_decode",  # high-throughput, lossless
    "1.2.840.10008.1.2.4.202": "jpeg2k_decode",
    "1.2.840.10008.1.2.4.203": "jpeg2k_decode",
}


def unpack(stream: bytes, syntax: Any, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """The pixels of one compressed image.

    Args:
        stream: One frame.
        syntax: Transfer syntax, a `pydicom.uid.UID`.
        shape: (rows, columns) as the header of the file says them.
        dtype: Of the pixels, by that header.

    Returns:
        [rows, columns]; bits beyond those stored are undefined.

    Raises:
        InputError: Another size than `shape`, a stream without an end, an unknown syntax, or no
            imagecodecs.
    """
    if syntax not in DECODERS:
        raise InputError("is compressed in a way that is not read.")
    with needs("dicom", f"is compressed ({syntax.name}), and imagecodecs is missing"):
        import imagecodecs
    if not stream.rstrip(b"\0").endswith(END):
        raise InputError("is cut short: its compressed pixels have no end.")
    if coded_size(stream) != (*shape, 1):
        raise InputError("has compressed pixels of another size than its header says.")
    n_bytes = math.prod(shape) * dtype.itemsize
    if n_bytes > SMALL_BYTES and n_bytes > MOST_RATIO * len(stream):
        raise InputError(f"says that {len(stream):,} bytes hold {n_bytes:,} bytes of pixels.")
    pixels: np.ndarray = getattr(imagecodecs, DECODERS[syntax])(stream)
    if pixels.shape != shape or pixels.dtype.itemsize > dtype.itemsize:
        raise InputError("has compressed pixels of another kind than its header says.")
    return pixels.astype(dtype)


def coded_size(stream: bytes) -> tuple[int, int, int] | None:
    """(rows, columns, samples a pixel) that a codestream says of itself; None if it says none."""
    if stream.startswith(JPEG_2000):
        x, y, x_start, y_start = (_number(stream[k : k + 4]) for k in (8, 12, 16, 20))
        return y - y_start, x - x_start, _number(stream[40:42])
    k = 2
    while k + 10 <= len(stream) and stream[k] == 0xFF:
        marker = stream[k + 1]
        if marker == JPEG_LS_FRAME or (marker >> 4 == 0xC and marker not in NO_FRAMES):
            return _number(stream[k + 5 : k + 7]), _number(stream[k + 7 : k + 9]), stream[k + 9]
        k += 2 + _number(stream[k + 2 : k + 4])
    return None


def _number(content: bytes) -> int:
    return int.from_bytes(content, "big")
