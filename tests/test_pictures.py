"""The pictures of trials that optuna-dashboard shows."""

from __future__ import annotations

from pathlib import Path
from xml.etree import ElementTree

import optuna
import pytest
from optuna.artifacts import get_all_artifact_meta
from optuna.artifacts.exceptions import ArtifactNotFound

from paretoformer.evaluators.outcome import Outcome, Result
from paretoformer.search.records.record import RECORD, TrialRecord
from paretoformer.search.report.layers import layer_rows, picture
from paretoformer.search.report.pictures import NAME, Pictures, attach_picture
from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.attention_choice import AttentionChoice

SVG = "{http://www.w3.org/2000/svg}"
WINDOW = AttentionChoice.of("window", window=8)
CUT = Candidate(HeadMask(((True, True, False, False), (False,) * 4)), (WINDOW, WINDOW))


def texts(svg: str) -> list[str]:
    return [each.text or "" for each in ElementTree.fromstring(svg).iter(f"{SVG}text")]


def test_picture_says_what_each_layer_keeps() -> None:
    svg = picture(CUT)
    assert texts(svg)[0].startswith("2 of 8 heads")
    assert any("window" in text for text in texts(svg))
    squares = [
        each.get("fill")
        for each in ElementTree.fromstring(svg).iter(f"{SVG}rect")
        if each.get("width") == "12.0"
    ]
    assert len(squares) == 8
    assert squares.count("none") == 6


def test_removed_layer_is_a_word() -> None:
    without = Candidate.dense(2, 4).replaced(layers=(True, False))
    assert [row.removed for row in layer_rows(without)] == [False, True]
    assert "removed" in texts(picture(without))


@pytest.fixture
def study(tmp_path: Path) -> optuna.Study:
    """A study with one trial, which was measured."""
    found = optuna.create_study(study_name="mine", storage=f"sqlite:///{tmp_path}/s.db")
    trial = found.ask()
    record = TrialRecord(trial.number, CUT, Result(Outcome.OK))
    trial.set_user_attr(RECORD, record.to_json())
    attach_picture(trial)
    found.tell(trial, 1.0)
    return found


def test_trial_has_an_artifact_that_the_store_draws(study: optuna.Study) -> None:
    (meta,) = get_all_artifact_meta(study.trials[0], storage=study._storage)
    assert (meta.filename, meta.mimetype) == (NAME, "image/svg+xml")
    assert set(meta.artifact_id) <= set("0123456789abcdef-")  # all that the dashboard serves
    drawn = Pictures(study._storage, "mine").open_reader(meta.artifact_id).read()
    assert drawn.decode() == picture(CUT)


@pytest.mark.parametrize("other", ["7-00", "no number", "", "0-0123456789ab"])
def test_store_has_no_other_pictures(study: optuna.Study, other: str) -> None:
    with pytest.raises(ArtifactNotFound):
        Pictures(study._storage, "mine").open_reader(other)


def test_picture_of_another_study_is_not_taken_for_one_of_this(study: optuna.Study) -> None:
    other = optuna.create_study(study_name="other", storage=study._storage)
    trial = other.ask()
    attach_picture(trial)
    (meta,) = get_all_artifact_meta(trial)
    with pytest.raises(ArtifactNotFound):
        Pictures(study._storage, "mine").open_reader(meta.artifact_id)
