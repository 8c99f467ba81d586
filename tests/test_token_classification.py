"""Token classification: a label for each word, scored by entities."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from seqeval.metrics import f1_score
from tokenizers import Tokenizer, models, pre_tokenizers, trainers

from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.reading import read_columns
from paretoformer.evaluators.data.splits import read_splits
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import IGNORED
from paretoformer.evaluators.metrics import metric_of
from paretoformer.evaluators.metrics.f1 import entity_counts
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject, try_dense
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.models.divergence import TokenDistributions
from paretoformer.testing import check_metric
from tests.tiny import HEADS, LAYERS, SMALL_SPACE, WORDS, kept, write_model, write_study

NAMES = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
CUT = Candidate(HeadMask(((True,) + (False,) * (HEADS - 1),) * LAYERS))


@kept
def write_tagger(folder: Path, names: tuple[str, ...] = NAMES, model_type: str = "bert") -> None:
    """A tagger with random weights, whose classes are about as frequent."""
    write_model(folder, model_type, num_labels=len(names))
    config = transformers.AutoConfig.from_pretrained(folder)
    config.id2label = dict(enumerate(names))
    config.label2id = {name: number for number, name in enumerate(names)}
    torch.manual_seed(0)
    model = transformers.AutoModelForTokenClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    model.save_pretrained(folder)


def answers_of(folder: Path, sentences: list[list[str]]) -> list[list[str]]:
    """What the tagger says of each word, through transformers alone."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForTokenClassification.from_pretrained(folder).eval()
    found = []
    for words in sentences:
        inputs = tokenizer(words, is_split_into_words=True, return_tensors="pt")
        with torch.inference_mode():
            answers = model(**inputs).logits[0].argmax(dim=-1).tolist()
        places = [inputs.word_ids().index(number) for number in range(len(words))]
        found.append([model.config.id2label[answers[place]] for place in places])
    return found


def sentences_of(rows: int) -> list[list[str]]:
    rng = np.random.default_rng(0)
    return [
        [WORDS[i] for i in rng.integers(0, len(WORDS), rng.integers(3, 30))] for _ in range(rows)
    ]


def write_conll(path: Path, sentences: list[list[str]], labels: list[list[str]]) -> Path:
    pairs = [zip(*each, strict=True) for each in zip(sentences, labels, strict=True)]
    path.write_text("\n\n".join("\n".join(f"{w} {t}" for w, t in each) for each in pairs) + "\n")
    return path


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A tagger that is always right, on a CoNLL file."""
    return write_tagging_study(tmp_path / "study")


@kept
def _tagging_study(folder: Path) -> None:
    found = write_study(folder, extra=SMALL_SPACE)
    write_tagger(folder / "model")
    sentences = sentences_of(160)
    write_conll(folder / "data.conll", sentences, answers_of(folder / "model", sentences))
    text = found.read_text().replace(
        'path = "model"', 'path = "model"\ntask = "token-classification"'
    )
    text = text.replace("data.csv", "data.conll")
    found.write_text(text.replace("check = false  # the model was never trained\n", ""))


def write_tagging_study(folder: Path) -> Path:
    return _tagging_study(folder) / "tiny.toml"


def test_tagger_is_right_on_its_own_answers(study: Path) -> None:
    subject = load_subject(load_spec(study))
    assert [metric.name for metric in subject.objectives] == ["f1", "latency_ms"]
    assert [each.text for each in subject.requirements] == ["f1>=dense-0.01"]
    checked = try_dense(subject, load_spec(study))
    assert not [each for each in checked.remarks if each.doubt]
    said = next(each.text for each in checked.remarks if each.text.startswith("Labels: "))
    assert "O is class 0 (" in said
    assert " words)" in said


def test_tagger_that_always_says_the_same_is_doubted_without_labels(study: Path) -> None:
    """Though rows differ in length."""
    study.write_text(study.read_text().replace("[data]\n", '[data]\nlabel = ""\n'))
    checked = try_dense(load_subject(load_spec(study)), load_spec(study))
    assert not [each for each in checked.remarks if each.doubt]
    model = transformers.AutoModelForTokenClassification.from_pretrained(study.parent / "model")
    with torch.no_grad():
        model.classifier.weight.zero_()
        model.classifier.bias.copy_(torch.arange(len(NAMES)))
    model.save_pretrained(study.parent / "model")
    with pytest.raises(StudyError, match="same answer to all of 60 training examples"):
        try_dense(load_subject(load_spec(study)), load_spec(study))


def test_only_the_first_piece_of_a_word_is_scored(tmp_path: Path) -> None:
    """`word1-word2` is three pieces of one word to this tokenizer."""
    folder = tmp_path / "study"
    found = write_tagging_study(folder)
    sentences = [[f"word1-word{i % 60}", "word3"] for i in range(2, 52)] + sentences_of(150)
    labels = [["B-PER", *["O"] * (len(each) - 1)] for each in sentences]
    write_conll(folder / "data.conll", sentences, labels)
    split = load_subject(load_spec(found)).workload.splits["search"]
    seen = 0
    for example, row in zip(split.examples, split.labels, strict=True):
        inner = len(example["input_ids"]) - 2
        assert row[0] == IGNORED
        assert row[1] == 1
        assert (row[inner + 1 :] == IGNORED).all()
        if example["input_ids"][2] == 1:  # the hyphen, unknown, is the second of three pieces
            seen += 1
            assert inner == 4
            assert row[1:5].tolist() == [1, IGNORED, IGNORED, 0]
    assert seen > 0


def test_words_that_are_cut_off_are_counted(study: Path) -> None:
    text = study.read_text()
    study.write_text(text.replace("sequence_length = 64", "sequence_length = 12"))
    subject = load_subject(load_spec(study))
    longer = [max(0, len(words) - 10) for words in sentences_of(160)]
    (said,) = [each.text for each in subject.workload.remarks if "labelled words" in each.text]
    assert 0 < int(said.split(" of ")[0]) <= sum(longer)
    assert "labelled words" not in "".join(
        each.text for each in load_subject(load_spec(whole(study, text))).workload.remarks
    )


def whole(study: Path, text: str) -> Path:
    study.write_text(text)
    return study


def test_columns_between_the_word_and_its_label_are_said(tmp_path: Path) -> None:
    (tmp_path / "a.conll").write_text("a DT B-NP O\nb NN I-NP B-PER\n")
    found = read_columns(str(tmp_path / "a.conll"), ("text", "label"), "utf-8")
    assert found.values["label"] == [["O", "B-PER"]]
    assert "of 4 columns, the first is the word, the last its label" in found.remarks[0].text


def test_formats_give_the_same_rows(tmp_path: Path) -> None:
    sentences, labels = sentences_of(3), [["O"] * len(each) for each in sentences_of(3)]
    rows = [{"text": s, "label": t} for s, t in zip(sentences, labels, strict=True)]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pd.DataFrame(rows).to_parquet(tmp_path / "a.parquet")
    write_conll(tmp_path / "a.conll", sentences, labels)
    (tmp_path / "a.conll.txt").write_text(
        "-DOCSTART- -X- O O\n\n"
        + "\n\n".join("\n".join(f"{w}\tNN\tO" for w in each) for each in sentences)
    )
    for name in ("a.jsonl", "a.parquet", "a.conll", "a.conll.txt"):
        values = read_columns(str(tmp_path / name), ("text", "label"), "utf-8").values
        assert [list(each) for each in values["text"]] == sentences, name
        assert [list(each) for each in values["label"]] == labels, name


def test_named_classes_of_words_are_read_by_name(tmp_path: Path) -> None:
    import datasets

    names = ["I-LOC", "B-LOC", "I-PER", "B-PER", "O"]  # in another order than the model's
    features = datasets.Features(
        text=datasets.List(datasets.Value("string")),
        label=datasets.List(datasets.ClassLabel(names=names)),
    )
    rows = {"text": [["a", "b"]], "label": [[3, 4]]}
    datasets.Dataset.from_dict(rows, features=features).to_parquet(tmp_path / "a.parquet")
    values = read_columns(str(tmp_path / "a.parquet"), ("text", "label"), "utf-8").values
    config = transformers.BertConfig(id2label=dict(enumerate(NAMES)))
    found = task_of("token-classification").read_labels(values["label"], config)
    assert found.values == ((1, 0),)


ROWS: dict[str, tuple[Callable[[list[dict[str, Any]]], object], str]] = {
    "texts": (lambda rows: rows[4].update(text="a b"), "'text' of row 5 is no list of words"),
    "numbers": (lambda rows: rows[4].update(text=[1, 2]), "'text' of row 5 is no list of words"),
    "one label": (lambda rows: rows[4].update(label="O"), "'label' of row 5 is no list of labels"),
    "lengths": (lambda rows: rows[4].update(label=["O"]), "row 5 has 5 words, but 1 labels"),
    "unknown": (lambda rows: rows[4].update(label=["B-ORG"] * 5), "label 'B-ORG' is unknown"),
}


@pytest.mark.parametrize("case", ROWS)
def test_wrong_rows_are_refused_in_one_line(study: Path, case: str) -> None:
    change, message = ROWS[case]
    rows = [{"text": ["word1"] * 4 + [f"word{i % 60}"], "label": ["O"] * 5} for i in range(160)]
    change(rows)
    (study.parent / "data.jsonl").write_text("\n".join(map(json.dumps, rows)))
    study.write_text(study.read_text().replace("data.conll", "data.jsonl"))
    with pytest.raises(StudyError, match=message) as raised:
        load_subject(load_spec(study))
    assert "\n" not in str(raised.value)


def test_csv_and_lines_without_a_label_are_refused(study: Path) -> None:
    (study.parent / "bad.conll").write_text("a O\nb\n")
    with pytest.raises(DataError, match="line 2 has no label behind the word 'b'"):
        read_columns(str(study.parent / "bad.conll"), ("text",), "utf-8")
    study.write_text(study.read_text().replace("data.conll", "data.csv"))
    with pytest.raises(StudyError, match="A csv cannot hold lists: use jsonl, Parquet or CoNLL"):
        load_subject(load_spec(study))


def test_classifier_of_texts_is_no_tagger(study: Path) -> None:
    model = study.parent / "model"
    names = transformers.AutoConfig.from_pretrained(model).id2label
    write_model(model, num_labels=len(NAMES))
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model)
    loaded.config.id2label, loaded.config.label2id = names, {n: i for i, n in names.items()}
    loaded.save_pretrained(model)
    spec = load_spec(study)
    with pytest.raises(StudyError, match="token-classification needs a BertForTokenClassification"):
        load_subject(spec)
    config = json.loads((model / "config.json").read_text())
    del config["architectures"]  # then its weights tell
    (model / "config.json").write_text(json.dumps(config))
    with pytest.raises(StudyError, match="weights that its architecture has no place for"):
        try_dense(load_subject(spec), spec)


def test_labels_without_names_are_doubted() -> None:
    config = transformers.BertConfig(num_labels=3)
    labels = np.array([[0, 1, 2, 0]])
    (doubt,) = task_of("token-classification").doubts(labels, labels, config)
    assert "The labels of the model have no names" in doubt.text


def test_bilou_is_read_as_entities() -> None:
    names = {0: "O", 1: "B-PER", 2: "L-PER", 3: "U-LOC"}
    found = entity_counts(np.array([[1, 2, 0, 3]]), np.array([[1, 2, 3, 0]]), names)
    assert found.tolist() == [[1, 2, 2]]


def test_words_without_a_label_are_left_out_of_the_score() -> None:
    config = transformers.BertConfig(id2label=dict(enumerate(NAMES)))
    found = task_of("token-classification").read_labels(([0, -100, None], [1, 2], None), config)
    assert found.values == ((0, IGNORED, IGNORED), (1, 2), None)
    assert any("2 words with the label -100" in each.text for each in found.remarks)


def test_texts_without_labels_are_words_between_spaces(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("\n".join(f"one two{i}  three" for i in range(100)))
    source = DataSource(
        path=str(tmp_path / "a.txt"), label="", search_examples=20, confirm_examples=20
    )
    found = read_splits(source, 0, form="words").examples
    assert all(len(each) == 3 for each in found["search"].texts)


def test_f1_is_that_of_seqeval() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, len(NAMES), (40, 12))
    answers = np.where(rng.random(labels.shape) < 0.8, labels, rng.integers(0, 5, labels.shape))
    labels[:, 0] = IGNORED
    split = SimpleNamespace(labels=labels)
    dense = SimpleNamespace(config=transformers.BertConfig(id2label=dict(enumerate(NAMES))))
    bench: Any = SimpleNamespace(split=split, dense=dense, memo={"predictions": answers})
    found = check_metric(metric_of("f1"), bench)
    wanted = f1_score(
        *([[NAMES[x] for x in row[1:]] for row in each] for each in (labels, answers))
    )
    assert found is not None
    assert found.value == pytest.approx(wanted)
    assert found.low < found.value < found.high


def test_labels_without_a_scheme_are_runs() -> None:
    labels, answers = np.array([[0, 0, 1, 1]]), np.array([[0, 0, 1, 0]])
    assert entity_counts(labels, answers, {0: "NOUN", 1: "VERB"}).tolist() == [[1, 3, 2]]


def test_padding_says_nothing() -> None:
    torch.manual_seed(0)
    batch = {"attention_mask": torch.tensor([[1, 1, 0, 0]])}
    one, other = torch.randn(1, 4, 5), torch.randn(1, 4, 5)
    other[:, :2] = one[:, :2]
    a, b = SimpleNamespace(logits=one), SimpleNamespace(logits=other)
    task = task_of("token-classification")
    assert float(TokenDistributions().divergence(a, b, batch)) == pytest.approx(0, abs=1e-9)
    assert float(TokenDistributions().distance(a, b, batch)) == pytest.approx(0, abs=1e-6)
    assert task.likeness(a, b, batch).tolist() == [1.0]
    assert task.as_labels(b, batch)[0, 2:].tolist() == [IGNORED] * 2


def test_words_of_a_byte_level_tagger_are_separated(tmp_path: Path) -> None:
    """Without a space before them, `the` and `cat` would be read as `thecat`."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(special_tokens=["<s>", "</s>"], initial_alphabet=alphabet)
    tokenizer.train_from_iterator(["see the cat"] * 9, trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    named = {"tokenizer_class": "RobertaTokenizerFast", "add_prefix_space": False}
    named |= {"bos_token": "<s>", "cls_token": "<s>", "eos_token": "</s>", "sep_token": "</s>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(named))
    transformers.RobertaConfig().save_pretrained(tmp_path)
    processor = task_of("token-classification").processor(str(tmp_path))
    ids = processor([["the", "cat"]], is_split_into_words=True)["input_ids"][0]
    assert processor.convert_ids_to_tokens(ids)[1:-1] == ["Ġthe", "Ġcat"]
