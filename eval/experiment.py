"""The one shape of every experiment: question, measurement, rows, tables and verdict.

An experiment is a folder ``eval/NAME`` whose ``__init__`` holds ``EXPERIMENT``. Its tasks give
rows (`eval.runner`), its rows give tables and a verdict; this frame runs, reads and writes them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from eval import cited, rows, rows_file, runner, tables
from medil.errors import InputError
from medil.system.files import make_folder

Tables = Mapping[str, pd.DataFrame]  # file stem -> table
PRIVATE = Path("_build/rows")  # of weights in a file
NEWEST = ("config_hash", "weights_sha256")


@dataclass(frozen=True)
class Experiment:
    """One experiment.

    `tables` and `verdict` are pure functions of prepared rows (`prepare`). The text of a condition
    is parsed by `factors` and nowhere else: one column a factor, index kept.
    """

    name: str  # of its package ``eval.NAME``, its rows file and, as a prefix, of its tables
    title: str  # for people
    question: str  # that it answers, one sentence
    # Trains or draws first what the tasks need; None where `run` replaces it.
    tasks: Callable[[argparse.Namespace, rows.Provenance], Iterable[runner.Task]] | None
    tables: Callable[[pd.DataFrame], Tables] | None = None  # those without lines are not written
    verdict: Callable[[pd.DataFrame], str] | None = None  # lines of text
    # The answer to the question: at most three lines; None: the verdict's first short ones.
    answer: Callable[[pd.DataFrame], Sequence[str]] | None = None
    factors: Callable[[pd.Series], pd.DataFrame] | None = None
    latest_by: tuple[str, ...] = NEWEST  # an arm's rows count that agree in these with its newest
    key: tuple[str, ...] = rows.WHAT  # of rows that agree in these fields, the newest counts
    select: Callable[[pd.DataFrame], pd.DataFrame] | None = None  # replaces `latest_by` and `key`
    options: Callable[[argparse.ArgumentParser], None] | None = None  # adds some of its own
    summary: Callable[[pd.DataFrame], str] | None = None  # printed at the end; None: the verdict
    run: Callable[[argparse.Namespace], None] | None = None  # replaces measuring and printing
    profiles: tuple[str, ...] = runner.PROFILES
    quick_out: Path | None = None  # of the quick profile's rows; None: the recorded rows' folder
    workers: int | None = None  # processes; None: all cores, 0: the command's own
    # Tasks need the rows of earlier ones, so they run one after another in the command's own
    # process; ``--workers`` counts the processes that draw heads.
    in_order: bool = False
    how: str = ""  # the command that records it, for people; ``python -m eval.NAME`` when empty
    float_format: str | None = None  # of fractions in the CSV files
    arm_title: Callable[[str], str | None] | None = None  # for people; None: as codecs are called

    @property
    def command(self) -> str:
        """The command that records it."""
        return self.how or f"python -m eval.{self.name}"

    # Rows

    def prepare(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows that count (`latest_by`, `key`), with one column per factor of their condition.

        Raises:
            InputError: No row of this experiment.
        """
        if frame.empty or not (frame["experiment"] == self.name).any():
            raise InputError(f"there are no rows on {self.title.lower()}; run: {self.command}")
        frame = frame.sort_values("recorded_at", kind="stable")
        if self.select is not None:
            frame = self.select(frame)
        else:
            frame = rows.newest(frame[frame["experiment"] == self.name], self.latest_by, self.key)
        if self.factors is None:
            return frame
        return frame.assign(**self.factors(frame["condition"]))

    def recorded(self, folder: str | Path = rows.RESULTS) -> pd.DataFrame | None:
        """The prepared rows of a folder; None where nothing is recorded that counts."""
        path = Path(folder) / f"{self.name}.jsonl"
        try:
            return self.prepare(rows_file.read_rows(path)) if rows_file.parts(path) else None
        except InputError:
            return None

    # Pages

    @property
    def nothing(self) -> str:
        """What a page prints where nothing is recorded: Markdown."""
        return f"*Nothing is recorded yet. Record it with* `{self.command}`."

    def shown(
        self, frame: pd.DataFrame | None, table: Callable[[pd.DataFrame], pd.DataFrame]
    ) -> str:
        """One table of prepared rows as Markdown; `nothing` where it has no lines."""
        made = pd.DataFrame() if frame is None else table(frame)
        return self.nothing if made.empty else tables.markdown(made)

    def sentences(self, frame: pd.DataFrame | None, *topics: str) -> str:
        """The verdict's lines that hold one of the topics (all without topics): a list."""
        lines = self.verdict(frame).splitlines() if self.verdict and frame is not None else []
        chosen = [line for line in lines if not topics or any(topic in line for topic in topics)]
        return "\n".join(f"- {line}" for line in chosen) or self.nothing

    def answers(self, frame: pd.DataFrame | None) -> list[str]:
        """At most three lines that answer the question, with few intervals each."""
        if frame is None or not (self.answer or self.verdict):
            return []
        if self.answer is not None:
            return [line for line in self.answer(frame) if line]
        return tables.short(self.verdict(frame).splitlines())  # type: ignore[misc]

    def marked_answers(self, frame: pd.DataFrame | None) -> list[str]:
        """`answers` whose numbers name their rows, for pages that show them at a click."""
        return [] if frame is None else self.marked(frame, self.answers)

    def marked(
        self, frame: pd.DataFrame, say: Callable[[pd.DataFrame], Sequence[str]]
    ) -> list[str]:
        """What `say` tells of prepared rows, with numbers that name their rows."""
        with cited.notes(frame) as noted:
            lines = say(frame)
        return cited.marked(lines, noted, {"experiment": self.name, "command": self.command})

    def in_short(self, frame: pd.DataFrame | None) -> str:
        """The answer as a list, and the whole verdict folded behind it: Markdown."""
        if frame is None:
            return self.nothing
        every = tables.folded("Every sentence of the verdict", self.sentences(frame))
        return f"{tables.listed(self.marked_answers(frame))}\n\n{every}"

    def origin(self, frame: pd.DataFrame | None) -> str:
        """When, at which commit and on what prepared rows were recorded: Markdown."""
        return self.nothing if frame is None else f"*{tables.provenance(frame)}*"

    # Tables

    def contents(self, frame: pd.DataFrame) -> dict[str, str]:
        """Tables, verdict and provenance of prepared rows: file name to text."""
        made = self.tables(frame) if self.tables else {}
        texts = {
            f"{stem}.csv": table.to_csv(index=False, float_format=self.float_format)
            for stem, table in made.items()
            if len(table)
        }
        if self.verdict:
            texts[f"{self.name}_verdict.txt"] = self.verdict(frame)
            texts[f"{self.name}_answer.md"] = tables.listed(self.marked_answers(frame))
        return texts | {f"{self.name}_provenance.txt": tables.provenance(frame)}

    def write(self, folder: Path, out: Path) -> list[Path]:
        """Write tables and verdict of a folder's rows; no files where nothing is recorded."""
        frame = self.recorded(folder)
        return [] if frame is None else tables.write(self.contents(frame), out)

    # Command line

    def parser(self) -> argparse.ArgumentParser:
        """The options: those of every experiment, then its own."""
        module = f"eval.{self.name}"
        made = argparse.ArgumentParser(
            prog=f"python -m {module}",
            description=sys.modules[module].__doc__,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.add_argument("--profile", choices=self.profiles, default="quick")
        made.add_argument("--release", default="tiny", help="which released weights (tiny)")
        made.add_argument("--out", type=Path, help="folder of the rows")
        workers = "processes on this machine (all cores); 0: this process alone"
        made.add_argument("--workers", type=int, default=self.workers, help=workers)
        scheduler = "address of a Dask scheduler, such as tcp://host:8786"
        made.add_argument("--scheduler", help=scheduler)
        if self.options is not None:
            self.options(made)
        return made

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """Measure what is not recorded yet, then print what all rows say.

        Returns 0, 2 after one sentence about bad input, 130 after Ctrl-C.
        """
        return runner.command(self.run or self._run, self.parser(), arguments)

    def _folder(self, options: argparse.Namespace) -> Path:
        """Where rows go without ``--out``: beside the recorded ones, unless they are private."""
        if options.release.endswith(".safetensors"):
            return PRIVATE
        quick = self.quick_out if options.profile == "quick" else None
        return quick or rows.RESULTS

    def _run(self, options: argparse.Namespace) -> None:
        options.path = make_folder(options.out or self._folder(options)) / f"{self.name}.jsonl"
        rows_file.mend(options.path)
        provenance = rows.Provenance.now(options.profile)
        todo = list(self.tasks(options, provenance)) if self.tasks else []
        where = (0, None) if self.in_order else (options.workers, options.scheduler)
        added = runner.run(todo, options.path, *where)
        print(f"{added} new rows in {self.name}.jsonl")
        say = self.summary or self.verdict
        frame = self.recorded(options.path.parent)
        if say is not None and frame is not None:
            print(say(frame))
