"""Quality on texts of another origin: confirmed and told, and nothing is chosen by it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import paretoformer as pf
from paretoformer.search.publish.card import model_card
from paretoformer.search.publish.summary import on_other_texts
from paretoformer.search.records.errors import StudyError
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject
from tests.tiny import SMALL_SPACE, write_study

ROWS = "text,label\n" + "".join(
    f"word{n} word{n + 1} word{n + 2} elsewhere,{n % 2}\n" for n in range(30)
)


def study_with(folder: Path, rows: str) -> Path:
    study = write_study(folder, trials=3, extra=SMALL_SPACE)
    (folder / "other.csv").write_text(rows, "utf-8")
    study.write_text(study.read_text().replace("[data]\n", '[data]\nother = "other.csv"\n'))
    return study


@pytest.mark.slow
@pytest.mark.usefixtures("inline")
def test_quality_on_other_texts_is_confirmed_and_told(tmp_path: Path) -> None:
    run = pf.search(study_with(tmp_path, ROWS), out=tmp_path / "run", quiet=True)
    assert read_table(run / "trials.parquet")[0].to_pandas()["accuracy_other"].isna().all()
    front, facts = read_front(run)
    assert front["accuracy_other"].between(0, 1).all()
    assert front["accuracy_other_high"].gt(front["accuracy_other_low"]).all()
    assert "accuracy_other" not in facts.requirements
    best = pf.load_best(run, require=["accuracy>=0"])
    assert on_other_texts(best).startswith("On data.other: accuracy 0.")
    assert "| accuracy_other |" in model_card(best, str(tmp_path / "model"), plain=True)


def test_rows_of_the_other_files_do_not_count_twice(tmp_path: Path) -> None:
    study = study_with(tmp_path, "")
    shutil.copy(tmp_path / "data.csv", tmp_path / "other.csv")
    with pytest.raises(StudyError, match=r"data\.other: .*other\.csv has no example"):
        load_subject(load_spec(study))
