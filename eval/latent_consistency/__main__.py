"""Does a head keep its latent on another grid, at another resolution, under a wrong header?

Three questions, kept apart. *Another grid*: the content is band-limited first, so that every
grid holds all of it and latents should agree. *Another resolution*: the whole content,
averaged over larger voxels; here latents must differ, and what the same grids cost a
band-limited content tells how much of that is the grid's. *A wrong header*: the same voxels,
said to lie elsewhere. Distances are fractions of those between heads.

    python -m eval.latent_consistency --profile quick
"""

from __future__ import annotations

from collections.abc import Sequence

from eval.latent_consistency.conditions import EXPERIMENT
from eval.latent_consistency.report import verdict
from eval.latent_consistency.tasks import tasks
from eval.runner import experiment


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 0, 2 after one sentence about bad input, 130 after Ctrl-C."""
    return experiment(EXPERIMENT, __doc__, tasks, verdict, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
