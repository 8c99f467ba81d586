"""The run folder: files are whole, and what does not belong is refused by name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paretoformer.search.records.dominance import clearly_dominated, nondominated
from paretoformer.search.records.errors import RunError
from paretoformer.search.records.facts import RunFacts
from paretoformer.search.records.parquet import METADATA, read_front, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.spaces import Candidate
from paretoformer.spaces.common.atomic import write_atomically


def test_example_is_a_whole_run(example: Path) -> None:
    frame, _ = read_front(example)
    trials, _ = read_table(example / "trials.parquet")
    assert frame["role"].tolist().count("dense") == 1
    first = trials.to_pylist()[0]
    assert first["trial"] == 0
    assert Candidate.from_json(first["candidate"]).is_dense
    assert len(first["latency_ms_samples"]) >= 8


def test_files_of_the_example_have_schema_version_1(example: Path) -> None:
    for name in ("front.parquet", "trials.parquet"):
        metadata = pq.read_schema(example / name).metadata[METADATA]
        assert json.loads(metadata)["schema_version"] == 1


def test_run_of_before_there_were_roles_has_them(example: Path) -> None:
    text = pq.read_schema(example / "front.parquet").metadata[METADATA]
    data = json.loads(text)
    for metric in data["metrics"].values():  # a later example may have them
        metric.pop("role", None)
        metric.pop("requirement", None)
    facts = RunFacts.from_dict(data)
    assert facts.qualities == ["accuracy"]
    assert facts.requirements == ("accuracy>=dense-0.01",)
    assert facts.costs == [name for name in data["metrics"] if name != "accuracy"]
    assert "latency_ms" in facts.costs
    assert not facts.metrics["latency_ms"].requirement


def test_candidates_in_the_files_are_written_again_byte_for_byte(example: Path) -> None:
    rows = read_table(example / "trials.parquet")[0].to_pylist()
    assert rows
    for row in rows:
        candidate = Candidate.from_json(row["candidate"])
        assert candidate.to_json() == row["candidate"]
        assert candidate.id == row["candidate_id"]


def test_published_points_are_the_front_of_the_trials(example: Path) -> None:
    frame, facts = read_front(example)
    trials = read_table(example / "trials.parquet")[0].to_pandas()
    done = trials[trials["state"] == "complete"]
    directions = [facts.metrics[name].direction for name in facts.objectives]
    values, lows, highs = (
        done[[f"{name}{end}" for name in facts.objectives]].to_numpy()
        for end in ("", "_low", "_high")
    )
    keep = ~clearly_dominated(values, lows, highs, directions)
    assert keep[nondominated(values, directions)].all()
    dense = trials["candidate_id"].iloc[0]
    assert set(frame["candidate_id"]) == set(done["candidate_id"][keep]) | {dense}


def test_damaged_file_is_named(tmp_path: Path, example: Path) -> None:
    damaged = tmp_path / "front.parquet"
    damaged.write_bytes((example / "front.parquet").read_bytes()[:-100])
    with pytest.raises(RunError, match=r"front\.parquet is damaged"):
        read_table(damaged)


def test_foreign_parquet_is_refused(tmp_path: Path) -> None:
    pq.write_table(pa.table({"a": [1]}), tmp_path / "front.parquet")
    with pytest.raises(RunError, match="was not written by paretoformer"):
        read_front(tmp_path)


def test_newer_schema_is_refused_with_both_versions(tmp_path: Path) -> None:
    metadata = {b"paretoformer": json.dumps({"schema_version": 9}).encode()}
    table = pa.table({"a": [1]}).replace_schema_metadata(metadata)
    pq.write_table(table, tmp_path / "front.parquet")
    with pytest.raises(RunError, match="schema version 9, and this paretoformer reads version 1"):
        read_front(tmp_path)


def test_file_is_whole_or_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_atomically(path, "old")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", lambda *args: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            write_atomically(path, "new")
    assert path.read_text() == "old"


def test_another_machine_is_refused_by_name(example: Path) -> None:
    folder = RunFolder(example)
    machine = folder.read_machine()
    machine["hardware"] = machine["hardware"] | {"cpu": "Imaginary 9000"}
    with pytest.raises(RunError, match=r"measured on another machine, .*Imaginary 9000"):
        folder.check_machine(machine)


@pytest.mark.parametrize("stored", [True, False])
def test_cpu_of_equal_name_with_other_instructions_is_another_machine(
    example: Path, tmp_path: Path, stored: bool
) -> None:
    """Where a run did not store them, as older ones, the name decides."""
    machine, folder = RunFolder(example).read_machine(), RunFolder(tmp_path)
    here = {**machine, "hardware": {**machine["hardware"], "instructions": "AVX-512 VNNI"}}
    write_atomically(folder.machine, json.dumps(here if stored else machine))
    folder.check_machine(here)
    if stored:
        here["hardware"] = {**here["hardware"], "instructions": "AVX2"}
        with pytest.raises(RunError, match=r" with AVX-512 VNNI, .*this one is .* with AVX2, "):
            folder.check_machine(here)


def test_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RunError, match="holds other files"):
        RunFolder(tmp_path).check_free()


def test_one_process_at_a_time(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with folder.locked(), pytest.raises(RunError, match="in use by another"), folder.locked():
        pass
    with folder.locked():
        pass


def test_worker_lives_until_it_ends_even_if_nobody_reaps_it(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        worker = psutil.Process(process.pid)
        folder.record_workers([(worker.pid, worker.create_time())])
        assert folder.living_workers() == [worker]
        worker.kill()
        os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOWAIT)  # ended, and not reaped
        assert worker.status() == psutil.STATUS_ZOMBIE
        assert folder.living_workers() == []
