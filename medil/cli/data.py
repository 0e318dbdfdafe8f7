"""`medil data`: which published data sets there are; bring them here, check and remove them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from medil.errors import InputError, printable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from medil.data.schema import DataSet

NAMES = click.argument("names", nargs=-1, required=True, metavar="NAME...")
MAYBE_NAMES = click.argument("names", nargs=-1, metavar="[NAME...]")
INTERRUPTED = 130


@click.group()
def data() -> None:
    """List, download, check and remove published data sets.

    Each has a manifest in `data_manifests/` of a checkout, with addresses, hashes and licences.
    Files are looked for in the folder that MEDIL_DATA_MIRROR names and in the cache
    (MEDIL_CACHE, or ~/.cache/medil).
    """


@data.command("list", epilog="Example: medil data list")
def list_() -> None:
    """Print a table of the data sets, and how to get those without files."""
    from medil.data.manifest import available, dataset, datasets

    found = [dataset(name) for name in datasets()]
    rows = [("name", "files", "here", "size", "access", "licence", "what")]
    for one in found:
        files = one.all_files
        here = sum(available(file) for file in files)
        size = megabytes(sum(file.bytes for file in files))
        counts = (str(len(files)), str(here), size) if files else ("-", "-", "-")
        rows.append((one.name, *counts, one.access, short(one.licence), one.title))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    for row in rows:
        click.echo("  ".join(text.ljust(n) for text, n in zip(row, widths, strict=True)).rstrip())
    click.echo("\nData sets without files are not downloaded; medil data fetch NAME says how.")


@data.command(epilog="Example: medil data fetch ct open_ms_t1")
@NAMES
@click.option(
    "--workers", type=click.IntRange(1, 16), default=4, show_default=True, help="Files at a time."
)
def fetch(names: Sequence[str], workers: int) -> None:
    """Download the files of data sets that are not here, and check every one by its hash.

    A download that was interrupted leaves a file that ends in .partial, and goes on from there.
    """
    from medil.data.manifest import available, fetch_all

    sets = chosen(names)
    for one in sets:
        if not one.files:
            raise InputError(instructions(one))
    for one in sets:
        click.echo(f"{one.name}: licence {one.licence}. {one.terms} Cite: {one.citation}")
    files = [file for one in sets for file in one.all_files]
    try:
        failed = fetch_all(files, workers)
    except KeyboardInterrupt:
        click.echo("stopped; what has arrived is kept in files that end in .partial.", err=True)
        click.get_current_context().exit(INTERRUPTED)
    lacking = sum(not available(file) for file in files)
    raise_failed(failed, f"{lacking} of {len(files)} files are not here")
    click.echo(f"{len(files)} files are here and hold the published bytes")


@data.command(epilog="Example: medil data verify ds002748")
@NAMES
def verify(names: Sequence[str]) -> None:
    """Check the local files of data sets by their hashes; nothing is downloaded."""
    from medil.data import manifest

    sets = chosen(names)
    failed: dict[str, InputError] = {}
    for one in sets:
        here = [(file, path) for file in one.all_files if (path := manifest.local_path(file))]
        for file, path in here:
            try:
                manifest.verify(path, file)
            except InputError as error:
                failed[file.path] = error
        right = sum(bool(file.sha256) and file.path not in failed for file, _ in here)
        click.echo(
            f"{one.name}: {len(here)} of {len(one.all_files)} files are here, "
            f"{right} hold the published bytes"
        )
    raise_failed(failed, f"{len(failed)} files hold other bytes")


@data.command(epilog="Example: medil data where ds002748")
@MAYBE_NAMES
def where(names: Sequence[str]) -> None:
    """Print the folders that are searched, or the path of each local file of data sets."""
    from medil.data import folders, manifest

    if not names:
        click.echo(f"manifests  {manifest.manifest_folder()}")
        for title, folder in (
            ("mirror", folders.mirror_folder()),
            ("cache", folders.cache_folder()),
        ):
            missing = "" if folder is None or folder.is_dir() else " (does not exist)"
            click.echo(f"{title:<9}  {folder or 'none; MEDIL_DATA_MIRROR is not set'}{missing}")
    for one in chosen(names):
        for file in one.all_files:
            if path := manifest.local_path(file):
                click.echo(str(path))


@data.command(epilog="Example: medil data clean ct")
@MAYBE_NAMES
def clean(names: Sequence[str]) -> None:
    """Remove unfinished downloads from the cache, and the downloaded files of named data sets.

    The mirror, and files in the cache that no manifest names, are left alone.
    """
    from medil.data.manifest import cache_path, datasets, unfinished

    sets = chosen(names or datasets())
    files = [file for one in sets for file in one.all_files]
    doomed = [path for file in files for path in unfinished(file)]
    if names:
        doomed += [path for file in files if (path := cache_path(file)).is_file()]
    size = sum(path.stat().st_size for path in doomed)
    for path in doomed:
        path.unlink()
    click.echo(f"removed {len(doomed)} files, {megabytes(size)}")


def chosen(names: Sequence[str]) -> list[DataSet]:
    """The data sets of some names, each once."""
    from medil.data.manifest import dataset

    return [dataset(name) for name in dict.fromkeys(names)]


def instructions(one: DataSet) -> str:
    """How to get a data set whose files are not listed, in one sentence."""
    return (
        f"the files of {one.name} are not downloaded from here (access: {one.access}; "
        f"licence: {one.licence}): {one.how}; see {one.page}"
    )


def raise_failed(failed: dict[str, InputError], summary: str) -> None:
    """Print all errors but the last, and raise that one with a summary."""
    if not failed:
        return
    *others, last = failed.values()
    for error in others:
        click.echo(printable(str(error)), err=True)
    raise InputError(f"{str(last).rstrip('.')}; {summary}.")


def megabytes(count: int) -> str:
    """A size in MB, as text."""
    return f"{count / 1e6:.1f} MB"


def short(licence: str) -> str:
    """A licence without what stands in brackets."""
    return licence.partition(" (")[0]
