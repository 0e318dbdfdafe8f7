"""What happens when a machine is lost, and what do thousands of scans take on several machines?

Ranks of a training run, workers and schedulers of Dask are killed on hosts that are network
namespaces of this machine; chest CTs are stored by the thousand; and from recorded rows follows
what more machines give.

    python -m eval.machines --profile quick
"""

from eval.experiment import Experiment
from eval.machines import measure, report

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="More than one machine",
    question="What is lost with a machine, and how do time and memory grow with scans and "
    "machines?",
    tasks=measure.tasks,
    options=measure.options,
    tables=report.tables,
    verdict=report.verdict,
    workers=0,
)
