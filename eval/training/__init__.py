"""Training curves as rows: a run's log, thinned and smoothed, beside the weights it made.

    python -m eval.training RUN_FOLDER --name tiny

reads ``log.jsonl`` and ``weights.safetensors`` of the folder. Nothing is replaced: another
release's curve has other weights and stands beside this one.
"""

from eval.experiment import Experiment
from eval.training import measure

EXPERIMENT = Experiment(
    name=measure.NAME,
    title="Training",
    question="How did the release learn?",
    tasks=measure.tasks,
    options=measure.add_options,
    latest_by=(),
    workers=0,
    how="python -m eval.training RUN_FOLDER --name tiny",
)
