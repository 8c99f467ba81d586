"""A study that serves its candidates by another runtime: one build, the same files everywhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import paretoformer as pf
from paretoformer.search.publish.export import export_best
from paretoformer.search.publish.verify import verify
from paretoformer.search.records.errors import RunError, StudyError
from paretoformer.search.records.parquet import read_front, read_table
from tests.tiny import write_study

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("inline")]

RUNTIMES = """
[space]
runtime = ["torch", "onnxruntime:int8"]
[search]
table = false
require = ["memory_mb < 1000"]
"""
"""Without the table: with it, the smallest that this tiny model has is one that torch runs."""
ALTERNATIVE = ["accuracy >= 0"]


@pytest.fixture(scope="module")
def finished(inline: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small study."""
    study = write_study(tmp_path_factory.mktemp("served"), trials=6, extra=RUNTIMES)
    return pf.search(study, out=study.parent / "run", quiet=True)


@pytest.fixture(scope="module")
def exported(finished: Path) -> Path:
    """The smallest file that the run found, as a folder."""
    folder = finished.parent / "out"
    export_best(pf.load_best(finished, "disk_mb", ALTERNATIVE), folder)
    return folder


def test_uncut_model_in_the_other_runtime_is_in_the_table(finished: Path) -> None:
    frame, _ = read_front(finished)
    (alternative,) = frame[frame["role"] == "alternative"].to_dict("records")
    candidate = json.loads(alternative["candidate"])
    assert candidate["runtime"] == "onnxruntime:int8"
    assert "0" not in "".join(candidate["heads"])
    assert alternative["memory_mb"] > alternative["disk_mb"]
    assert alternative["disk_mb"] > 0


def test_conversion_is_done_once_and_its_time_is_recorded(finished: Path) -> None:
    rows = read_table(finished / "trials.parquet")[0].to_pandas()
    served = rows[rows["candidate"].str.contains("onnxruntime")]
    assert (served["build_ended"] > served["build_started"]).all()
    confirmed, _ = read_front(finished)
    assert confirmed["build_started"].isna().all()  # the confirmation took the same files


def test_export_holds_the_files_that_were_measured(finished: Path, exported: Path) -> None:
    best = pf.load_best(finished, "disk_mb", ALTERNATIVE)
    kept = finished / "models" / best.candidate.id / "onnx" / "model.onnx"
    assert (exported / "onnx" / "model.onnx").read_bytes() == kept.read_bytes()
    names = {path.name for path in exported.iterdir()}
    assert names >= {"README.md", "config.json", "tokenizer.json", "compression.json"}


def test_export_is_served_by_onnxruntime_alone(finished: Path, exported: Path) -> None:
    script = (
        "import onnxruntime, numpy, json;"
        f"s = onnxruntime.InferenceSession({str(exported / 'onnx' / 'model.onnx')!r});"
        "ids = numpy.array([[2, 5, 6, 3]]);"
        "feed = {i.name: ids if i.name == 'input_ids' else numpy.ones_like(ids)"
        " if i.name == 'attention_mask' else numpy.zeros_like(ids) for i in s.get_inputs()};"
        "print(json.dumps(s.run(['logits'], feed)[0].tolist()))"
    )
    output = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True)
    alone = torch.tensor(json.loads(output.stdout))
    ids = torch.tensor([[2, 5, 6, 3]])
    for model in (pf.load_best(finished, "disk_mb", ALTERNATIVE).load_model(), None):
        model = model or pf.load_compressed(exported)
        torch.testing.assert_close(model(input_ids=ids).logits, alone, atol=1e-6, rtol=0)


def test_verify_measures_the_export_again(exported: Path) -> None:
    found = verify(exported)
    assert found.speedup > 0
    assert found.here["accuracy"].value == pytest.approx(
        found.measured["metrics"]["accuracy"]["value"]
    )
    assert found.here["disk_mb"].value == found.measured["metrics"]["disk_mb"]["value"]


def test_other_weights_are_not_shipped_under_measured_numbers(finished: Path) -> None:
    weights = finished.parent / "model" / "model.safetensors"
    before = weights.read_bytes()
    try:
        weights.write_bytes(before[:-4] + b"\0\0\0\1")
        with pytest.raises(StudyError, match="are not those that .* measured"):
            pf.load_best(finished, require=ALTERNATIVE).load_model()
    finally:
        weights.write_bytes(before)


def test_changed_files_of_a_point_are_refused(finished: Path) -> None:
    best = pf.load_best(finished, "disk_mb", ALTERNATIVE)
    path = finished / "models" / best.candidate.id / "onnx" / "model.onnx"
    before = path.read_bytes()
    try:
        path.write_bytes(before + b"x")
        with pytest.raises(RunError, match="were changed since they were measured"):
            best.load_model()
    finally:
        path.write_bytes(before)
