"""Cases of DICOM: one file, a series in a folder, several frames in a file."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from eval.readers.case import Case, Cases, flipped
from medil.io.dicom_headers import silence_pydicom

SLICES = np.arange(5 * 7 * 8, dtype=np.uint16).reshape(5, 7, 8) + 1000  # [slice, row, column]
VALUES = SLICES.transpose(2, 1, 0)
PLACE = np.array([[-1.0, 0, 0, 10], [0, -1.5, 0, -5], [0, 0, 3, 20], [0, 0, 0, 1]])
AXIAL = [1, 0, 0, 0, 1, 0]
DAMAGED = "damaged or cut short"
LOSSLESS_JPEG_LS, LOSSLESS_JPEG_2000 = "1.2.840.10008.1.2.4.80", "1.2.840.10008.1.2.4.90"
RLE = "1.2.840.10008.1.2.5"


def cases() -> Iterator[Case]:
    """All cases."""
    made = Cases("DICOM", ".dcm")
    with silence_pydicom():
        for add in (truncated, identity, sizes, types, scaling, place, stacks, frames, packed):
            add(made)
    yield from made


def dataset(k: int = 0, syntax: str = "1.2.840.10008.1.2.1", /, **fields: Any) -> Any:
    """Slice k as a pydicom dataset; fields that are None are left out."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import UID, CTImageStorage, generate_uid

    made: Any = Dataset()
    made.SOPClassUID, made.Modality = CTImageStorage, "CT"
    made.SOPInstanceUID = generate_uid(entropy_srcs=["medil", str(k)])
    made.SeriesInstanceUID, made.SeriesNumber, made.InstanceNumber = "1.2.3", 4, k + 1
    made.Rows, made.Columns, made.SamplesPerPixel = 7, 8, 1
    made.PhotometricInterpretation, made.PixelRepresentation = "MONOCHROME2", 0
    made.BitsAllocated, made.BitsStored, made.HighBit = 16, 16, 15
    made.ImageType = ["ORIGINAL", "PRIMARY", "AXIAL"]
    made.ImageOrientationPatient, made.ImagePositionPatient = AXIAL, [-10, 5, 20 + 3 * k]
    made.PixelSpacing, made.SliceThickness = [1.5, 1], 3
    made.PixelData = SLICES[k].tobytes()
    made.file_meta = FileMetaDataset()
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.file_meta.MediaStorageSOPClassUID = made.SOPClassUID
    made.file_meta.MediaStorageSOPInstanceUID = made.SOPInstanceUID
    for name, value in fields.items():
        if value is not None:
            setattr(made, name, value)
        elif name in made:
            delattr(made, name)
    if "PixelData" in made:
        made["PixelData"].VR = "OW"  # else it depends on fields that are wrong
    return made


def encoded(made: Any) -> bytes:
    """A dataset as the bytes of a file."""
    from pydicom import dcmwrite

    dcmwrite(file := io.BytesIO(), made, enforce_file_format=True)
    return file.getvalue()


def single(k: int = 0, /, **fields: Any) -> bytes:
    """The file of one slice."""
    return encoded(dataset(k, **fields))


def with_word(name: str) -> bytes:
    """The file of one slice, with a word where a field holds a number."""
    return single(**{name: 1.234567}).replace(b"1.234567", b"a word  ")


def series(change: Callable[[int], dict[str, Any]] = lambda k: {}) -> dict[str, bytes]:
    """The files of a series in a folder; `change` gives the fields of slice k to set."""
    return {f"series/IM{k:02d}": single(k, **change(k)) for k in range(5)}


def truncated(made: Cases) -> None:
    """Ends that come too soon, in each region of the file."""
    whole = single()
    pixels = whole.index(SLICES[0].tobytes())
    rows = whole.index(b"\x28\x00\x10\x00US")
    for name, end in [
        ("empty", 0), ("in the preamble", 100), ("behind the preamble", 132),
        ("in the meta information", 200), ("before the rows", rows), ("in the rows", rows + 5),
        ("before the pixels", pixels - 12), ("behind the tag of the pixels", pixels - 8),
        ("at the first pixel", pixels), ("in the pixels", pixels + 50),
        ("before the last byte", len(whole) - 1),
    ]:  # fmt: skip
        made.refused("truncated", name, whole[:end], "")
        files = series()
        files["series/IM02"] = whole[:end]
        if end > 132:
            made.refused("truncated", f"one of five, {name}", files, "")


def identity(made: Cases) -> None:
    """Fields that say what the file is."""
    whole = single()
    made.refused("identity", "another magic", b"x" * 128 + b"DOCM" + whole[132:], "not DICOM")
    made.refused("identity", "text", b"not an image, but a sentence. " * 40, "not DICOM")
    made.refused("identity", "zeros", bytes(4000), "not DICOM")
    made.refused("identity", "noise", np.random.default_rng(0).bytes(4000), "not DICOM")
    made.refused("identity", "noise behind the magic", whole[:132] + bytes(range(256)) * 9, "")
    made.refused("identity", "unknown syntax", whole.replace(b"1.2.840.10008.1.2.1\0",
                 b"1.2.840.10008.9.9.9\0"), "")  # fmt: skip
    made.refused("identity", "a report", single(
        SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", Rows=None, PixelData=None
    ), "no DICOM image")  # fmt: skip
    made.refused("identity", "no pixels", single(PixelData=None), "no pixels")
    made.read("identity", "no unique identifier", single(SOPInstanceUID=""),
              VALUES[..., :1], PLACE)  # fmt: skip


def sizes(made: Cases) -> None:
    """Counts of pixels that lie."""
    lies: dict[str, dict[str, Any]] = {
        "no rows": {"Rows": 0}, "no columns": {"Columns": 0}, "one more row": {"Rows": 8},
        "gigabytes": {"Rows": 65535, "Columns": 65535}, "no count of columns": {"Columns": None},
        "three samples": {"SamplesPerPixel": 3}, "-1 samples": {"SamplesPerPixel": 65535},
        "two rows in one field": {"Rows": [7, 7]},
    }  # fmt: skip
    for name, fields in lies.items():
        made.refused("sizes", name, single(**fields), "")
    made.read("sizes", "one row less", single(Rows=6), VALUES[:, :6, :1], PLACE)
    whole = single()
    at = whole.index(b"\x28\x00\x10\x00US") + 6
    long = whole[: at - 2] + b"UN\0\0\xf0\xff\xff\xff" + whole[at + 2 :]
    made.refused("sizes", "a field of 4 GB", long, "")
    cut = whole[: at + 2] + whole[at + 3 :]
    made.refused("sizes", "a byte of the rows missing", cut, "")
    files = series(lambda k: {"Rows": 6 if k == 2 else 7})
    made.refused("sizes", "one slice smaller", files, "differ in size")


def types(made: Cases) -> None:
    """Kinds of numbers, known and unknown."""
    lies: list[tuple[str, dict[str, Any], str]] = [
        ("1 bit", {"BitsAllocated": 1}, "1 bits"), ("12 bits", {"BitsAllocated": 12}, "12 bits"),
        ("0 bits", {"BitsAllocated": 0}, "0 bits"), ("64 bits", {"BitsAllocated": 64}, "64 bits"),
        ("more bits stored than allocated", {"BitsStored": 20, "HighBit": 19}, "order of bits"),
        ("the high bit elsewhere", {"BitsStored": 12, "HighBit": 15}, "order of bits"),
        ("32 bits on the bytes of 16", {"BitsAllocated": 32, "BitsStored": 32, "HighBit": 31},
         "cut short"), ("no bits", {"BitsAllocated": None}, ""),
        ("colours", {"PhotometricInterpretation": "RGB"}, "colours"),
        ("a palette", {"PhotometricInterpretation": "PALETTE COLOR"}, "colours"),
        ("no interpretation", {"PhotometricInterpretation": None}, ""),
        ("a sign of 7", {"PixelRepresentation": 7}, ""),
    ]  # fmt: skip
    for name, fields, words in lies:
        made.refused("data type", name, single(**fields), words)
    signed = SLICES[0].astype(np.int16) - 2000
    stored = {"PixelRepresentation": 1, "PixelData": signed.tobytes()}
    made.read("data type", "int16", single(**stored), signed.T[..., None], PLACE)
    high = SLICES[0] | 0xF000
    made.read("data type", "an overlay in unused bits", single(
        BitsStored=12, HighBit=11, PixelData=high.tobytes()
    ), VALUES[..., :1], PLACE)  # fmt: skip
    inverted = single(PhotometricInterpretation="MONOCHROME1")
    made.read("data type", "MONOCHROME1", inverted, VALUES[..., :1], PLACE, "MONOCHROME1")


def scaling(made: Cases) -> None:
    """Slopes and intercepts."""
    for slope in ("0", "nan", "inf", "1e-60", "1e60"):
        made.refused("scaling", f"slope {slope}", single(RescaleSlope=slope), "")
    made.refused("scaling", "a word for a slope", with_word("RescaleSlope"), DAMAGED)
    for inter in ("nan", "inf", "1e60"):
        far = single(RescaleIntercept=inter, RescaleSlope=2)
        made.refused("scaling", f"intercept {inter}", far, "")
    units = single(RescaleIntercept=-1024, RescaleSlope=1)
    made.read("scaling", "Hounsfield units", units, VALUES[..., :1].astype("i2") - 1024, PLACE)
    halves = single(RescaleIntercept=1, RescaleSlope=0.5)
    made.read("scaling", "slope 0.5", halves, VALUES[..., :1] * 0.5 + 1, PLACE)
    each = series(lambda k: {"RescaleSlope": k + 2, "RescaleIntercept": 0})
    made.read("scaling", "a slope for each slice", each, VALUES * (np.arange(5) + 2.0), PLACE)
    beyond = series(lambda k: {"RescaleSlope": "1e39" if k == 2 else "1", "RescaleIntercept": 0})
    made.refused("scaling", "one slice beyond float32", beyond, "")


def place(made: Cases) -> None:
    """Positions, directions and distances of one slice."""
    lies: list[tuple[str, dict[str, Any], str]] = [
        ("no position", {"ImagePositionPatient": None}, "ImagePositionPatient"),
        ("position NaN", {"ImagePositionPatient": [0, "nan", 0]}, "ImagePositionPatient"),
        ("position of two", {"ImagePositionPatient": [0, 0]}, "ImagePositionPatient"),
        ("position at 1e30 mm", {"ImagePositionPatient": [1e30, 0, 0]}, "far"),
        ("no orientation", {"ImageOrientationPatient": None}, "ImageOrientationPatient"),
        ("orientation zero", {"ImageOrientationPatient": [0] * 6}, "direction cosines"),
        ("orientation NaN", {"ImageOrientationPatient": ["nan"] * 6}, "ImageOrientationPatient"),
        ("axes equal", {"ImageOrientationPatient": [1, 0, 0, 1, 0, 0]}, "direction cosines"),
        ("orientation of four", {"ImageOrientationPatient": AXIAL[:4]}, "ImageOrientationPatient"),
        ("no pixel spacing", {"PixelSpacing": None}, "PixelSpacing"),
        ("pixel spacing 0", {"PixelSpacing": [0, 1]}, "PixelSpacing"),
        ("pixel spacing NaN", {"PixelSpacing": ["nan", 1]}, "PixelSpacing"),
        ("negative pixel spacing", {"PixelSpacing": [-1.5, 1]}, "PixelSpacing"),
        ("pixel spacing of one", {"PixelSpacing": 1}, "PixelSpacing"),
        ("pixels of 1e20 mm", {"PixelSpacing": [1e20, 1e20]}, "voxel"),
        ("thickness NaN", {"SliceThickness": "nan"}, ""),
        ("thickness infinite", {"SliceThickness": "inf"}, ""),
    ]  # fmt: skip
    for name, fields, words in lies:
        made.refused("place", name, single(**fields), words)
    made.refused("place", "a word for a thickness", with_word("SliceThickness"), DAMAGED)
    thin = single(SliceThickness=None)
    at = PLACE @ np.diag([1, 1, 1 / 3, 1])
    made.read("place", "no thickness", thin, VALUES[..., :1], at, "1 mm is assumed")


def stacks(made: Cases) -> None:
    """Slices that are no stack."""

    def heights(*heights_mm: float) -> dict[str, bytes]:
        return series(lambda k: {"ImagePositionPatient": [-10, 5, heights_mm[k]]})

    made.read("stacks", "whole", series(), VALUES, PLACE)
    turned = list(series().items())[::-1]
    renamed = {f"series/{k}": content for k, (_, content) in enumerate(turned)}
    made.read("stacks", "in another order", renamed, VALUES, PLACE)
    for name, files, words in [
        ("a missing slice", heights(20, 23, 29, 32, 35), "missing"),
        ("uneven gaps", heights(20, 23, 26.4, 29, 32), "unevenly"),
        ("two slices at one place", heights(20, 23, 23, 26, 29), "at one place"),
        ("all at one place", heights(*[20] * 5), ""),
        ("beside the line", series(lambda k: {"ImagePositionPatient":
                                              [-10, 5 + 2 * (k == 2), 20 + 3 * k]}), "no straight"),
        ("a tilted gantry", series(lambda k: {"ImagePositionPatient": [-10, 5 + k, 20 + 3 * k]}),
         "gantry tilt"),
        ("two orientations", series(lambda k: {} if k else {
            "ImageOrientationPatient": [0, 1, 0, 0, 0, -1]}), "several orientations"),
        ("two pixel spacings", series(lambda k: {} if k else {"PixelSpacing": [1, 1]}), "in size"),
        ("a slice without position", series(lambda k: {} if k else {"ImagePositionPatient": None}),
         "ImagePositionPatient"),
        ("two series", series(lambda k: {"SeriesInstanceUID": f"1.2.{k % 2}"}), "series"),
        ("a copy", {**series(), "series/copy": single(2)}, "twice"),
        ("damaged among good ones", {**series(), "series/IM03": single()[:400]}, DAMAGED),
    ]:  # fmt: skip
        made.refused("stacks", name, files, words)
    for name, content in [("without its magic", b"x" + single(4)), ("empty", b"")]:
        short = {**series(), "series/IM04": content}
        made.read("stacks", f"the last slice {name}", short, VALUES[..., :4], PLACE, "IM04")
    made.read("stacks", "with another file", {**series(), "series/notes.txt": b"words"},
              VALUES, PLACE)  # fmt: skip


def enhanced(**fields: Any) -> bytes:
    """Five frames in one file, which say where they lie; `fields` replace those of the file."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence as Items

    groups = []
    for k in range(5):
        position, group = Dataset(), Dataset()
        position.ImagePositionPatient = [-10, 5, 20 + 3 * k]
        group.PlanePositionSequence = Items([position])
        groups.append(group)
    about: dict[str, Any] = {
        "NumberOfFrames": 5, "PixelData": SLICES.tobytes(), "ImagePositionPatient": None,
        "PerFrameFunctionalGroupsSequence": Items(groups),
    }  # fmt: skip
    return single(**(about | fields))


def frames(made: Cases) -> None:
    """Several frames in a file."""
    made.read("frames", "whole", enhanced(), VALUES, PLACE)
    lies: dict[str, dict[str, Any]] = {
        "more than there are": {"NumberOfFrames": 6}, "fewer": {"NumberOfFrames": 3},
        "-5": {"NumberOfFrames": -5}, "10^9": {"NumberOfFrames": 10**9},
        "none": {"NumberOfFrames": 0},
        "no places": {"PerFrameFunctionalGroupsSequence": None},
        "pixels of three": {"PixelData": SLICES[:3].tobytes()},
    }  # fmt: skip
    for name, fields in lies.items():
        made.refused("frames", name, enhanced(**fields), "")


def _compressed(syntax: str, stream: bytes, /, **fields: Any) -> bytes:
    from pydicom.encaps import encapsulate

    made = dataset(0, syntax, PixelData=encapsulate([stream]), **fields)
    made["PixelData"].is_undefined_length = True
    return encoded(made)


def packed(made: Cases) -> None:
    """Compressed pixels."""
    import imagecodecs
    from pydicom import dcmread

    plain = dcmread(io.BytesIO(single()))
    plain.compress(RLE, generate_instance_uid=False)
    rle = encoded(plain)
    made.read("compression", "RLE", rle, VALUES[..., :1], PLACE)
    made.refused("compression", "RLE, cut", rle[: len(rle) - 60], "")
    at = rle.index(b"\x02\x00\x00\x00\x40\x00\x00\x00")  # two segments, the first at byte 64
    made.refused("compression", "RLE, 99 segments", flipped(rle, at, 97), "")
    made.refused("compression", "RLE, a segment behind the end", flipped(rle, at + 7, 0x7F), "")
    streams: Sequence[tuple[str, str, bytes]] = [
        ("JPEG-LS", LOSSLESS_JPEG_LS, bytes(imagecodecs.jpegls_encode(SLICES[0]))),
        ("JPEG 2000", LOSSLESS_JPEG_2000,
         bytes(imagecodecs.jpeg2k_encode(SLICES[0], level=0, codecformat="j2k"))),
    ]  # fmt: skip
    for name, syntax, stream in streams:
        good = _compressed(syntax, stream)
        made.read("compression", name, good, VALUES[..., :1], PLACE)
        half = len(stream) // 2
        for lie, content in [
            ("cut", _compressed(syntax, stream[:half])),
            ("cut, with an end", _compressed(syntax, stream[:half] + b"\xff\xd9")),
            ("empty", _compressed(syntax, bytes(2))),
            ("noise", _compressed(syntax, np.random.default_rng(0).bytes(200) + b"\xff\xd9")),
            ("of another size", _compressed(syntax, stream, Rows=6)),
            ("of fewer bits", _compressed(
                syntax, stream, BitsAllocated=8, BitsStored=8, HighBit=7
            )),
            ("the file cut", good[:-40]),
        ]:  # fmt: skip
            made.refused("compression", f"{name}, {lie}", content, "")
        big = bytearray(stream)
        at = stream.index(b"\x00\x07\x00\x08") if name == "JPEG-LS" else 8
        big[at : at + 4] = b"\xff\xff\xff\xff"
        made.refused("compression", f"{name}, gigabytes", _compressed(syntax, bytes(big)), "")
