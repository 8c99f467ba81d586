"""Classifiers of one number, and of several labels: text-regression, multi-label-classification."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import pearsonr
from sklearn.metrics import f1_score, mean_squared_error

from paretoformer.evaluators.metrics import metric_of
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject, try_dense
from paretoformer.search.study.template import init
from paretoformer.testing import check_metric
from tests.tiny import SMALL_SPACE, WORDS, kept, write_model, write_study

NAMES = ("anger", "joy", "fear")
REGRESSION, MULTI_LABEL = "text-regression", "multi-label-classification"


@kept
def write_classifier(folder: Path, task: str) -> None:
    """A model whose answers vary."""
    labels = 1 if task == REGRESSION else len(NAMES)
    write_model(folder, num_labels=labels)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    if task == MULTI_LABEL:
        model.config.problem_type = "multi_label_classification"
        model.config.id2label = dict(enumerate(NAMES))
        model.config.label2id = {name: number for number, name in enumerate(NAMES)}
    with torch.no_grad():
        model.classifier.weight.mul_(100)
    model.save_pretrained(folder)


def logits_of(folder: Path, texts: list[str]) -> np.ndarray:
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        found: np.ndarray = model(**inputs).logits.numpy()
    return found


def centre(folder: Path, texts: list[str]) -> None:
    """Give each class to half of the texts."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    with torch.no_grad():
        model.classifier.bias.sub_(torch.from_numpy(np.median(logits_of(folder, texts), axis=0)))
    model.save_pretrained(folder)


@kept
def _own_study(folder: Path, task: str) -> None:
    study = write_study(folder, extra=SMALL_SPACE)
    write_classifier(folder / "model", task)
    rng = np.random.default_rng(0)
    texts = [
        " ".join(WORDS[i] for i in rng.integers(0, 60, rng.integers(3, 30))) for _ in range(160)
    ]
    centre(folder / "model", texts)
    logits = logits_of(folder / "model", texts)
    labels: list[Any] = logits[:, 0].tolist()
    if task == MULTI_LABEL:
        labels = [[NAMES[i] for i in np.flatnonzero(row > 0)] for row in logits]
    rows = [{"text": x, "label": y} for x, y in zip(texts, labels, strict=True)]
    (folder / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    text = study.read_text().replace('path = "model"', f'path = "model"\ntask = "{task}"')
    text = text.replace("data.csv", "data.jsonl")
    study.write_text(text.replace("check = false  # the model was never trained\n", ""))


def write_own_study(folder: Path, task: str) -> Path:
    """A study whose uncompressed model is always right."""
    return _own_study(folder, task) / "tiny.toml"


@pytest.mark.parametrize(
    ("task", "score", "said"), [(REGRESSION, "spearman", ""), (MULTI_LABEL, "micro_f1", " labels)")]
)
def test_uncompressed_model_is_right_on_its_own_answers(
    tmp_path: Path, task: str, score: str, said: str
) -> None:
    study = write_own_study(tmp_path / "study", task)
    subject = load_subject(load_spec(study))
    assert [metric.name for metric in subject.objectives] == [score, "latency_ms"]
    assert [each.text for each in subject.requirements] == [f"{score}>=dense-0.01"]
    remarks = try_dense(subject, load_spec(study)).remarks
    assert not [each for each in remarks if each.doubt]
    assert any(said in each.text for each in remarks) or not said


def test_scores_that_are_not_the_models_are_doubted(tmp_path: Path) -> None:
    study = write_own_study(tmp_path / "study", REGRESSION)
    data = study.parent / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    data.write_text("\n".join(json.dumps(row | {"label": -row["label"]}) for row in rows))
    spec = load_spec(study)
    with pytest.raises(StudyError, match=r"a Spearman correlation of -1\.00"):
        try_dense(load_subject(spec), spec)


def test_labels_that_the_model_never_gives_are_doubted(tmp_path: Path) -> None:
    study = write_own_study(tmp_path / "study", MULTI_LABEL)
    data = study.parent / "data.jsonl"
    rows = [json.loads(line) for line in data.read_text().splitlines()]
    others = [row | {"label": [n for n in NAMES if n not in row["label"]]} for row in rows]
    data.write_text("\n".join(map(json.dumps, others)))
    spec = load_spec(study)
    with pytest.raises(StudyError, match="gives none of the labels of"):
        try_dense(load_subject(spec), spec)


@pytest.mark.parametrize(
    ("model", "task", "advice"),
    [
        (REGRESSION, "text-classification", "gives one number, a regression: set model.task"),
        (MULTI_LABEL, "text-classification", 'set model.task = "multi-label-classification"'),
        (REGRESSION, MULTI_LABEL, 'set model.task = "text-regression"'),
        (MULTI_LABEL, REGRESSION, 'set model.task = "multi-label-classification"'),
    ],
)
def test_wrong_task_names_the_right_one(tmp_path: Path, model: str, task: str, advice: str) -> None:
    study = write_own_study(tmp_path / "study", model)
    study.write_text(study.read_text().replace(f'task = "{model}"', f'task = "{task}"'))
    with pytest.raises(StudyError, match=advice):
        load_subject(load_spec(study))


@pytest.mark.parametrize("task", [REGRESSION, MULTI_LABEL])
def test_init_names_the_task(tmp_path: Path, task: str) -> None:
    study = write_own_study(tmp_path / "study", task)
    folder = study.parent
    out, _ = init(str(folder / "model"), str(folder / "data.jsonl"), tmp_path / "new.toml")
    assert f'task = "{task}"' in out.read_text()


CONFIG = transformers.BertConfig(
    id2label=dict(enumerate(NAMES)), problem_type="multi_label_classification"
)


@pytest.mark.parametrize(
    "labels",
    [
        [["joy"], [], ["fear", "anger"]],
        [[1], [], [2, 0]],
        ["joy", [], "fear, anger"],
        ["joy", [], "fear|anger"],
        [[0, 1, 0], [0, 0, 0], [1, 0, 1]],
        [[0.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.0, 0.0, 1.0]],
    ],
)
def test_ways_to_write_several_labels(labels: list[Any]) -> None:
    found = task_of(MULTI_LABEL).read_labels(labels, CONFIG)
    assert found.values == ((0, 1, 0), (0, 0, 0), (1, 0, 1))
    assert found.remarks


def test_rows_that_nobody_labelled_are_left_out() -> None:
    found = task_of(MULTI_LABEL).read_labels([[0, 1, 0], [-1, -1, -1], [0, 0, 0]], CONFIG)
    assert found.values == ((0, 1, 0), None, (0, 0, 0))
    assert any("1 rows of -1" in each.text for each in found.remarks)


def test_several_numbers_are_no_regression() -> None:
    config = transformers.BertConfig(num_labels=3, problem_type="regression")
    assert "the model gives 3 numbers a text" in task_of(REGRESSION).unsuitable(config)


def test_class_that_nobody_has_is_left_out_of_macro_f1() -> None:
    labels = np.array([[1, 0, 0], [0, 1, 0]])
    found = metric_of("macro_f1").measure(bench_of(MULTI_LABEL, labels, labels))
    assert found is not None
    assert found.value == found.low == 1.0


@pytest.mark.parametrize(
    ("task", "labels", "message"),
    [
        (MULTI_LABEL, [["joy", "hope"]], "label 'hope' is unknown to the model"),
        (MULTI_LABEL, [{"joy": 1}], "is no list of labels"),
        (MULTI_LABEL, [["joy", 2]], "some labels are names of the model, such as 'joy'"),
        (MULTI_LABEL, [[0, 3]], "label 3 is unknown"),
        (MULTI_LABEL, [[0, 1, 0], [0, 1]], "names a class twice"),
        (REGRESSION, ["good"], "label 'good' is no score: text-regression compares with numbers"),
        (REGRESSION, [True], "label True is no score"),
        (REGRESSION, ["inf"], "label 'inf' is no score"),
        (REGRESSION, [[1]], r"label \[1\] is no score"),
    ],
)
def test_wrong_labels_are_refused_in_one_line(task: str, labels: list[Any], message: str) -> None:
    config = transformers.BertConfig(num_labels=1) if task == REGRESSION else CONFIG
    with pytest.raises(ValueError, match=message) as raised:
        task_of(task).read_labels(labels, config)
    assert "\n" not in str(raised.value)


def bench_of(task: str, labels: np.ndarray, answers: np.ndarray) -> Any:
    split = SimpleNamespace(labels=labels)
    return SimpleNamespace(task=task_of(task), split=split, memo={"predictions": answers})


@given(st.integers(0, 2**32 - 1))
def test_scores_are_those_of_the_libraries(seed: int) -> None:
    rng = np.random.default_rng(seed)
    labels = rng.normal(size=20)
    answers = labels + rng.normal(size=20)
    marks, given_marks = rng.integers(0, 2, (2, 20, 3))
    wanted = {
        "pearson": (REGRESSION, labels, answers, pearsonr(labels, answers).statistic),
        "mean_squared_error": (REGRESSION, labels, answers, mean_squared_error(labels, answers)),
        "micro_f1": (
            MULTI_LABEL,
            marks,
            given_marks,
            f1_score(marks, given_marks, average="micro"),
        ),
        "macro_f1": (
            MULTI_LABEL,
            marks,
            given_marks,
            f1_score(marks, given_marks, average="macro"),
        ),
    }
    for name, (task, truth, said, value) in wanted.items():
        with mock.patch(
            "paretoformer.evaluators.common.statistics.RESAMPLES", 19
        ):  # 199 take minutes
            found = check_metric(metric_of(name), bench_of(task, truth, said))
        assert found is not None
        assert found.value == pytest.approx(float(value))


@pytest.mark.parametrize(("task", "width"), [(REGRESSION, 1), (MULTI_LABEL, 3)])
def test_own_answers_in_place_of_labels_leave_a_gradient(task: str, width: int) -> None:
    """By which heads are ranked."""
    logits = torch.randn(4, width, requires_grad=True)
    output = SimpleNamespace(logits=logits)
    labels = torch.from_numpy(task_of(task).as_labels(output, {}))
    (gradient,) = torch.autograd.grad(task_of(task).loss(output, labels), logits)
    assert gradient.abs().min() > 1e-3


def test_model_without_a_problem_type_is_scored_by_the_task_that_is_named(tmp_path: Path) -> None:
    study = write_own_study(tmp_path / "study", MULTI_LABEL)
    path = study.parent / "model" / "config.json"
    config = json.loads(path.read_text())
    del config["problem_type"]
    path.write_text(json.dumps(config))
    subject = load_subject(load_spec(study))
    assert [metric.name for metric in subject.objectives] == ["micro_f1", "latency_ms"]
    study.write_text(study.read_text().replace(MULTI_LABEL, "text-classification"))
    with pytest.raises(StudyError, match='model.task = "multi-label-classification"'):
        load_subject(load_spec(study))


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["neg", "pos"], r"`id2label` .* must map the number of each class to its name"),
        ({"zero": "neg", "one": "pos"}, r"but is \{'zero': 'neg', 'one': 'pos'\}"),
        ({"0": ["neg"], "1": "pos"}, "`id2label` in its config.json must map"),
        ({"0": "a", "1": "b", "2": "c"}, r"which has 3 classes \(`id2label`\)"),
    ],
)
def test_names_that_do_not_fit_the_weights_are_refused_by_their_key(
    tmp_path: Path, names: Any, message: str
) -> None:
    study = write_study(tmp_path, extra=SMALL_SPACE)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"id2label": names, "label2id": {}}))
    with pytest.raises(StudyError, match=message):
        load_subject(load_spec(study))


def test_adapter_besides_a_whole_model_is_refused(tmp_path: Path) -> None:
    study = write_study(tmp_path, extra=SMALL_SPACE)
    (tmp_path / "model" / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    with pytest.raises(StudyError, match=r"it has an adapter .* merge it into the model"):
        load_subject(load_spec(study))


def test_supervised_loss_of_a_regression_does_not_depend_on_the_scale_of_labels() -> None:
    task = task_of("text-regression")
    output = SimpleNamespace(logits=torch.tensor([[0.1], [0.4], [0.2], [0.9]]))
    labels = torch.tensor([1.0, 3.0, 2.0, 5.0], dtype=torch.float64)
    loss = task.supervised_loss(output, labels)
    assert 0 < float(loss) < 0.1
    torch.testing.assert_close(loss, task.supervised_loss(output, 7 * labels - 3))
    assert float(task.supervised_loss(output, torch.ones(4))) == 1.0
    assert float(task.supervised_loss(output, -labels)) == pytest.approx(2 - float(loss))
