"""What became of files and of a command: whole or broken, clear or not."""

from __future__ import annotations

import gzip
import json
import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eval import rows
from eval.reliability.bench import final_files
from eval.reliability.child import KILLED, Ended
from eval.reliability.injections import STOPPED
from medil.checksums import without_sum
from medil.errors import InputError
from medil.system.files import file_sha256
from medil.system.tensors import read_tensors

NAME, ARM, VERSION = "reliability", "medil", 1  # of rows
UNITS = {name: "1" for name in ("struck", "recovered", "unclear", "lost", "leftovers")}
SAMPLING = rows.Sampling("any", "any", 0, 1)
STOPPED_CODES = {130, 143, -signal.SIGTERM}  # the last one of programs without a handler


@dataclass(frozen=True)
class Reference:
    """What an undisturbed command does.

    Args:
        result: What it leaves: name to digest.
        facts: Its time, steps on the disk, memory and largest file.
        known: Digests that files may have before and after it.
        names: Of all files that are there after it.
    """

    result: dict[str, str]
    facts: dict[str, Any]
    known: frozenset[str]
    names: frozenset[str]


@dataclass(frozen=True)
class Outcome:
    """What became of a trial; `fault` says in words what is wrong."""

    struck: bool
    fault: str = ""
    is_lost: bool = False
    leftovers: tuple[str, ...] = ()
    took_s: float = 0.0

    @property
    def values(self) -> dict[str, float]:
        """The metrics of its rows."""
        return {
            "struck": self.struck, "recovered": not self.fault,
            "unclear": bool(self.fault) and not self.is_lost, "lost": self.is_lost,
            "leftovers": len(self.leftovers),
        }  # fmt: skip


def digests(folder: Path) -> dict[str, str]:
    """Digest of every file under a final name, by its path in the folder."""
    return {p.relative_to(folder).as_posix(): file_sha256(p) for p in final_files(folder)}


def broken_files(folder: Path, known: Reference, but: Path | None) -> str:
    """Files under final names that are neither as before, as after, nor whole by themselves."""
    found = [p for p in final_files(folder) if p != but and file_sha256(p) not in known.known]
    return ", ".join(p.relative_to(folder).as_posix() for p in found if not is_whole(p))


def is_whole(path: Path) -> bool:
    """Whether a file of a format that can tell is whole; lines are whole but for the last one."""
    try:
        if path.suffix == ".safetensors":
            read_tensors(path)
        elif path.suffix == ".json":
            without_sum(json.loads(path.read_text("utf-8")))
        elif path.suffix == ".jsonl":
            [json.loads(line) for line in path.read_text("utf-8").split("\n")[:-1]]
        elif path.name.endswith((".jsonl.gz", ".csv.gz")):
            gzip.decompress(path.read_bytes())
        else:
            return path.suffix in (".md", ".txt", ".js") and path.read_text("utf-8").endswith("\n")
    except (InputError, ValueError, OSError, EOFError):
        return False
    return True


def unclear(ended: Sequence[Ended], kind: str) -> str:
    """How a command ended in neither success nor one sentence; empty if it did.

    What was killed says nothing; what was stopped may say so.
    """
    for one in ended:
        if one.code == 0 or (one.code in KILLED and kind.startswith("killed")):
            continue
        if one.code == 2 and is_one_sentence(one.said):
            continue
        if kind == STOPPED and one.code in STOPPED_CODES and "Traceback" not in one.said:
            continue
        return f"ends with {one.code}: {last_line(one.said)}"
    return ""


def is_one_sentence(said: str) -> bool:
    """Whether one thing is said, in a sentence, at the end."""
    return "Traceback" not in said and said.count("medil: ") < 2 and last_line(said).endswith(".")


def last_line(said: str) -> str:
    """What was said last."""
    return (said.strip().splitlines() or [""])[-1]
