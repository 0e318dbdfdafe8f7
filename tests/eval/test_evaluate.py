"""`medil evaluate`: what is asked of a scan, measured once, made into pages; and the verb."""

from __future__ import annotations

import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import psutil
import pytest

from eval import rows, rows_file
from eval.evaluate import book as evaluate_book
from eval.evaluate import cases as evaluate_cases
from eval.evaluate import inputs as evaluate_inputs
from eval.evaluate import measure as evaluate
from eval.evaluate import pages as evaluate_pages
from eval.evaluate import report as evaluate_report
from eval.evaluate.inputs import Checked, Plan
from eval.subjects import Scan
from medil.cli import evaluate as verbs_evaluate
from medil.errors import InputError, WriteError
from medil.grid import Grid
from medil.volume import Volume, save
from tests import test_notebooks
from tests.images import ball, full_disk, head, killed_at_the_first_rename, ramp, refused

click = pytest.importorskip("click", reason="click (extra cli) is not installed")


# What is asked


def test_truths_are_exact_means_at_the_same_place_in_mm():
    grid = Grid.from_spacing((15, 14, 13), (1.0, 1.2, 3.0), origin_mm=(5.0, -7.0, 2.0))
    scan = Scan(Volume(ramp(grid), grid), np.ones(grid.shape, bool))
    assert evaluate_cases.halved_axes(grid) == (2, 2, 1)
    native, coarser, half = (ask(scan) for ask in evaluate_cases.CASES.values())
    np.testing.assert_allclose(coarser.target.spacing_mm, (2.0, 2.4, 3.0))
    np.testing.assert_allclose(coarser.truth, ramp(coarser.target), atol=1e-4)
    np.testing.assert_allclose(half.volume.data, ramp(half.volume.grid), atol=1e-4)
    np.testing.assert_allclose(half.target.spacing_mm, grid.spacing_mm)
    np.testing.assert_allclose(half.truth, ramp(half.target), atol=1e-4)
    assert half.target.shape == (14, 14, 13)
    np.testing.assert_array_equal(native.truth, scan.volume.data.double())


OWN = """
import numpy as np
from eval.coders.base import Coder, Kept
from medil.regrid import resample

class Copy(Coder):
    name, title, config = "copy", "Every voxel", {}
    def encode(self, volume):
        return Kept((volume.data.double().numpy(), volume.grid), volume.grid.n_voxels)
    def decode(self, kept, grid):
        return resample(*kept.what, grid)

def make():
    return Copy()
"""


def test_a_users_coder_joins_the_arms_and_names_must_differ(tmp_path):
    (tmp_path / "own.py").write_text(OWN)
    text = f"{tmp_path / 'own.py'}:make"
    names = [c.name for c in evaluate_cases.arms(Plan("tiny", (text,), ()))]
    assert names[:2] == ["medil", "medil_splines"] and names[-1] == "copy"
    with pytest.raises(InputError, match="two arms are called copy"):
        evaluate_cases.arms(Plan("tiny", (text, text), ()))


# Measuring


@pytest.fixture(scope="module")
def recorded(tmp_path_factory) -> tuple[Path, Plan]:
    """One small scan, measured in this process with one linear arm and a copy."""
    place = tmp_path_factory.mktemp("evaluate")
    save(head((16, 16, 16)), place / "one.nii")
    (place / "own.py").write_text(OWN)
    found = evaluate_inputs.check(evaluate_inputs.find([place / "one.nii"])[0][0])
    plan = Plan("tiny", (f"{place / 'own.py'}:make",), (found,))
    path = place / "evaluate.jsonl"
    few = [c for c in evaluate_cases.arms(plan) if c.name in ("dct_ball", "copy")]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluate, "arms", lambda plan: few)
        (task,) = evaluate.tasks(plan, path, rows.Provenance.now("quick"))
        assert task.wanted == evaluate.wanted(plan)
        rows_file.append_rows(path, task.measure())
        assert evaluate.tasks(plan, path, rows.Provenance.now("quick")) == []
    return path, plan


def test_a_copy_is_exact_and_a_second_run_has_nothing_to_do(recorded):
    path, _ = recorded
    frame = rows_file.read_rows(path)
    native = frame[(frame["condition"] == evaluate_report.NATIVE) & (frame["arm"] == "copy")]
    values = native.set_index("metric")["value"]
    assert values["ssim"] == 1.0 and values["nrmse"] == 0.0
    assert np.isnan(values["psnr"])  # no bound for an exact copy
    assert set(frame["condition"]) == set(evaluate_cases.CASES)


def test_a_reports_rows_leave_out_what_it_is_not_about(recorded, tmp_path):
    path, plan = recorded
    frame = rows_file.read_rows(path)
    wanted = frozenset(
        tuple(r[name] for name in rows.IDENTITY)
        for r in frame[frame["arm"] == "copy"].to_dict("records")
    )
    evaluate_book.keep_rows(path, tmp_path, wanted)
    assert set(rows_file.read_rows(tmp_path / path.name)["arm"]) == {"copy"}
    assert plan.volumes[0].name == "one"


def test_a_torn_row_costs_itself_and_not_the_report(recorded, tmp_path, capsys):
    path, plan = recorded
    torn = tmp_path / "report" / "rows" / path.name
    torn.parent.mkdir(parents=True)
    torn.write_bytes(path.read_bytes()[:-30])
    before = len(path.read_bytes().splitlines())
    with pytest.warns(UserWarning, match=f"line {before} is not a row"):
        evaluate_book.keep_rows(torn, tmp_path, evaluate.wanted(plan))
    assert evaluate.prepare(tmp_path / "report", force=False) == torn
    assert "ended in half a row" in capsys.readouterr().out
    evaluate_book.keep_rows(torn, tmp_path, evaluate.wanted(plan))


# The report's folder


def test_a_folder_with_other_things_is_no_report(tmp_path):
    (tmp_path / "thesis.tex").write_text("precious")
    with pytest.raises(InputError, match="holds other things"):
        evaluate.check_folder(tmp_path)
    with pytest.raises(InputError, match="does not exist"):
        evaluate.check_folder(tmp_path / "a" / "b")
    with pytest.raises(InputError, match="is a file"):
        evaluate.check_folder(tmp_path / "thesis.tex")
    evaluate.check_folder(tmp_path / "new")
    evaluate.prepare(tmp_path / "new", force=False)
    evaluate.check_folder(tmp_path / "new")


def test_a_report_that_was_killed_in_its_first_write_is_begun_again(tmp_path):
    out = tmp_path / "report"
    killed_at_the_first_rename(lambda: evaluate.prepare(out, force=False))
    assert [path.name[:6] for path in out.iterdir()] == [".part-"]
    evaluate.check_folder(out)
    evaluate.prepare(out, force=False)
    evaluate.check_folder(out)


def test_a_disk_that_refuses_the_first_write_leaves_no_half_of_a_report(tmp_path):
    with full_disk(), pytest.raises(WriteError, match="File too large"):
        evaluate.prepare(tmp_path / "report", force=False)
    evaluate.check_folder(tmp_path / "report")


def test_force_forgets_the_rows_and_nothing_else(tmp_path):
    path = evaluate.prepare(tmp_path / "report", force=False)
    path.write_text("{}\n")
    (tmp_path / "report" / "notes.txt").write_text("mine")
    assert not evaluate.prepare(tmp_path / "report", force=True).exists()
    assert (tmp_path / "report" / "notes.txt").read_text() == "mine"


def checked(name: str) -> Checked:
    return Checked(name, f"/secret/{name}.nii", "", "d", (16, 16, 16), (1.0, 1.0, 1.0), "RAS",
                   "zeros", 3.0, 0.5, ())  # fmt: skip


def test_pages_name_files_and_never_folders():
    volumes = [checked(f"s*{k}") for k in range(evaluate_book.MOST_PAGES + 2)]
    pages = evaluate_book.notebooks(volumes)
    assert len(pages) == 1 + evaluate_book.MOST_PAGES
    page, parameters = pages["scan_01"]
    assert parameters == {"volume": "s*0"}
    assert "".join(page["cells"][0]["source"]) == r"# s\*0"
    assert "secret" not in str(pages)
    cells = [{"cell_type": "code", "metadata": {"tags": ["injected-parameters"]}, "outputs": []},
             {"cell_type": "code", "metadata": {},
              "outputs": [{"name": "stderr", "text": "/secret"}, {"name": "stdout"}]}]  # fmt: skip
    (kept,) = evaluate_book.without_paths({"cells": cells})["cells"]
    assert kept["outputs"] == [{"name": "stdout"}]


def test_a_finished_book_takes_the_place_of_the_old_one(tmp_path):
    new, place = tmp_path / "part" / "html", tmp_path / "html"
    for folder, text in ((new, "new"), (place, "old")):
        folder.mkdir(parents=True)
        (folder / "index.html").write_text(text)
    evaluate_book.swap(new, place)
    assert (place / "index.html").read_text() == "new"
    assert (tmp_path / "part" / "old-html" / "index.html").read_text() == "old"


# The book


class Programs:
    """In place of `subprocess`: pages are left as they are, and the book is its table of contents.

    What is called is noted; pages of `failing` names fail, as does the book where `unbuilt` says
    so.
    """

    DEVNULL, PIPE = subprocess.DEVNULL, subprocess.PIPE

    def __init__(self) -> None:
        self.called: list[list[str]] = []
        self.signals: list[int] = []
        self.failing, self.unbuilt, self.returncode = "", "", 0

    def Popen(self, command, **options):
        self.called.append(command)
        failed = bool(self.failing) and self.failing in command[3]
        errors = "first\nKeyError: 'x'\n" if failed else ""
        return SimpleNamespace(
            communicate=lambda: (None, errors), returncode=int(failed),
            send_signal=self.signals.append,
        )  # fmt: skip

    def run(self, command, **options):
        self.called.append(command)
        source, html = Path(command[2]), Path(command[-1]) / "_build/html"
        for folder in (html / "_sources", html / "_static"):
            folder.mkdir(parents=True)
        (html / "index.html").write_text((source / "_toc.yml").read_text())
        (html / "intro.html").write_text((source / "intro.md").read_text())
        said = f"{self.unbuilt}Traceback: long"
        return subprocess.CompletedProcess(command, int(bool(self.unbuilt)), None, said)


@pytest.fixture
def programs(monkeypatch) -> Programs:
    pytest.importorskip("doit", reason="doit (extra book) is not installed")
    made = Programs()
    monkeypatch.setattr(evaluate_book, "subprocess", made)
    monkeypatch.setattr("dodo.copy_mathjax", lambda folder: folder.mkdir())
    return made


@pytest.fixture
def report_rows(recorded, tmp_path) -> tuple[Path, Plan]:
    """A report's folder that holds rows alone, and what it is about."""
    path, plan = recorded
    (tmp_path / "report/rows").mkdir(parents=True)
    shutil.copy(path, tmp_path / "report/rows")
    warned = replace(plan.volumes[0], warnings=("It is a *ball*.",))
    return tmp_path / "report", replace(plan, volumes=(warned,))


def few_arms(monkeypatch) -> None:
    for module in (evaluate, evaluate_book):
        known = evaluate_cases.arms
        few = [c for c in known(Plan("tiny", (), ())) if c.name == "dct_ball"]
        monkeypatch.setattr(module, "arms", lambda plan, few=few: few)


def test_a_report_is_a_book_with_tables_and_rows_and_nothing_half_written(
    report_rows, programs, monkeypatch
):
    out, plan = report_rows
    few_arms(monkeypatch)
    index = evaluate_book.build(out, plan, evaluate.wanted(plan), "quick")
    assert {p.name for p in out.iterdir()} == {"index.html", "html", "rows", "tables"}
    assert "url=html/intro.html" in index.read_text()
    toc = (out / "html/index.html").read_text()
    assert toc.index("file: notebooks/09_results") < toc.index("file: notebooks/scan_01")
    words = (out / "html/intro.html").read_text()
    assert "- *one*: It is a *ball*." in words and "[one](notebooks/scan_01.ipynb)" in words
    assert "$" not in words and str(out) not in words
    assert (out / "html/interactive/explorer").is_dir()
    assert not (out / "html/_sources").exists()
    (table,) = (out / "html/rows").glob("evaluate.csv*")
    assert set(pd.read_csv(table)["arm"]) == {"dct_ball"}  # the report is about no other
    papermill = [c for c in programs.called if "papermill" in c]
    assert sorted(Path(c[3]).name for c in papermill) == [
        "09_results.part.ipynb", "scan_01.part.ipynb"
    ]  # fmt: skip
    (scan,) = [c for c in papermill if "volume" in c]
    assert scan[scan.index("volume") + 1] == "one" and scan[scan.index("profile") + 1] == "quick"


@pytest.mark.parametrize(
    ("fails", "said"),
    [("failing", "the page scan_01 did not run: KeyError: 'x'"), ("unbuilt", "no toc. $")],
)
def test_a_report_that_fails_leaves_the_old_one(report_rows, programs, monkeypatch, fails, said):
    out, plan = report_rows
    few_arms(monkeypatch)
    evaluate_book.build(out, plan, evaluate.wanted(plan), "quick")
    before = {p: p.stat().st_mtime_ns for p in out.rglob("*")}
    setattr(programs, fails, {"failing": "scan_01", "unbuilt": "no toc. "}[fails])
    with pytest.raises(InputError, match=said.strip("$ ")):
        evaluate_book.build(out, plan, evaluate.wanted(plan), "quick")
    assert {p: p.stat().st_mtime_ns for p in out.rglob("*") if p != out} == {
        p: t for p, t in before.items() if p != out
    }
    assert bool(programs.signals) == (fails == "failing")  # the other pages are told to end


def test_scans_without_a_page_are_named_and_counted(recorded, monkeypatch):
    few_arms(monkeypatch)
    _, plan = recorded
    volumes = tuple(checked(f"s{k}") for k in range(evaluate_book.MOST_PAGES + 2))
    plan = replace(plan, volumes=volumes)
    frame = evaluate_book.EXPERIMENT.recorded(recorded[0].parent)
    words = evaluate_book.first_page(frame, plan, list(evaluate_book.notebooks(volumes)))
    assert "the other 2 stand in the tables alone" in words["left_out"] and words["n"] == "26"
    assert "s25" in words["scans"] and "scan_26" not in words["scans"]
    assert words["warnings"] == ""


# The pages of scans


def page_of(spacing_mm=(1.0, 1.0, 1.0)) -> evaluate_pages.Page:
    """A page of a ball: one code that copies it and one that keeps half of every detail."""
    volume = head((32, 32, 32), spacing_mm)
    mask = ball(volume.grid)
    mean = float(volume.data.numpy()[mask].mean())
    weaker = Volume(mean + 0.5 * (volume.data.double() - mean), volume.grid)
    rebuilt = {"Copy": Volume(volume.data.double(), volume.grid), "Half": weaker}
    frame = pd.DataFrame(
        {"condition": evaluate_report.NATIVE, "metric": "psnr", "arm": ["copy", "half"],
         "value": [np.nan, 21.0]}
    )  # fmt: skip
    titles = {"Copy": "copy", "Half": "half"}
    return evaluate_pages.Page(checked("x"), Scan(volume, mask), frame, rebuilt, titles)


@pytest.mark.parametrize("spacing_mm", [(1.0, 1.0, 1.0), (1.0, 1.0, 3.0)])
def test_a_copy_keeps_all_detail_and_a_weaker_code_smooths_half_of_it(spacing_mm):
    table = evaluate_pages.detail_table(page_of(spacing_mm)).set_index("Code")
    assert len(table) == 2 * evaluate_pages.BANDS
    np.testing.assert_allclose(table.loc["Copy", ["Kept", "Error"]], [[1, 0]] * 3, atol=1e-9)
    np.testing.assert_allclose(table.loc["Half", ["Kept", "Smoothed"]], 0.5, atol=1e-6)
    np.testing.assert_allclose(table.loc["Half", "Invented"], 0, atol=1e-3)


def test_the_figures_of_a_scan_show_it_and_its_error_at_one_place():
    pytest.importorskip("matplotlib")
    page = page_of((1.0, 1.0, 3.0))
    axes = evaluate_pages.planes_and_errors(page).axes
    panels = axes[:9]
    limits = {(ax.get_xlim(), ax.get_ylim()) for ax in panels[:3]}
    assert {(ax.get_xlim(), ax.get_ylim()) for ax in panels[6:]} == limits
    low, high = panels[6].images[0].get_clim()
    assert low == -high
    curve, _ = evaluate_pages.detail_curves(page).axes
    assert curve.get_xlim() == (0, 0.5)
    assert any(line.get_linestyle() == "-." for line in curve.lines)


def test_the_first_words_of_a_page_are_what_was_recorded():
    told = evaluate_pages.summary_sentence(page_of())
    assert "Copy a copy" in told and "Half 21.00 dB" in told and "n = 1" in told


def test_the_template_of_a_scans_page_is_a_thin_notebook_with_alt_text():
    path = evaluate_book.TEMPLATES / "volume.ipynb"
    for rule in (
        test_notebooks.test_stored_without_outputs,
        test_notebooks.test_no_code_cell_is_longer_than_a_screen,
        test_notebooks.test_every_figure_has_alt_text_and_a_caption,
        test_notebooks.test_one_tagged_cell_holds_the_parameters,
        test_notebooks.test_cells_have_ids_and_they_differ,
    ):
        rule(path)
    drawing = [c for c in test_notebooks.code_cells(path) if test_notebooks.draws(c)]
    assert len(drawing) == 2


@pytest.mark.slow
@pytest.mark.notebook
def test_a_whole_report_names_no_folder_and_a_second_call_measures_nothing(tmp_path):
    save(head((20, 20, 20)), tmp_path / "one.nii")
    command = [sys.executable, "-m", "eval.evaluate", str(tmp_path / "one.nii")]
    command += ["--out", str(tmp_path / "report"), "--workers", "0"]
    for first in (True, False):
        ran = subprocess.run(command, cwd=evaluate_book.ROOT, capture_output=True, text=True)
        assert ran.returncode == 0, ran.stderr[-3000:]
        assert ran.stdout.startswith("0 new rows") is not first
    report = tmp_path / "report"
    assert (report / "index.html").is_file() and (report / "tables/evaluate.csv").is_file()
    pages = [p for p in (report / "html").rglob("*") if p.is_file()]
    assert (report / "html/notebooks/scan_01.html") in pages
    for page in pages:
        assert str(tmp_path).encode() not in page.read_bytes(), page.name
    names = {p.name for p in report.iterdir()}
    assert names == {"index.html", "html", "rows", "tables", "report.json"}


# The verb


def test_help_shows_an_example(run_medil):
    code, out, _ = run_medil("evaluate", "--help")
    assert code == 0 and "Example: medil evaluate" in out


def test_the_wheel_alone_says_what_it_lacks(run_medil, monkeypatch, tmp_path):
    monkeypatch.setattr(verbs_evaluate, "__file__", str(tmp_path / "medil" / "cli" / "x.py"))
    refused(run_medil("evaluate", "scans", "-o", tmp_path / "report"), "clone the repository")


def test_missing_packages_are_named(run_medil, monkeypatch, tmp_path):
    monkeypatch.setattr(verbs_evaluate, "NEEDED", ("numpy", "no_such_package"))
    refused(run_medil("evaluate", "scans", "-o", tmp_path / "r"), "needs no_such_package")


def test_what_was_typed_reaches_the_suite_with_absolute_paths(run_medil, monkeypatch, tmp_path):
    calls = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verbs_evaluate, "NEEDED", ())
    monkeypatch.setattr(verbs_evaluate, "run_program", lambda *c: calls.append(c) or 130)
    typed = ("evaluate", "a.nii", "b", "-o", "r", "--coder", "m.py:make", "--workers", 0)
    assert run_medil(*typed)[0] == 130
    ((command, folder),) = calls
    assert folder == Path(verbs_evaluate.__file__).parents[2]
    assert command[1:5] == ["-m", "eval.evaluate", str(tmp_path / "a.nii"), str(tmp_path / "b")]
    assert f"{tmp_path / 'm.py'}:make" in command
    assert command[command.index("--workers") + 1] == "0"
    refused(run_medil(*typed, "--preset", "tiny", "--weights", "w"), "name only one")


def test_a_programs_exit_code_is_passed_on(tmp_path):
    program = [sys.executable, "-c", "raise SystemExit(7)"]
    assert verbs_evaluate.run_program(program, tmp_path) == 7


def test_an_interrupt_is_passed_on_and_waited_for(tmp_path):
    listen = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    child = listen + (  # whoever runs the tests may ignore Ctrl-C, and that is inherited
        "import time\n"
        "try:\n    open('ready', 'w').close(); time.sleep(60)\n"
        "except KeyboardInterrupt:\n    open('told', 'w').close(); raise SystemExit(130)\n"
    )
    parent = listen + (
        "import os, signal, sys, threading, time\n"
        "from pathlib import Path\n"
        "import medil.cli.evaluate as v\n"
        "v.PATIENCE_S = 4\n"
        "def press():\n"
        "    while not Path('ready').exists(): time.sleep(0.02)\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "threading.Thread(target=press).start()\n"
        "sys.exit(v.run_program([sys.executable, '-c', sys.argv[1]], Path('.')))\n"
    )
    root = Path(verbs_evaluate.__file__).parents[2]
    ran = subprocess.run([sys.executable, "-c", parent, child], cwd=tmp_path,
                         env={"PYTHONPATH": str(root)}, capture_output=True, text=True)  # fmt: skip
    assert ran.returncode == 130, ran.stderr
    assert (tmp_path / "told").exists()


def test_a_killed_verb_takes_the_suite_with_it(tmp_path):
    parent = (
        "import sys\nfrom pathlib import Path\nimport medil.cli.evaluate as v\n"
        "program = 'import os, time; print(os.getpid(), flush=True); time.sleep(60)'\n"
        "v.run_program([sys.executable, '-c', program], Path('.'))\n"
    )
    command = [sys.executable, "-c", parent]
    environment = {"PYTHONPATH": str(Path(verbs_evaluate.__file__).parents[2])}
    pipe = {"stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, cwd=tmp_path, env=environment, **pipe) as verb:
        suite = psutil.Process(int(verb.stdout.readline()))
        verb.kill()
        assert suite.wait(timeout=10) is None  # not a child of this process
