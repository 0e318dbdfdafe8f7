"""`medil preprocess`: raw heads to stripped, corrected, upright brains on their own voxels."""

from __future__ import annotations

from pathlib import Path

import click

from medil.cli.options import bids_suffix, folder
from medil.errors import InputError, printable


@click.command(epilog="Example: medil preprocess raw -o prepared")
@click.argument("inputs", nargs=-1, required=True, metavar="FILES_OR_FOLDER_OR_CSV...")
@folder
@bids_suffix
@click.option(
    "--strip", type=click.Choice(["deepbet", "synthstrip", "given"]), default="deepbet",
    show_default=True,
    help="How the brain is found: deepbet, FreeSurfer's mri_synthstrip on the PATH, or given: "
    "all that is not 0, for scans that are stripped already.",
)  # fmt: skip
@click.option("--no-bias", is_flag=True, help="Leave the bias field alone (N4 corrects it).")
@click.option("--no-align", is_flag=True, help="Leave the affine alone.")
@click.option(
    "--jobs", type=click.IntRange(1), default=1, show_default=True, help="Scans at a time."
)
@click.option(
    "--scheduler", metavar="ADDRESS",
    help="Dask scheduler whose workers prepare the scans, such as tcp://host:8786.",
)  # fmt: skip
@click.option("--no-pictures", is_flag=True, help="Leave pictures out of the page.")
def preprocess(
    inputs: tuple[str, ...],
    output: Path,
    suffix: str,
    strip: str,
    no_bias: bool,
    no_align: bool,
    jobs: int,
    scheduler: str | None,
    no_pictures: bool,
) -> None:
    """Prepare raw T1w heads: strip, correct the bias field, align to AC-PC.

    No voxel is resampled: alignment changes the affine alone. OUTPUT becomes a BIDS derivative
    with a brain, a mask and a sidecar for each scan, and quality.html, which shows every scan
    before and after. A second call prepares only what is new or changed, also after the first
    one was stopped.

    The workers of a scheduler need the same packages, and the same disk under the same paths.

    `medil evaluate` and `medil store` take OUTPUT.
    """
    from medil.io.listing import list_images
    from medil.preprocess.pipeline import PAGE, Steps
    from medil.preprocess.pipeline import preprocess as prepare_all

    if scheduler is not None and jobs > 1:
        raise InputError("--jobs counts processes of this machine; leave it out with --scheduler.")
    found = list_images(inputs, suffix)
    for sentence in (*found.notes, *found.left_out):
        click.echo(printable(sentence), err=True)
    steps = Steps(strip, bias=not no_bias, align=not no_align)
    done = prepare_all(found.images, output, steps, jobs, scheduler, not no_pictures)
    failed = [f"{one.name}: {one.failed}" for one in done if one.failed]
    flagged = sum(bool(one.facts.get("flags")) for one in done)
    click.echo(
        f"{output} holds {len(done) - len(failed)} prepared scans, {flagged} with a flag; look at "
        f"{output / PAGE}"
    )
    if failed:
        for sentence in failed[:-1]:
            click.echo(printable(sentence), err=True)
        raise InputError(f"{failed[-1].rstrip('.')}; {len(failed)} of {len(done)} scans failed.")
