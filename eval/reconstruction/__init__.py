"""What does a latent keep of a scan, beside linear codes of as many numbers?

Held-out volumes are encoded once and rendered on several grids. The arms are the release, its
splines without the network, and every codec of `medil.model.codecs` of the same size
(`eval.coders.base`).

    python -m eval.reconstruction --profile quick
"""

from eval.experiment import Experiment
from eval.reconstruction import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Reconstruction",
    question="What does a latent keep, beside codes of its size?",
    tasks=measure.tasks,
    options=measure.add_options,
    select=report.newest,
    tables=report.tables,
    verdict=report.verdict,
    answer=report.answer,
    how="python -m eval.reconstruction --profile quick",
)
