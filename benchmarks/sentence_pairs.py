"""Quality of a compressed embedder on sentence pairs that no study used.

Spearman's correlation of cosines with human scores on SICK (test, relatedness) and STS 2016 (all
five parts), for the uncompressed model and exports of its study.

    python benchmarks/sentence_pairs.py EXPORT ... [--data ../shared/data] [--pairs 1500]

A folder written by `paretoformer export` names its uncompressed model.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr

import paretoformer as pf
from paretoformer.evaluators.common.target import cpu_name
from paretoformer.search.study.spec import stored_spec
from paretoformer.search.study.subject import load_dense

Pair = tuple[str, str, float]


def sick(folder: Path) -> Iterator[Pair]:
    with (folder / "sick" / "SICK_test_annotated.txt").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file, delimiter="\t"):
            yield row["sentence_A"], row["sentence_B"], float(row["relatedness_score"])


def sts(folder: Path) -> Iterator[Pair]:
    """Skips rows without a score."""
    for path in sorted((folder / "sts").glob("2016_*.test.tsv")):
        with path.open(encoding="utf-8", newline="") as file:
            for score, first, second, *_ in csv.reader(
                file, delimiter="\t", quoting=csv.QUOTE_NONE
            ):
                if score:
                    yield first, second, float(score)


def correlation(model: Any, tokenizer: Any, pairs: Sequence[Pair]) -> float:
    """Encodes one text at a time, as in serving."""

    def embedded(text: str) -> np.ndarray:
        inputs = tokenizer(text, truncation=True, max_length=256, return_tensors="pt")
        with torch.inference_mode():
            found: np.ndarray = model(**inputs).sentence_embedding[0].float().numpy()
        return found

    cosines = [float(embedded(a) @ embedded(b)) for a, b, _ in pairs]
    return float(spearmanr(cosines, [score for *_, score in pairs]).statistic)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("exports", type=Path, nargs="+")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", type=int, default=1500, help="of each set, at most")
    arguments = parser.parse_args(argv)
    sets = {"SICK": list(sick(arguments.data)), "STS 2016": list(sts(arguments.data))}
    sets = {name: pairs[: arguments.pairs] for name, pairs in sets.items()}
    print(cpu_name())
    print(" | ".join(["model", *(f"{name} ({len(pairs)} pairs)" for name, pairs in sets.items())]))
    facts = json.loads((arguments.exports[0] / "measured.json").read_text("utf-8"))
    models = {"uncompressed": load_dense(stored_spec(facts["study"], "the export"))}
    models |= {str(folder): pf.load_compressed(folder) for folder in arguments.exports}
    tokenizer = transformers.AutoTokenizer.from_pretrained(arguments.exports[0])
    for name, model in models.items():
        cells = (f"{correlation(model, tokenizer, pairs):.4f}" for pairs in sets.values())
        print(" | ".join([name, *cells]), flush=True)


if __name__ == "__main__":
    main()
