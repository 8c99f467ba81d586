"""A study stops before its numbers mean nothing: the model, its tokenizer and its config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch as st
import torch
import transformers

from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples
from paretoformer.evaluators.data.workload import Split, Workload
from paretoformer.evaluators.dense_check import labels_are_new
from paretoformer.evaluators.tasks.task import load_config
from paretoformer.evaluators.tasks.text import tokenize
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import Subject, load_subject, try_dense
from tests.tiny import write_knowing_study, write_model


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_knowing_study(tmp_path)


def checked(study: Path) -> Subject:
    spec = load_spec(study)
    return try_dense(load_subject(spec), spec)


def accuracy(here: Subject) -> float:
    split = here.workload.splits["search"]
    right = 0
    for indices, inputs in here.workload.batches(split, "cpu"):
        with torch.inference_mode():
            right += int((here.task.predict(here.model(**inputs)) == split.labels[indices]).sum())
    return right / len(split)


def remarks(here: Subject) -> str:
    return "\n".join(each.text for each in here.remarks)


def edit(study: Path, change: Callable[[dict[str, Any]], object]) -> None:
    path = study.parent / "model" / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def edit_weights(study: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    path = study.parent / "model" / "model.safetensors"
    weights = st.load_file(path)
    change(weights)
    st.save_file(weights, path, metadata={"format": "pt"})


def test_a_model_that_knows_its_data_is_right_always(study: Path) -> None:
    here = checked(study)
    assert accuracy(here) == 1.0
    assert "Labels: bad is class 0" in remarks(here)


@pytest.mark.parametrize("names", [("1", "0"), ("0", "1", "10", "2"), ("1", "2", "3", "4", "5")])
def test_names_that_look_like_numbers_are_names(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert accuracy(checked(write_knowing_study(tmp_path, names))) == 1.0


def test_labels_that_the_model_was_trained_on_are_not_new(study: Path) -> None:
    here = checked(study)
    assert here.learns_new_labels  # it is right, but hardly sure
    with torch.no_grad():
        for parameter in here.model.get_submodule("classifier").parameters():
            parameter.mul_(1e6)
    assert not labels_are_new(here.model, here.task, here.workload)
    search = here.workload.splits["search"]
    wrong = {**here.workload.splits, "search": Split(search.examples, 1 - search.labels)}
    assert not labels_are_new(here.model, here.task, replace(here.workload, splits=wrong))


def test_labels_are_not_learned_from_where_likeness_is_required(study: Path) -> None:
    study.write_text(study.read_text() + '[search]\nrequire = ["fidelity >= 0.9"]\n')
    assert not checked(study).learns_labels


def test_classes_in_another_order_stop_the_study(study: Path) -> None:
    data = study.parent / "data.csv"
    text = data.read_text().replace(",bad", ",x").replace(",good", ",bad").replace(",x", ",good")
    data.write_text(text)
    with pytest.raises(StudyError, match=r"would be on 100%.*data\.check = false"):
        checked(study)


def test_data_check_goes_on_all_the_same(study: Path) -> None:
    data = study.parent / "data.csv"
    data.write_text(data.read_text().replace(",good", ",bad"))
    with pytest.raises(StudyError):
        checked(study)
    study.write_text(study.read_text().replace("[data]\n", "[data]\ncheck = false\n"))
    here = checked(study)
    assert accuracy(here) < 1
    assert "always answering that would be as good" in remarks(here)


@pytest.mark.parametrize(
    "setting", ["return_dict", "use_return_dict", "output_attentions", "output_hidden_states"]
)
def test_settings_of_what_else_is_returned_do_no_harm(study: Path, setting: str) -> None:
    edit(study, lambda config: config.update({setting: setting != "return_dict"}))
    assert accuracy(checked(study)) == 1.0


def test_the_tokenizer_of_another_model_stops_the_study(study: Path) -> None:
    path = study.parent / "model" / "tokenizer.json"
    path.write_text(path.read_text().replace('"word', '"other'))
    with pytest.raises(StudyError, match=r"% of the tokens are unknown to the tokenizer"):
        checked(study)


def test_a_model_without_tokenizer_stops_the_study(study: Path) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (study.parent / "model" / name).unlink()
    with pytest.raises(StudyError, match="token"):
        checked(study)


def test_weights_without_a_place_stop_the_study(study: Path) -> None:
    name = "bert.encoder.layer.0.attention.self.distance_embedding.weight"
    edit_weights(study, lambda weights: weights.update({name: torch.ones(3, 8)}))
    with pytest.raises(StudyError, match=r"has no place for, .*distance_embedding"):
        checked(study)


def test_weights_that_overflow_stop_the_study(study: Path) -> None:
    edit_weights(study, lambda w: w.update({"classifier.weight": w["classifier.weight"] * 1e38}))
    edit_weights(study, lambda w: w.update({"classifier.bias": w["classifier.bias"] + torch.inf}))
    with pytest.raises(StudyError, match="answers are not finite"):
        checked(study)


@pytest.mark.parametrize("pad", [500, -1])
def test_a_padding_token_outside_the_vocabulary_is_named(study: Path, pad: int) -> None:
    edit(study, lambda config: config.update(pad_token_id=pad))
    with pytest.raises(StudyError, match=r"pad_token_id|cannot load the model"):
        checked(study)


def test_token_types_beyond_the_table_are_refused(tmp_path: Path) -> None:
    study = write_knowing_study(tmp_path)
    study.write_text(study.read_text().replace("[data]\n", '[data]\ntext_pair = "text"\n'))
    edit(study, lambda config: config.update(type_vocab_size=1))
    name = "bert.embeddings.token_type_embeddings.weight"
    edit_weights(study, lambda weights: weights.update({name: weights[name][:1].clone()}))
    with pytest.raises(StudyError, match=r"cannot run on its data.*type_vocab_size"):
        checked(study)


def test_a_position_table_that_is_too_short_is_refused(tmp_path: Path) -> None:
    study = write_knowing_study(tmp_path)
    write_model(tmp_path / "model", "roberta")
    named = {"id2label": {"0": "bad", "1": "good"}, "label2id": {"bad": 0, "good": 1}}
    edit(study, lambda config: config.update(pad_token_id=60, **named))
    with pytest.raises(StudyError, match="cannot run on its data"):
        checked(study)


def without_labels(study: Path) -> Path:
    study.write_text(study.read_text().replace("[data]\n", '[data]\nlabel = ""\n'))
    return study


def test_a_study_without_labels_is_checked_by_its_answers_alone(study: Path) -> None:
    here = checked(without_labels(study))
    assert (here.workload.splits["search"].labels == -1).all()


def test_likeness_to_one_answer_for_all_stops_the_study(study: Path) -> None:
    edit_weights(study, lambda w: w.update({"classifier.bias": torch.tensor([100.0, 0.0])}))
    with pytest.raises(StudyError, match="the same answer to all of 60 training examples"):
        checked(without_labels(study))


def test_a_model_of_one_number_is_refused_without_labels_too(study: Path) -> None:
    write_model(study.parent / "model", num_labels=1)
    with pytest.raises(StudyError, match="a regression"):
        checked(without_labels(study))


def test_texts_that_fill_the_length_are_counted(study: Path) -> None:
    text = study.read_text().replace("sequence_length = 64", "sequence_length = 8")
    study.write_text(text.replace("[data]\n", "[data]\ncheck = false\n"))
    assert "texts fill all 8 tokens: anything longer is cut" in remarks(checked(study))


def tokenized(model: Path, *texts: str) -> Workload:
    examples = Examples(texts, ("",) * len(texts), (0,) * len(texts))
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    return tokenize({"train": examples}, tokenizer, load_config(str(model)), Target())


def test_texts_without_a_token_are_left_out_and_counted(study: Path) -> None:
    path = study.parent / "model" / "tokenizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"post_processor": None}))
    found = tokenized(path.parent, "word1 word2", "\u2028")
    assert len(found.splits["train"]) == 1
    assert [each.text for each in found.remarks] == [
        "Left out: texts that give no token, 1 of them."
    ]


@pytest.mark.parametrize("own", [7, 0])
def test_a_decoder_is_padded_with_the_token_of_its_config(tmp_path: Path, own: int) -> None:
    """It finds the last token of a text by it, whatever the tokenizer pads with."""
    folder = write_model(tmp_path / "gpt2", "gpt2", pad_token_id=own)
    found = tokenized(folder, "word10 word11", "word12")
    rows = found.splits["train"].examples
    together, alone = found.inputs.collate(rows), found.inputs.collate(rows[1:])
    assert together["input_ids"][1, -1] == own
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        torch.testing.assert_close(model(**together).logits[1:], model(**alone).logits)


OWN_CODE = """
from transformers import BertForSequenceClassification

class OwnModel(BertForSequenceClassification):
    pass
"""


@pytest.mark.nightly
@pytest.mark.slow
@pytest.mark.alone
def test_workers_find_the_code_that_a_model_brings(study: Path) -> None:
    (study.parent / "model" / "own.py").write_text(OWN_CODE)
    names = {"AutoModelForSequenceClassification": "own.OwnModel"}
    edit(study, lambda config: config.update(auto_map=names))
    text = study.read_text().replace('path = "model"', 'path = "model"\ntrust_remote_code = true')
    study.write_text(f'{text}[space]\nruntime = ["torch"]\n[search]\ntable = false\n')
    command = [sys.executable, "-m", "paretoformer.search.cli", "search", str(study)]
    out = study.parent / "run"
    done = subprocess.run(
        [*command, "--trials", "2", "--out", str(out)],
        env=os.environ | {"HF_MODULES_CACHE": str(study.parent / "modules")},
        capture_output=True,
        text=True,
        timeout=200,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert (out / "front.parquet").exists()
