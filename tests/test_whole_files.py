"""No file under a final name is ever open for writing: outputs go through `atomic_output`."""

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
METHODS = {"write_text", "write_bytes", "touch"}
LIBRARIES = {  # last part of the name, whole name, which argument is written to
    "save": {"nib.save": 1},
    "save_file": {"save_file": 1},
    "savez": {"np.savez": 0},
    "copy": {"shutil.copy": 1},
    "copyfile": {"shutil.copyfile": 1},
}
OTHERWISE = {
    # Appended to: a torn last line is mended.
    "eval/rows_file.py _opened", "medil/training/log.py write",
    # Temporary names and folders that get their own only when they are whole.
    "medil/system/files.py atomic_output", "medil/data/transfer.py _write",
    "medil/io/nifti.py write_nibabel", "medil/io/streams.py __init__",
    "medil/data/samples.py thick_slices", "medil/anatomy/packed.py pack",
    "medil/training/build_store.py _write_array",
    "eval/evaluate/book.py keep_rows", "eval/evaluate/book.py execute",
    "eval/evaluate/book.py write_texts", "eval/evaluate/inputs.py write_plan",
    "eval/changes.py committed", "eval/readers/case.py write", "eval/speed/live.py as_page",
    # A page that is printed and removed; trial folders, and damage done on purpose.
    "eval/pages/printed.py write", "eval/gates/elsewhere.py findings",
    "eval/gates/elsewhere.py share_packages", "eval/reliability/verbs.py _no_pages",
    "eval/reliability/injections.py _damaged", "eval/gates/package.py main",
    "eval/reliability/history.py bad_image", "eval/reliability/history.py bad_manifest",
    "eval/reliability/history.py damaged", "eval/reliability/history.py trial",
    "eval/machines/measure.py _write", "eval/machines/trials.py start_ranks",
    "eval/machines/trials.py write_scans",
    # What a fuzzer feeds and finds: folders of its own. The mark of the system's memory count.
    "eval/fuzz/corpus.py write_corpus", "eval/fuzz/guided.py _work", "eval/fuzz/targets.py _bids",
    "eval/fuzz/targets.py written", "eval/fuzz/targets.py _anatomies",
    "eval/fuzz/measure.py keep_inputs",
    "eval/fuzz/judge.py _forget_peak",
    # Says who holds a lock, and goes with it. Screenshots, for tests.
    "medil/system/lock.py only_writer", "eval/browser.py picture",
}  # fmt: skip


def written_to(call: ast.Call) -> ast.expr | None:
    """What a call writes to; None for one that writes no file."""
    method = call.func if isinstance(call.func, ast.Attribute) else None
    name = method.attr if method else getattr(call.func, "id", "")
    if method and name in METHODS:
        return method.value
    if name in LIBRARIES and (of := LIBRARIES[name].get(ast.unparse(call.func))) is not None:
        return call.args[of]
    if name == "open":
        place, *modes = [method.value, *call.args] if method else call.args
        modes += [keyword.value for keyword in call.keywords if keyword.arg == "mode"]
        texts = [mode.value for mode in modes if isinstance(mode, ast.Constant)]
        return place if any(set("wax+") & set(str(text)) for text in texts[:1]) else None
    return None


def temporaries(function: ast.FunctionDef) -> set[str]:
    """Names that `atomic_output` gives within a function."""
    items = [node for node in ast.walk(function) if isinstance(node, ast.withitem)]
    return {
        ast.unparse(item.optional_vars)
        for item in items
        if item.optional_vars and ast.unparse(item.context_expr).startswith("atomic_output(")
    }


def direct_writes(path: Path) -> Iterator[str]:
    """The functions of a file that write, but not to what `atomic_output` gives."""
    for function in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not isinstance(function, ast.FunctionDef):
            continue
        whole = temporaries(function)
        places = [written_to(node) for node in ast.walk(function) if isinstance(node, ast.Call)]
        for place in filter(None, places):
            if not whole & {n.id for n in ast.walk(place) if isinstance(n, ast.Name)}:
                yield f"{path.relative_to(ROOT)} {function.name}"


def test_every_output_is_written_under_a_temporary_name():
    paths = [path for room in ("medil", "eval") for path in (ROOT / room).rglob("*.py")]
    assert {found for path in paths for found in direct_writes(path)} == OTHERWISE


def test_a_direct_write_is_found(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    lines = ["def write(path):", "    with path.open('w') as file:", "        file.write('half')"]
    (tmp_path / "a.py").write_text("\n".join(lines))
    assert list(direct_writes(tmp_path / "a.py")) == ["a.py write"]
