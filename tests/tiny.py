"""A small real model and small real-looking data: BERT with 2 layers x 4 heads, random weights."""

from __future__ import annotations

import csv
import shutil
import tempfile
from collections.abc import Callable, Hashable
from functools import cache, wraps
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers

WORDS = [f"word{i}" for i in range(60)]
LAYERS, HEADS = 2, 4


SMALL_SPACE = """
[space]
runtime = ["torch"]
attention = ["full"]
[search]
table = false
"""
"""Of a study whose search is not what is tested."""


_KEPT = tempfile.TemporaryDirectory(prefix="paretoformer-models-")
"""Models that were written by this process; tests copy them."""


def kept(write: Callable[..., None]) -> Callable[..., Path]:
    """A writer of a folder, which runs once for the same arguments and is copied then."""

    @cache
    def written(*arguments: Hashable, **settings: Hashable) -> Path:
        folder = Path(tempfile.mkdtemp(dir=_KEPT.name))
        write(folder, *arguments, **settings)
        return folder

    @wraps(write)
    def copied(folder: Path, *arguments: Hashable, **settings: Hashable) -> Path:
        return shutil.copytree(written(*arguments, **settings), folder, dirs_exist_ok=True)

    return copied


@kept
def write_model(folder: Path, model_type: str = "bert", **overrides: int) -> None:
    """A model folder with weights and tokenizer."""
    torch.manual_seed(0)
    settings = {
        "vocab_size": 100,
        "hidden_size": 32,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": 64,
        "max_position_embeddings": 80,
    } | overrides
    config = transformers.AutoConfig.for_model(model_type, **settings)
    model = transformers.AutoModelForSequenceClassification.from_config(config)
    model.save_pretrained(folder)
    write_tokenizer(folder, model_type)


def write_tokenizer(folder: Path, model_type: str) -> None:
    """Of one token for each word."""
    vocabulary = {word: i for i, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS])}
    inner = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    inner.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    names = ["input_ids", "attention_mask"]
    if model_type in ("bert", "electra"):
        names.insert(1, "token_type_ids")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=inner,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_input_names=names,
    )
    tokenizer.save_pretrained(folder)


def write_data(path: Path, rows: int = 160) -> Path:
    """A csv of random sentences, labelled by whether their first word is an early one."""
    rng = np.random.default_rng(0)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        for _ in range(rows):
            words = rng.integers(0, len(WORDS), rng.integers(3, 30))
            writer.writerow([" ".join(WORDS[i] for i in words), int(words[0] < 30)])
    return path


def write_study(folder: Path, *, trials: int = 6, extra: str = "", target: str = "") -> Path:
    """A study file beside its model and data."""
    folder.mkdir(parents=True, exist_ok=True)
    write_model(folder / "model")
    write_data(folder / "data.csv")
    study = folder / "tiny.toml"
    study.write_text(
        f"""trials = {trials}
[model]
path = "model"
[data]
path = "data.csv"
search_examples = 40
confirm_examples = 60
check = false  # the model was never trained
[target]
sequence_length = 64
threads = 2
{target}
[timing]
search_seconds = 0.2
confirm_seconds = 0.2
patience_minutes = 0
{extra}
""",
        encoding="utf-8",
    )
    return study


def write_knowing_study(folder: Path, names: tuple[str, ...] = ("bad", "good")) -> Path:
    """A study whose uncompressed model is always right: its data have the labels that it gives.

    names: of its classes, by which `data.csv` has them.
    """
    return _knowing_study(folder, names) / "tiny.toml"


@kept
def _knowing_study(folder: Path, names: tuple[str, ...]) -> None:
    study = write_study(folder)
    study.write_text(
        study.read_text().replace("check = false  # the model was never trained\n", "")
    )
    model = folder / "model"
    write_model(model, num_labels=len(names))
    with (folder / "data.csv").open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    loaded = transformers.AutoModelForSequenceClassification.from_pretrained(model).eval()
    loaded.config.id2label = dict(enumerate(names))
    loaded.config.label2id = {name: number for number, name in enumerate(names)}
    inputs = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    with torch.inference_mode():
        logits = loaded(**inputs).logits
        loaded.classifier.bias.copy_(loaded.classifier.bias - logits.median(dim=0).values)
        answers = loaded(**inputs).logits.argmax(dim=-1).tolist()
    loaded.save_pretrained(model)
    with (folder / "data.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["text", "label"])
        writer.writerows((t, names[a]) for t, a in zip(texts, answers, strict=True))
