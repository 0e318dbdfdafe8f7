"""Does preparing a scan find what was put in, and does it go on for thousands of them?

Held-out real scans are turned by known angles (their affine alone), brightened by known fields,
and, where they are stripped, asked for their brain once more. Thousands of simulated scans show
what is spent beside the steps, and some raw heads how many go through all steps in a minute.

    python -m eval.preprocessing --profile quick
"""

from eval.experiment import Experiment
from eval.preprocessing import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Preparing scans",
    question="Do the steps of `medil preprocess` find a tilt, a field and a brain that are known, "
    "and what do thousands of scans cost?",
    tasks=measure.tasks,
    options=measure.options,
    tables=report.tables,
    verdict=report.verdict,
)
