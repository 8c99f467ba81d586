"""Task `image-classification`: one label per image."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import torch
import transformers
from transformers.models.auto import modeling_auto

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.common.target import Length, Target
from paretoformer.evaluators.data.examples import Examples, Form, SplitName
from paretoformer.evaluators.data.workload import Encoded, Inputs, Split, Workload
from paretoformer.evaluators.tasks.classifier import SingleLabel, not_single_label
from paretoformer.evaluators.tasks.task import register
from paretoformer.evaluators.tasks.text import labels_of

PIXELS = "pixel_values"
MOST_BYTES = 2 * 10**9
"""Maximum memory for the pixels of images for recovery."""
CHUNK = 64
"""Images preprocessed together."""


@dataclass(frozen=True)
class ImageInputs(Inputs):
    """tokens: tokens per image: patches, plus special ones."""

    tokens: int

    def size(self, example: Encoded) -> int:
        """Tokens; the same for all images."""
        return self.tokens

    def collate(self, examples: Sequence[Encoded]) -> dict[str, torch.Tensor]:
        """(rows, channels, height, width) float32"""
        return {PIXELS: torch.from_numpy(np.stack([example[PIXELS] for example in examples]))}

    def timing(self, examples: Sequence[Encoded], target: Target) -> dict[str, torch.Tensor]:
        return self.collate([examples[i % len(examples)] for i in range(target.batch_size)])


class ImageClassification(SingleLabel):
    """One label per image, preprocessed by the model's image processor, with Pillow.

    The processor sets the image size; `target.sequence_length` has no effect.
    """

    name = "image-classification"
    auto = transformers.AutoModelForImageClassification
    architectures: ClassVar[Mapping[str, Any]] = {
        name: modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES[name]
        for name in ("vit", "deit", "dinov2")
    }
    form: ClassVar[Form] = "image"

    def unsuitable(self, config: Any) -> str:
        return not_single_label(config)

    def processor(self, path: str, *, trust_remote_code: bool = False) -> Any:
        return transformers.AutoImageProcessor.from_pretrained(
            path, backend="pil", trust_remote_code=trust_remote_code
        )

    def length(self, config: Any, wanted: Length) -> int:
        height, width = _pair(config.image_size)
        rows, columns = _pair(config.patch_size)
        more = 2 if config.model_type == "deit" else 1
        return (height // rows) * (width // columns) + more

    def shown(self, lengths: tuple[int, float, int]) -> str:
        return "images of the model's size"

    def encode(
        self, splits: Mapping[SplitName, Examples], tokenizer: Any, config: Any, target: Target
    ) -> Workload:
        """tokenizer: the image processor."""
        tokens = self.length(config, 0)
        made: dict[SplitName, Split] = {}
        remarks = []
        for name, examples in splits.items():
            kept = examples
            if name == "recovery":
                image_bytes = _pixels(examples.take([0]), tokenizer)[0].nbytes
                kept = examples.take(range(min(len(examples), MOST_BYTES // image_bytes)))
            if len(kept) < len(examples):
                text = f"Of {len(examples)} images for recovery, {len(kept)} are held in memory."
                remarks.append(Remark(text))
            pixels = _pixels(kept, tokenizer)
            made[name] = Split(tuple({PIXELS: image} for image in pixels), labels_of(kept))
        return Workload(made, ImageInputs(tokens), tuple(remarks))


def _pixels(examples: Examples, processor: Any) -> list[np.ndarray]:
    """For each image (channels, height, width), float32.

    Photos are turned upright by their EXIF orientation first, as by transformers' pipelines.
    """
    from PIL import Image, ImageOps  # an extra, checked when images are read

    pixels: list[np.ndarray] = []
    for start in range(0, len(examples), CHUNK):
        images = [
            ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB")
            for data in examples.texts[start : start + CHUNK]
        ]
        pixels += list(processor(images, return_tensors="np")[PIXELS].astype(np.float32))
    return pixels


def _pair(size: Any) -> tuple[int, int]:
    """A config has (height, width), or one number for a square."""
    height, width = (size, size) if isinstance(size, int) else size
    return int(height), int(width)


register(ImageClassification())
