"""Ten faults of release 0.6.0, injected again: into this checkout, or into one of that release.

Each trial calls commands as people do, in interpreters of their own, so that it runs on every
release. It names the test that guards against its fault since.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from eval.readers import nrrd
from eval.reliability import calls, judge
from eval.reliability.calls import Arguments
from eval.reliability.child import KILLED, Ended
from eval.reliability.disturbed import SOON_S
from eval.reliability.injections import locked
from eval.reliability.judge import Outcome
from eval.reliability.releases import Release
from medil.system.files import PART, file_sha256
from medil.training.state import read_facts

Call = Callable[[Release], Arguments]
Folder = Callable[[Release], Path]
MOST_MB, MOST_S = 150.0, 30.0  # more memory than a good file takes; time in all
FASTER = 1000  # a clock, so that minutes are fractions of a second
FEW_BYTES = 700_000 * 1024  # of addresses: ``ulimit -v 700000``


def then(
    release: Release, ended: Sequence[Ended], call: Call, struck: bool, kind: str = ""
) -> Outcome:
    """Judge disturbed commands, call again, and judge that."""
    fault = judge.unclear(ended, kind)
    release.bench.age()
    after = release.call(*call(release))
    if after.code:
        last = judge.last_line(after.said)
        return Outcome(struck, f"the next call ends with {after.code}: {last}", True)
    return Outcome(struck, fault, False, leftovers(release))


def leftovers(release: Release) -> tuple[str, ...]:
    """Temporary files that are still there."""
    names = release.bench.names()
    return tuple(sorted(n for n in names if PART in n or n.endswith(".partial")))


def disturbed(call: Call, start: Folder | None = None, again: Call | None = None,
              kind: str = "", **plan: Any) -> Callable[[Release], Outcome]:  # fmt: skip
    """A trial: a command that is disturbed as planned, then another one, or the same again."""

    def trial(release: Release) -> Outcome:
        release.bench.reset(start(release) if start else None)
        ended = release.call(*call(release), **plan)
        struck = ended.code != 0 or "power_cut" in plan
        return then(release, [ended], again or call, struck, kind)

    return trial


def at(step: str, name: str, act: str = "kill", count: int = 1) -> dict[str, Any]:
    """Where a command is disturbed, see `eval.reliability.disturbed.At`."""
    return {"at": {"step": step, "name": name, "act": act, "count": count}}


# 2: two at once


def two_stores(release: Release) -> Outcome:
    """The second one comes while the first writes a volume, which ends before it."""
    release.bench.reset(calls.stored(release))
    call = partial(calls.store, count=3)
    first = release.start(*call(release), **at("mkdir", "/places", "pause"))
    struck = first.until_paused()
    second = release.start(*call(release), **at("rename", "/zarr.json", "pause"))
    second.until_paused()
    first.go_on()
    ended = [first.wait()]
    second.go_on()
    ended.append(second.wait())
    outcome = then(release, ended, call, struck)
    volumes = [p for p in (release.bench.place / "store").glob("[!.z]*") if p.is_dir()]
    parts = {"zarr.json", "data", "places"}
    broken = [p.name for p in volumes if not parts <= {one.name for one in p.iterdir()}]
    return Outcome(True, f"broken {', '.join(broken)}", True) if broken else outcome


def two_reports(release: Release) -> Outcome:
    """The second one measures while the first is about to append its rows."""
    release.bench.reset()
    first = release.start(*calls.evaluate(release), **at("open", ".jsonl", "pause"))
    struck = first.until_paused()
    ended = [release.call(*calls.evaluate(release))]
    first.go_on()
    ended.append(first.wait())
    outcome = then(release, ended, calls.evaluate, struck)
    twice = recorded_twice(release.bench.place / "report")
    return Outcome(True, f"{twice} rows are there twice", True) if twice else outcome


def recorded_twice(folder: Path) -> int:
    """How many rows of a report are copies."""
    lines = [json.loads(line) for path in folder.rglob("*.jsonl") for line in path.open()]
    known = {tuple(one[k] for k in ("subject", "arm", "condition", "metric")) for one in lines}
    return len(lines) - len(known)


def orphan(release: Release) -> Outcome:
    """`medil evaluate` is killed; whether the program that it started goes on."""
    release.bench.reset()
    inputs, out = calls.scans(release.bench)[:1], release.bench.place / "report"
    verb = release.start("medil", "evaluate", *inputs, "-o", out, "--workers", 0)
    started = _children(verb.pid)
    os.kill(verb.pid, 9)
    verb.wait()
    _, alive = psutil.wait_procs(started, timeout=3)
    for program in alive:
        program.kill()
    return Outcome(bool(started), "its program goes on" if alive else "")


def _children(pid: int, most_s: float = 60.0) -> list[psutil.Process]:
    end = time.monotonic() + most_s
    while time.monotonic() < end:
        if found := psutil.Process(pid).children():
            return found
        time.sleep(0.05)
    return []


# 4: disks


def read_only(call: Call, folder: str) -> Callable[[Release], Outcome]:
    """A trial: the folder, which is empty, may not be written to."""

    def trial(release: Release) -> Outcome:
        release.bench.reset()
        (release.bench.place / folder).mkdir()
        with locked(release.bench.place):
            ended = release.call(*call(release), bound=True)
        return then(release, [ended], call, ended.code != 0)

    return trial


# 6, 7 and 10: small files and little memory, which have to be refused


def refused(ended: Ended, most_mb: float) -> Outcome:
    """Whether a command ended in one sentence, soon and in little memory."""
    took_s, peak_mb = ended.facts["took_s"], ended.facts["peak_mb"]
    fault = judge.unclear([ended], "")
    fault = fault or f"it takes {took_s:.0f} s" * (took_s > MOST_S)
    fault = fault or f"it takes {peak_mb:.0f} MB" * (peak_mb > most_mb)
    is_lost = not fault and ended.code == 0
    return Outcome(True, "it is taken" if is_lost else fault, is_lost)


def bad_image(name: str, content: bytes) -> Callable[[Release], Outcome]:
    """A trial: an image whose header promises or names what it must not."""

    def trial(release: Release) -> Outcome:
        release.bench.reset()
        path = release.bench.place / "in" / name
        path.parent.mkdir()
        (release.bench.place / "voxels.raw").write_bytes(nrrd.RAW)
        path.write_bytes(content.replace(b"PLACE", os.fsencode(release.bench.place)))
        ended = release.call("medil", "info", path, addresses=12 * 2**30)
        return refused(ended, usual_mb(release) + MOST_MB)

    return trial


@lru_cache
def usual_mb(release: Release) -> float:
    """Memory that a good image takes."""
    return release.call("medil", "info", calls.scans(release.bench)[0]).facts["peak_mb"]


def few_addresses(release: Release) -> Outcome:
    """``ulimit -v 700000``."""
    release.bench.reset()
    ended = release.call(*calls.encode(release), addresses=FEW_BYTES)
    return refused(ended, np.inf)


MANIFEST = """name = "made"
title = "made files"
version = "1"
licence = "CC0"
terms = "None."
citation = "nobody"
modality = "CT"
access = "open"
page = "https://example.org"
[[file]]
path = "{path}"
url = "{url}"
sha256 = "{sha256}"
bytes = {bytes}
subject = "one"
split = "test"
"""


def bad_manifest(path: str) -> Callable[[Release], Outcome]:
    """A trial: an entry of a file on this computer, under a path in the cache or out of it."""

    def trial(release: Release) -> Outcome:
        release.bench.reset()
        place = release.bench.place
        (place / "published").write_bytes(b"some bytes")
        facts = {"url": f"file://{place}/published", "bytes": len(b"some bytes")}
        facts |= {"sha256": file_sha256(place / "published")}
        facts |= {"path": path.replace("PLACE", str(place))}
        (place / "made.toml").write_text(MANIFEST.format(**facts), "utf-8")
        return refused(release.call("fetch", place), np.inf)

    return trial


# 8: damage


def damaged(
    start: Folder,
    pattern: str,
    share: float,
    call: Call,
    again: Call,
    mend: Callable[[Path], object] = lambda _: None,
) -> Callable[[Release], Outcome]:
    """A trial: in files of a pattern one bit is turned over, at a share of their bytes.

    Before the call `again` the files are whole, or what `mend` makes of them.
    """

    def trial(release: Release) -> Outcome:
        release.bench.reset(start(release))
        paths = [path for path in release.bench.place.glob(pattern) if path.is_file()]
        whole = {path: path.read_bytes() for path in paths}
        for path, content in whole.items():
            place = int(share * len(content))
            turned = bytes([content[place] ^ 16])
            path.write_bytes(content[:place] + turned + content[place + 1 :])
        ended = release.call(*call(release))
        if ended.code == 0:
            return Outcome(True, f"damage of {pattern} passes", True)
        for path, content in whole.items():
            path.write_bytes(content)
            mend(path)
        return then(release, [ended], again, True)

    return trial


# 9: what a power cut or a kill takes


def slow_steps(release: Release) -> Outcome:
    """A run whose steps take minutes is killed; how old its state is then."""
    release.bench.reset(calls.stored(release))
    plan = at("rename", "/state.safetensors", "soon") | {"clock": FASTER}
    ended = release.call(*calls.train(release, 10**6), **plan)
    kept_s = read_facts(release.bench.place / "run" / "state.safetensors")["elapsed_s"]
    if kept_s < FASTER * SOON_S / 2:
        return Outcome(True, f"of {FASTER * SOON_S:.0f} s only {kept_s:.0f} s are kept", True)
    return Outcome(ended.code in KILLED, judge.unclear([ended], "killed"))
