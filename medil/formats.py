"""Every file format that MedIL writes, with its version: one constant a format.

A file says which version wrote it. One of a newer version is refused in one sentence; those of
earlier releases are read.

Example:
    >>> str(LATENT), LATENT.reads("medil-latent-1", "a.safetensors"), LATENT.reads("x-1", "b")
    ('medil-latent-1', True, False)
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from medil.errors import InputError

FIELD = "format"  # that holds it: in metadata, attributes or at the top of an object


class NewerError(InputError):
    """A file was written by a newer version than this one."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Args:
        name: Without the version, such as ``medil-latent``.
        version: The newest one, which is written.
        holds: What such a file is, and where it says its version.
        oldest: The oldest one that is read; 0 stands for files that do not say any.
    """

    name: str
    version: int
    holds: str
    oldest: int = 1

    def __str__(self) -> str:
        """What a file of the newest version says."""
        return f"{self.name}-{self.version}"

    def reads(self, said: object, path: object) -> bool:
        """Whether a file that says this (None: nothing) is one of this format.

        Raises:
            NewerError: It is one of a newer version.
        """
        if said is None:
            return self.oldest == 0
        parts = re.fullmatch(r"(.+)-(\d{1,9})", said, re.ASCII) if isinstance(said, str) else None
        if not parts or parts[1] != self.name:
            return False
        if int(parts[2]) > self.version:
            raise NewerError(
                f"{path} was written by a newer medil ({said}, and this one knows {self}); "
                "install the newest medil-book to read it."
            )
        return int(parts[2]) >= max(self.oldest, 1)


META, TOP = "metadata of the file", "at the top of the object"
LATENT = Format("medil-latent", 1, f"a latent: {META}")
WEIGHTS = Format("medil-weights", 1, f"weights of an autoencoder: {META}")
FLOW = Format("medil-flow", 1, f"weights of a latent flow: {META}")
APPEARANCE = Format("medil-appearance", 1, f"weights of an appearance flow: {META}")
SEGMENTER = Format("medil-segmenter", 1, f"weights of a tissue segmenter: {META}")
STATE = Format("medil-training", 2, f"the state of a training run: {META}", oldest=2)
CONFIG = Format("medil-config", 1, f"`config.json` of a training run: {TOP}", oldest=0)
STORE = Format("medil-store", 1, "a patch store: attributes of its root group")
ANATOMIES = Format("medil-anatomies", 1, "packed anatomies: `about` in the archive")
PREPARED = Format(
    "medil-prepared", 1, f"`dataset_description.json` of prepared scans: {TOP}", oldest=0
)
MANIFEST = Format("medil-manifest", 1, f"a manifest in `data_manifests`: {TOP}", oldest=0)
HASHES = Format("medil-hashes", 1, f"hashes of first fetches, `NAME.lock.json`: {TOP}", oldest=0)
ROW = Format("medil-row", 1, "a recorded row: a field of every line", oldest=0)
REPORT = Format("medil-report", 1, f"`report.json` of `medil evaluate`: {TOP}", oldest=0)
FORMATS = (
    *(LATENT, WEIGHTS, FLOW, APPEARANCE, SEGMENTER, STATE, CONFIG, STORE, ANATOMIES, PREPARED),
    *(MANIFEST, HASHES, ROW, REPORT),
)


def table() -> str:
    """The formats as a Markdown table, for the book."""
    lines = ["| Format | It is, and says its version in | Read from |", "| --- | --- | --- |"]
    for one in FORMATS:
        first = "files without one" if one.oldest == 0 else f"`{one.name}-{one.oldest}`"
        lines.append(f"| `{one}` | {one.holds} | {first} |")
    return "\n".join(lines)


def claimed(values: object, path: str | Path, kind: Format, hint: str) -> None:
    """Check the format that a JSON object says.

    Raises:
        InputError: It is none of this format: `hint` says what to do.
        NewerError: It is of a newer version.
    """
    if not isinstance(values, dict) or not kind.reads(values.get(FIELD), path):
        raise InputError(f"{path} {hint}")
