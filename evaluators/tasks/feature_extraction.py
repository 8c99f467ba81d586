"""Task `feature-extraction`: one vector per text, by which texts are compared.

Labels are similarity scores of pairs of texts. Without labels, candidates are compared with the
uncompressed model's vectors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from torch import nn
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.statistics import rank_correlation
from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples, Labels, SplitName
from paretoformer.evaluators.data.table import DataError
from paretoformer.evaluators.data.workload import Workload
from paretoformer.evaluators.tasks.labels import numbers_of
from paretoformer.evaluators.tasks.model_files import is_unknown, read_json, token_limit
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text import TextTask
from paretoformer.spaces.models.divergence import Directions
from paretoformer.spaces.models.embedder import Pooling, Similarity, as_embedder
from paretoformer.spaces.models.families import FAMILIES
from paretoformer.spaces.models.tokens import Batch

UNRELATED = 0.2
"""Below this Spearman correlation, cosines and scores are probably unrelated."""
MODULES = "modules.json"
"""Lists the modules of a sentence-transformers model."""
MODES: dict[str, Pooling] = {
    "mean": "mean",
    "cls": "cls",
    "lasttoken": "last",
    "pooling_mode_mean_tokens": "mean",
    "pooling_mode_cls_token": "cls",
    "pooling_mode_lasttoken": "last",
}
"""How version 5.4 of sentence-transformers and later name the poolings, and earlier ones."""
POOLED: dict[Pooling, str] = {
    "mean": "the mean of the tokens",
    "cls": "the first token",
    "last": "the last token",
}
SETTINGS = "config_sentence_transformers.json"
"""What sentence-transformers does with vectors."""
READS = [
    f"sentence_{kind}_config.json"
    for kind in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
]
"""What it does with texts: the first of these files that there is."""
SIMILARITIES: dict[str, Similarity] = {"cosine": "cosine", "dot": "dot", "dot_score": "dot"}
KNOWN = ("Transformer", "Pooling", "Normalize")
LIKENESS = ("fidelity", "neighbours")
"""Metrics that say how far vectors of a compressed model are from the uncompressed one's."""


class FeatureExtraction(TextTask):
    """Sentence embeddings of encoders and decoders, as folders of sentence-transformers or plain
    ones.

    A folder of sentence-transformers defines the pooling and the similarity; the defaults are the
    mean over tokens and the cosine, for which vectors have length one.
    """

    name = "feature-extraction"
    auto = transformers.AutoModel
    architectures: ClassVar[Mapping[str, Any]] = {
        name: modeling_auto.MODEL_MAPPING_NAMES[name]
        for name in FAMILIES
        if name in modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES  # reads texts
    }
    answers = Directions()
    scores: ClassVar[tuple[str, ...]] = ("spearman",)
    unread = ("pooler.",)
    embeds = True
    files = (MODULES, "*_Pooling/config.json", "*sentence*.json")

    def adapted(self, model: nn.Module, path: str) -> tuple[nn.Module, tuple[Remark, ...]]:
        pooling, similarity, remarks = pooling_of(path)
        return as_embedder(model, pooling, similarity), remarks

    def marks(self, path: str) -> bool:
        """Whether sentence-transformers pools its vectors. It lists the modules of cross-encoders,
        too."""
        return "Pooling" in _kinds(read_json(path, MODULES) or ())

    def cut_at(self, path: str) -> int:
        return int(_reads(path).get("max_seq_length") or token_limit(path))

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        apart = {name: self.apart(name, examples) for name, examples in splits.items()}
        workload = super().encode(apart, tokenizer, config, target)
        for name, split in workload.splits.items():
            if any(splits[name].pairs) and len(split) != len(apart[name]):
                raise DataError(f"a text of a pair of {name!r} gives no token: leave it out.")
        return workload

    def apart(self, name: SplitName, examples: Examples) -> Examples:
        """The examples of a split, with the two texts of each pair in consecutive rows."""
        return _apart(examples)

    def usage(self, path: str, measured: Mapping[str, float]) -> str:
        pooling, similarity, _ = pooling_of(path)
        pooled = POOLED[pooling]
        compared = {"cosine": "cosine", "dot": "dot product"}[similarity]
        prompts, _ = prompts_of(path)
        named = ", ".join(f"{name} ({text!r})" for name, text in prompts.items() if text)
        kept = ", ".join(f"{name} {measured[name]:.3f}" for name in LIKENESS if name in measured)
        like = f" ({kept})" if kept else ""
        lines = [
            f"Vectors are {pooled}, compared by their {compared}.",
            f"Put the model's prompts before texts: {named}." if named else "",
            f"Build an index anew with this model: its vectors differ from the old ones{like}.",
        ]
        return " ".join(filter(None, lines))

    def read_labels(self, labels: Sequence[Any], config: Any) -> Labels:
        return numbers_of(labels, self.name)

    def doubts(self, answers: np.ndarray, labels: np.ndarray, config: Any) -> list[Remark]:
        rho = rank_correlation(*reversed(self.scored(answers, labels)))
        if rho >= UNRELATED:
            return []
        return [
            Remark(
                f"The cosines of the uncompressed model and the scores of {len(labels) // 2} "
                f"training pairs have a Spearman correlation of {rho:.2f}: the scores do not say "
                "how like the texts are. A high score must mean that they are alike.",
                doubt=True,
            )
        ]

    def scored(self, answers: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The similarity of each pair (two consecutive rows), and its score."""
        return (answers[::2] * answers[1::2]).sum(-1), labels[::2]

    def loss(self, output: Any, labels: torch.Tensor) -> torch.Tensor:
        """A random projection of the vectors: no label says which vector is right."""
        return self.answers.probe(output, torch.Generator().manual_seed(0), {})

    def predict(self, output: Any) -> np.ndarray:
        """(rows, width)"""
        vectors: np.ndarray = output.sentence_embedding.detach().float().cpu().numpy()
        return vectors

    def likeness(self, output: Any, dense: Any, batch: Batch) -> np.ndarray:
        """(rows,) cosines; for vectors that are compared by their dot product, 1 - half the squared
        distance, relative to the dense vector's length."""
        likeness: np.ndarray = 1 - self.answers.divergence(output, dense, batch).cpu().numpy()
        return likeness


def _apart(examples: Examples) -> Examples:
    """The two texts of each pair in consecutive rows."""
    if not any(examples.pairs):
        if examples.labelled:
            raise DataError(
                "scores are of pairs of texts: name the column of the second text as "
                'data.text_pair, or set data.label = "".'
            )
        return examples
    texts = tuple(chain(*zip(examples.texts, examples.pairs, strict=True)))
    labels = tuple(chain(*zip(examples.labels, examples.labels, strict=True)))
    return Examples(texts, ("",) * len(texts), labels)


def pooling_of(path: str) -> tuple[Pooling, Similarity, tuple[Remark, ...]]:
    """Pooling and similarity of a sentence-transformers folder or Hub id; default: the mean, with a
    remark, and the cosine. Raises ValueError for an unknown module, pooling or similarity."""
    modules = read_json(path, MODULES)
    if modules is None:
        unknown = is_unknown(path, MODULES)
        where = "is in the local cache, and the Hub cannot be asked" if unknown else "was found"
        remark = Remark(
            f"{path}: no {MODULES} {where}, so the mean of the tokens is taken as embedding.",
            doubt=unknown,
        )
        return "mean", "cosine", (remark,)
    kinds = _kinds(modules)
    if others := [kind for kind in kinds if kind not in KNOWN]:
        raise ValueError(f"its {MODULES} has {', '.join(others)}; known are {', '.join(KNOWN)}.")
    if "Pooling" not in kinds:
        raise ValueError(
            f"its {MODULES} has no Pooling, by which the vectors of its tokens become one: a "
            'cross-encoder is scored by model.task = "text-regression" or "reranking".'
        )
    folder = kinds["Pooling"].get("path", "")
    settings = read_json(path, f"{folder}/config.json") or {}
    modes = _modes(settings)
    if len(modes) != 1 or modes[0] not in MODES:
        raise ValueError(
            f"it pools by {' and '.join(modes) or 'nothing'}; known are mean, cls and lasttoken."
        )
    # The dot product of normalised vectors is their cosine.
    similarity: Similarity = "cosine" if "Normalize" in kinds else _similarity(path)
    return MODES[modes[0]], similarity, tuple(_ignored(path))


def _kinds(modules: Sequence[Mapping[str, Any]]) -> dict[str, Mapping[str, Any]]:
    return {str(module.get("type", "")).rpartition(".")[2]: module for module in modules}


def _similarity(path: str) -> Similarity:
    name = (read_json(path, SETTINGS) or {}).get("similarity_fn_name") or "cosine"
    if name not in SIMILARITIES:
        raise ValueError(
            f"its {SETTINGS} compares by {name!r}; known are {', '.join(SIMILARITIES)}."
        )
    return SIMILARITIES[name]


def _modes(settings: Mapping[str, Any]) -> list[str]:
    """The poolings of a `Pooling` module, whose vectors are concatenated."""
    if mode := settings.get("pooling_mode"):
        return list(map(str, mode)) if isinstance(mode, list) else [str(mode)]
    return [key for key, value in settings.items() if key.startswith("pooling_mode_") and value]


def _ignored(path: str) -> Iterator[Remark]:
    """Preprocessing by sentence-transformers that is not done here, or not known."""
    if unknown := [name for name in (SETTINGS, READS[0]) if is_unknown(path, name)]:
        yield Remark(
            f"{path}: {' and '.join(unknown)} may exist, but the local cache holds none, and the "
            "Hub cannot be asked: similarity, prompts and lengths are taken as by default."
        )
    prompts, name = prompts_of(path)
    if prompt := prompts.get(name):
        yield Remark(
            f"{path}: sentence-transformers puts the prompt {prompt!r} before every text. Here "
            "texts are taken as they are: put it into the data."
        )
    if width := (read_json(path, SETTINGS) or {}).get("truncate_dim"):
        yield Remark(
            f"{path}: sentence-transformers keeps the first {width} numbers of each vector "
            "(`truncate_dim`). Here whole vectors are compared."
        )
    if _reads(path).get("do_lower_case"):
        yield Remark(
            f"{path}: sentence-transformers changes every text to lower case. Here texts are taken "
            "as they are: change them in the data, unless the tokenizer does it."
        )


def prompts_of(path: str) -> tuple[dict[Any, str], Any]:
    """Prompts that sentence-transformers prepends to texts, by name; and the default name."""
    settings = read_json(path, SETTINGS) or {}
    return settings.get("prompts") or {}, settings.get("default_prompt_name")


def _reads(path: str) -> Mapping[str, Any]:
    return next(filter(None, (read_json(path, name) for name in READS)), {})


register(FeatureExtraction())
