"""`medil store`: prepare scans for training."""

from __future__ import annotations

import sys
from pathlib import Path

import click

from medil.cli.options import ImageCommand, Window, bids_suffix, folder, window
from medil.errors import InputError, printable


@click.command(cls=ImageCommand, epilog="Example: medil store scans -o my_store")
@click.argument("inputs", nargs=-1, required=True, metavar="PLACES...")
@folder
@window
@click.option(
    "--kind", default="", metavar="NAME",
    help="What these images show, such as brain or head; see `medil train --set data.mix`.",
)  # fmt: skip
@bids_suffix
@click.option(
    "--split", default="train", show_default=True, metavar="NAME",
    help="Lines of tables with this split, or with none, are taken.",
)  # fmt: skip
def store(
    inputs: tuple[str, ...],
    output: Path,
    window: Window | None,
    kind: str,
    suffix: str,
    split: str,
) -> None:
    """Prepare your own scans for training.

    Writes a store: a folder of small compressed chunks, from which training reads patches.

    Places are images, quoted patterns such as 'scans/*/t1.nii.gz', folders of images, folders of
    DICOM series, BIDS data sets, or tables (.csv, .tsv) with a column path and optionally
    subject, age, sex and split. A folder without images is searched in its subfolders. Leave
    masks and label maps out, by a pattern or a table. A second call reads only files that are
    new or changed, and keeps volumes that are not named.

    Train from the store with: medil train --store FOLDER. A store of several kinds is built by a
    call for each, and weighed in training: --set data.mix=brain:4,head:1
    """
    from medil.io.listing import list_images
    from medil.training.build_store import build_store
    from medil.training.store import Store

    found = list_images(inputs, suffix, split)
    for sentence in found.notes:
        click.echo(f"note: {printable(sentence)}", err=True)
    if not found.images:
        raise InputError(" ".join(found.left_out))
    built = build_store(found.images, output, window, kind, progress=sys.stderr.isatty())
    if failed := [*found.left_out, *built.failed]:
        for sentence in failed[:-1]:
            click.echo(printable(sentence), err=True)
        count = f"{len(failed)} of {len(found.images) + len(found.left_out)} images were left out"
        raise InputError(f"{failed[-1].rstrip('.')}; {count}.")
    volumes = len(Store(output).facts)
    size_mb = sum(p.stat().st_size for p in output.rglob("*") if p.is_file()) / 1e6
    click.echo(f"{output} holds {volumes} volumes ({built.new} new) in {size_mb:.1f} MB")
    click.echo(f"train from it with: medil train --store {output} -o RUN")
