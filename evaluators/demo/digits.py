"""A demonstration of an image classifier: DINOv2 ViT-S/14 on scikit-learn's handwritten digits."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.common.target import physical_cores
from paretoformer.evaluators.demo.assets import DINO, DemoError, asset
from paretoformer.evaluators.demo.recipe import SPLITS, Recipe
from paretoformer.spaces.runtimes.base import missing

NAMES = tuple("0123456789")
LARGEST = 16
"""Of a pixel."""
BATCH = 32


@dataclass(frozen=True)
class Digits(Recipe):
    """A linear classifier, fitted on what the ViT makes of the training images; all else as it is.

    The 1,797 images of 8 x 8 pixels are enlarged to `side` x `side`.
    """

    side: int
    search: int
    confirm: int
    seed: int = 0

    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        import transformers
        from sklearn.datasets import load_digits

        if reason := missing("zoo", "PIL", "onnx"):
            raise DemoError(reason)
        transformers.utils.logging.disable_progress_bar()
        model = vit(asset(DINO), self.side, NAMES)
        pixels, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(self.seed).permutation(len(labels))
        ends = np.cumsum([self.search, self.confirm])
        parts = dict(zip(("search", "confirm", "train"), np.split(order, ends), strict=True))
        size = {"height": self.side, "width": self.side}
        processor = transformers.ViTImageProcessorPil(size=size)
        images = [_image(each) for each in pixels]
        for name in SPLITS:
            _write(folder / f"{name}.parquet", images, labels, parts[name])
        some = [images[index] for index in parts["train"]]
        fit_classifier(model, processor, some, labels[parts["train"]], progress)
        model.save_pretrained(folder / "model")
        processor.save_pretrained(folder / "model")
        return {}


def _image(pixels: np.ndarray) -> Any:
    from PIL import Image

    values = (pixels.reshape(8, 8) * 255 / LARGEST).astype(np.uint8)
    return Image.fromarray(values).convert("RGB")


def _write(path: Path, images: Sequence[Any], labels: np.ndarray, rows: np.ndarray) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    contents = list[bytes]()
    for index in rows:
        images[index].save(file := io.BytesIO(), "png")
        contents.append(file.getvalue())
    names = [NAMES[labels[index]] for index in rows]
    pq.write_table(pa.table({"image": contents, "label": names}), path)


def fit_classifier(
    model: Any, processor: Any, images: Sequence[Any], labels: np.ndarray, progress: Progress
) -> None:
    """Fit the classifier of a ViT in place, by logistic regression on its first token.

    labels: (images,) numbers of the classes.
    """
    from sklearn.linear_model import LogisticRegression

    torch.set_num_threads(physical_cores())
    features = list[torch.Tensor]()
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = processor(images[start : start + BATCH], return_tensors="pt")
            features.append(model.vit(**batch).last_hidden_state[:, 0])
            done = min(start + BATCH, len(images))
            progress("Features of images, once", done, len(images))
    x = torch.cat(features).double().numpy()
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    head = LogisticRegression(C=0.1, max_iter=500).fit((x - mean) / spread, labels)
    weight = head.coef_ / spread
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(head.intercept_ - weight @ mean))


PLACES = {
    "norm1": "layernorm_before",
    "norm2": "layernorm_after",
    "attention.attention.query": "attention.q_proj",
    "attention.attention.key": "attention.k_proj",
    "attention.attention.value": "attention.v_proj",
    "attention.output.dense": "attention.o_proj",
    "mlp.fc1": "mlp.fc1",
    "mlp.fc2": "mlp.fc2",
}
"""Of the file -> of transformers' ViT."""
SCALES = {"attention.output.dense": "layer_scale1", "mlp.fc2": "layer_scale2"}
"""Projection -> the LayerScale behind it, which goes into its weights."""
LAYERS, HIDDEN, PATCH = 12, 384, 14


def vit(path: Path, side: int, names: Sequence[str]) -> Any:
    """The DINOv2 of an ONNX file as a `vit` with an untrained classifier, which computes the same.

    side: of the images, in pixels; its table of positions is interpolated to their patches.
    names: of the classes.
    """
    import transformers

    found, first, table = _weights_of(path)
    config = transformers.ViTConfig(
        image_size=side,
        patch_size=PATCH,
        hidden_size=HIDDEN,
        num_hidden_layers=LAYERS,
        num_attention_heads=6,
        intermediate_size=4 * HIDDEN,
        layer_norm_eps=1e-6,
        id2label=dict(enumerate(names)),
        label2id={name: number for number, name in enumerate(names)},
    )
    grid, theirs = side // PATCH, int(table.shape[1] ** 0.5)
    patches = torch.nn.functional.interpolate(
        table.reshape(1, theirs, theirs, HIDDEN).permute(0, 3, 1, 2), (grid, grid), mode="bicubic"
    )
    positions = patches.permute(0, 2, 3, 1).reshape(1, -1, HIDDEN)
    state = {
        "embeddings.cls_token": found["embeddings.cls_token"],
        "embeddings.position_embeddings": torch.cat([first, positions], dim=1),
    }
    for end in ("weight", "bias"):
        for name in ("embeddings.patch_embeddings.projection", "layernorm"):
            state[f"{name}.{end}"] = found[f"{name}.{end}"]
        for layer in range(LAYERS):
            for place, ours in PLACES.items():
                value = found[f"encoder.layer.{layer}.{place}.{end}"]
                if place in SCALES:
                    by = found[f"encoder.layer.{layer}.{SCALES[place]}.lambda1"]
                    value = value * (by[:, None] if end == "weight" else by)
                state[f"layers.{layer}.{ours}.{end}"] = value
    model = transformers.ViTForImageClassification(config).eval()
    model.vit.load_state_dict(state)
    return model


def _weights_of(path: Path) -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights by name, the first token's position (1, 1, hidden), and those of the patches
    (1, patches, hidden)."""
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(path).graph
    known = {t.name: torch.tensor(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    prefix = "backbone."
    found = {name.removeprefix(prefix): t for name, t in known.items() if name.startswith(prefix)}
    for node in graph.node:  # matrices have lost their names, but not their nodes
        if node.op_type == "MatMul" and node.input[1] in known:
            name = node.name.removesuffix("/MatMul").removeprefix("/backbone/").replace("/", ".")
            found[f"{name}.weight"] = known[node.input[1]].T.contiguous()
    first = next(t for name, t in known.items() if "Concat" in name and t.numel() == HIDDEN)
    table = next(t for name, t in known.items() if "Reshape" in name and t.ndim == 3)
    return found, first.reshape(1, 1, HIDDEN), table
