"""`medil store`: put scans into a patch store, which training reads from."""

from __future__ import annotations

import sys
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
    from medil.io.listing import list_images
    from medil.training.build_store import Store, build_store

    subjects = {str(image.path): image.subject for image in list_images(inputs)}
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
