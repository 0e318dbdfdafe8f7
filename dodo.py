"""How the book is built (`make book`): execute what changed, then render every page.

Notebooks run in papermill, each in a process of its own and two at a time. A notebook is
executed again when the content of any input changed: the notebook, its profile, the data mirror,
the package, the evaluation, the released weights or the recorded rows. A digest of them is kept
when a notebook ends, so a build that is killed goes on with the notebook at which it was. The
book is built in a folder of its own and replaces the last one only when it is complete.

`ONLY=04,05` (`medil book --only 04,05`) executes these notebooks alone and renders a draft: every
page, the others as they were executed last or, failing that, without outputs.
"""

from __future__ import annotations

import hashlib
import json
import lzma
import os
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import yaml
from doit.exceptions import TaskFailed
from doit.tools import config_changed

import medil
from medil.data.repository import address
from medil.system.children import tied

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "_build"
EXECUTED = BUILD / "executed"
TABLES = BUILD / "tables"
PANES = BUILD / "panes"
STAGE = BUILD / "src"
HTML = BUILD / "html"
DRAFT = BUILD / "draft"
PROFILE = os.environ.get("PROFILE", "quick")
ONLY = os.environ.get("ONLY", "")  # first letters of notebooks, with commas; empty: the whole book
CELL_TIMEOUT_S = {"quick": 600, "gpu": 3600, "paper": -1}  # -1: no limit
KEPT_BYTES = str(4 * 10**9)  # freed memory that a notebook may keep
MATHJAX = ("tex-mml-chtml.js", "output/chtml/fonts/woff-v2")
FIRST_PAGE = "book/intro.html"
START = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title>
<meta http-equiv="refresh" content="0; url={address}"></head>
<body><p><a href="{address}">{title}</a></p></body>
</html>
"""

BUILD.mkdir(exist_ok=True)
DOIT_CONFIG = {
    "default_tasks": ["draft" if ONLY else "book"],
    "backend": "json",
    "dep_file": str(BUILD / ".doit.json"),
    "num_process": 2,
    "par_type": "thread",  # each action only waits for a process that it started
    "verbosity": 2,
}


def files(*patterns: str) -> list[str]:
    """Files of the checkout that match the patterns, sorted, without caches."""
    matches = {path for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(str(path) for path in matches if "__pycache__" not in path.parts)


NOTEBOOKS = [Path(name) for name in files("notebooks/[0-9][0-9]_*.ipynb")]
CHOSEN = [path for path in NOTEBOOKS if path.name.startswith(tuple(ONLY.split(",")))]


def sources() -> list[str]:
    """Files that a number or a figure may come from, besides the notebook itself."""
    return files("medil/**/*", "eval/**/*", "data_manifests/*", "requirements.lock")


def outside() -> dict[str, str]:
    """Inputs of a notebook that are not files of the checkout."""
    return {"profile": PROFILE, "mirror": os.environ.get("MEDIL_DATA_MIRROR", "")}


@cache
def code() -> str:
    """Digest of the names and contents of all sources."""
    digest = hashlib.sha256()
    for name in sources():
        content = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        digest.update(f"{content} {Path(name).relative_to(ROOT)}\n".encode())
    return digest.hexdigest()


def inputs(*own: Path) -> str:
    """Digest of all that numbers and figures are made from: files of their own, and the rest."""
    everything = [*(path.read_text("utf-8") for path in own), code(), sorted(outside().items())]
    return hashlib.sha256(json.dumps(everything).encode()).hexdigest()


def record(target: Path) -> Path:
    """The file that holds the digest of what a target was made from."""
    return BUILD / "made" / target.name


def keep(target: Path, digest: str) -> None:
    """Write down what a finished target was made from."""
    record(target).parent.mkdir(exist_ok=True)
    record(target).write_text(digest, "utf-8")


def is_kept(task, values, target: Path, digest: str) -> bool:
    """Whether a target is there and was made from these inputs (doit gives task and values)."""
    kept = record(target)
    return target.exists() and kept.is_file() and kept.read_text("utf-8") == digest


def task_tables():
    """Write the tables of the book from the recorded rows, and the drawing of the model."""
    pages = ("pages.front", "pages.failures", "pages.reliability")
    for name in ("report", *pages, "pictures.architecture"):
        mark, command = TABLES / name, [sys.executable, "-m", f"eval.{name}", "--out", str(TABLES)]
        yield {
            "name": name,
            "actions": [command, (mark.touch, []), (keep, [mark, code()])],
            "uptodate": [(is_kept, [mark, code()])],
        }


def task_panes():
    """Encode the block of the page with the four panes."""
    digest = inputs()
    writing = [sys.executable, "-m", "eval.pictures.panes", "--out", str(PANES)]
    return {
        "actions": [writing, (keep, [PANES, digest])],
        "uptodate": [(is_kept, [PANES, digest])],
    }


def task_teaching():
    """Write the goals and minutes of all chapters."""
    target, digest = TABLES / "teaching.md", inputs(*NOTEBOOKS)
    writing = [sys.executable, "-m", "eval.pages.teaching", "--out", str(TABLES)]
    return {
        "actions": [writing, (keep, [target, digest])],
        "task_dep": ["tables"],
        "uptodate": [(is_kept, [target, digest])],
    }


def task_execute():
    """Execute each notebook into a copy."""
    for notebook in CHOSEN:
        target, digest = EXECUTED / notebook.name, inputs(notebook)
        yield {
            "name": notebook.stem,
            "actions": [(execute, [notebook, target]), (keep, [target, digest])],
            "targets": [str(target)],
            "uptodate": [(is_kept, [target, digest])],
        }


def task_book():
    """Render the book, then check its pages: what fails there stays to be looked at."""
    executed = [str(EXECUTED / path.name) for path in NOTEBOOKS]
    return {
        "actions": [(build, [HTML]), [sys.executable, "-m", "eval.gates", str(HTML)]],
        "file_dep": [*executed, *sources(), *files("book/**/*", "_config.yml", "CHANGELOG.md")],
        "task_dep": ["tables", "panes", "execute", "teaching"],
        "targets": [str(HTML / "index.html")],
        "uptodate": [config_changed({"repository": address()})],
    }


def task_pdf():
    """Print the book."""
    return {
        "actions": [[sys.executable, "-m", "eval.pages.printed", str(HTML)]],
        "file_dep": [str(HTML / "index.html")],
        "targets": [str(HTML / "medil-book.pdf")],
    }


def task_draft():
    """Render every page, unchecked, though not every notebook was executed."""
    return {"actions": [(build, [DRAFT])], "task_dep": ["tables", "panes", "execute", "teaching"]}


def execute(notebook: Path, target: Path):
    """Execute one notebook; the copy appears only if every cell ran."""
    print(f"executing {notebook.name} ({PROFILE})", flush=True)
    record(target).unlink(missing_ok=True)
    part = BUILD / "running" / notebook.name  # stays for inspection when a cell fails
    for path in (part, target):
        path.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "papermill", str(notebook), str(part)]
    command += ["-k", "python3", "-p", "profile", PROFILE, "--cwd", str(notebook.parent)]
    command += ["--no-progress-bar", "--execution-timeout", str(CELL_TIMEOUT_S[PROFILE])]
    start = time.monotonic()
    ran = subprocess.run(
        command, env=kernel_environment(), capture_output=True, text=True, **tied()
    )
    if ran.returncode != 0:
        return TaskFailed(f"{notebook.name} failed:\n{ran.stderr[-6000:]}")
    try:
        part.write_text(json.dumps(publishable(json.loads(part.read_text("utf-8")))), "utf-8")
    except ValueError as error:
        return TaskFailed(f"{notebook.name}: {error}")
    os.replace(part, target)
    print(f"executed {notebook.name} in {time.monotonic() - start:.0f} s", flush=True)
    return True


def kernel_environment() -> dict[str, str]:
    """The environment of a notebook: this interpreter's kernel, and its share of the cores."""
    share = max(1, (os.cpu_count() or 1) // DOIT_CONFIG["num_process"])
    return {
        "OMP_NUM_THREADS": str(share),
        "OMP_WAIT_POLICY": "passive",
        "PYDEVD_DISABLE_FILE_VALIDATION": "1",
        # Volumes are freed and asked for all the time; fresh pages cost a fifth of a page's time.
        "MALLOC_MMAP_THRESHOLD_": KEPT_BYTES,
        "MALLOC_TRIM_THRESHOLD_": KEPT_BYTES,
        **os.environ,
        "JUPYTER_PREFER_ENV_PATH": "1",
        "MPLBACKEND": "module://matplotlib_inline.backend_inline",
        "MPLCONFIGDIR": str(Path("_build/matplotlib").resolve()),  # no other environment's fonts
    }


def publishable(notebook: dict) -> dict:
    """Remove papermill's metadata from an executed notebook and hide its parameters.

    Raises:
        ValueError: A cell that draws has no alt text.
    """
    notebook["metadata"].pop("papermill", None)
    for cell in notebook["cells"]:
        metadata = cell["metadata"]
        metadata.pop("papermill", None)
        if "injected-parameters" in metadata.get("tags", []):
            metadata["tags"].append("remove-cell")
        drawn = any("image/png" in output.get("data", {}) for output in cell.get("outputs", []))
        if drawn and not metadata.get("mystnb", {}).get("image", {}).get("alt"):
            first = "".join(cell["source"]).strip().splitlines()[-1]
            raise ValueError(
                f"the cell ending in `{first}` draws, and its metadata has no alt text"
            )
    return notebook


def build(place: Path):
    """Stage the pages, render them, then replace the last book; warnings fail all but a draft."""
    from eval.pages.results import publish_rows
    from eval.rows import RESULTS

    stage()
    out = BUILD / "out"
    shutil.rmtree(out, ignore_errors=True)
    program = Path(sys.executable).with_name("jupyter-book")
    command = [str(program), "build", str(STAGE), "-q", *([] if place == DRAFT else ["-W", "-n"])]
    command += ["--config", str(config()), "--toc", str(ROOT / "book/_toc.yml")]
    command += ["--path-output", str(out)]
    ran = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if ran.returncode != 0:
        reason = ran.stderr.split("Traceback")[0]
        return TaskFailed(f"the book did not build; the last good one stays.\n{reason}")
    rendered = out / "_build/html"
    copy_mathjax(rendered / "_static/mathjax")
    shutil.copytree(ROOT / "book/interactive", rendered / "interactive")  # not on every page
    shutil.copytree(PANES, rendered / "interactive/panes", dirs_exist_ok=True)
    unpack_scripts(rendered / "interactive")
    publish_rows(RESULTS, rendered / "rows")
    publish_downloads(rendered / "_sources/notebooks")
    title = yaml.safe_load((ROOT / "_config.yml").read_text("utf-8"))["title"]
    start = START.format(title=title, address=FIRST_PAGE)
    (rendered / "index.html").write_text(start, "utf-8")
    shutil.rmtree(place, ignore_errors=True)
    os.replace(rendered, place)
    return True


def stage() -> None:
    """Link the pages, notebooks as last executed, into a folder that mirrors the checkout."""
    shutil.rmtree(STAGE, ignore_errors=True)
    links = {
        "CHANGELOG.md": ROOT / "CHANGELOG.md",
        "_static": ROOT / "book/_static",
        "book": ROOT / "book",
        "tables": TABLES,
        "panes": PANES,
        **{f"notebooks/{path.name}": last_executed(path) for path in NOTEBOOKS},
    }
    for name, path in links.items():
        (STAGE / name).parent.mkdir(parents=True, exist_ok=True)
        (STAGE / name).symlink_to(path)


def last_executed(notebook: Path) -> Path:
    """The executed copy of a notebook; the notebook itself where there is none."""
    copy = EXECUTED / notebook.name
    return copy if copy.exists() else notebook


def publish_downloads(folder: Path) -> None:
    """Put notebooks in plain Markdown, without outputs, where the pages' download buttons point."""
    from eval.pages.plain import plain, quoted, words_of

    words = words_of(ROOT, TABLES)
    for notebook in NOTEBOOKS:
        values = quoted(json.loads(last_executed(notebook).read_text("utf-8")))
        page = plain(json.loads(notebook.read_text("utf-8")), replace(words, values=values))
        (folder / notebook.name).write_text(json.dumps(page, ensure_ascii=False, indent=1), "utf-8")


def config() -> Path:
    """Write the book's settings, with launch buttons once the repository has a public address."""
    text = (ROOT / "_config.yml").read_text("utf-8")
    if url := address():
        text += f"\nrepository: {{url: {url}, branch: v{medil.__version__}, path_to_book: ''}}\n"
        text += "launch_buttons:\n  colab_url: https://colab.research.google.com\n"
        text += "  binderhub_url: https://mybinder.org\n  notebook_interface: jupyterlab\n"
    path = STAGE / "_config.yml"
    path.write_text(text, "utf-8")
    return path


def unpack_scripts(folder: Path) -> None:
    """Replace packed scripts of others (``.js.xz``) by what they hold."""
    for path in folder.rglob("*.js.xz"):
        path.with_suffix("").write_bytes(lzma.decompress(path.read_bytes()))
        path.unlink()


def copy_mathjax(folder: Path) -> None:
    """Copy MathJax beside the pages, so that they load nothing from other hosts."""
    spec = find_spec("sphinx-mathjax-offline")
    package = Path(spec.origin).parent / "static/mathjax"
    for name in MATHJAX:
        target = folder / name
        target.parent.mkdir(parents=True, exist_ok=True)
        (shutil.copytree if (package / name).is_dir() else shutil.copy)(package / name, target)
