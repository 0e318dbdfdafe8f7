"""The report's small book: one page a scan, the tables, executed and rendered beside the old one.

Everything is built in a folder of its own inside the report, and takes the place of what was
there only when it is whole. Pages name files, never the folders they lie in.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from string import Template

import pandas as pd
from tqdm import tqdm

from eval.coders.base import loaded
from eval.evaluate import EXPERIMENT
from eval.evaluate.cases import arms
from eval.evaluate.inputs import PLAN, RULES, Checked, Plan, write_plan
from eval.pages.results import publish_rows
from eval.rows import identity
from eval.rows_file import records
from eval.tables import markdown
from medil.errors import InputError
from medil.system.children import tied
from medil.system.files import PART, atomic_output, sweep

ROOT = Path(__file__).resolve().parents[2]
TEMPLATES = Path(__file__).resolve().parent / "template"
RESULTS_PAGE = ROOT / "notebooks" / "09_results.ipynb"
MOST_PAGES = 24  # scans with a page of their own
AT_ONCE = 2  # notebooks
TITLE = "TITLE"  # stands for the scan's name in the template
REDIRECT = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>MedIL on your scans</title>
<meta http-equiv="refresh" content="0; url=html/intro.html"></head>
<body><p><a href="html/intro.html">The report</a></p></body></html>
"""


def build(out: Path, plan: Plan, wanted: frozenset[tuple[str, ...]], profile: str) -> Path:
    """Execute the pages, render them, and put the book into the report; the page to open.

    `out` is the report's folder, which holds ``rows``; of these only the `wanted` identities get
    into the pages.

    Raises:
        InputError: A page did not run or the book did not build; the old one stays.
    """
    sweep(out)
    with tempfile.TemporaryDirectory(prefix=PART, dir=out) as name:
        part = Path(name)
        source, rows = part / "src", part / "rows"
        for folder in (source / "notebooks", rows):
            folder.mkdir(parents=True)
        keep_rows(out / "rows" / f"{EXPERIMENT.name}.jsonl", rows, wanted)
        write_plan(plan, rows / PLAN)
        tables = part / "tables"
        EXPERIMENT.write(rows, tables)
        pages = notebooks(plan.volumes)
        execute_all(pages, source / "notebooks", profile)
        write_texts(source, rows, plan, list(pages))
        html = render(source, part / "out")
        publish_rows(rows, html / "rows")
        swap(tables, out / "tables")
        swap(html, out / "html")
    with atomic_output(out / "index.html", force=True) as temporary:
        temporary.write_text(REDIRECT, encoding="utf-8")
    return out / "index.html"


def keep_rows(path: Path, folder: Path, wanted: frozenset[tuple[str, ...]]) -> None:
    """Copy the rows that the report is about; it may hold others, of an earlier call."""
    kept = [json.dumps(r, sort_keys=True) for r in records(path) if identity(r) in wanted]
    (folder / path.name).write_text("".join(line + "\n" for line in kept), encoding="utf-8")


# Pages


def notebooks(volumes: Sequence[Checked]) -> dict[str, tuple[dict, dict[str, str]]]:
    """Page name -> notebook and its parameters: the tables, then a page for each scan."""
    template = json.loads((TEMPLATES / "volume.ipynb").read_text("utf-8"))
    pages: dict[str, tuple[dict, dict[str, str]]] = {}
    pages["09_results"] = (json.loads(RESULTS_PAGE.read_text("utf-8")), {})
    for number, volume in enumerate(volumes[:MOST_PAGES], start=1):
        page = json.loads(json.dumps(template).replace(TITLE, json.dumps(plain(volume.name))[1:-1]))
        pages[f"scan_{number:02d}"] = (page, {"volume": volume.name})
    return pages


def plain(name: str) -> str:
    """A name in which Markdown sees no markup."""
    return re.sub(r"([\\`*_{}\[\]<>#|$~])", r"\\\1", name)


def execute_all(pages: dict[str, tuple[dict, dict[str, str]]], folder: Path, profile: str) -> None:
    """Run every page in a process of its own, two at a time, with a progress bar.

    Raises:
        InputError: A page failed; its last lines say why.
    """
    running: list[subprocess.Popen] = []
    with ThreadPoolExecutor(AT_ONCE) as pool:
        jobs = [
            pool.submit(execute, notebook, folder / f"{name}.ipynb", parameters, profile, running)
            for name, (notebook, parameters) in pages.items()
        ]
        try:
            for job in tqdm(as_completed(jobs), total=len(jobs), desc="pages", unit="page"):
                job.result()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for program in running:
                program.send_signal(signal.SIGINT)  # it ends its kernel; harmless once it ended
            raise


def execute(
    notebook: dict,
    target: Path,
    parameters: dict[str, str],
    profile: str,
    running: list[subprocess.Popen],
) -> None:
    """Run one page into `target`; it finds the rows in the folder beside that of the sources.

    `running` gets the program, for whoever must stop it.

    Raises:
        InputError: A cell failed.
    """
    import dodo

    part = target.with_suffix(".part.ipynb")
    part.write_text(json.dumps(notebook), encoding="utf-8")
    command = [sys.executable, "-m", "papermill", str(part), str(part), "-k", "python3"]
    for name, value in {"profile": profile, "rows": "../../rows", **parameters}.items():
        command += ["-r", name, value]
    command += ["--cwd", str(target.parent), "--no-progress-bar"]
    environment = dodo.kernel_environment() | {"PYTHONWARNINGS": "ignore"}
    program = subprocess.Popen(
        command, env=environment, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True, **tied(),
    )  # fmt: skip
    running.append(program)
    _, errors = program.communicate()
    if program.returncode:
        last = errors.strip().splitlines()[-1:] or ["no message"]
        raise InputError(f"the page {target.stem} did not run: {last[0]}")
    page = dodo.publishable(json.loads(part.read_text("utf-8")))
    target.write_text(json.dumps(without_paths(page)), encoding="utf-8")
    part.unlink()


def without_paths(notebook: dict) -> dict:
    """An executed notebook without the cell of parameters and without stderr."""
    cells = [
        cell for cell in notebook["cells"]
        if "injected-parameters" not in cell["metadata"].get("tags", [])
    ]  # fmt: skip
    for cell in cells:
        if "outputs" in cell:
            cell["outputs"] = [o for o in cell["outputs"] if o.get("name") != "stderr"]
    return notebook | {"cells": cells}


# Words


def write_texts(source: Path, rows: Path, plan: Plan, pages: Sequence[str]) -> None:
    """The first page, the table of contents, the settings and the style."""
    words = first_page(EXPERIMENT.recorded(rows), plan, pages)
    template = Template((TEMPLATES / "intro.md").read_text("utf-8"))
    (source / "intro.md").write_text(template.substitute(words), encoding="utf-8")
    shutil.copy(TEMPLATES / "_config.yml", source / "_config.yml")
    (source / "_static").mkdir(exist_ok=True)
    shared = [ROOT / "book/_static" / name for name in ("medil.css", "cited.js")]
    for style in (*shared, TEMPLATES / "report.css"):
        shutil.copy(style, source / "_static" / style.name)
    lines = ["format: jb-book", "root: intro", "parts:"]
    lines += ["  - caption: All scans", "    chapters:", "      - file: notebooks/09_results"]
    lines += ["  - caption: Scan by scan", "    chapters:"]
    lines += [f"      - file: notebooks/{name}" for name in pages if name.startswith("scan_")]
    (source / "_toc.yml").write_text("\n".join(lines) + "\n", encoding="utf-8")


def first_page(frame: pd.DataFrame, plan: Plan, pages: Sequence[str]) -> dict[str, str]:
    """What the placeholders of the first page become; all of it from rows and from the check."""
    config, n = loaded(plan.release).config, len(plan.volumes)
    warned = [f"- *{plain(v.name)}*: {' '.join(v.warnings)}" for v in plan.volumes if v.warnings]
    scans = pd.DataFrame([_line(number, v) for number, v in enumerate(plan.volumes)])
    coders = pd.DataFrame([{"Arm": plain(c.title), "Kind": c.kind} for c in arms(plan)])
    missing = n - sum(page.startswith("scan_") for page in pages)
    return {
        "verdict": EXPERIMENT.sentences(frame),
        "provenance": EXPERIMENT.origin(frame),
        "channels": str(config.latent_channels),
        "pitch_mm": f"{config.latent_spacing_mm:g}",
        "warnings": "\n".join(["## Before you trust it", "", *warned]) if warned else "",
        "scans": markdown(scans),
        "left_out": f"The first {MOST_PAGES} scans have a page each; the other {missing} stand in "
        "the tables alone."
        if missing
        else "",
        "arms": markdown(coders),
        "pages": "[All numbers](notebooks/09_results.ipynb) are in an explorer, with the rows to "
        "download. A page for each scan shows planes, errors, and which detail "
        "came through.",
        "n": str(n),
    }


def _line(number: int, volume: Checked) -> dict[str, str]:
    has_page = number < MOST_PAGES
    link = f"[{plain(volume.name)}](notebooks/scan_{number + 1:02d}.ipynb)"
    return {
        "Scan": link if has_page else plain(volume.name),
        "Voxels": " × ".join(map(str, volume.shape)),
        "Voxel size (mm)": " × ".join(f"{s:.3g}" for s in volume.spacing_mm),
        "Scored inside": RULES[volume.rule],
        "Mask (cm³)": f"{volume.mask_cm3:,.0f}",
    }


# Rendering


def render(source: Path, out: Path) -> Path:
    """Build the book, warnings as errors, with MathJax beside it; the folder of its pages.

    Raises:
        InputError: It did not build; with the end of its error output.
    """
    import dodo

    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(source), "-W", "-n", "-q", "--path-output", str(out)]
    ran = subprocess.run(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, **tied()
    )
    if ran.returncode:
        errors = ran.stderr.split("Traceback")[0].strip()[-1500:]
        raise InputError(f"the report did not build; an older one stays as it was. {errors}")
    html = out / "_build" / "html"
    dodo.copy_mathjax(html / "_static/mathjax")
    shutil.copytree(ROOT / "book/interactive/explorer", html / "interactive/explorer")
    shutil.rmtree(html / "_sources", ignore_errors=True)
    return html


def swap(new: Path, place: Path) -> None:
    """Put a finished folder in place of an older one, which is deleted last."""
    old = new.with_name(f"old-{place.name}")
    if place.exists():
        os.replace(place, old)
    os.replace(new, place)
