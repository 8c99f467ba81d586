"""A run folder that was damaged, or written by something else: one line, status 2, no traceback."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from paretoformer.evaluators.common.progress import silent
from paretoformer.search.planning.prepare import prepare
from paretoformer.search.records.errors import RunError, StudyError
from paretoformer.search.records.parquet import METADATA, read_front
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.study.optuna_study import check_storage, open_study
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from tests.conftest import Run
from tests.test_loop import OBJECTIVES
from tests.tiny import write_study

Facts = dict[str, Any]


@pytest.fixture
def copy(example: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(example, tmp_path / "run"))


def rewrite(path: Path, change: Callable[[pa.Table, Facts], Any]) -> None:
    """The table with other columns or other facts in its metadata."""
    table = pq.read_table(path)
    facts = json.loads(table.schema.metadata[METADATA])
    changed = change(table, facts)
    table = changed if isinstance(changed, pa.Table) else table
    metadata = {**(table.schema.metadata or {}), METADATA: json.dumps(facts).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)


def with_column(table: pa.Table, name: str, values: list[Any], kind: Any = None) -> pa.Table:
    index = table.schema.get_field_index(name)
    return table.set_column(index, name, pa.array(values, kind))


def with_cell(table: pa.Table, name: str, row: int, value: Any) -> pa.Table:
    values = table[name].to_pylist()
    values[row] = value
    return with_column(table, name, values, table.schema.field(name).type)


def twice(table: pa.Table, facts: Facts) -> pa.Table:
    return table.append_column("role", table["role"])


def no_rows(table: pa.Table, facts: Facts) -> pa.Table:
    return table.slice(0, 0)


def pandas_of_another(table: pa.Table, facts: Facts) -> pa.Table:
    """Which pandas would take for an index, and fail on."""
    return table.replace_schema_metadata({b"pandas": b'{"index_columns": [7], "columns": 3'})


FACTS: dict[str, tuple[Callable[[pa.Table, Facts], Any], str]] = {
    "no study": (lambda t, f: f.pop("study"), "study"),
    "a list for a study": (lambda t, f: f.update(study=[]), "damaged"),
    "no name": (lambda t, f: f["study"].pop("name"), "study.name"),
    "no data": (lambda t, f: f["study"].pop("data"), "study.data"),
    "words for examples": (
        lambda t, f: f["study"]["data"].update(confirm_examples="many"),
        "study.data.confirm_examples",
    ),
    "no machine": (lambda t, f: f.pop("machine"), "machine"),
    "no hardware": (lambda t, f: f["machine"].pop("hardware"), "machine.hardware"),
    "no threads": (lambda t, f: f["machine"].pop("threads"), "machine.threads"),
    "no metrics": (lambda t, f: f.update(metrics={}), "metric 'accuracy'"),
    "a metric too many": (
        lambda t, f: f["metrics"].update(speed=f["metrics"]["flops"]),
        "no column 'speed'",
    ),
    "no direction": (lambda t, f: f["metrics"]["flops"].pop("direction"), "direction"),
    "another direction": (lambda t, f: f["metrics"]["flops"].update(direction="up"), "'up'"),
    "no objectives": (lambda t, f: f.update(objectives=[]), "two objectives"),
    "an objective of nothing": (lambda t, f: f.update(objectives=["f1", "latency_ms"]), "'f1'"),
    "a text for objectives": (lambda t, f: f.update(objectives="accuracy"), "damaged"),
    "left out nothing": (lambda t, f: f.update(left_out=[1]), "damaged"),
    "a newer schema": (lambda t, f: f.update(schema_version=2), "schema version 2"),
    "a schema in words": (lambda t, f: f.update(schema_version="1"), "schema version '1'"),
}
COLUMNS: dict[str, tuple[Callable[[pa.Table, Facts], Any], str]] = {
    "no role": (lambda t, f: t.drop_columns(["role"]), "no column 'role'"),
    "no candidate": (lambda t, f: t.drop_columns(["candidate"]), "no column 'candidate'"),
    "no interval": (lambda t, f: t.drop_columns(["accuracy_low"]), "no column 'accuracy_low'"),
    "no speedup": (lambda t, f: t.drop_columns(["speedup"]), "no column 'speedup'"),
    "words for numbers": (
        lambda t, f: with_column(t, "latency_ms", ["fast"] * len(t)),
        "column 'latency_ms' holds string",
    ),
    "numbers for words": (lambda t, f: with_column(t, "state", [1] * len(t)), "column 'state'"),
    "a column twice": (twice, "front.parquet is damaged"),
    "no rows": (no_rows, "exactly one row must be the uncompressed model"),
    "two dense": (lambda t, f: with_cell(t, "role", 1, "dense"), "exactly one row"),
    "no dense": (lambda t, f: with_cell(t, "role", 0, "front"), "exactly one row"),
    "a dense that is none": (
        lambda t, f: with_cell(with_cell(t, "role", 0, "front"), "role", 1, "dense"),
        "exactly one row",
    ),
    "an unknown role": (lambda t, f: with_cell(t, "role", 1, "best"), "holds 'best'"),
    "no role in a row": (lambda t, f: with_cell(t, "role", 1, None), "'role' has empty cells"),
    "an unknown state": (lambda t, f: with_cell(t, "state", 1, "done"), "holds 'done'"),
    "a candidate that is none": (
        lambda t, f: with_cell(t, "candidate", 1, "{}"),
        "not a candidate",
    ),
    "another candidate": (
        lambda t, f: with_cell(t, "candidate", 1, t["candidate"][0].as_py()),
        "is another one",
    ),
    "no objective": (lambda t, f: with_cell(t, "accuracy", 1, None), "lacks an objective"),
    "an infinite objective": (
        lambda t, f: with_cell(t, "latency_ms", 1, float("inf")),
        "lacks an objective",
    ),
}


@pytest.mark.parametrize("damage", [*FACTS, *COLUMNS])
def test_damaged_front_ends_every_command_in_one_line(
    run: Run,
    copy: Path,
    damage: str,
    tmp_path: Path,
) -> None:
    change, words = {**FACTS, **COLUMNS}[damage]
    rewrite(copy / "front.parquet", change)
    for command in (["front"], ["front", "--json"], ["best"], ["export"], ["report"]):
        name, *options = command
        more = [tmp_path / "out"] if name == "export" else []
        status, _, error = run(name, copy, *more, *options)
        assert (status, error.count("\n")) == (2, 1), error
        assert "Traceback" not in error
        assert words in error


def test_what_another_program_wrote_of_pandas_is_not_read(copy: Path) -> None:
    rewrite(copy / "front.parquet", pandas_of_another)
    frame, _ = read_front(copy)
    assert "role" in frame.columns


TRIALS: dict[str, tuple[Callable[[pa.Table, Facts], Any], str]] = {
    "no rows": (no_rows, "no trial that was measured"),
    "no complete row": (
        lambda t, f: with_column(t, "state", ["failed"] * len(t)),
        "no trial that was measured",
    ),
    "no flops": (lambda t, f: t.drop_columns(["flops"]), "no column 'flops'"),
    "no message": (lambda t, f: t.drop_columns(["message"]), "no column 'message'"),
    "an unknown state": (lambda t, f: with_cell(t, "state", 1, "done"), "holds 'done'"),
    "no metadata of ours": (
        lambda t, f: f.clear(),
        "schema version None",
    ),
}


@pytest.mark.parametrize("damage", TRIALS)
def test_damaged_trials_end_the_report_in_one_line(run: Run, copy: Path, damage: str) -> None:
    change, words = TRIALS[damage]
    rewrite(copy / "trials.parquet", change)
    status, _, error = run("report", copy)
    assert (status, error.count("\n")) == (2, 1), error
    assert words in error
    assert "trials.parquet" in error
    assert not (copy / "report.html").exists()
    assert run("front", copy)[0] == 0


@pytest.mark.parametrize("content", [b"", b"PAR1", b"{}", bytes(1000), b"PAR1" * 100])
@pytest.mark.parametrize("name", ["front.parquet", "trials.parquet"])
def test_file_that_is_no_parquet_is_named(run: Run, copy: Path, name: str, content: bytes) -> None:
    (copy / name).write_bytes(content)
    status, _, error = run("report", copy)
    assert (status, error.count("\n")) == (2, 1), error
    assert f"{name} is damaged" in error


def test_folder_in_place_of_a_file_is_named(run: Run, copy: Path) -> None:
    (copy / "front.parquet").unlink()
    (copy / "front.parquet").mkdir()
    status, _, error = run("front", copy)
    assert (status, error.count("\n")) == (2, 1), error


MACHINES = ["", "[]", "{}", "null", '{"hardware": 3}', '{"hardware": {"cpu": "x"}}', "[" * 10**5]


@pytest.mark.parametrize("text", MACHINES, ids=lambda text: text[:20])
def test_damaged_machine_is_named(example: Path, tmp_path: Path, text: str) -> None:
    (tmp_path / "machine.json").write_text(text)
    with pytest.raises(RunError, match=r"machine\.json is missing or damaged"):
        RunFolder(tmp_path).check_machine(RunFolder(example).read_machine())


def test_damaged_list_of_workers_names_nobody(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for text in ("", "3", "[[1]]", '["a"]', '[["a", "b"]]', "[[-1, 0.0]]", "[[1e99, 0]]"):
        folder.workers.write_text(text)
        assert folder.living_workers() == []


def test_path_with_a_nul_is_refused() -> None:
    with pytest.raises(RunError, match="holds no NUL"):
        RunFolder("runs/a\0b")


@pytest.mark.parametrize("content", [b"\xff\xfe", b"= 3", b"trials = true", b"a = " + b"[" * 5000])
@pytest.mark.parametrize("command", ["dashboard", "search"])
def test_damaged_study_is_named(
    run: Run,
    tmp_path: Path,
    content: bytes,
    command: str,
) -> None:
    study = tmp_path / "tiny.toml"
    study.write_text('[model]\npath = "m"\n[data]\npath = "d"\n')
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "study.toml").write_bytes(content)
    arguments = (folder,) if command == "dashboard" else (study, "--out", folder)
    status, _, error = run(command, *arguments)
    assert (status, error.count("\n")) == (2, 1), error
    assert "study.toml" in error


@pytest.mark.parametrize("content", [b"no database" * 100, b"SQLite format 3\0" + bytes(5000)])
def test_damaged_storage_is_named(run: Run, tmp_path: Path, content: bytes) -> None:
    (tmp_path / "study.toml").write_text('name = "x"\n[model]\npath = "m"\n[data]\npath = "d"\n')
    (tmp_path / "optuna.db").write_bytes(content)
    status, _, error = run("dashboard", tmp_path)
    assert (status, error.count("\n")) == (2, 1), error
    assert "cannot open the storage" in error
    url = f"sqlite:///{tmp_path}/optuna.db"
    with pytest.raises(StudyError, match="cannot open the storage"):
        open_study("x", url, OBJECTIVES, "random", 0)


@pytest.mark.parametrize(
    "url",
    [
        "sqlite:////absent/study.db",
        "sqlite:///{folder}",
        "sqlite:///:memory:",
        "sqlite://",
        "sqlite:///file:{folder}/study.db?mode=ro&uri=true",
        "nosuch://here",
        "sqlite:///" + "a" * 5000,
        "://",
        "postgresql://nobody:secret@127.0.0.1:1/none",
    ],
)
def test_storage_that_cannot_be_opened_is_named(url: str, tmp_path: Path) -> None:
    with pytest.raises(StudyError, match="cannot open the storage") as caught:
        check_storage(url.format(folder=tmp_path), "new")
    assert "secret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def change_evidence(path: Path, change: Callable[[Facts], Any], *, digest: bool) -> None:
    kept = json.loads(path.read_text())
    change(kept)
    if not digest:
        kept.pop("digest", None)
    path.write_text(json.dumps(kept))


EVIDENCE: dict[str, Callable[[Facts], Any]] = {
    "no facts": lambda kept: kept.pop("facts"),
    "a list of facts": lambda kept: kept.update(facts=[]),
    "no removal order": lambda kept: kept["facts"]["layers"].update(removal=3),
    "layers that are not there": lambda kept: kept["facts"]["layers"].update(removal=[7, 8, 9]),
    "heads of another model": lambda kept: kept["facts"]["heads"].update(removed=[[1.0, 2.0]]),
    "words for numbers": lambda kept: kept["facts"]["heads"].update(removed="much"),
    "no mechanisms": lambda kept: kept["facts"]["attention"].update(choices=[]),
    "unknown forecasts": lambda kept: kept.update(forecasts=["{}"]),
    "forecasts of another model": lambda kept: kept.update(
        forecasts=['{"version":1,"heads":["1"],"attention":[]}']
    ),
    "a programme of nothing": lambda kept: kept.update(programme={"kinds": []}),
    "a programme cut short": lambda kept: kept["programme"].update(removed=[]),
}


@pytest.fixture(scope="module")
def prepared(hasty: None, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Any, Path]:
    """A study's file and subject, and the evidence that it began with."""
    folder = tmp_path_factory.mktemp("evidence")
    extra = '[space]\nruntime = ["torch"]\nattention = ["full", "window"]\n'
    spec = load_spec(write_study(folder, extra=extra))
    subject = load_subject(spec)
    run = RunFolder(folder / "run")
    run.path.mkdir()
    prepare(optuna.create_study(directions=["maximize", "minimize"]), spec, subject, run, silent)
    return spec, subject, run.evidence


@pytest.mark.parametrize("digest", [True, False], ids=["digest", "older"])
@pytest.mark.parametrize("damage", EVIDENCE)
def test_damaged_evidence_is_named(
    prepared: tuple[Any, Any, Path], tmp_path: Path, damage: str, digest: bool
) -> None:
    spec, subject, evidence = prepared
    folder = RunFolder(tmp_path)
    shutil.copy(evidence, folder.evidence)
    change_evidence(folder.evidence, EVIDENCE[damage], digest=digest)
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(RunError, match=r"evidence\.json is damaged") as caught:
        prepare(study, spec, subject, folder, silent)
    assert "\n" not in str(caught.value)


def test_importance_that_was_changed_is_noticed(
    prepared: tuple[Any, Any, Path], tmp_path: Path
) -> None:
    """It would give the stored parameters another meaning."""
    spec, subject, evidence = prepared
    folder = RunFolder(tmp_path)
    shutil.copy(evidence, folder.evidence)
    change_evidence(
        folder.evidence, lambda kept: kept["facts"]["heads"]["removed"].reverse(), digest=True
    )
    study = optuna.create_study(directions=["maximize", "minimize"])
    with pytest.raises(RunError, match="was changed since it was written"):
        prepare(study, spec, subject, folder, silent)
