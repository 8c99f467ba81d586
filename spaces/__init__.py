"""What a compressed model can be: one value for each axis, and how a model is rebuilt from them.

Knows torch and transformers, nothing of Ray, Optuna or storage.
"""

from paretoformer.spaces.candidate import AttentionChoice, Candidate
from paretoformer.spaces.heads import HeadMask

__all__ = ["AttentionChoice", "Candidate", "HeadMask"]
