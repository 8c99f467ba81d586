"""A run folder of version 1, made by that version and never renewed, is still read and resumed."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest

import paretoformer as pf
from paretoformer.evaluators.common.target import Target, machine_facts
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.opening import settled
from paretoformer.search.records.errors import UncheckedWarning
from paretoformer.search.records.parquet import METADATA, read_front, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.spec import load_spec
from paretoformer.spaces import Candidate

FROZEN = Path(__file__).parent / "data" / "v1"


@pytest.fixture
def version_1(tmp_path: Path) -> Path:
    """A copy that believes it was made here: its paths and machine are this machine's."""
    folder = Path(shutil.copytree(FROZEN, tmp_path / "v1"))
    run = folder / "run"
    (run / "study.toml").write_text(
        (run / "study.toml").read_text().replace("/frozen", str(folder))
    )
    waiting = "[timing]\npatience_minutes = 0"  # tests share their machine
    study = folder / "tiny.toml"
    study.write_text(study.read_text().replace("[timing]", waiting))
    machine = json.loads((run / "machine.json").read_text())
    machine["hardware"] = machine_facts(Target())["hardware"]
    (run / "machine.json").write_text(json.dumps(machine))
    for name in ("front", "trials"):
        table = pq.read_table(run / f"{name}.parquet")
        facts = json.loads(table.schema.metadata[METADATA].decode().replace("/frozen", str(folder)))
        facts["machine"] = machine
        metadata = {METADATA: json.dumps(facts).encode()}
        pq.write_table(table.replace_schema_metadata(metadata), run / f"{name}.parquet")
    return folder


def test_front_and_answer_are_read() -> None:
    frame, facts = read_front(FROZEN / "run")
    assert frame["role"].tolist().count("dense") == 1
    assert facts.qualities == ["accuracy"]
    assert facts.requirements == ("accuracy>=dense-0.01",)
    assert facts.model_digest == ""


def test_every_candidate_is_written_as_it_was() -> None:
    for row in read_table(FROZEN / "run" / "trials.parquet")[0].to_pylist():
        candidate = Candidate.from_json(row["candidate"])
        assert (candidate.to_json(), candidate.id) == (row["candidate"], row["candidate_id"])


def test_study_without_a_length_goes_on_with_that_of_the_run(version_1: Path) -> None:
    study = version_1 / "tiny.toml"
    study.write_text(study.read_text().replace("sequence_length = 64\n", ""))
    spec = load_spec(study)
    assert spec.target.sequence_length == "data"
    assert settled(spec, RunFolder(version_1 / "run")).target.sequence_length == 64


def test_length_of_the_study_is_shown() -> None:
    _, facts = read_front(FROZEN / "run")
    assert facts.lengths is None
    assert task_of("text-classification").shown(facts.timed_lengths) == "64 tokens"


def test_model_is_loaded_with_a_note_that_its_weights_cannot_be_compared(version_1: Path) -> None:
    best = pf.load_best(version_1 / "run", "parameters", [])
    with pytest.warns(UncheckedWarning, match="before runs kept a digest of the model's weights"):
        model = best.load_model()
    assert sum(p.numel() for p in model.parameters()) == best.metrics["parameters"].value


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_study_goes_on_with_two_more_trials_and_is_exported(version_1: Path) -> None:
    run = version_1 / "run"
    before = read_table(run / "trials.parquet")[0]["candidate_id"].to_pylist()
    pf.search(version_1 / "tiny.toml", out=run, trials=len(before) + 2, quiet=True)
    after = read_table(run / "trials.parquet")[0]["candidate_id"].to_pylist()
    assert after[: len(before)] == before
    assert len(set(after)) == len(after) == len(before) + 2
    best = pf.load_best(run, "parameters", [])
    folder = pf.save_compressed(best.load_model(), version_1 / "out")
    assert sum(p.numel() for p in pf.load_compressed(folder).parameters()) == (
        best.metrics["parameters"].value
    )
