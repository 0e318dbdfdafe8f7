"""The build publishes a notebook only when every cell ran and every figure has alt text."""

import json
import subprocess
from pathlib import Path

import pytest
import yaml

pytest.importorskip("doit")
from doit.exceptions import TaskFailed

import dodo
import medil


def cell(source: str, **metadata) -> dict:
    return {"cell_type": "code", "source": source, "metadata": metadata, "outputs": []}


def figure(**metadata) -> dict:
    drawn = cell("plots.compare([scan])", **metadata)
    drawn["outputs"] = [{"output_type": "display_data", "data": {"image/png": "iVBORw0K"}}]
    return drawn


def notebook(*cells: dict) -> dict:
    return {"cells": list(cells), "metadata": {"papermill": {"input_path": "somewhere"}}}


@pytest.fixture
def papermill(monkeypatch, tmp_path):
    """Stand in for papermill: write an executed copy, leave with a code; keep the calls."""
    monkeypatch.setattr(dodo, "BUILD", tmp_path)
    calls = []

    def stand_in(code: int, executed: dict):
        def run(command, **options):
            calls.append((command, options))
            Path(command[4]).write_text(json.dumps(executed), "utf-8")
            return subprocess.CompletedProcess(command, code, stderr="ZeroDivisionError")

        monkeypatch.setattr(dodo.subprocess, "run", run)
        return calls

    return stand_in


def test_a_failing_notebook_publishes_nothing_and_keeps_the_last_good_copy(papermill, tmp_path):
    papermill(1, notebook(cell("1 / 0")))
    target = tmp_path / "executed/00_start.ipynb"
    target.parent.mkdir()
    target.write_text("the last good copy")
    result = dodo.execute(tmp_path / "00_start.ipynb", target)
    assert isinstance(result, TaskFailed)
    assert "ZeroDivisionError" in result.get_msg()
    assert target.read_text() == "the last good copy"
    assert list(target.parent.iterdir()) == [target]


def test_an_executed_notebook_runs_the_venv_s_kernel_with_its_profile(papermill, tmp_path):
    calls = papermill(0, notebook(cell("1")))
    target = tmp_path / "executed/00_start.ipynb"
    assert dodo.execute(tmp_path / "00_start.ipynb", target) is True
    assert json.loads(target.read_text())["cells"][0]["source"] == "1"
    (command, options) = calls[0]
    assert command[command.index("-p") :][:3] == ["-p", "profile", dodo.PROFILE]
    assert options["env"]["JUPYTER_PREFER_ENV_PATH"] == "1"


def test_a_figure_without_alt_text_is_not_published(papermill, tmp_path):
    papermill(0, notebook(figure()))
    target = tmp_path / "executed/00_start.ipynb"
    result = dodo.execute(tmp_path / "00_start.ipynb", target)
    assert isinstance(result, TaskFailed)
    assert "compare([scan])" in result.get_msg()
    assert not target.exists()


def test_the_published_copy_hides_its_parameters_and_where_it_ran():
    injected = cell('profile = "quick"', tags=["injected-parameters"], papermill={"duration": 1})
    drawn = figure(mystnb={"image": {"alt": "Folds stay where they were."}})
    published = dodo.publishable(notebook(injected, drawn))
    assert published["metadata"] == {}
    assert published["cells"][0]["metadata"] == {"tags": ["injected-parameters", "remove-cell"]}
    assert published["cells"][1] == drawn


def test_a_notebook_depends_on_the_package_the_rows_and_the_lock():
    watched = {Path(name).relative_to(dodo.ROOT).as_posix() for name in dodo.sources()}
    assert {"medil/grid.py", "eval/report.py", "requirements.lock"} <= watched
    assert not any("__pycache__" in name for name in watched)


def test_an_executed_notebook_is_kept_until_its_text_profile_or_code_changes(monkeypatch, tmp_path):
    monkeypatch.setattr(dodo, "ROOT", tmp_path)
    monkeypatch.setattr(dodo, "BUILD", tmp_path / "_build")
    (tmp_path / "medil").mkdir()
    notebook, source = tmp_path / "00_start.ipynb", tmp_path / "medil/grid.py"
    target = tmp_path / "_build/00_start.ipynb"
    target.parent.mkdir()
    for path in (notebook, source, target):
        path.write_text("first")

    def kept() -> bool:
        dodo.code.cache_clear()
        return dodo.is_kept(None, None, target, dodo.inputs(notebook))

    for path in (notebook, source):
        assert not kept()
        dodo.keep(target, dodo.inputs(notebook))
        assert kept()
        path.write_text("second")
    assert not kept()
    dodo.keep(target, dodo.inputs(notebook))
    monkeypatch.setattr(dodo, "PROFILE", "paper")
    assert not kept()
    dodo.code.cache_clear()


@pytest.mark.parametrize("url", ["", "https://example.org/own/book"])
def test_pages_have_launch_buttons_once_the_repository_has_an_address(monkeypatch, tmp_path, url):
    monkeypatch.setattr(dodo, "STAGE", tmp_path)
    monkeypatch.setenv("MEDIL_REPOSITORY_URL", url)
    settings = yaml.safe_load(dodo.config().read_text("utf-8"))
    buttons = settings.get("launch_buttons", {})
    assert set(buttons) == ({"colab_url", "binderhub_url", "notebook_interface"} if url else set())
    if url:
        tag = f"v{medil.__version__}"
        assert settings["repository"] == {"url": url, "branch": tag, "path_to_book": ""}


def test_a_download_is_plain_and_quotes_the_values_of_the_executed_page(monkeypatch, tmp_path):
    pytest.importorskip("pybtex")
    prose = {"cell_type": "markdown", "id": "a", "metadata": {}, "source": "{glue:text}`n` numbers"}
    drawn = cell("glue('n', 3)", tags=["hide-input"]) | {"id": "b"}
    executed = drawn | {"outputs": [{"data": {"text/plain": "3"}, "metadata": {}}]}
    executed["outputs"][0]["metadata"]["scrapbook"] = {"name": "n"}
    (tmp_path / "executed").mkdir()
    (tmp_path / "00_start.ipynb").write_text(json.dumps({"cells": [prose, drawn]}))
    (tmp_path / "executed/00_start.ipynb").write_text(json.dumps({"cells": [prose, executed]}))
    monkeypatch.setattr(dodo, "NOTEBOOKS", [tmp_path / "00_start.ipynb"])
    monkeypatch.setattr(dodo, "EXECUTED", tmp_path / "executed")
    (tmp_path / "out").mkdir()
    dodo.publish_downloads(tmp_path / "out")
    page = json.loads((tmp_path / "out/00_start.ipynb").read_text())
    assert page["cells"] == [prose | {"source": ["3 numbers"]}, drawn]
