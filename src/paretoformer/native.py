"""Native loading: transformers' `from_pretrained` opens an export once paretoformer is imported.

To transformers, a compressed model is a quantised one: `config.json` holds the quantisation method
`paretoformer`, the candidate and the config of the uncompressed model. Before the weights are
loaded, the structure of the skeleton (on the meta device) is changed to the candidate's. The model
always runs in torch; `paretoformer.load_compressed` uses the candidate's runtime.

A hook in `paretoformer` registers it when transformers is imported, so it imports neither.
"""

from __future__ import annotations

import logging
from types import ModuleType
from typing import Any

from torch import nn
from transformers.quantizers.base import HfQuantizer
from transformers.utils.quantization_config import QuantizationConfigMixin

METHOD = "paretoformer"
WEIGHTS = "transformers_weights"
"""Config key for the name of the weights file."""

logger = logging.getLogger("paretoformer")


class CompressedConfig(QuantizationConfigMixin):
    """The entry of a compressed model in `config.json`.

    candidate: as in `Candidate.to_json`. dense_config: config of the uncompressed model. weights:
    name of their file; empty: `model.safetensors`, whole or sharded.
    """

    def __init__(
        self,
        candidate: dict[str, Any] | None = None,
        dense_config: dict[str, Any] | None = None,
        weights: str = "",
        **kwargs: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]  # or a registered name
        self.candidate = candidate
        self.dense_config = dense_config
        self.weights = weights


class CompressedQuantizer(HfQuantizer):
    """Rebuilds the structure of a compressed model before its weights are loaded."""

    quantization_config: CompressedConfig

    requires_calibration = True  # loading cannot compress a dense model

    def update_attn_implementation(self, config: Any) -> Any:
        """Set the weights file: the last hook before files are searched."""
        if self.quantization_config.weights:
            setattr(config, WEIGHTS, self.quantization_config.weights)
        elif hasattr(config, WEIGHTS):
            delattr(config, WEIGHTS)
        return config

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        from paretoformer.spaces.persist import become

        config = self.quantization_config
        served_by = become(model, config.candidate, config.dense_config)
        if served_by:
            logger.warning(
                "This model was measured in %s; from_pretrained runs its weights in torch. "
                "paretoformer.load_compressed serves it as it was measured.",
                served_by,
            )
        return model

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        self.quantization_config.weights = ""  # `save_pretrained` chooses its own name
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        return True


def register(auto: ModuleType) -> None:
    """auto: the module `transformers.quantizers.auto`, just imported."""
    auto.register_quantization_config(METHOD)(CompressedConfig)
    auto.register_quantizer(METHOD)(CompressedQuantizer)
