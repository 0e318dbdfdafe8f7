"""What is lost when a command is killed, runs out of disk or memory, or reads a damaged file?

Every command that writes is disturbed at random moments and at the steps that it takes on the
disk, then called again. Trials are forked from one process, and their inputs are tiny. Ten faults
of release 0.6.0 are injected again, also into a checkout of that release.

    python -m eval.reliability --profile quick
    python -m eval.reliability --profile gpu --parts history --checkout ../medil-0.6.0
"""

from pathlib import Path

from eval.experiment import Experiment
from eval.reliability import measure, report
from eval.reliability.verbs import VERBS
from eval.runner import parts_option


def _options(parser) -> None:
    names = [verb.name for verb in VERBS]
    parts_option(parser, measure.PARTS)
    checkout = "folder of another release's checkout, for the part history (this one)"
    parser.add_argument("--checkout", type=Path, help=checkout)
    parser.add_argument("--verb", choices=names, help="only this command (all)")


EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Injected faults",
    question="Does a command that is disturbed lose anything, or leave anything behind?",
    tasks=measure.tasks,
    factors=measure.factors,
    tables=report.tables,
    verdict=report.verdict,
    options=_options,
    latest_by=(),
    quick_out=Path("_build/rows"),
    workers=0,
)
