"""BEIR's folders (Thakur et al. 2021, arXiv:2104.08663): a corpus, queries, and relevances.

Differs in: a query's passages are the judged ones and those of the corpus that share most words
with it, not the whole corpus, which every candidate of a search would have to embed.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.table import DataError, Table, reason

CORPUS, QUERIES = "corpus.jsonl", "queries.jsonl"
NAMES = ("query", "passage", "label")
PASSAGES = 16
"""Passages of a query: at most as many judged ones, the most relevant first, filled with others."""
LARGEST = 100_000
"""Passages of a corpus that others are looked for in."""


def is_beir(path: str) -> bool:
    return all((Path(path) / name).is_file() for name in (CORPUS, QUERIES))


def read_beir(path: str) -> Table:
    """Rows of a query, a passage and its relevance; DataError if a file is missing or damaged."""
    folder, qrels = Path(path), _qrels(Path(path))
    files = (folder / CORPUS, folder / QUERIES, qrels)
    try:
        return _read(folder, qrels, tuple(file.stat().st_mtime_ns for file in files))
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read {folder}: {reason(error)}") from None


def _qrels(folder: Path) -> Path:
    """The relevances: of the test, else of the development set, else the first of the others."""
    files = sorted((*folder.glob("qrels/*.tsv"), *folder.glob("qrels*.tsv")))
    if not files:
        raise DataError(f"{folder} has no relevances in qrels/test.tsv.")
    named = {file.stem: file for file in files}
    return named.get("test") or named.get("dev") or files[0]


@lru_cache(maxsize=1)
def _read(folder: Path, qrels: Path, written: tuple[int, ...]) -> Table:
    """written: times of the files, so that a changed one is read again."""
    corpus = {
        key: f"{row.get('title') or ''} {row['text']}".strip() for key, row in _rows(folder, CORPUS)
    }
    queries = {key: row["text"] for key, row in _rows(folder, QUERIES)}
    judged: dict[str, dict[str, float]] = defaultdict(dict)
    unknown = 0
    for query, passage, relevance in _judgements(qrels):
        if query in queries and passage in corpus:
            judged[query][passage] = relevance
        else:
            unknown += 1
    if not judged:
        raise DataError(f"{qrels} judges no passage of {CORPUS} for a query of {QUERIES}.")
    near = _sharing_words({key: queries[key] for key in judged}, corpus)
    rows, cut = [], 0
    for query, known in judged.items():
        first = sorted(known, key=lambda passage: -known[passage])[:PASSAGES]
        cut += len(known) - len(first)
        others = [passage for passage in near[query] if passage not in known]
        chosen = [*first, *others][:PASSAGES]
        rows += [(queries[query], corpus[key], known.get(key, 0.0)) for key in chosen]
    remarks = [
        f"{folder.name}: relevances from {qrels.relative_to(folder)}. The passages of a query are "
        f"the judged ones and, up to {PASSAGES}, others that share words with it, as not relevant; "
        "the whole corpus is not ranked."
    ]
    if unknown:
        remarks.append(f"{qrels.name}: relevances without their query or passage: {unknown}.")
    if cut:
        remarks.append(f"{qrels.name}: left out {cut} judged passages of queries with more.")
    if len(corpus) > LARGEST:
        remarks.append(f"{CORPUS}: others are looked for in {LARGEST} of {len(corpus)} passages.")
    values = dict(zip(NAMES, map(list, zip(*rows, strict=True)), strict=True))
    return Table(NAMES, values, tuple(map(Remark, remarks)))


def _rows(folder: Path, name: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    with (folder / name).open(encoding="utf-8-sig") as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                try:
                    row = json.loads(line)
                    yield str(row["_id"]), {**row, "text": str(row["text"])}
                except (json.JSONDecodeError, KeyError, TypeError):
                    raise DataError(
                        f"{folder / name}: line {number} is no object with `_id` and `text`."
                    ) from None


def _judgements(path: Path) -> Iterator[tuple[str, str, float]]:
    """(query, passage, relevance); TREC's lines, with a column between the first two, too."""
    for number, line in enumerate(path.read_text("utf-8-sig").splitlines(), start=1):
        cells = line.split("\t") if "\t" in line else line.split()
        try:
            yield cells[0], cells[-2], float(cells[-1])
        except (IndexError, ValueError):
            if number > 1 and cells:  # the first line names the columns
                raise DataError(
                    f"{path}: line {number} is not a query, a passage and a number."
                ) from None


def _sharing_words(
    queries: Mapping[str, str], corpus: Mapping[str, str]
) -> dict[str, Sequence[str]]:
    """Query -> passages that share most words with it, by the cosine of TF-IDF, best first."""
    from sklearn.feature_extraction.text import TfidfVectorizer  # slow to import

    keys = np.array(list(corpus))
    if len(keys) > LARGEST:
        keys = np.random.default_rng(0).choice(keys, LARGEST, replace=False)
    vectors = TfidfVectorizer(sublinear_tf=True, token_pattern=r"\w+")
    try:
        passages = vectors.fit_transform([corpus[key] for key in keys]).T.tocsr()
    except ValueError:  # no word in any of them
        return dict.fromkeys(queries, ())
    found = {}
    for query, text in queries.items():
        shared = (vectors.transform([text]) @ passages).tocoo()
        best = np.argsort(-shared.data, kind="stable")[: 2 * PASSAGES]
        found[query] = keys[shared.coords[1][best]].tolist()
    return found
