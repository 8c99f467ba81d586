"""A candidate that differs from the uncompressed model in every axis: saved, loaded elsewhere."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import paretoformer as pf
from paretoformer.spaces import AttentionChoice, Candidate, HeadMask
from paretoformer.spaces.axes import axes
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.models.families import family_of
from paretoformer.spaces.runtimes import Tools
from tests.sampled import sampled
from tests.test_cutting import NEURONS, tiny
from tests.test_surgery import inputs

READS_FIRST = (
    "bert",
    "camembert",
    "distilbert",
    "electra",
    "ernie",
    "roberta",
    "vit",
    "xlm-roberta",
)
FAMILIES = ("bert", "distilbert", "roberta", "electra", "gpt2", "llama", "vit")
RUNTIMES = ("torch:int8", "onnxruntime", "onnxruntime:int8", "openvino:int8")
SERVED = [
    (family, runtime)
    for number, family in enumerate(FAMILIES)
    for runtime in RUNTIMES
    if family == "bert" or runtime == RUNTIMES[1 + number % 3]
]
"""Each family in one runtime: conversions are slow."""
DAILY = [("bert", "openvino:int8"), ("vit", "onnxruntime")]
STRIDED = AttentionChoice.of("strided", stride=3, window=2, global_tokens=1)
FULL = AttentionChoice.of("full")
HEADS = (((0, 1), (1,), (0,), (), (0, 1)), ((0, 2, 3), (0,), (1,), (), (0, 3)))
"""Kept in each layer: where heads are two groups, and where they are four."""
OPEN = """
import sys, torch, paretoformer as pf
for folder in sys.argv[1:]:
    batch = torch.load(f"{folder}/batch.pt", weights_only=True)
    with torch.inference_mode():
        output = pf.load_compressed(f"{folder}/model")(**batch).logits
    torch.save(output, f"{folder}/again.pt")
"""


def changed(model: Any, runtime: str) -> Candidate:
    """Heads, mechanisms where there are any, neurons, layers and runtime, all another than in the
    dense model."""
    groups = getattr(model.config, "num_key_value_heads", 4)
    kept = HEADS[groups > 2]
    mask = HeadMask(tuple(tuple(head in row for head in range(groups)) for row in kept))
    scores = np.random.default_rng(0).random((5, NEURONS))
    other = FULL if family_of(model.config).only_full else STRIDED
    return Candidate(
        mask,
        (other, FULL, other, FULL, other),
        feed_forward=NeuronMask.ranked((22, NEURONS, 0, 9, NEURONS), scores),
        layers=(True, False, True, True, True),
        readout="first" if model.config.model_type in READS_FIRST else "all",
        runtime=runtime,
    )


def test_candidate_changes_every_axis_that_a_user_may_apply_without_a_study() -> None:
    names = {axis.name for axis in axes()} - {"recovery", "vocabulary"}
    assert set(changed(tiny("bert"), "onnxruntime").changes()) == names


@pytest.mark.nightly
@pytest.mark.slow
@sampled("served", [SERVED, DAILY], [DAILY], ids=["all", "some"])
def test_every_axis_changed_saved_and_loaded_in_another_process(
    tmp_path: Path, served: list[tuple[str, str]]
) -> None:
    """The outputs are the same to the bit, or to 1e-5."""
    expected = {}
    for family, runtime in served:
        model, folder = tiny(family), tmp_path / f"{family}-{runtime}"
        batch = inputs(model)
        tools = Tools(threads=1, example=batch, calibration=lambda batch=batch: [batch] * 2)
        compressed = pf.compress(model, changed(model, runtime), tools=tools)
        pf.save_compressed(compressed, folder / "model")
        torch.save(batch, folder / "batch.pt")
        with torch.inference_mode():
            expected[folder] = compressed(**batch).logits
    subprocess.run([sys.executable, "-c", OPEN, *map(str, expected)], check=True)
    for folder, logits in expected.items():
        again = torch.load(folder / "again.pt", weights_only=True)
        tolerance = 0.0 if folder.name.endswith("int8") else 1e-5
        torch.testing.assert_close(again, logits, atol=tolerance, rtol=0)


def test_building_and_loading_leave_the_threads_of_the_process(tmp_path: Path) -> None:
    """Else a model would be slower in the hands of whoever loads it than it was measured."""
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        compressed = pf.compress(tiny("bert"), changed(tiny("bert"), "torch"))
        pf.save_compressed(compressed, tmp_path)
        pf.load_compressed(tmp_path)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
