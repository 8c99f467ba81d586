"""Every task with every family that does it: a small model of random weights, cut and measured."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

import paretoformer as pf
from paretoformer.evaluators.tasks import task_names, task_of
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.models.divergence import Answers
from paretoformer.spaces.models.families import FAMILIES
from tests.sampled import sampled
from tests.test_image_classification import write_image_model
from tests.tiny import HEADS, LAYERS, WORDS, write_model, write_study

CELLS = [
    (task, family)
    for task in task_names()
    for family in FAMILIES
    if family in task_of(task).architectures
]
FAMILY = {"text-generation": "llama", "image-classification": "vit"}
"""The family that stands for the others every day, by task; bert where none is named."""
CUT = Candidate(HeadMask(((True,) + (False,) * (HEADS - 1),) * LAYERS))
CLASSES = 3
ONE_NUMBER = ("text-regression", "reranking")
EMBEDDERS = ("feature-extraction", "retrieval")
ROWS = 160


def row_of(task: str, words: list[str], number: int) -> dict[str, Any]:
    text = " ".join(words)
    rows: dict[str, dict[str, Any]] = {
        "text-classification": {"text": text, "label": number % CLASSES},
        "text-generation": {"text": text},
        "multi-label-classification": {"text": text, "label": [number % CLASSES]},
        "text-regression": {"text": text, "label": number / 7},
        "reranking": {"text": f"word{number // 4}", "pair": text, "label": number % 2},
        "token-classification": {"text": words, "label": [number % CLASSES] * len(words)},
        "retrieval": {"text": f"word{number // 4}", "pair": text, "label": number % 2},
        "feature-extraction": {"text": text, "pair": f"{words[0]} {number % 60}", "label": 0.5},
    }
    return rows[task]


def write_cell(folder: Path, task: str, family: str) -> Path:
    """A study of a model that was never trained."""
    study = write_study(folder)
    model = folder / "model"
    if task == "image-classification":
        write_image_model(model, family)
        from tests.test_image_classification import images

        for number, image in enumerate(images(ROWS)):
            place = folder / "pictures" / ("cat", "dog")[number % 2]
            place.mkdir(parents=True, exist_ok=True)
            image.save(place / f"{number}.png")
        data = "pictures"
    else:
        settings: dict[str, Any] = {"pad_token_id": 0}
        if task not in (*EMBEDDERS, "text-generation"):
            settings["num_labels"] = 1 if task in ONE_NUMBER else CLASSES
        if FAMILIES[family].causal and family != "gpt2":
            settings |= {"num_key_value_heads": HEADS, "head_dim": 8, "sliding_window": None}
        write_model(model, family, **settings)
        config = transformers.AutoConfig.from_pretrained(model)
        if task == "multi-label-classification":
            config.problem_type = "multi_label_classification"
        torch.manual_seed(0)
        task_of(task).auto.from_config(config).save_pretrained(model)
        rng = np.random.default_rng(0)
        rows = [
            row_of(task, [WORDS[i] for i in rng.integers(0, 60, rng.integers(3, 30))], number)
            for number in range(ROWS)
        ]
        (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
        data = "data.jsonl"
    text = study.read_text().replace('path = "model"', f'path = "model"\ntask = "{task}"')
    text = text.replace('"data.csv"', f'"{data}"')
    if task in (*EMBEDDERS, "reranking"):
        text = text.replace("[data]", '[data]\ntext_pair = "pair"')
    study.write_text(text)
    return study


@sampled("task, family", CELLS, [each for each in CELLS if each[1] == FAMILY.get(each[0], "bert")])
def test_cut_model_answers_and_transformers_loads_it(
    tmp_path: Path, task: str, family: str
) -> None:
    subject = load_subject(load_spec(write_cell(tmp_path, task, family)))
    split = subject.workload.splits["search"]
    indices, batch = next(iter(subject.workload.batches(split, "cpu", 8)))
    answers: Answers = subject.task.answers
    compressed = pf.compress(subject.model, CUT)
    with torch.inference_mode():
        dense, output = subject.model(**batch), compressed(**batch)
    assert float(answers.divergence(dense, dense, batch).abs().max()) < 1e-9
    assert float(answers.divergence(output, dense, batch).min()) > 0
    assert subject.task.likeness(output, dense, batch).shape == (8,)
    labels = torch.from_numpy(split.labels[indices])
    assert torch.isfinite(subject.task.loss(output, labels))
    native = subject.task.auto.from_pretrained(pf.save_compressed(compressed, tmp_path / "out"))
    with torch.inference_mode():
        again = native.eval()(**batch)
    if answers.output == "logits":
        torch.testing.assert_close(again.logits, output.logits, atol=1e-5, rtol=1e-5)


def test_every_task_says_what_a_row_of_its_data_is() -> None:
    text = (Path(__file__).parent.parent / "docs" / "how-to" / "data.md").read_text("utf-8")
    rows = "".join(line for line in text.splitlines() if line.startswith("| `"))
    for task in {task for task, _ in CELLS}:
        assert f"`{task}`" in rows
