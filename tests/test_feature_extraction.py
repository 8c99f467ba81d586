"""Feature extraction: embeddings of texts, compared by cosine, without labels."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from scipy.stats import spearmanr
from sklearn.metrics import ndcg_score

import paretoformer as pf
from paretoformer.evaluators.data import splits
from paretoformer.evaluators.data.examples import Examples
from paretoformer.evaluators.metrics import Bench, metric_of
from paretoformer.evaluators.metrics.neighbours import Neighbours
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.tasks.feature_extraction import pooling_of
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.publish.export import export_best
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.parquet import read_front
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject, try_dense
from paretoformer.search.study.template import init
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.build import build
from paretoformer.spaces.models.embedder import as_embedder
from paretoformer.spaces.models.surgery import share
from paretoformer.spaces.runtimes import Tools, parse
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable
from paretoformer.testing import check_metric
from tests.sampled import sampled
from tests.test_surgery import tiny
from tests.tiny import HEADS, LAYERS, SMALL_SPACE, write_model, write_study

CUT = Candidate(HeadMask(((True,) + (False,) * (HEADS - 1),) * LAYERS))


def write_embedder(folder: Path, pooling: str = "mean_tokens", *more: str) -> Path:
    """A folder of sentence-transformers with random weights."""
    write_model(folder)
    classifier = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    classifier.base_model.save_pretrained(folder)
    kinds = ["Transformer", "Pooling", *more]
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}" if i else "", "type": f"st.models.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({f"pooling_mode_{pooling}": True}))
    return folder


def batch() -> dict[str, torch.Tensor]:
    ids = torch.randint(4, 90, (3, 12), generator=torch.Generator().manual_seed(0))
    mask = (torch.arange(12) < torch.tensor([[12], [7], [3]])).long()
    return {"input_ids": ids, "attention_mask": mask}


def encoder(folder: Path) -> Any:
    return transformers.AutoModel.from_pretrained(folder).eval()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_embedder(tmp_path / "model", "mean_tokens", "Normalize")


def test_embedding_is_the_mean_of_the_tokens_of_length_one(folder: Path) -> None:
    plain = encoder(folder)
    model = as_embedder(share(plain), "mean")
    with torch.no_grad():
        hidden, found = plain(**batch()).last_hidden_state, model(**batch()).sentence_embedding
    for row, length in enumerate((12, 7, 3)):
        mean = hidden[row, :length].mean(dim=0)
        torch.testing.assert_close(found[row], mean / mean.norm())


def test_embedding_may_be_the_first_token(folder: Path) -> None:
    plain = encoder(folder)
    with torch.no_grad():
        first = plain(**batch()).last_hidden_state[:, 0]
        found = as_embedder(share(plain), "cls")(**batch()).sentence_embedding
    torch.testing.assert_close(found, torch.nn.functional.normalize(first, dim=-1))


@pytest.mark.parametrize("side", ["left", "right"])
def test_embedding_may_be_the_last_token_whatever_side_is_padded(side: str) -> None:
    model = as_embedder(tiny("qwen3").base_model, "last")
    ids, none = torch.randint(4, 90, (1, 9)), torch.zeros(1, 3, dtype=torch.long)
    assert model(input_ids=none, attention_mask=none).sentence_embedding.isfinite().all()
    parts = (none, ids) if side == "left" else (ids, none)
    mask = torch.cat([torch.full_like(each, bool(each.any())) for each in parts], dim=1)
    with torch.no_grad():
        alone = model(input_ids=ids).sentence_embedding
        padded = model(input_ids=torch.cat(parts, dim=1), attention_mask=mask).sentence_embedding
    torch.testing.assert_close(padded, alone, atol=1e-5, rtol=1e-5)


def test_decoder_that_embeds_is_studied(tmp_path: Path) -> None:
    study = embedding_study(tmp_path)
    shutil.rmtree(tmp_path / "model")
    folder = write_embedder(tmp_path / "model", "lasttoken", "Normalize")
    tiny("qwen3").base_model.save_pretrained(folder)
    here = load_subject(load_spec(study))
    config: Any = here.model.config
    assert (config.sentence_pooling, config.use_cache) == ("last", False)
    assert here.task.usage(str(folder), {}).startswith("Vectors are the last token, compared by")
    cut = build(CUT, here.model)
    batch = next(iter(here.workload.batches(here.workload.splits["search"], "cpu")))[1]
    for runtime in ("onnxruntime", "openvino"):
        name, precision = parse(runtime)
        served = name.convert(cut.model, precision, Tools(threads=1))
        with torch.no_grad():
            expected = cut.model(**batch).sentence_embedding
        found = served(**batch).sentence_embedding
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_texts_are_cut_where_sentence_transformers_cuts_them(tmp_path: Path) -> None:
    study = embedding_study(tmp_path)
    model = tmp_path / "model"
    (model / "sentence_roberta_config.json").write_text('{"max_seq_length": 7}')
    longer = load_subject(load_spec(study))
    assert longer.target.sequence_length == 64  # as the study says
    assert any("other tools that serve this model cut them at 7" in r.text for r in longer.remarks)
    study.write_text(study.read_text().replace("sequence_length = 64\n", ""))
    assert load_subject(load_spec(study)).target.sequence_length == 7
    (model / "sentence_roberta_config.json").unlink()
    tokenizer = transformers.AutoTokenizer.from_pretrained(model, model_max_length=7)
    tokenizer.save_pretrained(model)  # as newer versions write it
    here = load_subject(load_spec(study))
    assert here.target.sequence_length == 7
    assert any("fill all 7 tokens: anything longer is cut" in each.text for each in here.remarks)


def test_folder_says_how_it_pools(tmp_path: Path) -> None:
    assert pooling_of(str(write_embedder(tmp_path / "mean"))) == ("mean", "cosine", ())
    assert pooling_of(str(write_embedder(tmp_path / "cls", "cls_token"))) == ("cls", "cosine", ())
    pooling, similarity, (remark,) = pooling_of(str(write_model(tmp_path / "plain")))
    assert (pooling, similarity) == ("mean", "cosine")
    assert "no modules.json was found, so the mean of the tokens is taken" in remark.text


def test_what_sentence_transformers_does_to_texts_is_said(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "model")
    settings = {"prompts": {"query": "query: ", "none": ""}, "default_prompt_name": "query"}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": True}))
    _, _, (prompt, lower) = pooling_of(str(folder))
    assert "puts the prompt 'query: ' before every text" in prompt.text
    assert "changes every text to lower case" in lower.text
    settings |= {"default_prompt_name": None, "truncate_dim": 8}
    (folder / "config_sentence_transformers.json").write_text(json.dumps(settings))
    (folder / "sentence_bert_config.json").write_text(json.dumps({"do_lower_case": False}))
    _, _, (short,) = pooling_of(str(folder))
    assert "keeps the first 8 numbers of each vector" in short.text


@pytest.mark.parametrize("pooling", ["mean", "cls"])
def test_pooling_is_read_as_newer_versions_write_it(tmp_path: Path, pooling: str) -> None:
    folder = write_embedder(tmp_path / "model")
    settings = folder / "1_Pooling" / "config.json"
    settings.write_text(json.dumps({"embedding_dimension": 16, "pooling_mode": pooling}))
    assert pooling_of(str(folder)) == (pooling, "cosine", ())
    settings.write_text(json.dumps({"pooling_mode": ["mean", "max"]}))
    with pytest.raises(
        ValueError, match="it pools by mean and max; known are mean, cls and lasttoken"
    ):
        pooling_of(str(folder))


@pytest.mark.parametrize(
    ("name", "more", "expected"),
    [("dot", (), "dot"), ("dot", ("Normalize",), "cosine"), (None, (), "cosine")],
)
def test_folder_says_how_its_vectors_are_compared(
    tmp_path: Path, name: str | None, more: tuple[str, ...], expected: str
) -> None:
    folder = write_embedder(tmp_path / "model", "mean_tokens", *more)
    settings = folder / "config_sentence_transformers.json"
    settings.write_text(json.dumps({"similarity_fn_name": name}))
    assert pooling_of(str(folder))[1] == expected
    settings.write_text(json.dumps({"similarity_fn_name": "euclidean"}))
    if not more:
        with pytest.raises(ValueError, match="compares by 'euclidean'; known are cosine, dot"):
            pooling_of(str(folder))


def test_vectors_that_are_compared_by_dot_product_keep_their_length(tmp_path: Path) -> None:
    folder = write_embedder(tmp_path / "model")
    plain = encoder(folder)
    model = as_embedder(share(plain), "mean", "dot")
    exported = pf.save_compressed(pf.compress(model, CUT), tmp_path / "export")
    with torch.no_grad():
        found = model(**batch()).sentence_embedding
        hidden = plain(**batch()).last_hidden_state
        again = pf.load_compressed(exported)(**batch()).sentence_embedding
    torch.testing.assert_close(found[0], hidden[0].mean(dim=0))
    assert (again.norm(dim=-1) - 1).abs().min() > 0.01


def test_likeness_of_vectors_says_what_their_length_lost() -> None:
    task: Any = task_of("feature-extraction")
    dense = SimpleNamespace(sentence_embedding=torch.tensor([[3.0, 4.0], [0.6, 0.8]]))
    found = SimpleNamespace(sentence_embedding=torch.tensor([[1.5, 2.0], [0.8, 0.6]]))
    np.testing.assert_allclose(task.likeness(found, dense, {}), [1 - 0.25 / 2, 0.96], rtol=1e-6)


@pytest.mark.parametrize(
    ("pooling", "more", "message"),
    [
        ("max_tokens", (), "pools by pooling_mode_max_tokens; known are mean, cls and lasttoken"),
        ("mean_tokens", ("Dense",), "has Dense; known are Transformer, Pooling, Normalize"),
    ],
)
def test_unknown_modules_are_refused_by_name(
    tmp_path: Path, pooling: str, more: tuple[str, ...], message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pooling_of(str(write_embedder(tmp_path / "model", pooling, *more)))


def test_compressed_embedder_is_loaded_as_one_and_by_transformers_as_its_encoder(
    folder: Path, tmp_path: Path
) -> None:
    compressed = pf.compress(as_embedder(encoder(folder), "mean"), CUT)
    export = pf.save_compressed(compressed, tmp_path / "export")
    again, native = pf.load_compressed(export), transformers.AutoModel.from_pretrained(export)
    with torch.no_grad():
        wanted = compressed(**batch()).sentence_embedding
        torch.testing.assert_close(again(**batch()).sentence_embedding, wanted)
        hidden = native(**batch()).last_hidden_state[0].mean(dim=0)
    torch.testing.assert_close(hidden / hidden.norm(), wanted[0])


def embedding_study(folder: Path, extra: str = "") -> Path:
    study = write_study(folder, trials=5, extra=f"[recovery]\nleast_squares = true\n{extra}")
    shutil.rmtree(folder / "model")
    write_embedder(folder / "model", "mean_tokens", "Normalize")
    text = study.read_text().replace(
        'path = "model"', 'path = "model"\ntask = "feature-extraction"'
    )
    study.write_text(text.replace('path = "data.csv"', 'path = "data.csv"\nlabel = ""'))
    return study


def pair_study(folder: Path, scores: list[Any], columns: str = 'text_pair = "b"') -> Path:
    """Pairs of texts with scores."""
    study = embedding_study(folder)
    texts = pd.read_csv(folder / "data.csv")["text"].tolist()
    texts = [f"{text} {index}" for index, text in enumerate(texts * 4)]
    rows = {"text": texts[::2], "b": texts[1::2]}
    count = len(rows["text"])
    rows["label"] = (scores * count)[:count]
    pd.DataFrame(rows).to_csv(folder / "data.csv", index=False)
    study.write_text(study.read_text().replace('label = ""', columns))
    return study


def test_pairs_are_scored_by_the_rank_correlation_of_their_cosines(tmp_path: Path) -> None:
    study = pair_study(tmp_path, [0.5, 3, 1.25, 5])
    spec = load_spec(study)
    assert spec.objectives == ["spearman", "latency_ms"]
    here = load_subject(spec)
    split = here.workload.splits["search"]
    assert len(split) == 2 * spec.data.search_examples
    bench: Any = SimpleNamespace(
        runnable=share(here.model),
        task=here.task,
        split=split,
        workload=here.workload,
        target=here.target,
        memo={},
    )
    bench.runnable.couples_rows = False
    found = metric_of("spearman").measure(bench)
    vectors = np.empty((len(split), here.model.config.hidden_size))
    with torch.no_grad():
        for row, example in enumerate(split.examples):
            ids = torch.tensor(example["input_ids"])[None]
            vectors[row] = here.model(input_ids=ids).sentence_embedding[0].numpy()
    answers = bench.memo["predictions"]  # near ties may change places where rounding differs
    np.testing.assert_allclose(answers, vectors, atol=1e-5)
    cosines = (answers[::2] * answers[1::2]).sum(axis=1)
    assert found is not None
    assert found.value == pytest.approx(spearmanr(cosines, split.labels[::2]).statistic, abs=1e-6)
    assert found.low <= found.value <= found.high


def test_scores_that_cosines_do_not_follow_are_doubted(tmp_path: Path) -> None:
    task: Any = task_of("feature-extraction")
    vectors = torch.nn.functional.normalize(torch.randn(40, 8), dim=-1).numpy()
    cosines = (vectors[::2] * vectors[1::2]).sum(-1)
    assert not task.doubts(vectors, np.repeat(cosines, 2), None)
    (doubt,) = task.doubts(vectors, np.repeat(-cosines, 2), None)
    assert doubt.doubt
    assert "of 20 training pairs have a Spearman correlation of -1.00" in doubt.text


@pytest.mark.parametrize(
    ("scores", "columns", "message"),
    [
        ([1, 2], "", r"scores are of pairs of texts: .*data\.text_pair, or set data\.label = \"\""),
        (["alike", "not"], 'text_pair = "b"', "label 'alike' is no score"),
        (["True", "inf"], 'text_pair = "b"', "label 'True' is no score"),
        ([1, 2], 'text_pair = "b"\nlabel = "score"', r'or set data\.label = "" if you have no lab'),
        ([1, 2], 'text_pair = "c"', r"has no column 'c'"),
    ],
)
def test_scores_that_cannot_be_used_are_refused_in_one_line(
    tmp_path: Path, scores: list[Any], columns: str, message: str
) -> None:
    study = pair_study(tmp_path, scores, columns)
    with pytest.raises(StudyError, match=message) as caught:
        load_subject(load_spec(study))
    assert "\n" not in str(caught.value)


def retrieval_study(folder: Path, passages: int = 4) -> Path:
    """An embedder that is always right: relevant is what its cosine is highest with."""
    study = pair_study(folder, [1.0])
    rows = pd.read_csv(folder / "data.csv")
    rows["text"] = [f"word{index} word{index // 7}" for index in np.arange(len(rows)) // passages]
    model = as_embedder(encoder(folder / "model"), "mean")
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder / "model")
    with torch.inference_mode():
        queries, texts = (
            model(**tokenizer(rows[name].tolist(), padding=True, return_tensors="pt"))
            for name in ("text", "b")
        )
    cosines = (queries.sentence_embedding * texts.sentence_embedding).sum(-1).numpy()
    ranks = pd.Series(cosines).groupby(rows["text"]).rank()
    rows["label"] = (ranks - 2).clip(lower=0)
    rows.sample(frac=1, random_state=0).to_csv(folder / "data.csv", index=False)
    text = study.read_text().replace('"feature-extraction"', '"retrieval"')
    study.write_text(text.replace("check = false  # the model was never trained\n", ""))
    return study


def test_embedder_is_scored_by_the_order_of_passages(tmp_path: Path) -> None:
    study = retrieval_study(tmp_path)
    spec = load_spec(study)
    here = load_subject(spec)
    assert [metric.name for metric in here.objectives] == ["ndcg", "latency_ms"]
    assert [each.text for each in here.requirements] == ["ndcg>=dense-0.01"]
    assert not [each for each in try_dense(here, spec).remarks if each.doubt]
    split = here.workload.splits["search"]
    assert split.labels.shape == (len(split), 2)
    assert (split.labels[::2] == split.labels[1::2]).all()
    with torch.inference_mode():
        vectors = np.concatenate(
            [
                here.task.predict(here.model(input_ids=torch.tensor(each["input_ids"])[None]))
                for each in split.examples
            ]
        )
    bench: Any = SimpleNamespace(task=here.task, split=split, memo={"predictions": vectors})
    for name in ("ndcg", "mrr"):
        found = metric_of(name).measure(bench)
        assert found is not None
        assert found.value == pytest.approx(1.0)
        assert found.samples is not None
        assert len(found.samples) == len(set(split.labels[:, 1]))


@pytest.mark.parametrize("passages", [18, 150])
def test_passages_of_a_query_are_looked_for_among_those_of_all(passages: int) -> None:
    """Queries with four passages each, which others may have, too."""
    random = np.random.default_rng(passages)
    texts, queries = random.normal(size=(passages, 6)), random.normal(size=(passages // 3, 6))
    chosen = [random.permutation(passages)[:4] for _ in queries]
    rows = [(query, text) for query, found in enumerate(chosen) for text in found]
    relevance = random.integers(0, 3, len(rows)).astype(float)
    relevance[4:8] = 0  # a query without a relevant passage
    vectors = np.stack([each for q, t in rows for each in (queries[q], texts[t])])
    labels = np.repeat([[r, q] for r, (q, _) in zip(relevance, rows, strict=True)], 2, axis=0)
    examples = [{"input_ids": [1, n]} for q, t in rows for n in (1000 + q, t)]
    split = SimpleNamespace(examples=examples, labels=labels)
    bench: Any = SimpleNamespace(split=split, memo={"predictions": vectors})
    wanted = np.zeros((len(queries), passages))
    for (query, text), value in zip(rows, relevance, strict=True):
        wanted[query, text] = value
    listed, some = sorted({t for _, t in rows}), wanted.max(axis=1) > 0
    wanted, likeness = wanted[some][:, listed], (queries @ texts.T)[some][:, listed]
    found = metric_of("corpus_ndcg").measure(bench)
    assert found is not None
    assert found.value == pytest.approx(ndcg_score(wanted, likeness, k=10))
    recall = metric_of("corpus_recall").measure(bench)
    assert recall is not None
    first = np.argsort(-likeness, axis=1)[:, :100]
    shares = [(w[f] > 0).sum() / (w > 0).sum() for w, f in zip(wanted, first, strict=True)]
    assert recall.value == pytest.approx(np.mean(shares))
    assert recall.value == 1 if len(listed) <= 100 else 0.5 < recall.value < 1


def test_texts_of_few_queries_are_mixed_and_prompts_named(tmp_path: Path) -> None:
    study = retrieval_study(tmp_path)
    settings = {"prompts": {"query": "query: ", "passage": ""}, "default_prompt_name": None}
    (tmp_path / "model" / "config_sentence_transformers.json").write_text(json.dumps(settings))
    here = load_subject(load_spec(study))
    (said,) = [each.text for each in here.remarks if "prompts" in each.text]
    assert "before queries and passages (query: 'query: ')" in said
    labels = here.workload.splits["train"].labels
    assert (labels[::2] == labels[1::2]).all()
    assert np.count_nonzero(np.diff(labels[::2, 1]) == 0) < len(labels) / 4
    rows = Examples(("q", "q", "r"), ("a", "b", "a"), (1.0, 0.0, 1.0))
    task: Any = here.task
    assert sorted(task.apart("recovery", rows).texts) == ["a", "b", "q", "r"]
    assert task.apart("search", rows).texts == ("q", "a", "q", "b", "r", "a")


def test_texts_for_recovery_need_no_passage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(splits, "TRAIN_EXAMPLES", 64)
    here = load_subject(load_spec(retrieval_study(tmp_path)))
    recovery = here.workload.splits["recovery"]
    assert len(recovery.examples) == len(recovery.labels) > 100


def test_neighbours_are_those_of_the_dense_vectors(tmp_path: Path) -> None:
    here = load_subject(load_spec(embedding_study(tmp_path)))
    cut = build(Candidate(HeadMask.none(LAYERS, HEADS)), here.model).model
    split = here.workload.splits["search"]

    def bench(model: Any) -> Any:
        parts = {"task": here.task, "workload": here.workload, "target": here.target}
        runnable = TorchRunnable(model)
        return Bench(
            runnable, model, here.model, None, split=split, protocol=TimingProtocol(), **parts
        )

    assert check_metric(Neighbours(), bench(here.model)).value == 1
    found = check_metric(Neighbours(), bench(cut))
    rows = [here.workload.inputs.collate([example]) for example in split.examples]
    with torch.inference_mode():
        pair = [torch.cat([m(**row).sentence_embedding for row in rows]) for m in (here.model, cut)]
    likeness = [(v @ v.T).fill_diagonal_(-2).topk(10).indices.tolist() for v in pair]
    shared = [len(set(a) & set(b)) / 10 for a, b in zip(*likeness, strict=True)]
    assert found.value == pytest.approx(np.mean(shared), abs=0.01)  # near ties
    assert found.value < 1
    assert "neighbours" in here.confirmed
    assert "neighbours" not in load_subject(load_spec(write_study(tmp_path / "other"))).metrics


def test_objective_neighbours_brings_its_requirement(tmp_path: Path) -> None:
    study = embedding_study(tmp_path)
    wanted = 'objectives = ["neighbours", "latency_ms"]\n'
    study.write_text(wanted + study.read_text())
    here = load_subject(load_spec(study))
    assert [r.metric for r in here.requirements] == ["neighbours"]


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
@sampled("runtime", ["torch", "openvino"], ["torch"])
def test_texts_are_enough_to_compress_an_embedder(tmp_path: Path, runtime: str) -> None:
    if runtime == "openvino":
        pytest.importorskip("openvino")
    space = SMALL_SPACE.replace('["torch"]', f'["torch", "{runtime}"]')
    study = embedding_study(tmp_path, space)
    run = pf.search(study, out=tmp_path / "run", quiet=True)
    frame, facts = read_front(run)
    assert facts.objectives == ("fidelity", "latency_ms")
    assert frame["fidelity"].iloc[0] == pytest.approx(1.0)
    assert frame["fidelity"].between(0, 1.0 + 1e-9).all()
    best = pf.load_best(run, require=["fidelity >= 0.5"])
    export_best(best, tmp_path / "out")
    assert (tmp_path / "out" / "modules.json").exists()
    assert (tmp_path / "out" / "1_Pooling" / "config.json").exists()
    card = (tmp_path / "out" / "README.md").read_text()
    assert "the mean of the tokens, compared by their cosine. Build an index anew" in card
    assert f"neighbours {best.metrics['neighbours'].value:.3f})." in card
    model = pf.load_compressed(tmp_path / "out")
    with torch.no_grad():
        found = model(**batch()).sentence_embedding
    torch.testing.assert_close(found.norm(dim=-1), torch.ones(3), atol=1e-3, rtol=0)


def test_folder_of_sentence_transformers_is_an_embedder_whatever_its_config_names(
    folder: Path, tmp_path: Path
) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | {"architectures": ["BertForMaskedLM"]}
    path.write_text(json.dumps(config))
    (tmp_path / "texts.txt").write_text("\n".join(f"word{i} word{i // 9}" for i in range(60)))
    out, _ = init(str(folder), str(tmp_path / "texts.txt"), tmp_path / "new.toml")
    assert 'task = "feature-extraction"' in out.read_text()
