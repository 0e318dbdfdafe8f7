"""`medil store`: put scans into a patch store, which training reads from."""

from __future__ import annotations

import csv
import glob
import sys
from collections.abc import Iterable
from pathlib import Path

import click

from medil.errors import InputError

FILE = click.Path(path_type=Path)


@click.command(epilog="Example: medil store scans -o my_store")
@click.argument("inputs", nargs=-1, required=True, metavar="FILES_OR_FOLDER_OR_CSV...")
@click.option("-o", "--output", type=FILE, required=True, help="A folder; made if missing.")
@click.option(
    "--window",
    type=float,
    nargs=2,
    metavar="LOW HIGH",
    help="Intensities that become 0 and 1, such as -1000 1000 for CT [default: percentiles].",
)
def store(inputs: tuple[str, ...], output: Path, window: tuple[float, float] | None) -> None:
    """Prepare your own scans for training: a store of small compressed chunks.

    Inputs are images, quoted patterns such as 'scans/*/t1.nii.gz', folders of images, or CSV
    tables with a column path (and, if you like, subject). A folder without images is searched
    in its folders; masks and label maps are to be left out by a pattern or a table. Run again,
    it reads only what is new or changed; volumes that are not named stay.

    Train from it with: medil train --store FOLDER
    """
    from medil.training.build_store import Store, build_store

    subjects = find_scans(inputs)
    built = build_store(subjects, output, window, subjects, progress=sys.stderr.isatty())
    if built.failed:
        for sentence in built.failed[:-1]:
            click.echo(sentence, err=True)
        count = f"{len(built.failed)} of {len(subjects)} files were left out"
        raise InputError(f"{built.failed[-1].rstrip('.')}; {count}.")
    volumes = len(Store(output).facts)
    size_mb = sum(p.stat().st_size for p in output.rglob("*") if p.is_file()) / 1e6
    click.echo(f"{output} holds {volumes} volumes ({built.new} new) in {size_mb:.1f} MB")
    click.echo(f"train from it with: medil train --store {output} -o RUN")


def find_scans(places: Iterable[str]) -> dict[str, str]:
    """The images that files, patterns, folders and CSV tables name.

    Args:
        places: As typed.

    Returns:
        The subject of each path, empty where a table does not name it; in that order.

    Raises:
        InputError: Nothing there, or a table without a column `path`.
    """
    found: dict[str, str] = {}
    for place in places:
        found |= _found_at(place)
    return found


def _found_at(place: str) -> dict[str, str]:
    path = Path(place)
    if not path.exists():
        matches = sorted(glob.glob(place, recursive=True))
        if not matches:
            raise InputError(f"{place} does not exist.")
        return {path: subject for m in matches for path, subject in _found_at(m).items()}
    if path.is_dir():
        images = _images(path.iterdir()) or _images(path.rglob("*"))
        if not images:
            raise InputError(f"{place} holds no image.")
        return {str(image): "" for image in images}
    return _listed(path) if path.suffix.lower() == ".csv" else {place: ""}


def _images(paths: Iterable[Path]) -> list[Path]:
    """Files by their endings, without the hidden ones that file managers leave."""
    from medil.io.source import SUFFIXES

    shown = (p for p in paths if p.is_file() and not p.name.startswith("."))
    return sorted(p for p in shown if p.name.lower().endswith(tuple(SUFFIXES)))


def _listed(table: Path) -> dict[str, str]:
    """Paths, relative to the table, and subjects."""
    try:
        with table.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.DictReader(file))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{table} is not a readable CSV table: {error}.") from error
    paths = [(line.get("path") or "").strip() for line in lines]
    if not paths or not all(paths):
        raise InputError(f"{table} needs a column called 'path' that names a file in every line.")
    subjects = [(line.get("subject") or "").strip() for line in lines]
    return {str(table.parent / p): s for p, s in zip(paths, subjects, strict=True)}
