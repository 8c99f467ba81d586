"""The design space: one value per axis, and how a model is rebuilt from the values.

Knows torch and transformers, nothing of Ray, Optuna or storage.
"""

from paretoformer.spaces.axes.head_mask import HeadMask
from paretoformer.spaces.candidate import AttentionChoice, Candidate

__all__ = ["AttentionChoice", "Candidate", "HeadMask"]
