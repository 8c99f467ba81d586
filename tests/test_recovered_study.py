"""A study that repairs and distils: every artifact is used as it is, and nothing is done twice."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

import paretoformer as pf
from paretoformer.evaluators.artifact import workspace
from paretoformer.search.publish.export import export_best
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.records.record import TrialRecord
from paretoformer.spaces.recovery.repair_report import Recovered
from tests.tiny import write_study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inline")]

EXTRA = '[recovery]\ndistill_minutes = 0.05\n[space]\nruntime = ["torch"]\nattention = ["full"]\n'
ANY = ["accuracy >= 0"]


@pytest.fixture(scope="module")
def finished(inline: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The smallest candidate is distilled, whatever it would gain: the model was never trained."""
    study = write_study(tmp_path_factory.mktemp("recovered"), trials=8, extra=EXTRA)

    def smallest(records: Sequence[TrialRecord], *_: Any) -> list[pf.Candidate]:
        found = min(records, key=lambda record: record.measurements["parameters"].value)
        return [found.candidate.with_minutes(0.05)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("paretoformer.search.proposers.distilling.to_distil", smallest)
        return pf.search(study, out=study.parent / "run", quiet=True)


def candidates(run: Path) -> list[pf.Candidate]:
    table, _ = read_table(run / "trials.parquet")
    return [pf.Candidate.from_json(text) for text in table.column("candidate").to_pylist()]


def test_all_that_was_cut_was_repaired_and_one_was_distilled(finished: Path) -> None:
    found = candidates(finished)
    assert found[0].is_dense
    assert len(found) == 8 + 1  # the trials that were asked for, and what was distilled
    values = {c.recovery for c in found if set(c.changes()) - {"readout", "runtime"}}
    assert values == {"least_squares", "distilled:0.05"}
    assert sum(c.recovery == "distilled:0.05" for c in found) == 1
    assert {c.readout for c in found[1:]} == {"first"}


def test_what_was_chosen_keeps_its_weights_and_what_recovery_did(finished: Path) -> None:
    frame, _ = read_front(finished)
    repaired = [
        candidate
        for candidate in map(pf.Candidate.from_json, frame["candidate"])
        if candidate.recovery != "none"
    ]
    assert repaired
    for candidate in repaired:
        report = Recovered.read(finished / "models" / candidate.id)
        assert report is not None
        if not candidate.seconds:  # what learns from labels may differ from dense
            assert report.after <= report.before + 1e-6
        assert not workspace(finished / "models", candidate).exists()
    told = (finished / "report.html").read_text()
    assert "nats from dense" in told


def test_exported_weights_are_the_measured_ones(finished: Path, tmp_path: Path) -> None:
    best = pf.load_best(finished, "parameters", ANY)
    assert best.candidate.recovery != "none"
    export_best(best, tmp_path / "out")
    ids = torch.arange(5, 25)[None]
    with torch.inference_mode():
        expected = best.load_model()(input_ids=ids).logits
        found = pf.load_compressed(tmp_path / "out")(input_ids=ids).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


def test_same_command_again_repeats_nothing(finished: Path) -> None:
    rows = candidates(finished)
    pf.search(finished.parent / "tiny.toml", out=finished, quiet=True)
    assert candidates(finished) == rows
