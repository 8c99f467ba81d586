"""Runtimes: every one of them, in every precision, answers as torch does."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from paretoformer.spaces import AttentionChoice, Candidate
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.build import build
from paretoformer.spaces.runtimes import (
    Runnable,
    Tools,
    names,
    onnx_export,
    parse,
    runtimes,
)
from paretoformer.spaces.runtimes.graph_template import Template
from paretoformer.spaces.runtimes.onnx_export import onnx_model
from paretoformer.spaces.runtimes.onnxruntime import OnnxRunnable
from paretoformer.spaces.runtimes.openvino import OpenVinoRunnable, _core
from paretoformer.spaces.runtimes.torch_runtime import weight_bytes
from tests import test_cutting
from tests.mechanisms import CHEAP
from tests.sampled import sampled
from tests.test_surgery import HEADLESS, MASK, inputs, tiny

pytestmark = pytest.mark.slow
FAMILIES = ("bert", "distilbert", "roberta", "electra", "gpt2", "llama", "vit", "dinov2")
every_exported_family = sampled("family", FAMILIES, ("bert", "gpt2"))
TOLERANCES = {
    "float32": 1e-5,
    "bfloat16": 0.05,
    "float16": 0.01,
    "int4_weights": 0.3,
    "int8_weights": 0.05,
    "int8_dynamic": 0.1,
    "int8": 0.1,
}
GPU_ONLY = "compile:float16"
ON_CPU = tuple(name for name in names() if name != GPU_ONLY)
FLOATS = tuple(name for name in ON_CPU if parse(name)[1] != "int8")
OWN_FILES = tuple(name for name in names() if not parse(name)[0].rebuilt)
THREADS = 2


DAILY = (
    "torch",
    "torch:int8",
    "onnxruntime",
    "onnxruntime:int4_weights",
    "onnxruntime:int8_weights",
    "onnxruntime:int8",
    "openvino",
    "openvino:int8",
    "openvino:int8_dynamic",
)


def marked(values: tuple[str, ...], *more: str) -> Any:
    """more: values to try every day besides `DAILY`."""
    return sampled("value", values, [v for v in values if v in (*DAILY, *more)])


def tools() -> Tools:
    batch = inputs(model())
    return Tools(threads=THREADS, example=batch, calibration=lambda: [batch] * 4)


@cache
def model() -> nn.Module:
    """With heads cut, one layer without any."""
    return build(Candidate(HEADLESS), tiny("bert")).model


def skip_unless_available(value: str) -> None:
    """Only for what this CPU lacks, such as bfloat16 instructions, or a missing C++ compiler.

    `.[test]` installs every runtime, so a missing package is a failure.
    """
    runtime, precision = parse(value)
    if reason := runtime.unavailable(precision, "cpu"):
        assert "not installed" not in reason, reason
        pytest.skip(reason)


@cache
def converted(value: str) -> Runnable:
    skip_unless_available(value)
    runtime, precision = parse(value)
    return runtime.convert(model(), precision, tools())


@pytest.fixture
def runnable(value: str) -> Runnable:
    return converted(value)


@pytest.fixture(autouse=True)
def keep_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def logits(runnable: Any, batch: dict[str, torch.Tensor]) -> torch.Tensor:
    with torch.inference_mode():
        return runnable(**batch).logits.float()


def cut(batch: dict[str, torch.Tensor], rows: slice, length: int) -> dict[str, torch.Tensor]:
    return {name: each[rows, :length] for name, each in batch.items()}


def padded(batch: dict[str, torch.Tensor], more: int) -> dict[str, torch.Tensor]:
    """Padding is token 7 here: it must not matter which."""
    fill = {"input_ids": 7, "attention_mask": 0}
    pad = nn.functional.pad
    return {name: pad(each, (0, more), value=fill[name]) for name, each in batch.items()}


def test_what_only_a_gpu_compiles_is_refused_on_a_cpu() -> None:
    runtime, precision = parse(GPU_ONLY)
    assert runtime.unavailable(precision, "cpu") == "float16 is compiled for a GPU only"


@marked(ON_CPU, "compile")
def test_runtime_equals_torch_within_its_tolerance(value: str, runnable: Runnable) -> None:
    batch = inputs(model())
    tolerance = TOLERANCES[parse(value)[1]]
    torch.testing.assert_close(
        logits(runnable, batch), logits(model(), batch), atol=tolerance, rtol=tolerance
    )


@marked(ON_CPU)
def test_runtime_takes_any_batch_and_length(value: str, runnable: Runnable) -> None:
    """With the same answers when it is asked again."""
    tolerance, first = TOLERANCES[parse(value)[1]], {}
    for again in (False, True):
        for rows, length in ((1, 40), (1, 3), (3, 17), (7, 65)):
            generator = torch.Generator().manual_seed(rows)
            ids = torch.randint(5, 100, (rows, length), generator=generator)
            batch = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
            found = logits(runnable, batch)
            if again:
                assert torch.equal(found, first[rows, length])
            first[rows, length] = found
            torch.testing.assert_close(
                found, logits(model(), batch), atol=tolerance, rtol=tolerance
            )


def test_half_precision_weighs_less() -> None:
    whole, half = weight_bytes(model()), converted("torch:float16").weight_bytes
    assert 0 < half < whole


@marked(FLOATS)
def test_padding_changes_no_answer(value: str, runnable: Runnable) -> None:
    batch = cut(inputs(model()), slice(1, 3), 30)
    tolerance = 1e-5 if parse(value)[1] == "float32" else 0.02
    torch.testing.assert_close(
        logits(runnable, padded(batch, 9)), logits(runnable, batch), atol=tolerance, rtol=tolerance
    )


@marked(ON_CPU)
def test_rows_are_coupled_only_where_the_runtime_says_so(value: str, runnable: Runnable) -> None:
    batch = inputs(model())
    alone = logits(runnable, cut(batch, slice(1), 40))
    together = logits(runnable, batch)[:1]
    tolerance = 0.02 if "float16" in value else 1e-6
    assert torch.allclose(alone, together, atol=tolerance) == (not runnable.couples_rows)


@pytest.mark.parametrize("value", ["torch", "onnxruntime", "openvino"])
def test_runtime_uses_the_threads_that_were_asked_for(value: str) -> None:
    runtime, precision = parse(value)
    torch.set_num_threads(1)
    assert runtime.convert(model(), precision, tools()).threads == THREADS


@marked(OWN_FILES)
def test_saved_files_load_with_equal_outputs(
    value: str, runnable: Runnable, tmp_path: Path
) -> None:
    runtime, precision = parse(value)
    runnable.save(tmp_path)
    found = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    assert found == set(runtime.files)
    loaded = runtime.load(tmp_path, precision, Tools(threads=THREADS))
    batch = inputs(model())
    assert torch.equal(logits(loaded, batch), logits(runnable, batch))
    assert loaded.weight_bytes == runnable.weight_bytes


@marked(OWN_FILES)
def test_conversion_repeats_to_the_byte(value: str, runnable: Runnable, tmp_path: Path) -> None:
    runtime, precision = parse(value)
    again = runtime.convert(model(), precision, tools())
    runnable.save(tmp_path / "first")
    again.save(tmp_path / "second")
    for name in runtime.files:
        assert (tmp_path / "first" / name).read_bytes() == (tmp_path / "second" / name).read_bytes()


def test_groups_of_activations_stand_in_the_file(tmp_path: Path) -> None:
    """So int8_dynamic is what it was measured as wherever the file is served."""
    converted("openvino:int8_dynamic").save(tmp_path)
    served = _core().compile_model(tmp_path / parse("openvino")[0].files[0], "CPU")
    assert served.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE") == 128


def test_runtimes_of_torch_have_no_files() -> None:
    runtime, precision = parse("torch:int8")
    with pytest.raises(ValueError, match="has no files of its own"):
        runtime.load(Path(), precision, Tools())


def exported(rebuilt: nn.Module) -> list[Runnable]:
    """In both runtimes that read ONNX, from one export."""
    for value in OWN_FILES:
        skip_unless_available(value.partition(":")[0])
    content = onnx_model(rebuilt, None).SerializeToString()
    tools = Tools(threads=THREADS)
    return [
        OnnxRunnable(content, tools, couples_rows=False),
        OpenVinoRunnable(_core().read_model(content), "float32", tools),
    ]


def template_of_last_graph() -> Template | None:
    """None: it was traced by itself."""
    return list(onnx_export._TEMPLATES.values())[-1]


def assert_equal_everywhere(rebuilt: nn.Module, longest: int = 77) -> None:
    """At other sizes than those it was traced at, with padding at either end and without."""
    whole = inputs(rebuilt)
    batches = [{name: each[:1] for name, each in whole.items()}, whole]
    if "input_ids" in whole:
        ids = torch.randint(5, 100, (2, longest), generator=torch.Generator().manual_seed(3))
        mask = torch.ones_like(ids)
        mask[0, 50:] = 0
        mask[1, :4] = 0
        batches += [cut(whole, slice(3), 31), {"input_ids": ids, "attention_mask": mask}]
        batches += [cut(whole, slice(1, 2), 2)]
    for each in exported(rebuilt):
        for batch in batches:
            expected = logits(rebuilt, batch)
            torch.testing.assert_close(logits(each, batch), expected, atol=1e-5, rtol=1e-5)


@every_exported_family
def test_every_family_exports_with_cut_heads_and_a_headless_layer(family: str) -> None:
    assert_equal_everywhere(build(Candidate(HEADLESS), tiny(family)).model)
    assert template_of_last_graph() is not None


def test_layers_of_several_kinds_are_assembled_each_from_its_own() -> None:
    """ModernBERT's first layer has no norm, and two of three others see few tokens."""
    model = test_cutting.tiny("modernbert")
    onnx_export._TEMPLATES.clear()
    whole = Candidate.dense(test_cutting.LAYERS, test_cutting.HEADS)
    heads = HeadMask(
        ((True,) * 4, (True,) * 4, (False,) * 4, (True, False, True, True), (True,) * 4)
    )
    for candidate in (whole, whole.replaced(heads=heads)):
        assert_equal_everywhere(build(candidate, model).model)
    assert len(onnx_export._TEMPLATES) == 1
    assert template_of_last_graph() is not None


def test_biases_of_heads_are_traced_with_the_graph() -> None:
    assert_equal_everywhere(build(Candidate(HEADLESS), tiny("mpnet")).model)


@every_exported_family
def test_every_family_runs_in_int8_in_torch(family: str) -> None:
    runtime, precision = parse("torch:int8")
    rebuilt = build(Candidate(HEADLESS), tiny(family)).model
    runnable = runtime.convert(rebuilt, precision, Tools(threads=THREADS))
    batch = inputs(rebuilt)
    torch.testing.assert_close(logits(runnable, batch), logits(rebuilt, batch), atol=0.1, rtol=0.1)
    assert runnable.weight_bytes < weight_bytes(rebuilt)


WINDOWED = AttentionChoice.of("window", window=17, global_tokens=2)


@sampled(
    "family, choice",
    [
        ("bert", CHEAP["full"][0]),
        ("bert", WINDOWED),
        ("bert", CHEAP["strided"][0]),
        ("bert", CHEAP["lowrank"][0]),
        ("bert", CHEAP["linear"][0]),
        ("bert", CHEAP["nystrom"][0]),
        ("bert", CHEAP["random_features"][0]),
        ("bert", CHEAP["clustered"][0]),
        ("gpt2", CHEAP["strided"][1]),
        ("gpt2", CHEAP["linear"][0]),
        ("llama", WINDOWED),
        ("vit", CHEAP["lowrank"][0]),
    ],
    [("bert", CHEAP["linear"][0])],
)
def test_mechanism_exports_for_every_length_and_mask(family: str, choice: AttentionChoice) -> None:
    """In one layer; the other one is `window`, so that `full` is not the dense model."""
    assert_equal_everywhere(build(Candidate(MASK, (choice, WINDOWED)), tiny(family)).model)


@pytest.mark.parametrize(
    "choice", [*CHEAP["routing"][:1], *CHEAP["lsh"][:1], *CHEAP["clustered"][1:]]
)
@pytest.mark.parametrize("value", OWN_FILES)
def test_mechanism_that_does_not_export_is_refused_by_name(
    value: str, choice: AttentionChoice
) -> None:
    runtime, precision = parse(value)
    rebuilt = build(Candidate(MASK, (WINDOWED, choice)), tiny("bert")).model
    assert f"attention '{choice.name}'" in runtime.unsuitable(precision, rebuilt)
    with pytest.raises(ValueError, match=f"{value} cannot run this model: attention"):
        runtime.convert(rebuilt, precision, tools())
    assert not parse("compile")[0].unsuitable("float32", rebuilt)


def test_hidden_states_are_outputs_of_a_model_without_a_classifier() -> None:
    base = tiny("bert").base_model
    batch = inputs(base)
    with torch.inference_mode():
        expected = base(**batch)
    for each in exported(base):
        output = each(**batch)
        torch.testing.assert_close(
            output.last_hidden_state, expected.last_hidden_state, atol=1e-5, rtol=1e-5
        )
        torch.testing.assert_close(output.pooler_output, expected.pooler_output)


def test_conversion_leaves_the_model_as_it_was() -> None:
    original = tiny("bert")
    before = {name: each.clone() for name, each in original.state_dict().items()}
    for precision in ("bfloat16", "int8"):
        parse("torch")[0].convert(original, precision, Tools())
    after = original.state_dict()
    assert all(after[name].dtype == each.dtype for name, each in before.items())
    assert all(torch.equal(after[name], each) for name, each in before.items())


def test_missing_inputs_are_filled_in_and_unknown_ones_refused() -> None:
    runnable = converted("onnxruntime")
    batch = cut(inputs(model()), slice(1, 3), 40)
    ids = batch["input_ids"]
    assert torch.equal(logits(runnable, {"input_ids": ids}), logits(runnable, batch))
    with pytest.raises(ValueError, match=r"exported for .* not \['pixel_values'\]"):
        runnable(input_ids=ids, pixel_values=ids)
    with pytest.raises(ValueError, match="needs the input 'input_ids'"):
        runnable(attention_mask=ids)


def test_graph_of_a_classifier_does_not_generate() -> None:
    runnable = converted("onnxruntime")
    assert runnable.generator is None
    with pytest.raises(ValueError, match="does not generate"):
        runnable.generate(torch.tensor([[5, 6]]))


def test_calibration_without_data_is_refused() -> None:
    with pytest.raises(ValueError, match="needs a study's data"):
        parse("openvino:int8")[0].convert(model(), "int8", Tools())


def test_every_value_parses_to_its_own_runtime_and_precision() -> None:
    for value in names():
        runtime, precision = parse(value)
        assert runtime.value(precision) == value
    runtime, precision = parse("torch:float32")
    assert runtime.value(precision) == "torch"
    assert [each.name for each in runtimes()] == ["torch", "compile", "onnxruntime", "openvino"]


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("onnxruntim", "onnxruntime"),
        ("openvino:int4", "openvino:int8"),
        ("torch:", "torch"),
        ("compile:bfloat17", "compile:bfloat16"),
    ],
)
def test_unknown_runtime_is_answered_with_the_nearest(wrong: str, near: str) -> None:
    with pytest.raises(
        ValueError, match=f"unknown runtime '{wrong}'. Did you mean '{near}'.*Known: torch, "
    ):
        parse(wrong)


@sampled(
    "value, package, extra",
    [
        ("onnxruntime", "onnxruntime", "onnx"),
        ("onnxruntime:int8", "onnxscript", "onnx"),
        ("openvino", "openvino", "openvino"),
        ("openvino:int8", "nncf", "openvino"),
        ("openvino", "onnx", "onnx"),
    ],
    [("onnxruntime", "onnxruntime", "onnx"), ("openvino:int8", "nncf", "openvino")],
)
def test_missing_package_names_its_extra(
    value: str, package: str, extra: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    skip_unless_available(value)
    monkeypatch.setitem(sys.modules, package, None)
    runtime, precision = parse(value)
    message = rf"{package} is not installed: pip install 'paretoformer\[{extra}\]'"
    reason = runtime.unavailable(precision, "cpu")
    assert reason == f"{package} is not installed: pip install 'paretoformer[{extra}]'"
    with pytest.raises(ImportError, match=message):
        runtime.convert(model(), precision, tools())


def test_devices_that_a_runtime_does_not_know_are_unavailable() -> None:
    for value in ("onnxruntime", "openvino"):
        assert parse(value)[0].unavailable("float32", "cuda") == "used on CPUs only"
    assert "CPU only" in parse("torch:int8")[0].unavailable("int8", "cuda") or (
        not torch.cuda.is_available()
    )
