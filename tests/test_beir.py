"""Folders of a corpus, queries and relevances, as BEIR's: rows of a query and its passages."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from paretoformer.evaluators.data import beir
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.rows import read_examples
from paretoformer.evaluators.data.table import DataError
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.template import init
from tests.test_feature_extraction import write_embedder

SOURCE = DataSource(text="query", text_pair="passage", label="label")
QRELS = "query-id\tcorpus-id\tscore\nq0\td0\t2\nq0\td3\t0\nq1\td1\t1\n"


def write_beir(folder: Path, qrels: str = QRELS, split: str = "test") -> Path:
    """Two queries, and a corpus of passages with titles; d2 shares a word with q0."""
    (folder / "qrels").mkdir(parents=True)
    corpus = ["red apple", "blue sea", "an apple", "dry sand"]
    rows = [{"_id": f"d{n}", "title": f"T{n}", "text": text} for n, text in enumerate(corpus)]
    write_rows(folder / "corpus.jsonl", rows)
    queries = ["which apple", "how deep"]
    write_rows(
        folder / "queries.jsonl", [{"_id": f"q{n}", "text": t} for n, t in enumerate(queries)]
    )
    (folder / "qrels" / f"{split}.tsv").write_text(qrels)
    return folder


def write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def rows_of(folder: Path) -> tuple[set[tuple[str, str, float]], list[str]]:
    found, remarks = read_examples(str(folder), SOURCE, "ranking", 0)
    return set(zip(found.texts, found.pairs, found.labels, strict=True)), [r.text for r in remarks]


def test_passages_are_the_judged_ones_and_those_that_share_words(tmp_path: Path) -> None:
    rows, (remark,) = rows_of(write_beir(tmp_path / "set"))
    assert rows == {
        ("which apple", "T0 red apple", 2.0),
        ("which apple", "T3 dry sand", 0.0),
        ("which apple", "T2 an apple", 0.0),
        ("how deep", "T1 blue sea", 1.0),
    }
    assert "qrels/test.tsv" in remark
    assert "not ranked" in remark


def test_most_relevant_passages_come_first_where_many_are_judged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(beir, "PASSAGES", 1)
    monkeypatch.setattr(beir, "LARGEST", 3)
    rows, remarks = rows_of(write_beir(tmp_path / "set"))
    assert {row[1] for row in rows} == {"T0 red apple", "T1 blue sea"}
    assert "left out 1 judged passages" in remarks[1]
    assert "3 of 4 passages" in remarks[2]


@pytest.mark.parametrize(
    "qrels",
    ["q0 0 d0 2\nq0 0 d3 0\nq1 0 d1 1\n", QRELS + "q7\td0\t1\n", QRELS.replace("\n", "\r\n")],
)
def test_other_forms_of_relevances(tmp_path: Path, qrels: str) -> None:
    """TREC's columns without a header; a query that is not in the file, which is said."""
    rows, remarks = rows_of(write_beir(tmp_path / "set", qrels, split="dev"))
    assert len(rows) == 4
    assert any("without their query or passage: 1" in text for text in remarks) is ("q7" in qrels)


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    folder = write_beir(tmp_path / "set")
    rows_of(folder)
    (folder / "qrels" / "test.tsv").write_text("q1\td1\t1\n")
    assert {row[0] for row in rows_of(folder)[0]} == {"how deep"}


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("qrels/test.tsv", "", "judges no passage"),
        ("qrels/test.tsv", QRELS + "q0\td0\tgood\n", "line 5 is not a query, a passage and a num"),
        ("queries.jsonl", '{"id": "q0", "text": "which"}\n', "line 1 is no object with `_id`"),
        ("corpus.jsonl", "[]\n", "line 1 is no object with `_id`"),
        ("corpus.jsonl", "\udcff\n", "cannot read .*utf-8"),
        ("qrels/test.tsv", None, "has no relevances in qrels/test.tsv"),
    ],
)
def test_damaged_files_are_named(
    tmp_path: Path, file: str, content: str | None, message: str
) -> None:
    folder = write_beir(tmp_path / "set")
    if content is None:
        (folder / file).unlink()
    else:
        (folder / file).write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(DataError, match=message):
        rows_of(folder)


def test_init_writes_a_study_of_retrieval_for_an_embedder(tmp_path: Path) -> None:
    model = write_embedder(tmp_path / "model")
    path, columns = init(str(model), str(write_beir(tmp_path / "set")), tmp_path / "study.toml")
    spec = load_spec(str(path))
    assert spec.model.task == "retrieval"
    assert (columns.text, columns.text_pair, columns.label) == beir.NAMES
    assert spec.data.path == str(tmp_path / "set")
