"""Pruning, conversion and serving of real weights in every encoder family.

With the weights of all-MiniLM-L6-v2, a distilbert, roberta, xlm-roberta or electra computes the
same (they differ in names, position numbers and segments). Each layer loses the two heads and the
tenth of the neurons with the smallest output weights, without repair. Printed: the mean cosine to
the family's uncompressed embeddings, Spearman's correlation on SICK, and the speed-up of ONNX
Runtime int8 over torch float32.

    python benchmarks/families.py [--data ../shared/data] [--pairs 400] [--seconds 3]
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from scipy.stats import spearmanr

import paretoformer as pf
from benchmarks.sentence_pairs import sick
from paretoformer.evaluators.common.target import cpu_name, physical_cores
from paretoformer.evaluators.demo.assets import minilm
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.models.embedder import as_embedder
from paretoformer.spaces.models.families import blocks_of
from paretoformer.spaces.runtimes import Tools

Tensors = Mapping[str, torch.Tensor]
LAYERS, HEADS, NEURONS, WIDTH = 6, 12, 1536, 384
ROBERTA_PAD = 1
"""roberta's padding id, which MiniLM uses for another token."""
OF_BERT = {
    "attention.q_lin": "attention.self.query",
    "attention.k_lin": "attention.self.key",
    "attention.v_lin": "attention.self.value",
    "attention.out_lin": "attention.output.dense",
    "sa_layer_norm": "attention.output.LayerNorm",
    "ffn.lin1": "intermediate.dense",
    "ffn.lin2": "output.dense",
    "output_layer_norm": "output.LayerNorm",
}
"""distilbert's name for a part of a layer -> bert's."""


def distilbert(bert: Tensors) -> dict[str, torch.Tensor]:
    """distilbert has no segments: the first segment's vector is added to the positions."""
    found = {name: bert[name] for name in bert if name.startswith("embeddings.")}
    segments = found.pop("embeddings.token_type_embeddings.weight")
    found["embeddings.position_embeddings.weight"] = (
        found["embeddings.position_embeddings.weight"] + segments[0]
    )
    for layer in range(LAYERS):
        for ours, theirs in OF_BERT.items():
            for end in ("weight", "bias"):
                found[f"transformer.layer.{layer}.{ours}.{end}"] = bert[
                    f"encoder.layer.{layer}.{theirs}.{end}"
                ]
    return found


def roberta(bert: Tensors) -> dict[str, torch.Tensor]:
    """roberta's positions start at 2, and its padding is token 1."""
    found = dict(bert)
    words = bert["embeddings.word_embeddings.weight"].clone()
    words[[0, ROBERTA_PAD]] = words[[ROBERTA_PAD, 0]]
    positions = bert["embeddings.position_embeddings.weight"]
    return found | {
        "embeddings.word_embeddings.weight": words,
        "embeddings.position_embeddings.weight": torch.cat((torch.zeros(2, WIDTH), positions)),
        "embeddings.token_type_embeddings.weight": bert["embeddings.token_type_embeddings.weight"][
            :1
        ],
    }


def of_family(name: str, weights: Tensors, config: Any) -> Any:
    """An embedder of a family with MiniLM's weights."""
    sizes: dict[str, Any] = {
        "vocab_size": config.vocab_size,
        "hidden_size": WIDTH,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "intermediate_size": NEURONS,
        "layer_norm_eps": 1e-12,
        "max_position_embeddings": 512,
    }
    change: Callable[[Tensors], dict[str, torch.Tensor]] = dict
    if name == "distilbert":
        sizes |= {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": NEURONS}
        change = distilbert
    elif name == "electra":
        sizes |= {"embedding_size": WIDTH}
    elif name != "bert":
        sizes |= {"max_position_embeddings": 514, "type_vocab_size": 1, "pad_token_id": ROBERTA_PAD}
        change = roberta
    made = transformers.AutoModel.from_config(
        transformers.AutoConfig.for_model(name, **sizes), attn_implementation="sdpa"
    )
    missing, _ = made.load_state_dict(change(weights), strict=False)
    unread = [key for key in missing if not key.startswith("pooler.")]
    assert not unread, unread
    return as_embedder(made.eval(), "mean")


def least_important(model: Any) -> Candidate:
    """Remove two heads and a tenth of the neurons per layer, those with the smallest weights."""
    heads, neurons = list[tuple[bool, ...]](), list[bytes | None]()
    for block in blocks_of(model):
        of_heads = block.output.weight.view(WIDTH, HEADS, -1).norm(dim=(0, 2))
        heads.append(tuple((of_heads.argsort().argsort() >= 2).tolist()))
        of_neurons = block.feed_forward_output.weight.norm(dim=0)
        kept = of_neurons.argsort().argsort() >= NEURONS // 10
        neurons.append(np.packbits(kept.numpy()).tobytes())
    return Candidate(HeadMask(tuple(heads))).replaced(
        feed_forward=NeuronMask(tuple(neurons), NEURONS)
    )


def rounds(one: Any, other: Any, batch: Tensors, seconds: float) -> float:
    """Speed-up of `other` over `one`: the median over consecutive forwards."""
    found, end = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < end or len(found) < 10:
        times = []
        for model in (one, other):
            before = time.perf_counter()
            with torch.inference_mode():
                model(**batch)
            times.append(time.perf_counter() - before)
        found.append(times[0] / times[1])
    return float(np.median(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--pairs", type=int, default=400)
    parser.add_argument("--seconds", type=float, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(physical_cores())
    tokenizer = transformers.AutoTokenizer.from_pretrained(minilm())
    source = transformers.BertModel.from_pretrained(minilm())
    pairs = list(sick(arguments.data))[: arguments.pairs]
    print(f"{cpu_name()}, {torch.get_num_threads()} threads, {len(pairs)} pairs of SICK")
    print("family | Spearman dense | cut | cut, int8 | mean cosine, int8 | speed-up, int8")
    for name in ("bert", "distilbert", "electra", "roberta", "xlm-roberta"):
        dense = of_family(name, source.state_dict(), source.config)
        candidate = least_important(dense)
        tools = Tools(threads=torch.get_num_threads())
        cut = pf.compress(dense, candidate)
        served = pf.compress(dense, candidate.replaced(runtime="onnxruntime:int8"), tools=tools)

        def inputs(text: str) -> dict[str, torch.Tensor]:
            found = tokenizer(text, truncation=True, max_length=64, return_tensors="pt")
            return {"input_ids": found["input_ids"], "attention_mask": found["attention_mask"]}

        vectors: dict[str, np.ndarray] = {}
        for label, model in (("dense", dense), ("cut", cut), ("int8", served)):
            with torch.inference_mode():
                found = [model(**inputs(text)) for pair in pairs for text in pair[:2]]
            vectors[label] = torch.cat([output.sentence_embedding for output in found]).numpy()
        scores = [score for *_, score in pairs]
        cells = [
            f"{spearmanr((vector[::2] * vector[1::2]).sum(axis=1), scores).statistic:.3f}"
            for vector in vectors.values()
        ]
        cosine = (vectors["dense"] * vectors["int8"]).sum(axis=1).mean()
        batch = {key: ids.repeat(1, 8)[:, :64] for key, ids in inputs(pairs[0][0] * 4).items()}
        speed = rounds(dense, served, batch, arguments.seconds)
        print(" | ".join([name, *cells, f"{cosine:.3f}", f"{speed:.2f}x"]), flush=True)


if __name__ == "__main__":
    main()
