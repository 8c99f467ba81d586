"""Wrong inputs at random: whatever a file holds, only the promised errors come out, in one line."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tomli_w
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import paretoformer as pf
from paretoformer.search.publish.best import load_best
from paretoformer.search.records.errors import ParetoformerError, StudyError
from paretoformer.search.records.parquet import METADATA, read_front
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.cells import front_table, optimism
from paretoformer.search.report.evidence import shrinkage
from paretoformer.search.report.page import write_report
from paretoformer.search.study.spec import check_varies, parse_spec
from paretoformer.spaces import Candidate
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.common.malformed import digest_of
from tests.conftest import EXAMPLE
from tests.test_exported_folder import as_version
from tests.test_surgery import MASK, WINDOW, tiny

shared_folder = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])

words = st.sampled_from(
    ["", "full", "dense", "1", "0", "torch", "window", "all", "off", "cpu", "a\0b", "\ud800", "é"]
)
numbers = st.sampled_from(
    [0, 1, -1, 2**31, 2**63, 10**30, 0.5, -0.0, float("inf"), float("nan"), 1e-300, True, False]
)
leaves = st.none() | words | numbers
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(words, inner, max_size=3),
    max_leaves=5,
)
Edit = tuple[int, str, Any]
edits = st.lists(
    st.tuples(st.integers(0, 10**6), st.sampled_from(["set", "drop", "add"]), values),
    min_size=1,
    max_size=2,
)
"""Which of all places in a value, what to do there, and what to put there."""


def places(data: Any) -> list[tuple[Any, Any]]:
    """Every (container, key) in a value of lists and objects."""
    found: list[tuple[Any, Any]] = []
    pairs = data.items() if isinstance(data, dict) else enumerate(data)
    for key, value in list(pairs):
        found.append((data, key))
        if isinstance(value, dict | list):
            found += places(value)
    return found


def edited(data: Any, changes: list[Edit]) -> Any:
    """A copy with some places changed."""
    data = json.loads(json.dumps(data))
    for where, how, value in changes:
        there = places(data)
        if not there:
            break
        container, key = there[where % len(there)]
        if how == "drop":
            del container[key]
        elif how == "add" and isinstance(container, dict):
            container[f"more{where % 7}"] = value
        else:
            container[key] = value
    return data


def check(do: Callable[[], Any], *promised: type[Exception]) -> None:
    """Done, or refused in one line by a promised error."""
    said = ""
    try:
        do()
    except promised as error:
        said = str(error) or "nothing\n"
    assert "\n" not in said


CANDIDATE = json.loads(
    Candidate(
        MASK,
        (WINDOW, WINDOW),
        feed_forward=NeuronMask((b"\xff" + bytes(7), b""), 64),
        readout="first",
        runtime="onnxruntime:int8",
    ).to_json()
)
"""With a value of every kind."""


@given(edits)
def test_candidate_or_value_error(changes: list[Edit]) -> None:
    def read() -> None:
        candidate = Candidate.from_json(json.dumps(edited(CANDIDATE, changes)))
        assert Candidate.from_json(candidate.to_json()) == candidate
        assert candidate.id
        assert hash(candidate) == hash(candidate)
        assert repr(candidate)

    check(read, ValueError)


STUDY = {
    "trials": 6,
    "seed": 3,
    "objectives": ["accuracy", "latency_ms"],
    "model": {"path": "m", "task": "text-classification", "trust_remote_code": False},
    "data": {"path": "d.csv", "text": "text", "label": "label", "search_examples": 40},
    "target": {"device": "cpu", "threads": 2, "sequence_length": 64, "dtype": "float32"},
    "space": {"heads": "ranked", "attention": ["full", "window"], "runtime": "all"},
    "recovery": {"least_squares": True, "distill_minutes": 0.5},
    "search": {"sampler": "nsga2", "storage": "", "minutes": 3, "require": ["accuracy>=0.5"]},
    "timing": {"width": 0.02, "search_seconds": 0.2, "confirm_seconds": 1},
}


def without_none(value: Any) -> Any:
    """TOML has none."""
    if isinstance(value, dict):
        return {k: without_none(v) for k, v in value.items() if v is not None}
    if isinstance(value, list):
        return [without_none(each) for each in value if each is not None]
    return value


@given(edits)
def test_study_or_study_error(changes: list[Edit]) -> None:
    text = tomli_w.dumps(without_none(edited(STUDY, changes)))

    def read() -> None:
        spec = parse_spec(text, source=Path("mine.toml"))
        check_varies(spec)
        assert parse_spec(spec.to_toml(), source=Path("mine.toml")) == spec

    check(read, StudyError)


def read_everything(run: Path) -> None:
    """What the commands `front` and `best` read and print."""
    frame, facts = read_front(run)
    front_table(frame, facts)
    optimism(shrinkage(frame, facts), facts)
    found = load_best(run)
    assert found.speedup_text
    assert found.gain is not None


def write_copy(run: Path, name: str, facts: Any, table: pa.Table) -> None:
    run.mkdir(exist_ok=True)
    metadata = {METADATA: facts if isinstance(facts, bytes) else json.dumps(facts).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), run / name)


TABLES = {name: pq.read_table(EXAMPLE / name) for name in ("front.parquet", "trials.parquet")}
METADATA_OF = {name: json.loads(table.schema.metadata[METADATA]) for name, table in TABLES.items()}


@shared_folder
@given(edits)
def test_metadata_or_an_error_of_ours(tmp_path: Path, changes: list[Edit]) -> None:
    name = "front.parquet"
    write_copy(tmp_path / "run", name, edited(METADATA_OF[name], changes), TABLES[name])
    check(lambda: read_everything(tmp_path / "run"), ParetoformerError)


columns = st.tuples(
    st.integers(0, 10**6),
    st.sampled_from(["drop", "null", "text", "number", "list", "bool", "cell", "rename"]),
    st.integers(0, 10**6),
    words,
)


def with_changed_column(table: pa.Table, change: tuple[int, str, int, str]) -> pa.Table:
    """One column gone, of another type, or with another cell."""
    where, how, row, word = change
    index = where % table.num_columns
    field, rows = table.schema.field(index), table.num_rows
    if how == "drop":
        return table.remove_column(index)
    if how == "rename":
        names = [*table.column_names[:index], f"{word!r}", *table.column_names[index + 1 :]]
        return table.rename_columns(names)
    cells = {
        "null": pa.nulls(rows, field.type),
        "text": pa.array([repr(word)] * rows),
        "number": pa.array([row] * rows),
        "list": pa.array([[1.0, float("nan")]] * rows),
        "bool": pa.array([True] * rows),
    }
    if how in cells:
        return table.set_column(index, field.name, cells[how])
    values = table[index].to_pylist()
    strange: Any = repr(word) if pa.types.is_string(field.type) else None
    if pa.types.is_floating(field.type):
        strange = [float("inf"), float("nan"), -1.0, 0.0][row % 4]
    values[row % rows] = strange
    return table.set_column(index, field.name, pa.array(values, field.type))


@shared_folder
@given(st.lists(columns, min_size=1, max_size=2))
def test_columns_or_an_error_of_ours(tmp_path: Path, changes: list[Any]) -> None:
    table = TABLES["front.parquet"]
    for change in changes:
        table = with_changed_column(table, change)
    write_copy(tmp_path / "run", "front.parquet", METADATA_OF["front.parquet"], table)
    check(lambda: read_everything(tmp_path / "run"), ParetoformerError)


@shared_folder
@given(st.sampled_from(sorted(TABLES)), columns, edits)
def test_report_or_an_error_of_ours(
    tmp_path: Path, name: str, change: Any, changes: list[Edit]
) -> None:
    run = Path(shutil.copytree(EXAMPLE, tmp_path / "run", dirs_exist_ok=True))
    write_copy(run, name, METADATA_OF[name], with_changed_column(TABLES[name], change))
    check(lambda: write_report(RunFolder(run)), ParetoformerError)


@shared_folder
@given(st.integers(0, 10**6), st.binary(max_size=8), st.integers(0, 8))
def test_damaged_bytes_are_an_error_of_ours(
    tmp_path: Path, where: int, put: bytes, skip: int
) -> None:
    run = tmp_path / "run"
    run.mkdir(exist_ok=True)
    file = io.BytesIO()
    pq.write_table(TABLES["front.parquet"], file)
    content = file.getvalue()
    at = where % len(content)
    (run / "front.parquet").write_bytes(content[:at] + put + content[at + skip :])
    check(lambda: read_everything(run), ParetoformerError)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A folder of version 3, and what its `compression.json` says."""
    model = pf.compress(tiny("bert"), Candidate(MASK, (WINDOW, WINDOW)))
    folder = pf.save_compressed(model, tmp_path_factory.mktemp("fuzz") / "new")
    return folder, json.loads((folder / "compression.json").read_text())


@pytest.fixture(scope="module")
def older(exported: tuple[Path, Any]) -> tuple[Path, Any]:
    """The same as version 2 wrote it, without a digest of the facts."""
    folder = Path(shutil.copytree(exported[0], exported[0].with_name("older")))
    return folder, as_version(folder, 2)


@given(edits)
def test_new_facts_of_an_export_or_value_error(
    exported: tuple[Path, Any], changes: list[Edit]
) -> None:
    """As by someone who writes the digest anew."""
    folder, facts = exported
    changed = edited(facts, changes)
    if isinstance(changed, dict):
        changed.pop("digest", None)
        changed["digest"] = digest_of(changed)
    (folder / "compression.json").write_text(json.dumps(changed))
    check(lambda: pf.load_compressed(folder), ValueError)


@given(edits)
def test_older_facts_of_an_export_or_value_error(
    older: tuple[Path, Any], changes: list[Edit]
) -> None:
    folder, facts = older
    (folder / "compression.json").write_text(json.dumps(edited(facts, changes)))
    check(lambda: pf.load_compressed(folder), ValueError)


@shared_folder
@given(edits)
def test_config_of_version_1_or_value_error(
    exported: tuple[Path, Any], tmp_path: Path, changes: list[Edit]
) -> None:
    folder = tmp_path / "first"
    if not folder.exists():
        shutil.copytree(exported[0], folder)
        (folder / "compression.json").write_text(json.dumps(exported[1]))
        as_version(folder, 1)
        shutil.copy(folder / "config.json", folder / "config.before")
    config = json.loads((folder / "config.before").read_text())
    (folder / "config.json").write_text(json.dumps(edited(config, changes)))
    check(lambda: pf.load_compressed(folder), ValueError)
