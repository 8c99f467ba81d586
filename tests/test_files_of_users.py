"""Files as other tools leave them: read rightly, or refused in one line that says what to do."""

from __future__ import annotations

import io
import json
import os
from decimal import Decimal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
import torch
import transformers

from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.images import image_bytes, read_image_folder
from paretoformer.evaluators.data.rows import read_examples
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.tasks.feature_extraction import pooling_of
from paretoformer.evaluators.tasks.labels import class_numbers
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec, parse_spec
from paretoformer.search.study.subject import load_subject, model_digest
from paretoformer.search.study.template import init
from tests.test_feature_extraction import write_embedder
from tests.tiny import SMALL_SPACE, WORDS, write_data, write_model, write_study

POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 90\n"
ROWS = {"text": ["a b", "c d", "e f"], "label": [0, 1, 0]}


def texts_of(path: Path, form: Any = "text", **columns: str) -> tuple[Any, list[str]]:
    found, remarks = read_examples(str(path), DataSource(**columns), form, 0)
    return found, [remark.text for remark in remarks]


def from_hub(cache: Path, name: str, folder: Path) -> str:
    """A Hub id in a cache that holds the files of a folder; returns it."""
    top = cache / f"models--{name.replace('/', '--')}"
    (top / "refs").mkdir(parents=True)
    (top / "refs" / "main").write_text("0" * 40)
    snapshot = top / "snapshots" / ("0" * 40)
    snapshot.parent.mkdir()
    snapshot.symlink_to(folder, target_is_directory=True)
    return name


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path / "hub"


@pytest.mark.parametrize("form", ["columns", "lists", "records"])
def test_json_of_pandas_is_read_whatever_its_orientation(tmp_path: Path, form: str) -> None:
    path = tmp_path / "rows.json"
    if form == "lists":
        path.write_text(json.dumps(ROWS))
    else:
        pd.DataFrame(ROWS).to_json(path, orient=form)  # type: ignore[call-overload]
    found, _ = texts_of(path)
    assert (list(found.texts), list(found.labels)) == (ROWS["text"], ROWS["label"])


def test_columns_of_json_are_joined_by_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "rows.json"
    path.write_text('{"text": {"0": "a", "1": "b"}, "label": {"1": 1, "0": 0}}')
    found, _ = texts_of(path)
    assert (found.texts, found.labels) == (("a", "b"), (0, 1))


def test_halves_of_characters_are_replaced_and_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(
        '{"text": "nice \\ud83d", "label": 1}\n{"text": "é \\ud83d\\ude00", "label": 0}\n'
    )
    found, remarks = texts_of(path)
    assert found.texts == ("nice \ufffd", "é \U0001f600")
    assert remarks == [
        "rows.jsonl: texts with half a character (a lone surrogate), as of an emoji that was cut "
        "in two: 1. It is read as U+FFFD."
    ]


def test_comments_and_documents_of_conll_files_are_no_words(tmp_path: Path) -> None:
    path = tmp_path / "rows.conll"
    path.write_text(
        "-DOCSTART-\n\n# id 7\tdomain=train\nParis _ _ B-LOC\nis _ _ O\n\n# O\nhere O\n"
    )
    found, remarks = texts_of(path, "words")
    assert "rows.conll: comments before sentences, left out: 1." in remarks
    assert found.texts == (("Paris", "is"), ("#", "here"))
    assert found.labels == (("B-LOC", "O"), ("O", "O"))


@pytest.mark.parametrize("name", ["rows.csv", "model.safetensors", "tokenizer.json"])
def test_pointer_of_git_lfs_is_named(tmp_path: Path, name: str) -> None:
    study = write_study(tmp_path, extra=SMALL_SPACE)
    folder = tmp_path if name == "rows.csv" else tmp_path / "model"
    (folder / name).write_text(POINTER)
    with pytest.raises((DataError, StudyError), match=rf"{name} is a pointer of Git LFS"):
        texts_of(tmp_path / name) if name == "rows.csv" else load_subject(load_spec(study))


def test_adapter_without_its_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA"}')
    write_data(tmp_path / "data.csv")
    with pytest.raises(StudyError, match=r"it has an adapter .* merge it into the model"):
        init(str(tmp_path), str(tmp_path / "data.csv"), tmp_path / "new.toml")


def test_decimal_class_numbers_are_numbers() -> None:
    config = transformers.BertConfig(num_labels=2)
    found = class_numbers([Decimal("1"), Decimal("0.00"), 1], config)
    assert found.values == (1, 0, 1)


def test_link_to_a_file_without_an_ending_keeps_its_own(tmp_path: Path) -> None:
    blob = write_data(tmp_path / "5f3a")
    link = tmp_path / "rows.csv"
    link.symlink_to(blob)
    spec = parse_spec('model.path = "m"\ndata.path = "rows.csv"\n', source=tmp_path / "study.toml")
    assert spec.data.path == os.path.abspath(link)


def test_lines_of_texts_serve_recovery_whatever_the_column_of_the_data(tmp_path: Path) -> None:
    study = write_study(tmp_path, extra='[recovery]\ntexts = "more.txt"\n' + SMALL_SPACE)
    data = tmp_path / "data.csv"
    data.write_text(data.read_text().replace("text,label", "question,label"))
    (tmp_path / "more.txt").write_text("\n".join(f"{word} {WORDS[0]}" for word in WORDS))
    named = study.read_text().replace('path = "data.csv"', 'path = "data.csv"\ntext = "question"')
    study.write_text(named)
    here = load_subject(load_spec(study))
    assert len(here.workload.splits["recovery"]) >= len(WORDS)


def test_hidden_files_are_no_images(tmp_path: Path) -> None:
    for name in ("cat/1.png", "cat/._1.png", ".ipynb_checkpoints/2.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"-")
    table = read_image_folder(str(tmp_path), "image", "label")
    assert table.values == {"image": [str(tmp_path / "cat" / "1.png")], "label": ["cat"]}
    assert table.remarks[-1].text == f"{tmp_path.name}: hidden files, not read: 2."


def test_image_with_a_damaged_orientation_is_refused_by_its_row() -> None:
    image = pytest.importorskip("PIL.Image")
    written = io.BytesIO()
    image.new("RGB", (4, 4)).save(written, "PNG", exif=b"Exif\0\0no tiff")
    with pytest.raises(DataError, match="row 3 holds no image that can be opened"):
        image_bytes("rows.parquet", 3, written.getvalue())


def test_embedder_of_the_hub_is_known_by_its_modules(tmp_path: Path, cache: Path) -> None:
    folder = write_embedder(tmp_path / "model", "cls_token")
    config = folder / "config.json"
    masked = json.loads(config.read_text()) | {"architectures": ["BertForMaskedLM"]}
    config.write_text(json.dumps(masked))
    name = from_hub(cache, "someone/embedder", folder)
    data = tmp_path / "data.csv"
    data.write_text("text,label\n" + "\n".join(f"{a} {b},x" for a in WORDS for b in WORDS[:2]))
    out, columns = init(name, str(data), tmp_path / "new.toml")
    assert 'task = "feature-extraction"' in out.read_text()
    assert columns.label == ""  # classes are no scores of pairs
    pooling, similarity, remarks = pooling_of(name)
    assert (pooling, similarity) == ("cls", "cosine")
    assert [remark.text for remark in remarks] == [
        "someone/embedder: config_sentence_transformers.json and sentence_bert_config.json may "
        "exist, but the local cache holds none, and the Hub cannot be asked: similarity, prompts "
        "and lengths are taken as by default."
    ]


def test_embedder_whose_pooling_cannot_be_asked_for_is_doubted(tmp_path: Path, cache: Path) -> None:
    write_model(tmp_path / "model")
    (remark,) = pooling_of(from_hub(cache, "someone/plain", tmp_path / "model"))[2]
    assert remark.doubt
    assert "no modules.json is in the local cache, and the Hub cannot be asked" in remark.text


def test_cross_encoder_with_a_list_of_modules_is_no_embedder(tmp_path: Path) -> None:
    write_model(tmp_path, num_labels=1)
    module = {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.base.Transformer"}
    (tmp_path / "modules.json").write_text(json.dumps([module]))
    assert not task_of("feature-extraction").marks(str(tmp_path))
    with pytest.raises(ValueError, match=r"no Pooling.* model.task = \"text-regression\""):
        pooling_of(str(tmp_path))


def test_cross_encoder_is_cut_where_its_tokenizer_says(tmp_path: Path) -> None:
    write_model(tmp_path)
    file = tmp_path / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 12}))
    assert task_of("reranking").cut_at(str(tmp_path)) == 12
    assert task_of("text-classification").cut_at(str(tmp_path)) == 0


@pytest.mark.parametrize(
    ("rows", "without", "expected"), [(60, 0, (6, 12)), (160, 100, (6, 12)), (34, 0, (1, 1))]
)
def test_sizes_that_init_writes_fit_the_rows_that_can_be_used(
    tmp_path: Path, rows: int, without: int, expected: tuple[int, int]
) -> None:
    write_model(tmp_path / "model")
    cells = [
        f"{WORDS[i % 60]} {WORDS[i // 60]},{'' if i < without else i % 2}" for i in range(rows)
    ]
    (tmp_path / "data.csv").write_text("\n".join(["text,label", *cells]))
    out, _ = init(str(tmp_path / "model"), str(tmp_path / "data.csv"), tmp_path / "new.toml")
    spec = load_spec(out)
    assert (spec.data.search_examples, spec.data.confirm_examples) == expected
    load_subject(spec)


def test_too_few_rows_are_refused_with_how_many_are_needed(tmp_path: Path) -> None:
    write_model(tmp_path / "model")
    write_data(tmp_path / "data.csv", rows=20)
    out, _ = init(str(tmp_path / "model"), str(tmp_path / "data.csv"), tmp_path / "new.toml")
    with pytest.raises(StudyError, match=r"or add examples: at least 34\."):
        load_subject(load_spec(out))


def test_model_of_half_precision_is_prepared_in_single(tmp_path: Path) -> None:
    study = write_study(tmp_path, extra=SMALL_SPACE)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "model")
    model.to(torch.bfloat16).save_pretrained(tmp_path / "model")
    here = load_subject(load_spec(study))
    assert {parameter.dtype for parameter in here.model.parameters()} == {torch.float32}
    assert here.model_digest == model_digest(SimpleNamespace(state_dict=model.state_dict))
    said = "Its weights are stored in bfloat16, and measured in float32."
    assert said in [remark.text for remark in here.remarks]
