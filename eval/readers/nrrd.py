"""Cases of NRRD, and of NHDR with its voxels in another file."""

from __future__ import annotations

import bz2
from collections.abc import Callable, Iterator, Mapping
from functools import partial

import numpy as np

from eval.readers.case import AFFINE, DATA, UNREADABLE, Case, Cases, bomb, flipped, zipped

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
PLAIN = np.diag([-1.0, -1.0, 1.0, 1.0])  # where nothing is said but the sizes
RAW = DATA.tobytes(order="F")


def _vector(values: np.ndarray) -> str:
    return "(" + ",".join(f"{v:.9g}" for v in values) + ")"


FIELDS = {
    "type": "int16", "dimension": "3", "sizes": "7 8 9", "endian": "little", "encoding": "raw",
    "space": "left-posterior-superior",
    "space directions": " ".join(_vector(column) for column in (LPS @ AFFINE)[:3, :3].T),
    "space origin": _vector((LPS @ AFFINE)[:3, 3]),
}  # fmt: skip
ACROSS = FIELDS["space directions"].split(" ")


def cases() -> Iterator[Case]:
    """All cases."""
    made = Cases("NRRD", ".nrrd")
    for add in (truncated, identity, sizes, types, place, skips, files, packed):
        add(made)
    yield from made


def head(magic: str = "NRRD0004", /, **changes: str | None) -> bytes:
    """A header; an underscore stands for a space, and a field that is None is left out."""
    fields = FIELDS | {name.replace("_", " "): value for name, value in changes.items()}
    lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
    return "\n".join([magic, *lines, "", ""]).encode()


def image(voxels: bytes = RAW, magic: str = "NRRD0004", /, **changes: str | None) -> bytes:
    """A file of header and voxels."""
    return head(magic, **changes) + voxels


def truncated(made: Cases) -> None:
    """Ends that come too soon, in each region of the file."""
    whole, start = image(), len(head())
    for name, end in [
        ("empty", 0), ("in the magic", 3), ("in the header", start // 2),
        ("before the voxels", start), ("in the voxels", start + 300),
        ("before the last byte", len(whole) - 1),
    ]:  # fmt: skip
        made.refused("truncated", name, whole[:end])


def identity(made: Cases) -> None:
    """Fields that say what the file is."""
    made.refused("identity", "version 9", image(RAW, "NRRD0009"))
    made.refused("identity", "another magic", image(RAW, "NERD0004"))
    made.refused("identity", "text", b"not an image, but a sentence. " * 40)
    made.refused("identity", "zeros", bytes(4000))
    made.refused("identity", "noise", np.random.default_rng(0).bytes(4000))
    made.refused("identity", "a line without a colon", image(content=None, x="1\nno colon"))
    made.refused("identity", "a field twice", image(content="a\ntype: int16"))
    made.refused("identity", "a header without end", b"NRRD0004\n" + b"#" * 2**25, "header")
    for field in ("type", "dimension", "sizes", "encoding"):
        made.refused("identity", f"no {field}", image(**{field: None}), field)
    made.read("identity", "a comment and a key", image(content="x\n# a comment\nkey:=a value"))
    made.refused("identity", "control characters", image(type="\x1b[31mred"), "unknown")


def sizes(made: Cases) -> None:
    """Counts of voxels that lie."""
    for name, dimension, text, words in [
        ("size 0", "3", "7 0 9", "size"), ("size -8", "3", "7 -8 9", "size"),
        ("two negative sizes", "3", "-7 -8 9", "size"),
        ("words", "3", "seven 8 9", UNREADABLE),
        ("two axes", "2", "7 72", "2-D"), ("fewer than the dimension", "3", "7 8", UNREADABLE),
        ("petabytes", "3", "99999999 99999999 9999999", ""),
        ("an overflow", "3", f"{2**32} {2**32} 1", ""), ("beyond int64", "3", f"{2**70} 8 9", ""),
        ("gigabytes", "3", "2000 1000 1000", UNREADABLE),
        ("one more slice", "3", "7 8 10", UNREADABLE), ("one less", "3", "7 8 8", UNREADABLE),
        ("dimension 0", "0", "7 8 9", ""), ("dimension -3", "-3", "7 8 9", ""),
        ("dimension 10^9", "1000000000", "7 8 9", ""),
    ]:  # fmt: skip
        made.refused("sizes", name, image(dimension=dimension, sizes=text), words)
    lists = {"dimension": "4", "sizes": "3 7 8 3", "space directions": "none " + " ".join(ACROSS)}
    made.refused("sizes", "three volumes", image(**lists), "to pick one")
    first = DATA.ravel("F").reshape(3, 7, 8, 3, order="F")[1]
    made.read("sizes", "second volume", image(**lists), first, volume_index=1)


def types(made: Cases) -> None:
    """Kinds of numbers, known and unknown."""
    for text in ("block", "int128", "float16", "complex", "", "int16 int16"):
        made.refused("data type", f"type {text!r}", image(type=text), "")
    made.refused("data type", "float64 on the bytes of int16", image(type="double"))
    made.refused("data type", "no byte order", image(endian=None))
    made.refused("data type", "an unknown byte order", image(endian="middle"))
    for kind, name in [("u1", "uchar"), ("i1", "signed char"), ("u2", "ushort"), ("i4", "int"),
                       ("i8", "int64"), ("f4", "float"), ("f8", "double")]:  # fmt: skip
        data = (DATA % 100).astype(kind)
        made.read("data type", name, image(data.tobytes(order="F"), type=name), data)
    big = image(DATA.astype(">i2").tobytes(order="F"), endian="big")
    made.read("data type", "big endian", big)
    large = DATA.astype("u8") + 2**63
    made.refused(
        "data type", "uint64 beyond 2^63", image(large.tobytes("F"), type="uint64"), "2^63"
    )
    ascii_ = " ".join(map(str, DATA.ravel("F"))).encode()
    made.read("data type", "text", image(ascii_, encoding="ascii"))
    made.refused("data type", "words for voxels", image(b"one two three " * 9, encoding="ascii"))
    made.refused("data type", "text that is cut", image(ascii_[:500], encoding="ascii"))


def place(made: Cases) -> None:
    """Directions, spacings, origins, spaces and units."""
    for name, row, words in [
        ("none", "none", "none"), ("NaN", "(nan,nan,nan)", "NaN"), ("zero", "(0,0,0)", "singular"),
        ("infinite", "(inf,0,0)", "Inf"), ("equal to another", ACROSS[1], "singular"),
        ("of two numbers", "(1,0)", ""), ("a word", "(one,0,0)", UNREADABLE),
        ("huge", "(1e300,0,0)", "voxel"),
    ]:  # fmt: skip
        directions = " ".join([row, *ACROSS[1:]])
        made.refused("place", f"direction {name}", image(space_directions=directions), words)
    two = " ".join(ACROSS[:2])
    made.refused("place", "two directions", image(space_directions=two), "")
    for name, text, words in [
        ("of one number", "(5)", "origin"), ("of two numbers", "(5,6)", ""),
        ("NaN", "(nan,0,0)", "NaN"),
        ("at 1e30 mm", "(1e30,0,0)", "far"), ("a word", "left", ""),
    ]:  # fmt: skip
        made.refused("place", f"origin {name}", image(space_origin=text), words)
    for text in ("scanner-xyz", "3D-left-handed", "left-up-superior"):
        made.refused("place", f"space {text}", image(space=text), "left and right")
    bare = {"space": None, "space directions": None, "space origin": None}
    for text in ("0 1 1", "inf 1 1", "nan 1 1", "1 1", "one 1 1"):
        made.refused("place", f"spacings {text}", image(**bare, spacings=text), "")
    made.read("place", "sizes alone", image(**bare), affine=PLAIN, note="no voxel sizes")
    spaced = PLAIN @ np.diag([2, 3, 4, 1])
    made.read("place", "spacings alone", image(**bare, spacings="2 3 4"), affine=spaced)
    metres = np.diag([1000.0, 1000, 1000, 1]) @ AFFINE
    made.read("place", "metres", image(space_units='"m" "m" "m"'), affine=metres)
    made.refused("place", "two units", image(space_units='"m" "mm" "mm"'), "units")
    made.refused("place", "inches", image(space_units='"inch" "inch" "inch"'), "units")
    turned = image(space="right-anterior-superior")
    made.read("place", "space RAS", turned, affine=LPS @ AFFINE)


def skips(made: Cases) -> None:
    """Bytes and lines to leave out."""
    made.read("skips", "12 bytes", image(bytes(12) + RAW, byte_skip="12"))
    made.read("skips", "all but the voxels", image(b"a long preamble" + RAW, byte_skip="-1"))
    made.read("skips", "two lines", image(b"one\ntwo\n" + RAW, line_skip="2"))
    for name, field, text in [
        ("more bytes than there are", "byte_skip", "99999"), ("-2 bytes", "byte_skip", "-2"),
        ("a word", "byte_skip", "many"), ("-1 lines", "line_skip", "-1"),
        ("10^15 lines", "line_skip", str(10**15)), ("10^25 bytes", "byte_skip", str(10**25)),
    ]:  # fmt: skip
        made.refused("skips", name, image(**{field: text}), "")
        zip_name = f"{name}, compressed"
        made.refused("skips", zip_name, image(zipped(RAW), **{"encoding": "gzip", field: text}), "")


def detached(name: str, voxels: Mapping[str, bytes], /, **changes: str | None) -> dict[str, bytes]:
    """A .nhdr in a folder, and the files with its voxels."""
    return {"scan.nhdr": head(data_file=name, **changes), **voxels}


def files(made: Cases) -> None:
    """Names of other files: those that lie, and those that lead out of the folder."""
    made.read("files", "beside it", detached("scan.raw", {"scan.raw": RAW}))
    made.read("files", "in a folder beside it", detached("in/scan.raw", {"in/scan.raw": RAW}))
    packed_one = detached("scan.raw.gz", {"scan.raw.gz": zipped(RAW)}, encoding="gzip")
    made.read("files", "compressed", packed_one)
    for name in ("../scan.raw", "/etc/passwd", "in/../../scan.raw", "~/scan.raw"):
        for encoding in ("raw", "gzip"):
            lying = detached(name, {"other.raw": RAW}, encoding=encoding)
            words = "" if name.startswith("~") else "leaves its folder"
            made.refused("files", f"{name}, {encoding}", lying, words)
    made.refused("files", "absent", detached("scan.raw", {}), "no file")
    made.refused("files", "itself", detached("scan.nhdr", {}), "no file")
    made.refused("files", "a folder", detached("in", {"in/scan.raw": RAW}), "no file")
    made.refused("files", "cut", detached("scan.raw", {"scan.raw": RAW[:-1]}))
    made.refused("files", "a list", detached("LIST", {"scan.raw": RAW}), "several files")
    made.refused(
        "files", "a pattern", detached("s%02d.raw 1 9 1", {"s01.raw": RAW}), "several files"
    )
    made.refused("files", "an escape in its name", detached("\x1b[31m.raw", {}), "no file")


def packed(made: Cases) -> None:
    """Faults of the compression."""
    compressions: dict[str, Callable[[bytes], bytes]] = {"gzip": zipped, "bzip2": bz2.compress}
    for encoding, compress in compressions.items():
        good, start = image(compress(RAW), encoding=encoding), len(head(encoding=encoding))
        n = len(good) - start
        add = partial(made.refused, "compression")
        made.read("compression", encoding, good)
        for name, end in [
            ("in its header", start + 5), ("in the middle", start + n // 2),
            ("in the check sum", len(good) - 6), ("at the last byte", len(good) - 1),
        ]:  # fmt: skip
            add(f"truncated {encoding} {name}", good[:end])
        for name, at in [("magic", start + 1), ("voxels", start + n // 2), ("check sum", -6)]:
            add(f"damaged {encoding} {name}", flipped(good, at))
        add(f"{encoding} that is not compressed", image(encoding=encoding))
    for text in ("zstd", "hex", "none"):
        add(f"encoding {text}", image(encoding=text))
    add("gzip named raw", image(zipped(RAW)))
    made.refused("compression", "a bomb", head(encoding="gzip") + bomb(RAW, 1000), "far more than")
    few = {"sizes": "2000 1000 1000", "encoding": "gzip"}
    add("voxels that are not there", image(zipped(RAW), **few))
