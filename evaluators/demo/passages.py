"""A demonstration of a language model: SmolLM2-135M, and pages of real reviews."""

from __future__ import annotations

import io
from collections.abc import Mapping
from contextlib import redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from paretoformer.evaluators.common.progress import Progress
from paretoformer.evaluators.demo.assets import SMOLLM, DemoError, asset
from paretoformer.evaluators.demo.recipe import Unlabelled, write_splits
from paretoformer.spaces.runtimes.base import missing


@dataclass(frozen=True)
class Passages(Unlabelled):
    """No training: the weights, 4 bits in their package, become a model in float32 (538 MB)."""

    source = "imdb"

    def make(self, folder: Path, progress: Progress) -> Mapping[str, Any]:
        progress("Unpacking SmolLM2-135M, once", 0, 1)
        write_smollm(folder / "model")
        write_splits(self.parts(), folder)
        progress("Unpacking SmolLM2-135M, once", 1, 1)
        return {}


def write_smollm(folder: Path) -> None:
    """SmolLM2-135M-Instruct with its tokenizer, in float32, from the 4 bits of its package.

    Raises:
        DemoError: a package is missing or changed.
    """
    import transformers

    source = asset(SMOLLM)
    if reason := missing("zoo", "gguf", "accelerate"):
        raise DemoError(reason)
    transformers.utils.logging.disable_progress_bar()
    known = {"gguf_file": source.name}
    with redirect_stderr(io.StringIO()):  # progress bars that nothing else turns off
        tokenizer = transformers.AutoTokenizer.from_pretrained(source.parent, **known)
        packed: Any = transformers.AutoModelForCausalLM.from_pretrained(
            source.parent, dtype=torch.float32, **known
        )
    config = packed.config
    del config.quantization_config  # the weights are float32 now
    model: Any = transformers.AutoModelForCausalLM.from_config(config)
    model.load_state_dict(packed.state_dict())
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
