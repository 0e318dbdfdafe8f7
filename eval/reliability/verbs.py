"""The commands that write files: how each is called, from where, and what it should leave.

`medil evaluate` is called without its pages: notebooks would cost minutes, and are written into
a folder that takes its name when all is done, as is tried here with a small stand-in.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from eval import rows, rows_file
from eval.reliability.bench import Bench, final_files, make_weights
from medil.cli import main
from medil.errors import InputError
from medil.system.files import file_sha256
from medil.system.tensors import read_tensors, tensors_sha256
from medil.training.state import STATE

Arguments = list[str]
STEPS = 3  # of training


@dataclass(frozen=True)
class Verb:
    """A command.

    Args:
        name: As people call it.
        output: What it writes, below the bench's `place`.
        arguments: After ``medil``.
        earlier: Makes what an earlier call left, from which the second start begins.
        reads: Files of ours that it reads, below the bench's root.
        contents: What should be equal: name to digest, of the output.
        call: Runs it, with its arguments, in a process of its own.
    """

    name: str
    output: str
    arguments: Callable[[Bench], Arguments]
    earlier: Callable[[Bench], object]
    reads: tuple[str, ...] = ()
    contents: Callable[[Path], dict[str, str]] | None = None
    call: Callable[[Arguments], int | None] = main

    def command(self, bench: Bench) -> Callable[[], int | None]:
        """What `Bench.run` takes; it may depend on what is in `place` now."""
        return partial(self.call, self.arguments(bench))

    def result(self, bench: Bench) -> dict[str, str]:
        """What it has left: name to digest."""
        output = bench.place / self.output
        if self.contents:
            return self.contents(output)
        paths = [output] if output.is_file() else final_files(output)
        return {path.relative_to(bench.place).as_posix(): file_sha256(path) for path in paths}


# Images


def _image(name: str, output: str, source: str, *options: str, reads: tuple[str, ...] = ()) -> Verb:
    """A verb that makes one file of another one; the earlier file is of another scan."""

    def arguments(source: str, bench: Bench) -> Arguments:
        out = str(bench.place / output)
        weights = ["--weights", str(bench.inputs / "model.safetensors")] if reads else []
        return [name, str(bench.inputs / source), "-o", out, "--force", *options, *weights]

    def earlier(bench: Bench) -> None:
        bench.undisturbed(partial(main, arguments(source.replace("-0", "-1"), bench)))

    return Verb(name, output, partial(arguments, source), earlier, reads)


# Folders


def _store(bench: Bench, last: int = 3) -> Arguments:
    scans = sorted((bench.inputs / "scans").iterdir())[:last]
    return ["store", *map(str, scans), "-o", str(bench.place / "store")]


def _train(bench: Bench, *more: str) -> Arguments:
    return ["train", "-o", str(bench.place / "run"), *more]


def _new_run(bench: Bench, *more: str) -> Arguments:
    options = ["--preset", "test", "--steps", str(STEPS), "--real-share", "1"]
    options += ["--set", "train.save_every=1", "train.log_every=1", "train.bf16=no"]
    return _train(bench, *options, "--store", str(bench.inputs / "store"), *more)


def _next_run(bench: Bench) -> Arguments:
    has_state = any((bench.place / "run").glob("state*.safetensors"))
    return _train(bench, "--resume") if has_state else _new_run(bench)


def _run_contents(folder: Path) -> dict[str, str]:
    """Settings, weights and state; not the facts of a run, which count calls and seconds."""
    whole = [folder / name for name in ("config.json", "store.txt") if (folder / name).is_file()]
    tensors = {name: _tensors(folder / name) for name in ("weights.safetensors", STATE)}
    return tensors | {path.name: file_sha256(path) for path in whole}


def _tensors(path: Path) -> str:
    try:
        return tensors_sha256(read_tensors(path)[0])
    except InputError as error:
        return str(error)


def _sample(bench: Bench, count: int = 2) -> Arguments:
    weights = ["--weights", str(bench.inputs / "flow.safetensors")]
    weights += ["--autoencoder", str(bench.inputs / "model.safetensors")]
    options = ["--steps", "2", "-n", str(count), "--spacing", "4", "4", "4", "--latents", "--force"]
    return ["sample", "-o", str(bench.place / "samples"), *weights, *options]


def _preprocess(bench: Bench, last: int = 3) -> Arguments:
    scans = sorted((bench.inputs / "scans").iterdir())[:last]
    options = ["--strip", "given", "--no-bias", "--no-align", "--no-pictures"]
    return ["preprocess", *map(str, scans), "-o", str(bench.place / "prepared"), *options]


def _evaluate(bench: Bench, last: int = 2) -> Arguments:
    scans = sorted((bench.inputs / "scans").iterdir())[:last]
    options = ["--release", str(bench.inputs / "model.safetensors"), "--workers", "0"]
    return [*map(str, scans), "--out", str(bench.place / "report"), *options]


def _call_evaluate(arguments: Arguments) -> int:
    """`python -m eval.evaluate` with one cheap arm and without pages."""
    from eval.evaluate import EXPERIMENT, book, cases, measure

    def few(plan):
        return [coder for coder in cases.arms(plan) if coder.name == "dct_ball"]

    measure.arms = book.arms = few
    book.execute_all = lambda *_: None
    book.render = _no_pages
    return EXPERIMENT.main(arguments)


def _no_pages(source: Path, out: Path) -> Path:
    html = out / "_build" / "html"
    html.mkdir(parents=True)
    shutil.copy(source / "_toc.yml", html / "index.html")
    return html


def _report_contents(folder: Path) -> dict[str, str]:
    """Values of the rows, once each, the tables and the page; not when rows were recorded."""
    path = folder / "rows" / "evaluate.jsonl"
    recorded = list(rows_file.records(path)) if path.is_file() else []
    names = [" | ".join(rows.identity(row)[1:5]) for row in recorded]
    if len(set(names)) < len(names):
        return {"rows": "some are there twice"}
    paths = [*folder.glob("tables/*.csv"), *folder.glob("html/index.html"), *folder.glob("*.html")]
    values = {name: repr(row["value"]) for name, row in zip(names, recorded, strict=True)}
    return values | {str(path.relative_to(folder)): file_sha256(path) for path in paths}


WEIGHTS = ("inputs/model.safetensors",)
VERBS: tuple[Verb, ...] = (
    _image("encode", "latent.safetensors", "scans/sub-0_T1w.nii.gz", reads=WEIGHTS),
    _image(
        "decode", "rendered.nii.gz", "latent-0.safetensors", "--spacing", "3", "3", "3",
        reads=("inputs/latent-0.safetensors", *WEIGHTS),
    ),
    _image("reconstruct", "again.nii", "scans/sub-0_T1w.nii.gz", reads=WEIGHTS),
    _image("convert", "scan.mgz", "scans/sub-0_T1w.nii.gz"),
    Verb(
        "store", "store", _store, lambda bench: _made(bench, _store(bench, 2)),
        reads=("place/store/zarr.json", "place/store/sub-0*/zarr.json"),
    ),
    Verb(
        "train", "run", _next_run,
        lambda bench: _made(bench, _new_run(bench, "--time-budget", "0.001s")),
        reads=(
            "place/run/config.json", "place/run/state.safetensors", "place/run/store.txt",
            "inputs/store/zarr.json", "inputs/store/sub-0*/zarr.json",
            "inputs/store/sub-0*/*/zarr.json", "inputs/store/sub-1*/*/c/*/*/*",
            "inputs/store/sub-1*/places/c/*/*",
        ),
        contents=_run_contents,
    ),
    Verb(
        "sample", "samples", _sample, lambda bench: _made(bench, _sample(bench, 1)),
        reads=("inputs/flow.safetensors", *WEIGHTS),
    ),
    Verb(
        "preprocess", "prepared", _preprocess, lambda bench: _made(bench, _preprocess(bench, 2)),
        reads=("place/prepared/dataset_description.json", "place/prepared/sub-0/anat/*.json"),
    ),
    Verb(
        "evaluate", "report",  _evaluate,
        lambda bench: bench.undisturbed(partial(_call_evaluate, _evaluate(bench, 1))),
        reads=("place/report/report.json", "place/report/rows/evaluate.jsonl", *WEIGHTS),
        contents=_report_contents, call=_call_evaluate,
    ),
)  # fmt: skip


def _made(bench: Bench, arguments: Arguments) -> None:
    bench.undisturbed(partial(main, arguments))


def make_inputs(bench: Bench) -> None:
    """Make what commands read beside the scans: weights, latents and a store."""
    make_weights(bench.inputs)
    for k in (0, 1):
        scan, latent = f"scans/sub-{k}_T1w.nii.gz", bench.inputs / f"latent-{k}.safetensors"
        weights = ["--weights", str(bench.inputs / "model.safetensors")]
        _made(bench, ["encode", str(bench.inputs / scan), "-o", str(latent), *weights])
    scans = str(bench.inputs / "scans")
    _made(bench, ["store", scans, "-o", str(bench.inputs / "store")])
