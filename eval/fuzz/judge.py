"""The property of every reader: a value or one sentence, in little time and memory."""

from __future__ import annotations

import resource
import signal
import time
import traceback
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from eval.fuzz.targets import Target
from eval.readers.measure import sentence_fault
from medil.errors import InputError

MOST_S, MOST_MB = 5.0, 150.0  # of the processor, and of memory, for an input of some kB
STEP_MB = 8.0  # growth of the peak that is looked at


class Hang(BaseException):
    """A reader that does not come back; no `Exception`, which readers may catch."""


@dataclass
class Judge:
    """Gives inputs to a reader, and keeps what is wrong: a `fuzz target`.

    Args:
        target: The reader.
        folder: For its files.
        finds: Fault to the first input that shows it.
    """

    target: Target
    folder: Path
    executions: int = 0
    took_s: float = 0.0
    slowest_s: float = 0.0
    peak_mb: float = 0.0
    finds: dict[str, bytes] = field(default_factory=dict)

    def __call__(self, content: bytes) -> None:
        """One execution."""
        began, peak = time.process_time(), _peak_mb()
        fault = fault_of(self.target, content, self.folder)
        took_s, grown_mb = time.process_time() - began, _peak_mb() - peak
        if grown_mb > STEP_MB:
            _forget_peak()
        if not fault and grown_mb > MOST_MB:
            fault = "it takes too much memory"
        self.executions += 1
        self.took_s += took_s
        self.slowest_s = max(self.slowest_s, took_s)
        self.peak_mb = max(self.peak_mb, grown_mb)
        if fault:
            self.finds.setdefault(fault, content)


def fault_of(target: Target, content: bytes, folder: Path) -> str:
    """What is wrong with how a reader takes an input; empty if nothing."""
    before = signal.signal(signal.SIGPROF, _stop)
    signal.setitimer(signal.ITIMER_PROF, MOST_S)
    try:
        target.read(content, folder)
    except InputError as error:
        text = str(error).replace(f"{folder}/", "")
        fault = sentence_fault(text)
        return f"{fault}: {_origin(error)}" if fault else ""
    except Hang:
        return f"it takes over {MOST_S:g} s"
    except Exception as error:
        return f"it raises {type(error).__name__}: {_origin(error)}"
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    return ""


def _stop(*_) -> None:
    raise Hang


def _origin(error: BaseException) -> str:
    """Where it was raised: the last line of ours, and the last one."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [f for f in frames if "/medil/" in f.filename or "/eval/" in f.filename]
    places = [f"{Path(f.filename).name}:{f.lineno}" for f in (*own[-1:], frames[-1])]
    return " ".join(dict.fromkeys(places))


def _peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _forget_peak() -> None:
    """Let the largest memory so far be that of now, where Linux can."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
