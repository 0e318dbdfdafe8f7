"""Does a head keep its latent on another grid, at another resolution, under a wrong header?

Three questions, kept apart. *Another grid*: the content is band-limited first, so that every
grid holds all of it and latents should agree. *Another resolution*: the whole content,
averaged over larger voxels; here latents must differ, and what the same grids cost a
band-limited content tells how much of that is the grid's. *A wrong header*: the same voxels,
said to lie elsewhere. Distances are fractions of those between heads.

    python -m eval.latent_consistency --profile quick
"""

from eval.experiment import Experiment
from eval.latent_consistency import conditions, report, tasks, verdict

EXPERIMENT = Experiment(
    name=conditions.NAME,
    title="Latent consistency",
    question="Does a head keep its latent on another grid?",
    tasks=tasks.tasks,
    factors=conditions.factors,
    select=report.newest,
    tables=report.tables,
    verdict=verdict.verdict,
    answer=verdict.answer,
    how="python -m eval.latent_consistency --profile quick",
    float_format="%.4f",
)
