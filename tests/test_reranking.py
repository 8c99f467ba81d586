"""Reranking: passages in the order of their relevance to a query."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from paretoformer.evaluators.common.statistics import ndcg_of_queries, reciprocal_ranks
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.splits import read_splits
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.metrics import metric_of
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject, try_dense
from paretoformer.testing import check_metric
from tests.tiny import SMALL_SPACE, WORDS, write_model, write_study

PASSAGES = 5
QUERIES = 60


def write_ranking_study(folder: Path) -> Path:
    """A cross-encoder that is always right: relevant is what it answers most highly."""
    study = write_study(folder, extra=SMALL_SPACE)
    model = folder / "model"
    write_model(model, num_labels=1)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    with torch.no_grad():
        loaded.classifier.weight.mul_(100)
    loaded.save_pretrained(model)
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    rng = np.random.default_rng(0)
    rows = []
    for query in range(QUERIES):
        text = f"word{query % 60} word{query // 2}"
        passages = [" ".join(WORDS[i] for i in rng.integers(0, 60, 8)) for _ in range(PASSAGES)]
        inputs = tokenizer([text] * PASSAGES, passages, padding=True, return_tensors="pt")
        with torch.inference_mode():
            ranks = loaded(**inputs).logits[:, 0].argsort().argsort().tolist()
        rows += [
            {"text": text, "pair": passage, "label": max(0, rank - 2)}
            for passage, rank in zip(passages, ranks, strict=True)
        ]
    order = rng.permutation(len(rows))
    (folder / "data.jsonl").write_text("\n".join(json.dumps(rows[i]) for i in order))
    text = study.read_text().replace('path = "model"', 'path = "model"\ntask = "reranking"')
    text = text.replace("[data]", '[data]\ntext_pair = "pair"').replace("data.csv", "data.jsonl")
    study.write_text(text.replace("check = false  # the model was never trained\n", ""))
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_ranking_study(tmp_path_factory.mktemp("ranking") / "study")


def rows_of(study: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (study.parent / "data.jsonl").read_text().splitlines()]


def with_rows(study: Path, rows: list[dict[str, Any]], name: str) -> Path:
    (study.parent / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    other = study.parent / f"{name}.toml"
    other.write_text(study.read_text().replace("data.jsonl", f"{name}.jsonl"))
    return other


def test_model_is_right_on_its_own_order(study: Path) -> None:
    spec = load_spec(study)
    subject = load_subject(spec)
    assert [metric.name for metric in subject.objectives] == ["ndcg", "latency_ms"]
    assert [each.text for each in subject.requirements] == ["ndcg>=dense-0.01"]
    assert not [each for each in try_dense(subject, spec).remarks if each.doubt]


@given(seed=st.integers(0, 2**32 - 1), search=st.integers(5, 40), confirm=st.integers(5, 40))
def test_rows_of_a_query_are_in_one_split(
    study: Path, seed: int, search: int, confirm: int
) -> None:
    source = DataSource(
        path=str(study.parent / "data.jsonl"),
        text_pair="pair",
        search_examples=search,
        confirm_examples=confirm,
    )
    found = read_splits(source, seed, form="ranking").examples
    queries = {name: set(each.texts) for name, each in found.items()}
    for one in ("search", "confirm", "train"):
        assert all(found[one].texts.count(text) == PASSAGES for text in queries[one])
        for other in queries.keys() - {one, "steer", "recovery"}:
            assert queries[one].isdisjoint(queries[other])
    assert len(found["search"]) <= max(search, PASSAGES)


def test_query_of_several_files_is_in_one_split(study: Path) -> None:
    rows = rows_of(study)
    for name in ("train", "search", "confirm"):
        (study.parent / f"{name}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    confirm, search = rows[:90], rows[60:200]
    (study.parent / "confirm.jsonl").write_text("\n".join(map(json.dumps, confirm)))
    (study.parent / "search.jsonl").write_text("\n".join(map(json.dumps, search)))
    places = {name: str(study.parent / f"{name}.jsonl") for name in ("train", "search", "confirm")}
    source = DataSource(**places, text_pair="pair", search_examples=5, confirm_examples=50)
    with pytest.raises(DataError, match="0 examples of its own"):
        read_splits(source, 0, form="ranking")  # every query is in an earlier file
    own = [row | {"text": f"own {row['text']}"} for row in rows]
    (study.parent / "train.jsonl").write_text("\n".join(map(json.dumps, [*rows, *own])))
    (study.parent / "search.jsonl").write_text(
        "\n".join(json.dumps(row | {"text": f"new {row['text']}"}) for row in search)
    )
    found = read_splits(source, 0, form="ranking")
    queries = {name: set(each.texts) for name, each in found.examples.items()}
    assert queries["train"].isdisjoint(queries["confirm"] | queries["search"])
    said = " ".join(each.text for each in found.remarks)
    assert "train.jsonl: left out" in said
    assert "of queries that another file of the study has" in said


def test_number_of_rows_that_whole_queries_give_is_said(study: Path) -> None:
    source = DataSource(
        path=str(study.parent / "data.jsonl"),
        text_pair="pair",
        search_examples=43,
        confirm_examples=50,
    )
    said = " ".join(each.text for each in read_splits(source, 0, form="ranking").remarks)
    assert "Rows of one query stay together, which gives 40 instead of 43 rows to search." in said


def test_passages_in_the_opposite_order_are_doubted(study: Path) -> None:
    turned = [row | {"label": 2 - row["label"]} for row in rows_of(study)]
    spec = load_spec(with_rows(study, turned, "turned"))
    with pytest.raises(StudyError, match="no better than the opposite one"):
        try_dense(load_subject(spec), spec)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": -1}, "a relevance is below 0"),
        ({"label": "high"}, "label 'high' is no score: reranking compares with numbers"),
        ({"label": 1}, "has no query with several passages, one of them relevant"),
    ],
)
def test_wrong_rows_are_refused_in_one_line(
    study: Path, change: dict[str, Any], message: str
) -> None:
    spec = load_spec(with_rows(study, [row | change for row in rows_of(study)], "wrong"))
    with pytest.raises(StudyError, match=message) as raised:
        load_subject(spec)
    assert "\n" not in str(raised.value)


def test_too_few_queries_for_their_passages_are_refused(study: Path) -> None:
    few = [{"text": f"q{i % 2}", "pair": f"p{i}", "label": i % 3} for i in range(160)]
    spec = load_spec(with_rows(study, few, "few"))
    with pytest.raises(StudyError, match="too few queries for their number of passages"):
        load_subject(spec)


def test_one_query_alone_is_refused_since_it_has_no_interval(study: Path) -> None:
    other = study.parent / "one.toml"
    text = study.read_text()
    examples = f"search_examples = {load_spec(study).data.search_examples}"
    assert examples in text
    other.write_text(text.replace(examples, f"search_examples = {PASSAGES}"))
    with pytest.raises(StudyError, match=r"has 1 query with .* raise data\.search_examples"):
        load_subject(load_spec(other))


def test_passages_are_needed(study: Path) -> None:
    other = study.parent / "alone.toml"
    other.write_text(study.read_text().replace('text_pair = "pair"\n', ""))
    with pytest.raises(StudyError, match=r"name their column as data\.text_pair"):
        load_subject(load_spec(other))


@given(st.integers(0, 2**32 - 1))
def test_scores_are_those_of_scikit_learn_by_query(seed: int) -> None:
    rng = np.random.default_rng(seed)
    relevance, answers = rng.integers(0, 3, (4, 6)).astype(float), rng.normal(size=(4, 6))
    queries = np.repeat(np.arange(4.0), 6)
    order = rng.permutation(24)
    labels = np.stack([relevance.ravel(), queries], axis=1)[order]
    found = ndcg_of_queries(labels, answers.ravel()[order])
    counted = [row for row in range(4) if np.ptp(relevance[row]) > 0]
    wanted = [ndcg_score(relevance[[row]], answers[[row]], k=10) for row in counted]
    assert found == pytest.approx(wanted)
    ranks = reciprocal_ranks(labels, answers.ravel()[order])
    for row, rank in zip(counted, ranks, strict=True):
        ordered = relevance[row][np.argsort(-answers[row])]
        assert rank == pytest.approx(1 / (1 + np.flatnonzero(ordered > 0)[0]))


def test_same_answers_for_all_are_no_order() -> None:
    labels = np.array([[1.0, 0.0], [0.0, 0.0], [0.0, 0.0]])
    assert reciprocal_ranks(labels, np.zeros(3)).tolist() == [1 / 3]


def test_queries_are_the_samples() -> None:
    labels = np.stack([np.tile([1.0, 0.0], 20), np.repeat(np.arange(20.0), 2)], axis=1)
    answers = np.random.default_rng(0).normal(size=40)
    split = SimpleNamespace(labels=labels)
    bench: Any = SimpleNamespace(
        task=task_of("reranking"), split=split, memo={"predictions": answers}
    )
    for name in ("ndcg", "mrr"):
        found = check_metric(metric_of(name), bench)
        assert found is not None
        assert found.samples is not None
        assert len(found.samples) == 20
        assert found.low < found.value < found.high
