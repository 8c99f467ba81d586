"""Vocabulary: what the texts use keeps its rows, and the rest takes those of its neighbours."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F

import paretoformer as pf
from paretoformer.evaluators.common.progress import silent
from paretoformer.search.planning.survey import context_of
from paretoformer.search.publish.export import export_best
from paretoformer.search.records.parquet import read_front
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces import Candidate
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.evidence import Shape
from paretoformer.spaces.build import build, load_built
from paretoformer.spaces.models.families import FAMILIES, shape_of
from paretoformer.spaces.models.vocabulary import (
    Rows,
    nearest_rows,
    unsuitable,
    used_tokens,
)
from paretoformer.spaces.runtimes import Tools
from tests.sampled import sampled
from tests.test_runtimes import assert_equal_everywhere
from tests.test_surgery import VISION, inputs, tiny
from tests.tiny import write_study

pytestmark = pytest.mark.usefixtures("one_thread")

OF_TEXTS = tuple(name for name in FAMILIES if name not in VISION)
every_family = sampled("family", OF_TEXTS, ("bert", "gpt2", "modernbert", "deberta-v2"))
USED = torch.arange(10, 60)


def rows_of(model: Any) -> Rows:
    used, _ = used_tokens([{"input_ids": USED.numpy()}], special=range(5))
    return nearest_rows(model.get_input_embeddings().weight, used)


def shortened(model: Any, **others: Any) -> tuple[Candidate, Tools]:
    rows = rows_of(model)
    candidate = Candidate.dense(*shape_of(model.config))
    return (
        candidate.replaced(vocabulary=len(rows.kept), **others),
        Tools(threads=1, shared={"vocabulary": rows}),
    )


def answers(model: Any, tokens: torch.Tensor) -> torch.Tensor:
    """Of texts of these tokens, in turn."""
    batch = inputs(model if hasattr(model, "config") else model.origin)
    real = batch["attention_mask"].bool()
    places = torch.arange(real.numel()).view(real.shape) % len(tokens)
    batch["input_ids"] = torch.where(real, tokens[places], batch["input_ids"])
    with torch.inference_mode():
        found: torch.Tensor = model(**batch).logits
    return found


@every_family
def test_texts_of_used_tokens_get_the_same_answers(family: str, tmp_path: Path) -> None:
    dense = tiny(family)
    before = dense.get_input_embeddings().weight.clone()
    candidate, tools = shortened(dense)
    short = pf.compress(dense, candidate, tools=tools)
    expected = answers(dense, USED)
    assert torch.equal(answers(short, USED), expected)
    assert len(short.get_input_embeddings().weight) == candidate.vocabulary < len(before)
    assert torch.equal(dense.get_input_embeddings().weight, before)
    pf.save_compressed(short, tmp_path)
    assert torch.equal(answers(pf.load_compressed(tmp_path), USED), expected)
    native = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert torch.equal(answers(native.eval(), USED), expected)


def test_other_tokens_take_the_nearest_row() -> None:
    dense = tiny("bert")
    candidate, tools = shortened(dense)
    weight = dense.get_input_embeddings().weight.detach()
    likeness = F.cosine_similarity(weight[70], weight[rows_of(dense).kept], dim=-1)
    nearest = rows_of(dense).kept[likeness.argmax()]
    short = pf.compress(dense, candidate, tools=tools)
    found = answers(short, torch.tensor([70, 20]))
    assert torch.equal(found, answers(dense, torch.tensor([int(nearest), 20])))
    assert not torch.equal(found, answers(dense, torch.tensor([70, 20])))


def test_special_tokens_stay_and_unseen_ones_are_estimated() -> None:
    texts = [{"input_ids": np.array(ids)} for ids in ([41, 40, 41], [2, 50, 41], [2, 40])]
    assert used_tokens(texts, special=[98, 2]) == ([2, 40, 41, 50, 98], 1 / 8)


def test_rows_stay_where_new_texts_would_miss_too_many() -> None:
    """Every token but two occurs once; then all occur twice."""
    model = tiny("bert")
    texts = [{"input_ids": np.arange(20, 50)}]
    axis, context = (
        axis_of("vocabulary"),
        SimpleNamespace(model=model, texts=texts, special=[0], sized=True),
    )
    assert axis.survey("used", context).tokens == (0, *range(20, 50))  # as the user wishes
    facts: Any = axis.survey("auto", context)
    assert not facts.tokens
    assert "100.0% of the tokens of new texts" in facts.left_out["used"]
    context.texts = texts * 2
    facts = axis.survey("used", context)
    assert facts.tokens == (0, *range(20, 50))
    assert axis.domain("used", facts, Shape(2, 4)).starts() == [31]
    assert "31 of 100 embeddings stay: about 0.00%" in facts.note
    assert axis.survey("auto", context) == facts
    assert not axis.survey("off", context).tokens
    context.sized = False
    assert not axis.survey("auto", context).tokens
    context.texts = [{"input_ids": np.arange(100)}] * 2
    assert "use 100 of 100 tokens" in axis.survey("used", context).left_out["used"]


def test_rows_are_kept_on_disk_and_come_back(tmp_path: Path) -> None:
    dense = tiny("bert")
    candidate, tools = shortened(dense, readout="first")
    made = build(candidate, dense, tools)
    made.save(candidate, tmp_path)
    again = load_built(candidate, dense, tmp_path).model
    assert torch.equal(answers(again, USED), answers(made.model, USED))


@pytest.mark.slow
def test_every_runtime_serves_them() -> None:
    dense = tiny("bert")
    candidate, tools = shortened(dense)
    assert_equal_everywhere(pf.compress(dense, candidate, tools=tools))


def test_where_every_row_is_needed_the_reason_is_said() -> None:
    assert "its head predicts every token" in unsuitable(tiny("gpt2", "CausalLM"))
    assert "reads no tokens" in unsuitable(tiny("vit"))
    assert not unsuitable(tiny("llama"))
    dense = tiny("bert")
    candidate, tools = shortened(dense)
    with pytest.raises(ValueError, match="load it from its run"):
        pf.compress(dense, candidate)
    with pytest.raises(ValueError, match=r"keeps 55 rows, not 7\."):
        pf.compress(dense, candidate.replaced(vocabulary=7), tools=tools)
    with pytest.raises(ValueError, match="a number of rows"):
        candidate.replaced(vocabulary=-1)


def test_candidate_with_all_rows_is_written_as_before() -> None:
    dense = Candidate.dense(2, 4)
    assert "vocabulary" not in dense.to_json()
    short = dense.replaced(vocabulary=7)
    assert json.loads(short.to_json()) | {"version": 3} == json.loads(short.to_json())
    assert Candidate.from_json(short.to_json()) == short
    assert short.phrase == "7 rows of the embedding table"


@pytest.mark.parametrize(
    "line", ["", "objectives = ['accuracy', 'disk_mb']", "[search]\nrequire = ['memory_mb<=100']"]
)
def test_rows_go_by_default_where_a_size_counts(line: str, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    text = study.read_text()
    study.write_text(f"{line}\n{text}" if line.startswith("obj") else f"{text}\n{line}\n")
    spec = load_spec(study)
    context = context_of(spec, load_subject(spec), silent)
    assert bool(axis_of("vocabulary").survey(spec.setting("vocabulary"), context).tokens) is bool(
        line
    )


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_study_of_sizes_hands_over_short_tables(tmp_path: Path) -> None:
    extra = '[space]\nruntime = ["torch"]\nattention = ["full"]\nvocabulary = "used"\n'
    study = write_study(tmp_path, trials=5, extra=extra)
    run = pf.search(study, out=tmp_path / "run", quiet=True)
    frame, _ = read_front(run)
    found = [Candidate.from_json(text) for text in frame["candidate"]]
    rows = {candidate.vocabulary for candidate in found if not candidate.is_dense}
    assert len(rows) == 1
    assert min(rows) > 0
    best = pf.load_best(run, "parameters", ["accuracy >= 0"])
    export_best(best, tmp_path / "out")
    assert "A token that no training text uses takes" in (tmp_path / "out/README.md").read_text()
    assert "that is nearest to its own" in (run / "report.html").read_text()
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        expected = best.load_model()(input_ids=ids).logits
        again = pf.load_compressed(tmp_path / "out")(input_ids=ids).logits
    torch.testing.assert_close(again, expected, atol=1e-5, rtol=0)
