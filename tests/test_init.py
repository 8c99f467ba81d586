"""`paretoformer init`: a study file that says every key, and is accepted as it is."""

from __future__ import annotations

import gzip
import json
import re
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import BaseModel

from paretoformer.search import run as search_run
from paretoformer.search.records.errors import RunError, StudyError
from paretoformer.search.study.columns import Columns, Head, columns_of, read_head
from paretoformer.search.study.spec import Spec, parse_spec, read_spec
from paretoformer.search.study.template import init, study_text
from tests.conftest import Run
from tests.tiny import write_data, write_knowing_study, write_model

GIVEN = {"model": {"path": "org/model"}, "data": {"path": "org/data"}}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("init")
    write_model(found / "my model")
    write_data(found / "data.csv")
    return found


def keys(model: type[BaseModel]) -> set[str]:
    """Every key of a study file."""
    found = set()
    for name, field in model.model_fields.items():
        inner = field.annotation
        section = isinstance(inner, type) and issubclass(inner, BaseModel)
        found |= keys(inner) if section else {name}  # type: ignore[arg-type]
    return found


def go_on_with_guessing_model(file: Path) -> None:
    """A model of random weights is no better than the most frequent class."""
    file.write_text(file.read_text().replace("#check = true", "check = false"))


def test_study_file_is_accepted_as_it_is_written(
    run: Run,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(folder)
    status, output, _ = run("init", "my model", "data.csv")
    assert status == 0
    assert "my-model.toml; text 'text', label 'label'" in output
    go_on_with_guessing_model(folder / "my-model.toml")
    status, plan, errors = run("search", "my-model.toml", "--dry-run")
    assert (status, errors) == (0, "")
    assert "bert, 2 layers x 4 heads" in plan
    assert "batch 1, texts of " in plan
    before = (folder / "my-model.toml").read_text()
    status, _, errors = run("init", "my model", "data.csv")
    assert status == 2
    assert "my-model.toml exists already: choose another --out." in errors
    assert (folder / "my-model.toml").read_text() == before


def test_model_and_data_need_no_study_file(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_knowing_study(tmp_path)
    monkeypatch.chdir(tmp_path)
    status, plan, errors = run("search", "model", "--data", "data.csv", "--dry-run")
    assert (status, errors) == (0, "")
    assert plan.startswith("Guessed: text 'text', label 'label'; task text-classification. ")
    assert "to confirm" in plan
    assert "runs/model, new" in plan
    assert not Path("runs").exists()


def test_study_of_model_and_data_is_kept_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_knowing_study(tmp_path)
    write_data(tmp_path / "other.csv")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(search_run, "prepare", lambda run: run)
    monkeypatch.setattr(search_run, "_execute", lambda run: None)
    folder = search_run.search("model", data="data.csv", trials=3, seed=7)
    kept = folder / "study.toml"
    assert kept == Path("runs/model/study.toml")
    assert (read_spec(kept).trials, read_spec(kept).data.label) == (3, "label")
    assert search_run.search("model", data="data.csv", trials=5, seed=7) == folder
    assert search_run.search(kept) == folder
    assert read_spec(kept).trials == 5
    with pytest.raises(RunError, match=r"holds another study, 'model': data.path is .*data\.csv"):
        search_run.search("model", data="other.csv", seed=7)


def test_columns_that_cannot_be_guessed_are_left_to_init(
    run: Run, folder: Path, tmp_path: Path
) -> None:
    (tmp_path / "d.csv").write_text("a,b,c\n1,2,3\n")
    status, _, errors = run("search", folder / "my model", "--data", tmp_path / "d.csv")
    assert status == 2
    assert f"Name yours: paretoformer init MODEL {tmp_path}/d.csv --text COLUMN." in errors
    assert errors.count("\n") == 1


def test_paths_are_written_from_the_folder_of_the_file(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    file, _ = init("my model", "data.csv", tmp_path / "x.toml")
    spec = parse_spec(file.read_text(), source=file)
    assert spec.model.path == str(folder / "my model")
    assert spec.data.path == str(folder / "data.csv")


def test_every_key_is_there_with_its_default() -> None:
    text = study_text(GIVEN, Path("mine.toml"))
    said = {match[1] for match in re.finditer(r"^#?(\w+) = ", text, re.MULTILINE)}
    assert said == keys(Spec) - {"name"}
    # Without a default, they show an example.
    of_none = r"^#(threads|trials|minutes|distill_minutes|stratify) = .*\n"
    uncommented = re.sub(r"^#(\w+ = )", r"\1", re.sub(of_none, "", text, flags=re.M), flags=re.M)
    assert parse_spec(uncommented, source=Path("mine.toml")) == parse_spec(
        text, source=Path("mine.toml")
    )
    whole = re.sub(r"^#(\w+ = )", r"\1", text, flags=re.M)
    assert parse_spec(whole, source=Path("mine.toml")).target.threads == 4


def test_keys_are_explained_in_the_words_of_the_models() -> None:
    text = study_text(GIVEN, Path("mine.toml"))
    assert "# Candidates to measure, instead of search.minutes." in text
    assert "One of nsga2, tpe, gp, random, surrogate, auto." in text
    assert max(map(len, text.splitlines())) <= 130
    assert not re.search(r"^.+\S#", text, re.MULTILINE)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["text", "label"], Columns("text", "", "label")),
        (["idx", "Sentence1", "Sentence2", "label"], Columns("Sentence1", "Sentence2", "label")),
        (["id", "review", "stars"], Columns("review", "", "stars")),
        (["message", "spam"], Columns("message", "", "spam")),
        (["utterance", "intent"], Columns("utterance", "", "intent")),
        (["text"], Columns("text", "", "")),
    ],
)
def test_columns_are_guessed_from_their_names(names: list[str], expected: Columns) -> None:
    assert columns_of("d.csv", names, None, None, None) == expected


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (["a", "b", "c"], {}, "cannot tell which column of d.csv is the text. It has: a, b, c"),
        (["text", "b", "c"], {}, "which column of d.csv is the label"),
        (["text", "label"], {"text": "txt"}, "no column 'txt'. Did you mean 'text'?"),
    ],
)
def test_column_that_cannot_be_told_is_asked_for(
    names: list[str], given: dict[str, str], message: str
) -> None:
    wanted = {"text": None, "text_pair": None, "label": None} | given
    with pytest.raises(StudyError, match=re.escape(message)):
        columns_of("d.csv", names, **wanted)  # type: ignore[arg-type]


def test_given_columns_are_taken() -> None:
    found = columns_of("d.csv", ["a", "b", "c"], "b", "", "c")
    assert found == Columns("b", "", "c")
    assert columns_of("d.csv", ["a", "b"], "a", None, "") == Columns("a", "", "")


def test_head_of_each_format_is_read(tmp_path: Path) -> None:
    rows = [{"text": "good", "label": 1}, {"text": "bad", "label": 0}]
    (tmp_path / "a.csv").write_text('\ufefftext,"label"\n"a\nb",1\nbad,0\n', encoding="utf-8")
    (tmp_path / "b.csv").write_text("text;label\ngood;1\nbad;0\n")
    (tmp_path / "a.tsv").write_text("text\tlabel\ngood\t1\nbad\t0\n")
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(b"text,label\ngood,1\nbad,0\n"))
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "a.json").write_text(json.dumps(rows, indent=1))
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    for name in ("a.csv", "b.csv", "a.tsv", "a.csv.gz", "a.jsonl", "a.json", "a.parquet"):
        assert read_head(str(tmp_path / name)) == Head(("text", "label"), 2)
    (tmp_path / "a.txt").write_text("good\n")
    assert read_head(str(tmp_path / "a.txt")) == Head(("text",), 1)


def test_file_in_another_encoding_is_asked_for_and_written(
    run: Run,
    folder: Path,
    tmp_path: Path,
) -> None:
    rows = (folder / "data.csv").read_text().splitlines()
    latin = "\n".join([*rows[:1], *(row.replace(",", " d\xe9j\xe0 vu,", 1) for row in rows[1:])])
    (tmp_path / "data.csv").write_text(latin, encoding="latin-1")
    command = ("init", folder / "my model", tmp_path / "data.csv", "--out", tmp_path / "x.toml")
    status, _, errors = run(*command)
    assert status == 2
    assert '--encoding "latin-1"' in errors
    assert run(*command, "--encoding", "latin-1")[0] == 0
    assert 'encoding = "latin-1"' in (tmp_path / "x.toml").read_text()
    go_on_with_guessing_model(tmp_path / "x.toml")
    assert run("search", tmp_path / "x.toml", "--dry-run")[0] == 0


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("absent.csv", None, "no data file"),
        ("a.xlsx", b"x", "use a file that ends in"),
        ("a.csv", b"", "is empty"),
        ("a.csv", b"\x80\x81", "is not utf-8"),
        ("a.json", b"[", "cannot read"),
        ("a.jsonl", b"5\n", "row 1 is no object"),
        ("a.parquet", b"PAR1 no", "cannot read"),
    ],
)
def test_file_that_cannot_be_read_is_named(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(StudyError, match=message):
        read_head(str(tmp_path / name))


def test_model_that_cannot_be_used_leaves_no_file(
    run: Run,
    folder: Path,
    tmp_path: Path,
) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text(json.dumps({"model_type": "gpt_neox"}))
    out = tmp_path / "x.toml"
    status, _, errors = run("init", tmp_path / "other", folder / "data.csv", "--out", out)
    assert status == 2
    assert "Unsupported model family 'gpt_neox'" in errors
    assert errors.count("\n") == 1
    assert not out.exists()
