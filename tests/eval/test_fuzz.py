"""Fuzzed readers: seeds, packed inputs, former finds and random mutations end as they should."""

from __future__ import annotations

import argparse
import functools
import json
import lzma
import sys
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import safetensors.torch
import torch

pytest.importorskip("hypothesis", reason="hypothesis (extra dev) is not installed")
pytest.importorskip("nrrd", reason="pynrrd (extra nrrd) is not installed")
pytest.importorskip("pydicom", reason="pydicom (extra dicom) is not installed")
pytest.importorskip("zarr", reason="zarr (extra store) is not installed")

from hypothesis import given, settings
from hypothesis import strategies as st

from eval import rows
from eval.fuzz import EXPERIMENT, guided, judge, measure, report
from eval.fuzz.corpus import CORPUS, MOST, read_corpus, write_corpus
from eval.fuzz.guided import dictionary, fuzzed, watched
from eval.fuzz.judge import Judge, fault_of
from eval.fuzz.targets import MOST_BYTES, TARGETS, Target, emptied, written
from medil.errors import InputError
from medil.system.tensors import read_tensors

FEW = settings(max_examples=20, derandomize=True, database=None, deadline=None)
KNOWN = read_corpus()
each_target = pytest.mark.parametrize("target", TARGETS, ids=lambda target: target.name)


@st.composite
def mutated(draw, inputs: list[bytes]) -> bytes:
    """An input with one to three parts set, put in, taken out or cut off."""
    content = draw(st.sampled_from(inputs))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, max(0, len(content) - 1)))
        new = draw(st.binary(max_size=8) | st.sampled_from([b"NaN", b"-1", b"[]", b"null", b'"']))
        rest = content[at + draw(st.sampled_from([0, 1, len(new), 40])) :]
        content = content[:at] + new + draw(st.sampled_from([rest, rest, rest, b""]))
    return content


@pytest.fixture
def place(tmp_path):
    return emptied(tmp_path / "place")


@pytest.fixture(scope="module")
def seeds_of(tmp_path_factory):
    """The seeds of a target, made once."""
    place = tmp_path_factory.mktemp("seeds")
    return functools.cache(lambda target: target.seeds(emptied(place / "of")))


@each_target
def test_seeds_and_mutations_end_in_a_value_or_one_sentence(target, place, seeds_of):
    seeds = seeds_of(target)
    judged = Judge(target, place)
    for content in seeds[:: max(1, len(seeds) // 20)]:
        judged(content)

    @FEW
    @given(content=mutated([*seeds, *KNOWN.get(target.name, [])]))
    def mutate(content):
        judged(content)

    mutate()
    assert judged.finds == {} and judged.executions > 20


@each_target
def test_packed_inputs_end_in_a_value_or_one_sentence(target, place):
    judged = Judge(target, place)
    for content in KNOWN.get(target.name, [])[::2]:
        judged(content)
    assert judged.finds == {}


def test_the_packed_inputs_are_small_and_belong_to_targets():
    assert CORPUS.stat().st_size < 200_000
    assert set(KNOWN) <= {target.name for target in TARGETS}
    assert all(0 < len(inputs) <= MOST for inputs in KNOWN.values())
    assert max(len(content) for inputs in KNOWN.values() for content in inputs) <= MOST_BYTES


def test_seeds_fit_and_there_are_a_million_executions(seeds_of):
    assert sum(target.runs for target in TARGETS) >= 1_000_000
    for target in TARGETS:
        assert 0 < max(map(len, seeds_of(target))) <= MOST_BYTES


# The judge


def fault(read, place) -> str:
    return fault_of(Target("x", read, lambda folder: [b""], 1), b"", place)


def test_the_judge_sees_what_is_no_value_and_no_sentence(place, monkeypatch):
    def raises(error):
        def read(content, folder):
            raise error

        return read

    assert fault(lambda content, folder: 1, place) == ""
    assert fault(raises(InputError("it is short.")), place) == ""
    assert fault(raises(InputError("no end")), place).startswith("it is no sentence")
    assert fault(raises(KeyError("x")), place).startswith("it raises KeyError: test_fuzz.py:")
    monkeypatch.setattr(judge, "MOST_S", 0.05)

    def spin(content, folder):
        while True:
            pass

    assert fault(spin, place) == "it takes over 0.05 s"


def test_the_judge_sees_memory_and_keeps_the_first_input_of_a_fault(place, monkeypatch):
    monkeypatch.setattr(judge, "MOST_MB", 20.0)
    judged = Judge(Target("x", lambda c, f: len(c) and np.ones(6_000_000), list, 1), place)
    judge._forget_peak()
    for content in (b"", b"a", b"b"):
        judged(content)
    assert judged.executions == 3 and judged.peak_mb > 30
    assert list(judged.finds.items()) == [("it takes too much memory", b"a")]


def test_a_corpus_is_packed_and_read_again(tmp_path):
    many = {"a": [bytes([k]) for k in range(2 * MOST)], "b": [b"x"]}
    path = write_corpus(many, tmp_path / "c.tar.xz")
    assert read_corpus(path) == {"a": many["a"][::2], "b": [b"x"]}
    assert lzma.decompress(path.read_bytes()) and read_corpus(tmp_path / "none") == {}


def test_words_and_functions_for_the_fuzzer():
    words = dictionary([b'{"spacing_mm": 1}'])
    assert '"' + "".join(f"\\x{byte:02x}" for byte in b"spacing_mm") + '"' in words
    modules = {function.__module__ for function in watched()}
    assert {"medil.volume", "nibabel.nifti1"} <= modules
    assert not any(name.startswith(("torch", "eval.fuzz")) for name in modules)


def test_guided_runs_count_and_find():
    pytest.importorskip("atheris", reason="atheris (extra fuzz) is not installed")

    def read(content, folder):
        if content[:1] == b"b":
            raise KeyError(content)

    found = fuzzed(Target("x", read, lambda folder: [b"a", b"b"], 1), 300)
    assert found.executions == 300 and found.took_s > 0
    ((fault, content),) = found.finds.items()
    assert "KeyError" in fault and content.startswith(b"b")


# The engine, without atheris


class Ended(BaseException):
    """In place of the end of the forked process."""


@pytest.fixture
def engine(monkeypatch):
    """A stub of atheris: it gives the function every seed, and keeps one input of its own."""

    def setup(arguments, one):
        stub.arguments, stub.one = arguments, one

    def fuzz():
        corpus = Path(stub.arguments[1])
        seeds = sorted(corpus.iterdir())
        stub.seeds = [path.read_bytes() for path in seeds]
        (corpus / ("b" * 40)).write_bytes(b"new")
        for content in [*stub.seeds, b"new"]:
            stub.one(content)

    stub = SimpleNamespace(Setup=setup, Fuzz=fuzz, instrument_func=lambda f: watching.append(f))
    watching = stub.watching = []
    monkeypatch.setitem(sys.modules, "atheris", stub)
    return stub


def read_b(content, folder):
    """A reader that has a fault for what begins with b."""
    if content[:1] == b"b":
        raise KeyError(content)


B = Target("x", read_b, lambda folder: [b"a", b"bad"], 400)


def test_the_engine_starts_from_seeds_and_known_inputs_and_ends_after_its_runs(
    engine, tmp_path, monkeypatch
):
    def end(code):
        raise Ended(code)

    sent = []
    monkeypatch.setattr(guided.os, "_exit", end)
    monkeypatch.setattr(guided.os, "dup2", lambda *_: None)  # no output is lost here
    with pytest.raises(Ended):
        guided._work(SimpleNamespace(send=sent.append), B, 4, [b"known"], 6, tmp_path)
    assert engine.seeds == [b"a", b"bad", b"known"]
    (result,) = sent
    assert result.executions == 4 and result.corpus == (b"new",)
    assert list(result.finds.values()) == [b"bad"]
    options = dict(text[1:].split("=") for text in engine.arguments[2:])
    assert options["seed"] == "7" and options["max_len"] == str(MOST_BYTES)
    words = (tmp_path / "words").read_text("ascii").splitlines()
    assert words == dictionary([b"a", b"bad", b"known"])
    assert read_tensors.__module__ in {function.__module__ for function in engine.watching}


def test_a_reader_that_ends_its_process_is_a_find_with_its_input(engine, monkeypatch):
    def die(pipe, target, runs, known, seed, folder):
        (folder / "crash-1").write_bytes(b"boom")
        guided.os._exit(77)

    monkeypatch.setattr(guided, "_work", die)
    found = fuzzed(B, 10)
    assert found.executions == 0 and found.finds == {"its process ends with 77": b"boom"}


def test_what_a_forked_engine_found_comes_back(engine, monkeypatch):
    monkeypatch.setattr(guided, "watched", lambda: iter(()))
    found = fuzzed(B, 4, [b"known"])
    assert found.executions == 4 and list(found.finds.values()) == [b"bad"]


# Measuring


def fuzzing(tmp_path, **more):
    defaults = {"target": None, "profile": "quick", "keep": None}
    return argparse.Namespace(**{**defaults, **more})


def test_tasks_are_one_a_reader_of_a_hundredth_of_the_runs_and_keep_what_they_found(
    tmp_path, monkeypatch, capsys
):
    given = []

    def found(target, runs, known):
        given.append((runs, list(known)))
        return guided.Fuzzed(runs, 2.0, 0.5, 3.0, {"it raises KeyError": b"bad"}, (b"new",))

    provenance = rows.Provenance.now("quick")
    monkeypatch.setattr(measure, "fuzzed", found)
    monkeypatch.setattr(measure, "version", lambda name: "1.2")
    names = [task.name for task in measure.tasks(fuzzing(tmp_path), provenance)]
    assert names == [target.name for target in TARGETS]
    target = TARGETS[0]
    options = fuzzing(tmp_path, target=target.name, keep=tmp_path / "kept")
    (task,) = measure.tasks(options, provenance)
    made = task.measure()
    assert {row.identity for row in made} == task.wanted
    assert given == [(target.runs // measure.QUICK, KNOWN.get(target.name, []))]
    values = {row.metric: row.value for row in made}
    assert values == {
        "executions": given[0][0], "finds": 1, "kept": 1, "slowest_s": 0.5, "peak_mb": 3.0
    }  # fmt: skip
    split = measure.factors(pd.Series([made[0].condition])).iloc[0]
    assert split["engine"] == "atheris 1.2" and "nibabel 1.2" in split["packages"]
    assert capsys.readouterr().err == f"{target.name}: it raises KeyError\n"
    assert (tmp_path / f"kept/{target.name}-0.bin").read_bytes() == b"bad"
    corpus = read_corpus(tmp_path / "kept/corpus.tar.xz")[target.name]
    assert b"new" in corpus and set(corpus) <= {*KNOWN.get(target.name, []), b"new"}


def test_without_the_engine_one_sentence_says_what_is_missing(monkeypatch, tmp_path):
    def missing(name):
        raise PackageNotFoundError(name)

    monkeypatch.setattr(measure, "version", missing)
    with pytest.raises(InputError, match="fuzzing needs atheris"):
        measure.tasks(fuzzing(tmp_path), rows.Provenance.now("quick"))


# What it found: each was something else than a sentence once

DEEP = b"[" * 5000
FINDS = [
    ("facts of a latent", b"{}"),
    ("facts of a latent", b"[]"),
    ("facts of a latent", DEEP),
    ("facts of a latent", b'{"native": {"shape": [1e400, 1, 1], "affine_vox2ras": []}}'),
    ("configuration", b"{"),
    ("configuration", b'{"' + b"x" * 600 + b'": 1}'),
    ("configuration", b'{"a\x01  b": 1}'),
    ("configuration", DEEP),
    ("settings", b"d\x01    \0te"),
    ("settings", b"model.operator=" + b"x" * 600),
    ("store", b'{"attributes": {"format": "medil-store-1"}}'),
    ("store", DEEP),
    ("volume in a store", b'{"attributes": {"name": "a"}}'),
    (
        "volume in a store",
        b'{"attributes": {"name": "a", "sha256": "b", "source": "c", "levels": []}}',
    ),
    ("rows", DEEP),
    ("manifest", b'name = "x  y"'),
    ("manifest", b'"a  b" = 1'),
    ("BIDS tables", b"participant_id\tsession_id\n\tx\n\ty\n"),
]


@pytest.mark.parametrize("number", range(len(FINDS)))
def test_what_was_found_once_is_a_sentence(number, place):
    name, content = FINDS[number]
    target = next(target for target in TARGETS if target.name == name)
    assert fault_of(target, content, place) == ""


def test_a_latent_whose_place_holds_too_large_a_code_is_refused(place):
    target = next(target for target in TARGETS if target.name == "latent")
    found = [read_tensors(written("l", seed, place)) for seed in target.seeds(place)]
    tensors, meta = next(pair for pair in found if '"sform_code"' in pair[1]["facts"])
    facts = json.loads(meta["facts"])
    facts["source"]["place"]["sform_code"] = 157724
    content = safetensors.torch.save(tensors, meta | {"facts": json.dumps(facts)})
    with pytest.raises(InputError, match="metadata cannot be read"):
        target.read(content, place)


def test_a_refusal_of_tensors_does_not_quote_their_header(place):
    target = next(target for target in TARGETS if target.name == "latent")
    header = json.dumps({"mean": {"dtype": "F32" + "c" * 900}}).encode()
    content = len(header).to_bytes(8, "little") + header
    assert fault_of(target, content, place) == ""


def test_a_state_without_random_numbers_or_facts_is_refused(place):
    target = next(target for target in TARGETS if target.name == "run state")
    tensors, meta = read_tensors(written("s", target.seeds(place)[0], place))
    few = {name: value for name, value in tensors.items() if name != "random.torch"}
    odd = tensors | {"random.torch": torch.zeros(3, dtype=torch.uint8)}
    bare = {"format": meta["format"]}
    for held, about in (
        (few, meta),
        (odd, meta),
        (tensors, bare),
        (tensors, bare | {"facts": "{"}),
    ):
        content = safetensors.torch.save(held, about)
        with pytest.raises(InputError, match=r"state\.safetensors"):
            target.read(content, place)
        assert fault_of(target, content, place) == ""


@pytest.mark.parametrize(
    "at",
    [
        "",
        "x",
        "0001-01-01T00:00:00+00:00",
        "2026-13-01T00:00:00",
        "2026-W01-1",
        "2026-01-01T00:00:00+00:80",
    ],
)
def test_a_row_without_a_moment_is_no_row(at, place):
    target = next(target for target in TARGETS if target.name == "rows")
    record = json.loads(target.seeds(place)[1].splitlines()[0]) | {"recorded_at": at}
    content = json.dumps(record).encode()
    assert fault_of(target, content, place) == ""
    with pytest.raises(InputError, match="no whole row"):
        target.read(content, place)


# The report


def recorded(finds: int) -> pd.DataFrame:
    values = {"executions": 1000, "finds": finds, "kept": 3, "slowest_s": 0.25, "peak_mb": 12.4}
    lines = [
        {"subject": name, "metric": metric, "value": value, "time_s": 2.0, "engine": "atheris 3"}
        for name in ("NIfTI", "rows")
        for metric, value in (values | ({"finds": 0} if name == "rows" else {})).items()
    ]
    return pd.DataFrame(lines)


def test_the_table_counts_each_reader_and_all():
    table = report.table(recorded(1)).set_index("Reader")
    assert list(table.index) == ["NIfTI", "rows", "all"]
    assert table.loc["all"].tolist() == [2000, 1, 6, 4, 0.25, 12]


def test_the_verdict_names_what_was_found():
    assert "2,000 executions of 2 readers under atheris 3 ended 0 times" in (
        report.verdict(recorded(0))
    )
    assert "(NIfTI)" in report.verdict(recorded(2))


def test_conditions_are_parsed():
    parsed = EXPERIMENT.factors(pd.Series(["atheris 3 | nibabel 5"]))  # type: ignore[misc]
    assert parsed.iloc[0].tolist() == ["atheris 3", "nibabel 5"]
