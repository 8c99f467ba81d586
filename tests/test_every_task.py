"""Every task: exports open in another process in each native way; wrong inputs are refused."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import paretoformer as pf
from paretoformer.evaluators.tasks import task_names
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from paretoformer.spaces import Candidate, HeadMask
from tests.conftest import Run
from tests.test_families import FAMILY, write_cell
from tests.tiny import HEADS

PIPELINES = {
    "text-classification": "text-classification",
    "multi-label-classification": "text-classification",
    "text-regression": "text-classification",
    "reranking": "text-classification",
    "token-classification": "token-classification",
    "feature-extraction": "feature-extraction",
    "retrieval": "feature-extraction",
    "text-generation": "text-generation",
    "image-classification": "image-classification",
}
OPEN = """
import json, sys, torch, transformers
import paretoformer as pf
from safetensors.torch import load_file
for folder, auto, pipeline in json.loads(sys.argv[1]):
    inputs, wanted = load_file(f"{folder}/inputs"), load_file(f"{folder}/output")["it"]
    opened = {
        "AutoModel": getattr(transformers, auto).from_pretrained(f"{folder}/out"),
        "load_compressed": pf.load_compressed(f"{folder}/out"),
    }
    opened["pipeline"] = transformers.pipeline(pipeline, model=f"{folder}/out").model
    for way, model in opened.items():
        with torch.no_grad():
            found = model(**inputs)
        if not hasattr(found, "logits") and not hasattr(found, "sentence_embedding"):
            weights = inputs["attention_mask"][..., None].float()
            mean = (found.last_hidden_state * weights).sum(1) / weights.sum(1)
            found.sentence_embedding = torch.nn.functional.normalize(mean, dim=-1)
        found = found.logits if hasattr(found, "logits") else found.sentence_embedding
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5, msg=f"{folder} {way}")
        print(folder, way)
    if pipeline == "feature-extraction":
        from sentence_transformers import SentenceTransformer
        with torch.no_grad():
            found = SentenceTransformer(f"{folder}/out", device="cpu")(inputs)
        found = torch.nn.functional.normalize(found["sentence_embedding"], dim=-1)
        torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
        print(folder, "SentenceTransformer")
"""


def write_export(folder: Path, task: str) -> tuple[str, str, str]:
    """A cut model of a task, one of its layers without heads, its inputs, and what it answers."""
    from safetensors.torch import save_file

    subject = load_subject(load_spec(write_cell(folder, task, FAMILY.get(task, "bert"))))
    mask = HeadMask(((False,) * HEADS, (True,) + (False,) * (HEADS - 1)))
    compressed = pf.compress(subject.model, Candidate(mask))
    pf.save_compressed(compressed, folder / "out")
    subject.task.processor(str(folder / "model")).save_pretrained(folder / "out")
    _, inputs = next(iter(subject.workload.batches(subject.workload.splits["search"], "cpu", 4)))
    with torch.no_grad():
        output = compressed(**inputs)
    output = output.logits if hasattr(output, "logits") else output.sentence_embedding
    save_file({name: each.contiguous() for name, each in inputs.items()}, folder / "inputs")
    save_file({"it": output.contiguous()}, folder / "output")
    return str(folder), subject.task.auto.__name__, PIPELINES[task]


@pytest.mark.slow
def test_export_opens_in_each_native_way_in_another_process(tmp_path: Path) -> None:
    assert PIPELINES.keys() == {*task_names()}
    exports = [write_export(tmp_path / task, task) for task in PIPELINES]
    done = subprocess.run(
        [sys.executable, "-c", OPEN, json.dumps(exports)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    ways = [line.split()[-1] for line in done.stdout.splitlines() if line.startswith(str(tmp_path))]
    assert [ways.count(way) for way in ("AutoModel", "load_compressed", "pipeline")] == [9, 9, 9]
    assert ways.count("SentenceTransformer") == 2


Change = Callable[[Path], None]


def rows(change: Callable[[list[dict[str, Any]]], Any]) -> Change:
    """Change the rows of the data."""

    def apply(folder: Path) -> None:
        path = folder / "data.jsonl"
        every = [json.loads(line) for line in path.read_text().splitlines()]
        every = change(every) or every
        path.write_text("\n".join(map(json.dumps, every)))

    return apply


def each_row(**values: Any) -> Change:
    """In every row; without what is None."""

    def change(every: list[dict[str, Any]]) -> list[dict[str, Any]]:
        return [{k: v for k, v in (row | values).items() if v is not None} for row in every]

    return rows(change)


def one_row(**values: Any) -> Change:
    return rows(lambda every: every[3].update(values))


def study(old: str, new: str) -> Change:
    def apply(folder: Path) -> None:
        path = folder / "tiny.toml"
        text = path.read_text()
        assert old in text
        path.write_text(text.replace(old, new))

    return apply


def config(**values: Any) -> Change:
    """Change the model's config, not its weights."""

    def apply(folder: Path) -> None:
        path = folder / "model" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return apply


def another(task: str) -> Change:
    """The model of another task."""

    def apply(folder: Path) -> None:
        write_cell(folder / "other", task, FAMILY.get(task, "bert"))
        (folder / "model").rename(folder / "own")
        (folder / "other" / "model").rename(folder / "model")

    return apply


def text_file(content: str) -> Change:
    def apply(folder: Path) -> None:
        (folder / "data.txt").write_text(content)
        study('"data.jsonl"', '"data.txt"')(folder)

    return apply


def unknown_class(folder: Path) -> None:
    (folder / "pictures" / "cat").rename(folder / "pictures" / "horse")


WRONG: list[tuple[str, Change, str]] = [
    ("text-classification", one_row(label=7), "label 7 is unknown"),
    ("multi-label-classification", one_row(label=[9]), "label 9 is unknown"),
    ("text-regression", each_row(label=1.0), "every label is 1"),
    ("reranking", one_row(label=-1), "a relevance is below 0"),
    ("token-classification", one_row(label=[0]), "row 4 has 9 words, but 1 labels"),
    ("token-classification", another("text-classification"), "BertForTokenClassification"),
    ("feature-extraction", each_row(text=""), "has no row with"),
    ("retrieval", study('text_pair = "pair"', ""), "queries need passages"),
    ("text-generation", text_file(""), "data.txt is empty"),
    ("text-generation", study("length = 64", "length = 1"), "`target.sequence_length`"),
    ("image-classification", unknown_class, "label 'horse' is unknown"),
    ("image-classification", study('"pictures"', '"absent"'), "cannot read absent"),
]
"""One or two for each task; the task's own file has the others."""


@pytest.mark.parametrize(("task", "change", "message"), WRONG)
def test_wrong_input_gets_one_line_and_status_2(
    task: str,
    change: Change,
    message: str,
    run: Run,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = write_cell(tmp_path / "study", task, FAMILY.get(task, "bert"))
    change(path.parent)
    capsys.readouterr()  # of writing the models
    status, _, error = run("search", path, "--dry-run", "--out", tmp_path / "run")
    assert status == 2, error
    assert len(error.strip().splitlines()) == 1, error
    assert message in error
    assert not (tmp_path / "run").exists()
