"""What a compressed model can be: heads that stay, and the attention of each layer.

Knows torch and transformers, nothing of Ray, Optuna or storage.
"""

from paretoformer.spaces.candidate import AttentionChoice, Candidate
from paretoformer.spaces.heads import HeadMask

__all__ = ["AttentionChoice", "Candidate", "HeadMask"]
