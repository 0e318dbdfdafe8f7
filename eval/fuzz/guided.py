"""Fuzz a reader with atheris: mutations that reach new lines or comparisons are mutated further.

libFuzzer ends its process, so that each target runs in a forked one. A find does not end the run.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import tempfile
import types
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path

from eval.fuzz.judge import Judge
from eval.fuzz.targets import MOST_BYTES, Target, emptied
from medil.errors import needs

WATCHED = ("medil", "eval.rows", "eval.rows_file", "nibabel", "nrrd", "pydicom", "tomllib", "csv")
WORDS = [b"NaN", b"Infinity", b"-1", b"1e400", b"null", b"true", b"[]", b"{}", b'""', b"\\u0000",
         b"9" * 20, b"\xff\xff\xff\x7f", b"\xff\xff\xff\xff", b"\x00\x00\x80\x7f", b"\x1f\x8b",
         b"[" * 200]  # fmt: skip
MOST_WORDS = 200


@dataclass(frozen=True)
class Fuzzed:
    """What became of a run.

    Args:
        executions: Inputs that were read.
        took_s: The processor's time for them.
        slowest_s: For the slowest one.
        peak_mb: The most memory that one took.
        finds: Fault to the first input that shows it.
        corpus: Inputs that reached something new, in the order of their discovery.
    """

    executions: int
    took_s: float
    slowest_s: float
    peak_mb: float
    finds: dict[str, bytes]
    corpus: tuple[bytes, ...]


def fuzzed(target: Target, runs: int, known: Sequence[bytes] = (), seed: int = 0) -> Fuzzed:
    """Fuzz a reader in a process of its own.

    Args:
        target: The reader.
        runs: Number of inputs.
        known: Inputs to begin with, beside the target's seeds.
        seed: Of the mutations.

    Raises:
        InputError: atheris is not installed.
    """
    with needs("fuzz", "fuzzing needs atheris, which there is for Linux"):
        import atheris  # noqa: F401
    fork = multiprocessing.get_context("fork")  # what is imported here is not imported again
    here, there = fork.Pipe(duplex=False)
    with tempfile.TemporaryDirectory(prefix="medil-fuzz-", dir=_memory_disk()) as folder:
        arguments = (there, target, runs, known, seed, Path(folder))
        child = fork.Process(target=_work, args=arguments)
        child.start()
        there.close()
        try:
            return here.recv()
        except EOFError:
            child.join()
            crashes = [path.read_bytes() for path in Path(folder).glob("crash-*")]
            fault = f"its process ends with {child.exitcode}"
            return Fuzzed(0, 0.0, 0.0, 0.0, {fault: b"".join(crashes)}, ())
        finally:
            child.kill()
            child.join()


def _memory_disk() -> str | None:
    return "/dev/shm" if os.path.isdir("/dev/shm") else None  # noqa: S108


def _work(
    pipe: Connection, target: Target, runs: int, known: Sequence[bytes], seed: int, folder: Path
) -> None:
    """Fuzz, send what became of it, and end this process."""
    import atheris

    log = os.open(folder / "log", os.O_CREAT | os.O_WRONLY)
    os.dup2(log, 1)
    os.dup2(log, 2)
    corpus, place = emptied(folder / "corpus"), emptied(folder / "place")
    seeds = [*target.seeds(place), *known]
    judge = Judge(target, emptied(place))
    for number, content in enumerate(seeds):
        (corpus / f"seed-{number}").write_bytes(content)
    (folder / "words").write_text("\n".join(dictionary(seeds)) + "\n", "ascii")
    for function in watched():
        atheris.instrument_func(function)

    def one(content: bytes) -> None:
        judge(content)
        if judge.executions == runs:
            pipe.send(_result(judge, corpus))
            os._exit(0)

    options = {"seed": seed + 1, "max_len": MOST_BYTES, "rss_limit_mb": 0, "dict": folder / "words"}
    options |= {"artifact_prefix": f"{folder}/", "reload": 0}
    atheris.Setup(["fuzz", str(corpus), *(f"-{k}={v}" for k, v in options.items())], one)
    atheris.Fuzz()


def _result(judge: Judge, corpus: Path) -> Fuzzed:
    new = [path for path in corpus.iterdir() if not path.name.startswith("seed-")]
    contents = [path.read_bytes() for path in sorted(new, key=lambda path: path.stat().st_mtime_ns)]
    return Fuzzed(
        judge.executions, judge.took_s, judge.slowest_s, judge.peak_mb, judge.finds,
        tuple(contents),
    )  # fmt: skip


def dictionary(seeds: Sequence[bytes]) -> list[str]:
    """Words of the seeds and odd values, as libFuzzer reads them."""
    found = [word for seed in seeds for word in re.findall(rb"[A-Za-z][A-Za-z_ -]{2,30}", seed)]
    words = [*WORDS, *list(dict.fromkeys(found))[:MOST_WORDS]]
    return ['"' + "".join(f"\\x{byte:02x}" for byte in word) + '"' for word in words]


def watched() -> Iterator[types.FunctionType]:
    """Functions of the readers and of the packages that they use, as far as they are imported."""
    for thing in gc.get_objects():
        if type(thing) is types.FunctionType:  # `isinstance` would wake deprecated stand-ins
            module = f"{thing.__module__}."
            if module.startswith(tuple(f"{name}." for name in WATCHED)):
                yield thing
