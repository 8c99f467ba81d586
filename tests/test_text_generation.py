"""Text generation: perplexity, the key-value cache, and what one token more takes."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from inspect import signature
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch.nn import functional as F
from transformers import AutoModelForCausalLM, DynamicCache
from transformers.cache_utils import DynamicSlidingWindowLayer

import paretoformer as pf
from paretoformer.evaluators.common.measurement import Measurement
from paretoformer.evaluators.data.recovery_texts import TRAINING_BATCH, endless_batches
from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.metrics import metric_of
from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.generation import CacheSize, Decode
from paretoformer.evaluators.metrics.perplexity import Perplexity
from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.timing.protocol import TimingProtocol
from paretoformer.search.planning.survey import context_of
from paretoformer.search.publish.front import published_table
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.facts import compared_timing
from paretoformer.search.records.record import TrialRecord
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject, try_dense
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes import axis_of
from paretoformer.spaces.axes.axis import Unsuitable
from paretoformer.spaces.models import key_values
from paretoformer.spaces.models.families import FAMILIES
from paretoformer.spaces.models.next_tokens import NextTokens
from paretoformer.spaces.runtimes import Tools, parse
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable
from paretoformer.testing import check_metric
from tests.conftest import Run
from tests.sampled import sampled
from tests.test_runtimes import template_of_last_graph
from tests.test_surgery import every_decoder
from tests.tiny import SMALL_SPACE, WORDS, kept, write_model, write_study

pytestmark = pytest.mark.usefixtures("one_thread")
DECODERS = tuple(name for name, family in FAMILIES.items() if family.causal)
TASK = task_of("text-generation")
PARAMETERS = signature(transformers.LlamaForCausalLM.forward).parameters
CACHE = "cache" if "cache" in PARAMETERS else "past_key_values"  # before transformers 5.24


@kept
def write_language_model(folder: Path, family: str, layers: int = 3) -> None:
    settings: dict[str, Any] = {"num_hidden_layers": layers}
    if family != "gpt2":
        settings |= {"num_key_value_heads": 2, "head_dim": 8, "sliding_window": None}
    write_model(folder, family, **settings)
    config = transformers.AutoConfig.from_pretrained(folder)
    config.bos_token_id = config.eos_token_id = None
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():  # else every next token is about as likely
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(4)
    model.save_pretrained(folder)


def passages(rows: int) -> list[str]:
    rng = np.random.default_rng(0)
    return [
        " ".join(WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, 30)))
        for _ in range(rows)
    ]


def write_generating_study(folder: Path, family: str = "llama", extra: str = SMALL_SPACE) -> Path:
    study = write_study(folder, extra=extra)
    write_language_model(folder / "model", family)
    (folder / "data.txt").write_text("\n".join(passages(2500)), encoding="utf-8")
    text = study.read_text().replace('path = "model"', 'path = "model"\ntask = "text-generation"')
    study.write_text(text.replace("data.csv", "data.txt"))
    return study


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_generating_study(tmp_path / "study")


def bench_of(subject: Subject, model: Any = None, reference: Any = None) -> Bench:
    model = subject.model if model is None else model
    return Bench(
        TorchRunnable(model), model, subject.model, reference, subject.task,
        subject.workload.splits["search"], subject.workload, subject.target,
        TimingProtocol(0.5, 0.05),
    )  # fmt: skip


def cut(model: Any) -> Candidate:
    """The first layer without heads, one head in the second, the third removed."""
    groups = getattr(model.config, "num_key_value_heads", model.config.num_attention_heads)
    one = (True,) + (False,) * (groups - 1)
    return Candidate(HeadMask(((False,) * groups, one, one)), layers=(True, True, False))


def test_perplexity_is_that_of_transformers_own_losses(study: Path) -> None:
    subject = load_subject(load_spec(study))
    bench = bench_of(subject)
    nats = tokens = 0.0
    for example in bench.split.examples:
        ids = torch.from_numpy(example["input_ids"])[None]
        with torch.inference_mode():
            loss = float(subject.model(input_ids=ids, labels=ids).loss)
        nats, tokens = nats + loss * (ids.shape[1] - 1), tokens + ids.shape[1] - 1
    measured = check_metric(Perplexity(), bench)
    assert measured is not None
    assert measured.value == pytest.approx(math.exp(nats / tokens), rel=1e-5)
    assert [each.text for each in subject.requirements] == ["perplexity<=1.05*dense"]
    assert [metric.name for metric in subject.objectives] == ["perplexity", "latency_ms"]


def test_lines_are_joined_to_passages_and_rows_of_a_csv_are_not(study: Path) -> None:
    spec = load_spec(study)
    texts = load_subject(spec).workload.splits["search"].examples
    assert min(len(each["input_ids"]) for each in texts) > 30  # a line has 3 words or more
    rows = "text\n" + "\n".join(passages(300)) + "\n"
    (study.parent / "data.csv").write_text(rows)
    study.write_text(study.read_text().replace("data.txt", "data.csv"))
    texts = load_subject(load_spec(study)).workload.splits["search"].examples
    assert min(len(each["input_ids"]) for each in texts) < 10


@every_decoder
def test_cut_model_generates_with_a_cache_what_it_generates_without(
    tmp_path: Path, family: str
) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", family))
    folder = pf.save_compressed(pf.compress(dense, cut(dense)), tmp_path / "out")
    prompt = {"input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 11, 12]])}
    prompt["attention_mask"] = torch.ones_like(prompt["input_ids"])
    wanted = {"max_new_tokens": 12, "do_sample": True, "pad_token_id": 0}
    every = []
    for model in (pf.load_compressed(folder), AutoModelForCausalLM.from_pretrained(folder)):
        for cached in (True, False):
            torch.manual_seed(0)
            with torch.inference_mode():
                every.append(model.eval().generate(**prompt, **wanted, use_cache=cached))
    assert every[0].shape == (2, 16)
    assert len(every[0][:, 4:].unique()) > 3
    for each in every[1:]:
        torch.testing.assert_close(each, every[0], atol=0, rtol=0)


@pytest.mark.parametrize("family", ["gpt2", "qwen3"])
def test_one_token_more_has_the_logits_of_the_whole_text(tmp_path: Path, family: str) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", family))
    model = pf.compress(dense, cut(dense))
    tokens = torch.randint(4, 60, (2, 20), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        whole = model(input_ids=tokens).logits
        cache = model(input_ids=tokens[:, :15], use_cache=True).past_key_values
        for place in range(15, 20):
            each = model(tokens[:, place : place + 1], **{CACHE: cache})
            torch.testing.assert_close(each.logits[:, 0], whole[:, place], atol=1e-5, rtol=1e-4)


def test_costs_of_generation_are_measured_and_shrink_with_the_heads(study: Path) -> None:
    subject = load_subject(load_spec(study))
    dense = bench_of(subject)
    reference = {name: metric_of(name).measure(dense) for name in ("latency_ms", "decode_ms")}
    compressed = bench_of(subject, pf.compress(subject.model, cut(subject.model)), reference)
    before, after = (check_metric(CacheSize(), each) for each in (dense, compressed))
    assert before is not None
    assert after is not None
    layers, heads, width, length = 3, 2, 8, subject.target.sequence_length
    assert before.value == 2 * 4 * layers * heads * width * length / 1e6
    assert after.value == 2 * 4 * (width + 1) * length / 1e6  # one number a token without heads
    for each in (dense, compressed):
        measured = check_metric(metric_of("decode_ms"), each)
        assert measured is not None
        assert measured.value > 0


def test_a_call_that_is_timed_leaves_the_cache_as_it_was(study: Path) -> None:
    """Else each call would have a longer context than the one before."""
    subject = load_subject(load_spec(study))
    seen: list[int] = []

    def look(module: Any, args: Any, kwargs: Any) -> None:
        seen.append(kwargs[CACHE].get_seq_length())

    with torch.inference_mode():
        (one,) = Decode().calls(bench_of(subject), subject.model)
        handle = subject.model.register_forward_pre_hook(look, with_kwargs=True)
        for _ in range(3):
            one()
    handle.remove()
    assert seen == [subject.target.sequence_length] * 3


def test_prompt_computes_the_logits_of_its_last_token_alone(study: Path) -> None:
    subject = load_subject(load_spec(study))
    batch = subject.workload.timing_batch(subject.target)
    with torch.inference_mode():
        assert subject.model(**batch).logits.shape == (1, 1, subject.model.config.vocab_size)


def test_int8_generates_and_a_runtime_without_a_cache_is_left_out(tmp_path: Path) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", "llama"))
    runnable = pf.compress(
        dense, Candidate.dense(3, 2).replaced(runtime="torch:int8"), tools=Tools(threads=1)
    )
    tokens = torch.tensor([[5, 6, 7]])
    found = runnable.generate(tokens, max_new_tokens=4, do_sample=False, pad_token_id=0)
    assert found.shape == (1, 7)
    assert parse("torch:int8")[0].generates
    assert not parse("compile")[0].generates


WITH_SINKS = AttentionChoice.of("window", window=4, global_tokens=1)
KERNEL = AttentionChoice("linear")


def with_short_cache(folder: Path, family: str, choice: AttentionChoice) -> Any:
    """With this mechanism in two of three layers."""
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(folder, family))
    mask = HeadMask.all(3, 4 if family == "gpt2" else 2)
    return pf.compress(dense, Candidate(mask, (choice, AttentionChoice("full"), choice)))


def some_texts() -> dict[str, torch.Tensor]:
    """Two, of which the first one is shorter."""
    ids = torch.tensor([[0, 0, 0, 7, 8, 5, 4, 9, 9], [9, 10, 11, 12, 13, 9, 14, 15, 16]])
    return {"input_ids": ids, "attention_mask": (ids > 0).long()}


@pytest.mark.parametrize("choice", [WITH_SINKS, KERNEL])
@every_decoder
def test_short_cache_generates_what_is_computed_without_a_cache(
    family: str, choice: AttentionChoice, tmp_path: Path
) -> None:
    model = with_short_cache(tmp_path, family, choice)
    wanted: dict[str, Any] = {"max_new_tokens": 16, "do_sample": False, "pad_token_id": 0}
    for more in ({}, {"num_beams": 3}, {"do_sample": True}, {"num_return_sequences": 2}):
        if "num_return_sequences" in more:
            more |= {"do_sample": True}
        found = []
        for cached in (True, False):
            torch.manual_seed(1)
            found.append(model.generate(**some_texts(), use_cache=cached, **wanted | more))
        torch.testing.assert_close(*found, atol=0, rtol=0)


@pytest.mark.parametrize(("choice", "kept"), [(WITH_SINKS, 4), (KERNEL, 8)])
@pytest.mark.parametrize("cuts", [(9,), (5, 2, 2), (1,) * 9, (2, 7)])
def test_short_cache_has_the_logits_of_the_whole_text(
    cuts: tuple[int, ...], choice: AttentionChoice, kept: int, tmp_path: Path
) -> None:
    """kept: a sink and three tokens, or the features of a head."""
    model, texts, cache = with_short_cache(tmp_path, "llama", choice), some_texts(), DynamicCache()
    real = texts["attention_mask"].bool()
    ends = list(itertools.accumulate(cuts))
    with torch.inference_mode():
        whole = model(**texts, use_cache=False).logits
        parts = [
            model(
                texts["input_ids"][:, end - new : end],
                attention_mask=texts["attention_mask"][:, :end],
                **{CACHE: cache},
            ).logits
            for new, end in zip(cuts, ends, strict=True)
        ]
    torch.testing.assert_close(torch.cat(parts, dim=1)[real], whole[real], atol=1e-5, rtol=1e-5)
    assert [each.keys.shape[2] for each in cache.layers] == [kept, 9, kept]
    assert cache.get_seq_length() == 9


def test_short_cache_is_as_exact_in_bfloat16(tmp_path: Path) -> None:
    """Half a bit more or less of the features would show in the state."""
    model = with_short_cache(tmp_path, "llama", KERNEL).bfloat16()
    texts, cache = some_texts(), DynamicCache()
    with torch.inference_mode():
        whole = model(**texts, use_cache=False).logits.float()
        first = {name: each[:, :6] for name, each in texts.items()}
        model(**first, **{CACHE: cache})
        rest = model(
            texts["input_ids"][:, 6:], attention_mask=texts["attention_mask"], **{CACHE: cache}
        )
    scale = float(whole.std())
    assert float((rest.logits.float() - whole[:, 6:]).abs().mean()) < 0.01 * scale


@pytest.mark.parametrize("choice", [WITH_SINKS, KERNEL])
def test_cache_is_whole_where_another_attention_is_set(
    choice: AttentionChoice, tmp_path: Path
) -> None:
    model = with_short_cache(tmp_path, "llama", choice)
    model.set_attn_implementation("sdpa")
    wanted: dict[str, Any] = {"max_new_tokens": 8, "do_sample": False, "pad_token_id": 0}
    found = [model.generate(**some_texts(), use_cache=each, **wanted) for each in (True, False)]
    torch.testing.assert_close(*found, atol=0, rtol=0)


def test_rolling_cache_takes_less_and_is_not_shortened(tmp_path: Path, study: Path) -> None:
    model = with_short_cache(tmp_path / "w", "llama", WITH_SINKS)
    subject = load_subject(load_spec(study))
    bench = bench_of(subject, model)
    found = check_metric(CacheSize(), bench)
    whole = check_metric(CacheSize(), bench_of(subject))
    assert found is not None
    assert whole is not None
    kept, tokens = 4, bench.target.sequence_length
    assert found.value == pytest.approx(whole.value * (2 * kept + tokens) / (3 * tokens))
    reference = {"decode_ms": metric_of("decode_ms").measure(bench_of(subject))}
    assert check_metric(Decode(), replace(bench, reference=reference)) is not None
    cache = DynamicCache()
    with torch.inference_mode():
        model(**some_texts(), **{CACHE: cache})
    with pytest.raises(ValueError, match="cannot be shortened, as assisted"):
        cache.layers[0].crop(-1)


def served(dense: Any, runtime: str) -> Any:
    batch = {"input_ids": torch.arange(4, 44).view(2, 20)}
    tools = Tools(threads=1, calibration=lambda: [batch])
    return pf.compress(dense, cut(dense).replaced(runtime=runtime), tools=tools)


def prompts() -> dict[str, torch.Tensor]:
    """Two, of which the first one is shorter: its padding stands before it."""
    tokens = torch.tensor([[0, 0, 7, 8, 5], [9, 10, 11, 12, 13]])
    return {"input_ids": tokens, "attention_mask": (tokens > 0).long()}


@pytest.mark.slow
@sampled(
    "family, runtime",
    [(family, runtime) for family in DECODERS for runtime in ("onnxruntime", "openvino")],
    [("llama", "onnxruntime"), ("gpt2", "openvino")],
)
def test_graph_generates_with_its_cache_what_torch_generates(
    tmp_path: Path, family: str, runtime: str
) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", family))
    runnable = served(dense, runtime)
    assert template_of_last_graph() is not None
    loaded = pf.load_compressed(pf.save_compressed(runnable, tmp_path / "out"))
    wanted: dict[str, Any] = {"max_new_tokens": 12, "do_sample": True, "pad_token_id": 0}
    with torch.inference_mode():
        for more in ({"do_sample": False, "num_beams": 3}, {"use_cache": False}, {}):
            found = []
            for each in (pf.compress(dense, cut(dense)), runnable, loaded):
                torch.manual_seed(0)
                found.append(each.generate(**prompts(), **wanted | more))
            for each in found[1:]:
                torch.testing.assert_close(each, found[0], atol=0, rtol=0)
    assert len(found[0][:, 5:].unique()) > 3


@pytest.mark.slow
@sampled(
    "runtime, tolerance",
    [
        ("onnxruntime", 1e-4),
        ("openvino", 1e-4),
        ("onnxruntime:int8", 0.5),
        ("openvino:int8_weights", 0.1),
        ("openvino:int8", 0.5),
    ],
    [("onnxruntime", 1e-4)],
)
def test_graph_with_a_cache_has_the_logits_of_the_whole_text(
    tmp_path: Path, runtime: str, tolerance: float
) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", "llama"))
    runnable, tokens = served(dense, runtime), torch.arange(4, 44).view(2, 20)
    with torch.inference_mode():
        whole = pf.compress(dense, cut(dense))(input_ids=tokens).logits
        every = runnable(input_ids=tokens).logits
        cache, generator = DynamicCache(), runnable.generator
        first = generator(tokens[:, :15], past_key_values=cache).logits
        rest = generator(tokens[:, 15:], past_key_values=cache).logits
        last = generator(tokens, logits_to_keep=1).logits
    assert cache.get_seq_length() == 20
    key_values.write(other := DynamicCache(), key_values.pairs_of(cache) * 2)
    with pytest.raises(ValueError, match="the cache has 4 layers, but the model has 2"):
        generator(tokens[:, :1], past_key_values=other)
    with pytest.raises(ValueError, match=r"does not take \['output_hidden_states'\]"):
        generator(tokens, output_hidden_states=True)
    with pytest.raises(ValueError, match=r"not \['token_type_ids'\]"):
        runnable(input_ids=tokens, token_type_ids=tokens)
    scale = float(whole.std())
    for found, expected in (
        (every, whole), (first, whole[:, :15]), (rest, whole[:, 15:]), (last, whole[:, -1:])
    ):  # fmt: skip
        assert float((found - expected).abs().mean()) < tolerance * scale


@pytest.mark.slow
def test_costs_of_generation_are_measured_in_a_graph(study: Path) -> None:
    subject = load_subject(load_spec(study))
    dense = bench_of(subject)
    reference = {name: metric_of(name).measure(dense) for name in ("latency_ms", "decode_ms")}
    plain = bench_of(subject, pf.compress(subject.model, cut(subject.model)), reference)
    graph = replace(plain, runnable=served(subject.model, "onnxruntime"))
    assert check_metric(CacheSize(), graph) == check_metric(CacheSize(), plain)
    for name in ("latency_ms", "decode_ms"):
        measured = check_metric(metric_of(name), graph)
        assert measured is not None
        assert measured.value > 0


def test_mechanism_that_a_graph_with_a_cache_cannot_hold_is_refused(tmp_path: Path) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", "llama"))
    window = AttentionChoice.of("window", window=17, global_tokens=2)
    candidate = Candidate(HeadMask(((True, True),) * 3), (window,) * 3)
    with pytest.raises(Unsuitable, match="'window' is another computation where there is a key-v"):
        pf.compress(dense, candidate.replaced(runtime="onnxruntime"), tools=Tools(threads=1))


def surveyed(study: Path, attention: str) -> dict[str, Any]:
    """What a study of every runtime tries, and what it leaves out; by axis."""
    text = study.read_text().replace('runtime = ["torch"]', 'runtime = "all"')
    study.write_text(text.replace('attention = ["full"]', f"attention = {attention}"))
    spec = load_spec(study)
    context = context_of(spec, load_subject(spec), lambda *_: None)
    return {
        name: axis_of(name).survey(spec.setting(name), context) for name in ("attention", "runtime")
    }


def test_mechanisms_are_not_crossed_with_graphs_that_cannot_hold_them(study: Path) -> None:
    every = surveyed(study, '"all"')
    assert [choice.name for choice in every["attention"].choices] == ["full"]
    assert "name them to try them" in every["attention"].left_out["other than full"]
    assert {"onnxruntime", "openvino:int8_weights"} <= {*every["runtime"].choices}


def test_study_that_names_mechanisms_keeps_to_torch(study: Path) -> None:
    named = surveyed(study, '["full", "window"]')
    assert len(named["attention"].choices) > 1
    assert {each.partition(":")[0] for each in named["runtime"].choices} == {"torch"}
    assert "one way with a key-value cache" in named["runtime"].left_out["onnxruntime"]


def test_cache_of_another_kind_is_refused() -> None:
    cache = DynamicCache()
    cache.layers.append(DynamicSlidingWindowLayer(sliding_window=4))
    with pytest.raises(ValueError, match="DynamicSlidingWindowLayer is not a layer that grows"):
        key_values.write(cache, [(torch.zeros(1, 1, 2, 3), torch.zeros(1, 1, 2, 3))])


def outputs(vocabulary: int) -> tuple[Any, Any]:
    generator = torch.Generator().manual_seed(0)
    draws = [3 * torch.randn(2, 5, vocabulary, generator=generator) for _ in range(2)]
    return SimpleNamespace(logits=draws[0]), SimpleNamespace(logits=draws[1])


@pytest.mark.parametrize(("vocabulary", "exact"), [(100, True), (2000, False)])
def test_divergence_is_that_of_the_likeliest_tokens_or_a_lower_bound(
    vocabulary: int, exact: bool
) -> None:
    answers, (output, dense) = NextTokens(), outputs(vocabulary)
    batch = {"attention_mask": torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]])}
    found = answers.divergence(output, dense, batch)
    torch.testing.assert_close(found, answers.divergence(output, answers.kept(dense), batch))
    logs = [F.log_softmax(each.logits.double(), dim=-1) for each in (output, dense)]
    nats = F.kl_div(logs[0], logs[1], log_target=True, reduction="none").sum(dim=-1)
    wanted = torch.stack((nats[0].mean(), nats[1, :3].mean()))
    if exact:
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    else:
        assert (found < wanted).all()
        assert (found > 0.8 * wanted).all()


def test_batches_hold_no_more_logits_than_fit(study: Path) -> None:
    subject = load_subject(load_spec(study))
    inputs = type(subject.workload.inputs)({"input_ids": 0}, most=3)
    workload = type(subject.workload)(subject.workload.splits, inputs)
    rows = [len(indices) for indices, _ in workload.batches(workload.splits["search"], "cpu")]
    assert max(rows) == 3
    assert sum(rows) == 40
    step = next(endless_batches(workload, "cpu", 0))
    assert [len(each["input_ids"]) for each in step.batches] == [3] * math.ceil(TRAINING_BATCH / 3)


def test_model_that_knows_nothing_of_its_data_is_doubted(study: Path) -> None:
    study.write_text(study.read_text().replace("check = false", "check = true"))
    with pytest.raises(StudyError, match=r"predicts .* next tokens.*data\.check = false"):
        try_dense(load_subject(load_spec(study)), load_spec(study))
    labels = np.array([[7, 8, 7, IGNORED], [8, 7, IGNORED, IGNORED]])
    assert TASK.doubts(labels[:, :3], labels, None) == []
    assert len(TASK.doubts(np.full((2, 3), 7), labels, None)) == 1


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("sequence_length = 64", "sequence_length = 80", "room for 79 tokens and the next one"),
        ("trials = 6", 'trials = 6\nobjectives = ["accuracy", "latency_ms"]', "'accuracy'"),
        ("data.txt", "absent.txt", "no data file"),
        ('path = "data.txt"', 'path = "data.txt"\ntext = "body"', "no column 'body'"),
        ("search_examples = 40", "search_examples = 4000", "Lower data.search_examples"),
        ("threads = 2", 'threads = 2\n[search]\nrequire = ["f1 >= 0.5"]', "unknown required"),
        ("[data]", '[data]\ntext_pair = "text"', "takes single texts: leave out data.text_pair"),
    ],
)
def test_wrong_study_is_refused_in_one_line(
    run: Run, tmp_path: Path, old: str, new: str, message: str
) -> None:
    study = write_generating_study(tmp_path, extra="")
    text = study.read_text()
    assert old in text
    study.write_text(text.replace(old, new))
    status, _, errors = run("search", study, "--out", tmp_path / "run", "--dry-run")
    assert status == 2
    assert len(errors.strip().splitlines()) == 1
    assert message in errors


def test_encoder_is_refused_and_told_which_families_generate(run: Run, tmp_path: Path) -> None:
    study = write_generating_study(tmp_path)
    write_model(tmp_path / "model", "bert")
    status, _, errors = run("search", study, "--out", tmp_path / "run")
    assert status == 2
    assert "does no text-generation. Families that do: gpt2, llama" in errors
    assert len(errors.strip().splitlines()) == 1


def test_costs_of_generation_are_no_metrics_of_a_classifier(run: Run, tmp_path: Path) -> None:
    study = write_study(tmp_path)
    study.write_text('objectives = ["accuracy", "decode_ms"]\n' + study.read_text())
    status, _, errors = run("search", study, "--out", tmp_path / "run")
    assert status == 2
    assert "unknown objective 'decode_ms'" in errors


def test_init_writes_a_study_of_texts_alone(run: Run, tmp_path: Path) -> None:
    write_language_model(tmp_path / "model", "gpt2")
    rows = [{"text": each, "source": "web"} for each in passages(300)]
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    out = tmp_path / "mine.toml"
    status, _, errors = run("init", tmp_path / "model", tmp_path / "data.jsonl", "--out", out)
    assert (status, errors) == (0, "")
    spec = load_spec(out)
    assert spec.model.task == "text-generation"
    assert spec.objectives == ["perplexity", "latency_ms"]
    assert load_subject(spec).metrics.keys() >= {"perplexity", "decode_ms", "cache_mb"}


def test_init_counts_the_passages_of_a_txt_file(run: Run, tmp_path: Path) -> None:
    write_language_model(tmp_path / "model", "gpt2")
    (tmp_path / "data.txt").write_text("\n".join(passages(3000)))
    out = tmp_path / "mine.toml"
    assert run("init", tmp_path / "model", tmp_path / "data.txt", "--out", out)[0] == 0
    subject = load_subject(load_spec(out))  # 3,000 lines would have been enough for the default
    assert len(subject.workload.splits["search"]) == load_spec(out).data.search_examples < 500
    assert any("lines of 'text' are joined to" in each.text for each in subject.remarks)


def test_stop_tokens_and_sampling_travel_with_the_model(tmp_path: Path) -> None:
    dense = AutoModelForCausalLM.from_pretrained(write_language_model(tmp_path / "m", "llama"))
    dense.generation_config.eos_token_id = [7, 8]
    dense.generation_config.do_sample = True
    folder = pf.save_compressed(pf.compress(dense, cut(dense)), tmp_path / "out")
    for model in (pf.load_compressed(folder), AutoModelForCausalLM.from_pretrained(folder)):
        assert model.generation_config.eos_token_id == [7, 8]
        assert model.generation_config.do_sample
    (folder / "generation_config.json").write_text("[]")
    with pytest.raises(ValueError, match=r"generation_config\.json does not say how to generate"):
        pf.load_compressed(folder)


def test_answers_that_are_not_finite_are_a_failed_trial_and_no_number(study: Path) -> None:
    subject = load_subject(load_spec(study))
    with torch.no_grad():
        subject.model.lm_head.weight.fill_(torch.nan)
    with pytest.raises(ValueError, match="not finite"):
        Perplexity().measure(bench_of(subject))


def test_token_as_likely_as_the_dense_models_is_the_same() -> None:
    logits = torch.zeros(1, 3, 50)
    output = SimpleNamespace(logits=logits)
    batch = {"attention_mask": torch.ones(1, 3)}
    assert TASK.likeness(output, output, batch).tolist() == [1.0]
    assert TASK.likeness(output, TASK.answers.kept(output), batch).tolist() == [1.0]


def test_label_that_nobody_reads_is_refused(run: Run, study: Path) -> None:
    study.write_text(study.read_text().replace("[data]", '[data]\nlabel = "topic"'))
    status, _, errors = run("search", study, "--out", study.parent / "run")
    assert status == 2
    assert "text-generation needs texts alone: leave out data.label" in errors
    (study.parent / "rows.csv").write_text("text,topic\nsome words,1\n")
    for option in ("--label", "--text-pair"):
        arguments = (study.parent / "model", study.parent / "rows.csv", option, "topic")
        status, _, errors = run("init", *arguments, "--out", study.parent / "other.toml")
        assert status == 2
        assert "text-generation needs texts alone: leave out --label" in errors


def measured(trial: int, candidate: Candidate, **values: float) -> TrialRecord:
    found = {
        name: Measurement(value, value, value, metric_of(name).unit)
        for name, value in values.items()
    }
    return TrialRecord(trial, candidate, Result(Outcome.OK, found))


@pytest.mark.parametrize(
    ("names", "timing", "speedup"),
    [
        (("perplexity", "decode_ms"), "decode_ms", 2.0),
        (("perplexity", "decode_ms", "latency_ms"), "latency_ms", 5.0),
        (("perplexity", "cache_mb"), "latency_ms", 5.0),
    ],
)
def test_speedup_is_of_the_timing_that_is_an_objective(
    names: tuple[str, ...], timing: str, speedup: float
) -> None:
    dense = Candidate.dense(3, 2)
    other = Candidate(HeadMask(((True, False),) * 3))
    records = [
        measured(0, dense, perplexity=20, decode_ms=10, latency_ms=50, cache_mb=3),
        measured(1, other, perplexity=21, decode_ms=5, latency_ms=10, cache_mb=2),
    ]
    objectives = [metric_of(name) for name in names]
    every = ["perplexity", "decode_ms", "latency_ms", "cache_mb"]
    confirmed = {each.candidate.id: each for each in records}
    timings = ["decode_ms", "latency_ms"]
    table = published_table(records, confirmed, objectives, every, timings).to_pandas()
    assert table["speedup"].tolist() == [1.0, speedup]
    assert compared_timing({each.name: each.unit for each in objectives}) == timing
