"""Several machines: hosts, trials that kill one of them, and what is said of recorded rows."""

import subprocess
import sys

import pandas as pd
import pytest

from eval.machines import EXPERIMENT, hosts, measure, report, trials
from eval.rows import SCHEMA, Provenance
from medil.cli import run

CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), 10)"
SERVE = (
    "import socket, sys; made = socket.create_server((sys.argv[1], 0)); "
    "print(made.getsockname()[1], flush=True); made.accept()"
)


def test_hosts_reach_one_another_and_leave_nothing(monkeypatch):
    with hosts.hosts(2) as (one, other):
        assert one.address != other.address
        python = [sys.executable, "-c"]
        serve = [*one.prefix, *python, SERVE, one.address]
        server = subprocess.Popen(serve, stdout=subprocess.PIPE, text=True)
        port = server.stdout.readline().strip()
        subprocess.run([*other.prefix, *python, CONNECT, one.address, port], check=True)
        assert server.wait(10) == 0
    if one.kind == hosts.NAMESPACES:
        listed = subprocess.run(["ip", "netns"], capture_output=True, text=True).stdout
        assert one.prefix[-1] not in listed


def test_without_namespaces_hosts_are_addresses_of_the_loopback_network(monkeypatch):
    def refuse(*_):
        raise FileNotFoundError("ip")

    monkeypatch.setattr(hosts, "_ip", refuse)
    with hosts.hosts(2) as places:
        assert [place.address for place in places] == ["127.0.0.2", "127.0.0.3"]
        assert {place.kind for place in places} == {hosts.LOOPBACK}


def test_small_chests_give_the_rows_that_were_promised(monkeypatch):
    monkeypatch.setattr(measure, "COUNTS", {"quick": (1, 2)})

    def verb(places, out, options, name):
        assert name == "store" and run(["store", *map(str, places), "-o", str(out)]) == 0
        return {"verb_s": 1.0, "cpu_s": 1.0, "peak_rss_mb": 200.0}

    monkeypatch.setattr(measure, "run_verb", verb)
    (task,) = measure.of_stores("quick", Provenance.now("quick"))
    made = task.measure()
    assert {row.identity for row in made} == task.wanted
    sizes = {row.condition: row.value for row in made if row.metric == "size_mb"}
    assert 0 < sizes["stored chest CTs 1"] < sizes["stored chest CTs 2"]


def recorded(arm, condition, values):
    return [
        dict.fromkeys(SCHEMA, "x") | {
            "experiment": "machines", "arm": arm, "condition": condition, "metric": metric,
            "value": float(value), "recorded_at": pd.Timestamp("2026-01-01", tz="UTC"),
        }
        for metric, value in values.items()
    ]  # fmt: skip


def test_tables_and_sentences_follow_the_rows():
    loss = {"ended_s": 5, "exit_code": 2, "sentences": 1, "half_written": 0, "done_before": 3,
            "done": 12, "left_running": 0, "difference": 1e-7}  # fmt: skip
    store = {"cpu_s": 3.6, "peak_rss_mb": 300, "peak_ratio": 1.0, "again_s": 1, "size_mb": 9}
    frame = EXPERIMENT.prepare(
        pd.DataFrame(
            recorded("training", "a rank is killed", loss)
            + recorded("preprocess", "a worker is killed", loss | {"exit_code": 0, "sentences": 0})
            + recorded(measure.STORED, "stored chest CTs 100", store)
            + recorded(measure.STORED, "stored chest CTs 1000", store | {"peak_ratio": 1.5})
            + recorded(measure.FULL, measure.FULL, store | {"peak_rss_mb": 800})
            + recorded(
                measure.SIMULATED, "3700 brains prepared, 4 workers", {"hours": 9, "command_mb": 1}
            )
        )
    )
    first, second, third = EXPERIMENT.verdict(frame).splitlines()
    assert first.startswith(
        "A process was killed in 2 trials. In 1 the others went on by themselves"
    )
    assert "take one process 1.0 h" in second and "1,200 MB" in second
    assert "9.0 h with 4" in third
    tables = report.tables(frame)
    assert list(tables["machines_losses"]["Exit code"]) == ["0", "2"]
    assert list(tables["machines_stores"]["Chest CTs"])[-1] == "1 of full size"


@pytest.mark.slow
@pytest.mark.parametrize("what", list(measure.LOSSES), ids=" ".join)
def test_a_lost_machine_costs_no_more_than_the_same_command(what):
    pytest.importorskip("distributed", reason="needs the extra `dask`")
    pytest.importorskip("lightning_fabric", reason="needs the extra `train`")
    arm, condition = what
    about = measure._about(arm, condition, "test")
    made = measure.lose(about, measure.LOSSES[what], Provenance.now("quick"))
    values = {row.metric: row.value for row in made}
    goes_on = condition == "a worker is killed"
    assert values["exit_code"] == (0 if goes_on else 2)
    assert values["sentences"] == (0 if goes_on else 1)
    assert values["half_written"] == 0 and values.get("left_running", 0) == 0
    assert values["done"] == measure.SCANS.get(arm, trials.STEPS)
    assert values.get("difference", 0) < 1e-5
