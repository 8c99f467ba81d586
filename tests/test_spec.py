"""The study file: what is wrong is named, with how to mend it."""

from __future__ import annotations

from pathlib import Path

import pytest

from paretoformer.search.errors import StudyError
from paretoformer.search.study.spec import BUILTIN, load_spec, parse_spec

GOOD = """
[model]
path = "org/model"
[data]
path = "org/data"
"""


def parse(text: str, **overrides: int):
    return parse_spec(text, source=Path("mine.toml"), overrides=overrides)


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_study_is_valid(name: str) -> None:
    assert load_spec(name).name == name


def test_reviews_is_the_study_that_was_promised() -> None:
    spec = load_spec("reviews")
    assert spec.trials == 40
    assert spec.objectives == ["accuracy", "latency_ms"]
    assert (spec.target.batch_size, spec.target.sequence_length) == (1, 64)
    assert spec.data.search_examples == 500


def test_name_defaults_to_the_file_and_options_override() -> None:
    spec = parse(GOOD, trials=7, seed=3)
    assert (spec.name, spec.trials, spec.seed) == ("mine", 7, 3)


def test_resolved_study_is_the_same_study() -> None:
    spec = parse(GOOD + '[space]\nattention = ["window"]\n')
    assert parse_spec(spec.to_toml(), source=Path("elsewhere/study.toml")) == spec


def test_paths_are_relative_to_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    study = tmp_path / "s.toml"
    study.write_text('[model]\npath = "model"\n[data]\npath = "rows.csv"\n')
    spec = load_spec(study)
    assert spec.model.path == str(tmp_path / "model")
    assert spec.data.path == str(tmp_path / "rows.csv")


def test_hub_id_stays_a_hub_id() -> None:
    assert parse(GOOD).model.path == "org/model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3" + GOOD, "unknown key `trails`. Did you mean 'trials'?"),
        (GOOD + "[target]\nbatchsize = 1", "unknown key `target.batchsize`. Did you mean 'batch"),
        (GOOD + "[data2]\n", "unknown key `data2`. Did you mean 'data'?"),
        ("[data]\npath = 'x'", "`model` is missing"),
        ("[model]\n[data]\npath = 'x'", "`model.path` is missing"),
        ("trials = 'many'" + GOOD, "`trials`: Input should be a valid integer"),
        ("trials = 0" + GOOD, "`trials`: Input should be greater than or equal to 1, but got 0"),
        ("objectives = ['accuracy']" + GOOD, "needs two or more objectives"),
        (GOOD + "[search]\nsampler = 'nsga3'", "`search.sampler`: Input should be 'nsga2'"),
        (GOOD + "[timing]\npatience_minutes = -1", "greater than or equal to 0, but got -1"),
        (GOOD + "[target]\ndtype = 'int8'", "`target.dtype`: Input should be 'float32'"),
        (GOOD + "search = 'a.csv'", "either `path`, or `train`, `search` and `confirm`"),
        ("[model]\npath='x'\n[data]\ntrain='a.csv'", "give `path`, or all of `train`"),
        ("name = 'a/b'" + GOOD, "`name`: String should match pattern"),
        ("= 3", "is not TOML"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.toml")


def test_missing_file_and_unknown_name_are_told_apart() -> None:
    with pytest.raises(StudyError, match=r"no study file absent\.toml"):
        load_spec("absent.toml")
    with pytest.raises(StudyError, match="no built-in study 'review'. Did you mean 'reviews'"):
        load_spec("review")
