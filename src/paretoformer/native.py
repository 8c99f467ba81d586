"""Native loading: `from_pretrained` of transformers opens an export, once paretoformer is imported.

To transformers a compressed model is a quantised one: `config.json` names the quantisation method
`paretoformer`, the candidate and the config of the uncompressed model. Before the weights are
loaded, the structure of the skeleton, which is on the meta device, becomes that of the candidate.
The weights are in torch: what `paretoformer.load_compressed` serves in another runtime runs in
torch here.

Registered when transformers is imported, by a hook in `paretoformer`: neither is imported for it.
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
"""The key of a config that names the file of the weights."""

logger = logging.getLogger("paretoformer")


class CompressedConfig(QuantizationConfigMixin):
    """The entry of a compressed model in `config.json`.

    candidate: as in `Candidate.to_json`. dense_config: of the uncompressed model.
    weights: the file that holds them; empty: `model.safetensors`, whole or in shards.
    """

    def __init__(
        self,
        candidate: dict[str, Any] | None = None,
        dense_config: dict[str, Any] | None = None,
        weights: str = "",
        **kwargs: Any,
    ) -> None:
        self.quant_method = METHOD  # type: ignore[assignment]  # a member, or a registered text
        self.candidate = candidate
        self.dense_config = dense_config
        self.weights = weights


class CompressedQuantizer(HfQuantizer):
    """Rebuilds the structure of a compressed model before its weights are loaded."""

    quantization_config: CompressedConfig

    requires_calibration = True  # a model that is not compressed yet cannot become it by loading

    def update_attn_implementation(self, config: Any) -> Any:
        """The last look at the config before its files are looked for."""
        if self.quantization_config.weights:
            setattr(config, WEIGHTS, self.quantization_config.weights)
        elif hasattr(config, WEIGHTS):
            delattr(config, WEIGHTS)
        return config

    def _process_model_before_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        from paretoformer.spaces.persist import become

        found = self.quantization_config
        served_by = become(model, found.candidate, found.dense_config)
        if served_by:
            logger.warning(
                "This model was measured in %s; from_pretrained runs its weights in torch. "
                "paretoformer.load_compressed serves it as it was measured.",
                served_by,
            )
        return model

    def _process_model_after_weight_loading(self, model: nn.Module, **kwargs: Any) -> nn.Module:
        self.quantization_config.weights = ""  # `save_pretrained` names the file as it likes
        return model

    def is_serializable(self) -> bool:
        return True

    @property
    def is_trainable(self) -> bool:
        """The weights are ordinary ones."""
        return True


def register(auto: ModuleType) -> None:
    """auto: the module `transformers.quantizers.auto`, just imported."""
    auto.register_quantization_config(METHOD)(CompressedConfig)
    auto.register_quantizer(METHOD)(CompressedQuantizer)
