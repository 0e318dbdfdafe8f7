"""Write shape and spacing of every local file into the manifests.

For maintainers, when a manifest gets new files: python data_manifests/measure.py [NAME...]
A single slice of a DICOM series has no shape.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from medil.data.manifest import Entry, entries, fetch, local_entries
from medil.volume import load

FOLDER = Path(__file__).parent


def measured(entry: Entry) -> str:
    """The lines `shape` and `spacing_mm` of a file; empty for one slice of a series."""
    volume = load(fetch(entry))
    if entry.path.endswith(".dcm") and 1 in volume.grid.shape:
        return ""
    spacing_mm = [round(float(size), 6) for size in volume.grid.spacing_mm]
    return f"shape = {list(volume.grid.shape)}\nspacing_mm = {spacing_mm}\n"


def with_lines(text: str, path: str, lines: str) -> str:
    """A manifest with other lines `shape` and `spacing_mm` in the entry of a path."""
    head, start, rest = text.partition(f'path = "{path}"\n')
    body, gap, others = rest.partition("\n[[file]]")
    body = re.sub(r"^(shape|spacing_mm) = .*\n", "", body, flags=re.M)
    body = re.sub(r"^(bytes = .*\n)", lambda match: match[1] + lines, body, flags=re.M)
    return head + start + body + gap + others


def measure(name: str) -> None:
    """Rewrite one manifest."""
    path = FOLDER / f"{name}.toml"
    text = path.read_text(encoding="utf-8")
    for entry in local_entries(name):
        text = with_lines(text, entry.path, measured(entry))
    path.write_text(text, encoding="utf-8")
    print(f"{name}: {len(local_entries(name))} of {len(entries(name))} files measured")


if __name__ == "__main__":
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.toml")):
        measure(name)
