"""Distillation: train a cut model for some minutes to match the dense one, outputs and layers.

The loss is the divergence of the predictions (Hinton et al. 2015, arXiv:1503.02531), the distance
of each layer's output from the corresponding dense layer's (as DistilBERT, Sanh et al. 2019,
arXiv:1910.01108, and CoFi, Xia et al. 2022, arXiv:2204.00408, section 3.2), and, where labels say
what the outputs should be, the task's own loss. Differs in: no projection between hidden sizes,
which are equal here; the schedule follows time, not steps.

transformers' Trainer counts steps and epochs, pickles its state and trains one model. A time
budget, checkpoints without pickle and a teacher would all need workarounds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, fields
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import torch
from torch import nn

from paretoformer.spaces.models.families import layers_of
from paretoformer.spaces.models.tokens import Batch, Step, token_mask
from paretoformer.spaces.recovery.checkpoint import Workspace
from paretoformer.spaces.recovery.layerwise import without_cache
from paretoformer.spaces.recovery.least_squares import put
from paretoformer.spaces.recovery.mixed_precision import mixed_precision
from paretoformer.spaces.recovery.repair_report import Recovered
from paretoformer.spaces.recovery.teacher import Teacher

LEARNING_RATE, FEW_TEXTS = 5e-4, 0.4
"""Its peak, and the factor where texts come again. After four minutes on one core, MiniLM without
two layers was 0.049 from dense as an embedder, at 2e-4 0.054 and at 1e-3 0.050. With some hundred
texts it was 0.067 as a tagger, at 2e-4 0.058, and 0.030 on 77 intents, at 2e-4 0.035."""
WIDE = 384
"""Width from which on the rate falls with one over the width (Yang et al. 2022, arXiv:2203.03466:
of Adam's, for hidden layers). Not measured here: the numbers above are of this width."""
WORSE, SLOWER = 2.0, 5.0
"""If training makes the divergence this many times that before it, it begins again from the best
weights at a learning rate as many times lower. A model that a repair left near the dense one, with
some hundred texts to train on: 0.010 nats became 0.041 at 2e-4, and 0.009 at 3e-5."""
LABELS = 0.5
"""Weight of the loss by labels, where a study has them. On 77 intents, MiniLM with 3 of 6 layers,
17 of 36 heads and 15% of the neurons is right on 0.762 of 500 texts after its repair; after 5.75
minutes on 1,195 others it is right on 0.893 of 1,000 texts, of which the dense model is on 0.886.
With 5 of 6 layers and 46% of the neurons it comes to 0.894, and to 0.870 without labels."""
WARM_UP = 0.05
"""Fraction of the time in which the learning rate rises."""
WEIGHT_DECAY = 0.01
CLIP = 1.0
CHECKPOINT_SECONDS = 30.0
LOOKS = 16
"""Evaluations on held-out texts."""
TARGET_BYTES = 2**29
"""Limit of the dense model's outputs that are kept for texts that come again."""
_LOWEST = "lowest"
"""Key of the divergences whose mean was the lowest; older versions kept none."""


@dataclass
class _State:
    """The scalars of a checkpoint."""

    seconds: float = 0.0
    steps: int = 0
    best: float = math.inf
    """Divergence of the weights that are kept."""
    looks: int = 0
    before: float = math.inf
    slower: float = 1.0
    """Divides the learning rate."""


@dataclass(frozen=True)
class _Targets:
    """The dense model's predictions, and what its layers give: (real tokens, hidden) of each."""

    answer: Any
    layers: Sequence[torch.Tensor]


class Distillation:
    """One model being distilled.

    model: cut and repaired. It is trained in evaluation mode, since dropout costs more than it
    gains in so short a time, with frozen embeddings; half precision is trained in float32.
    kept: for each of its layers, the index of that layer in the dense model.
    steps: endless.
    workspace: folder for checkpoints, from which an interrupted distillation resumes.
    """

    def __init__(
        self,
        model: nn.Module,
        kept: Sequence[int],
        teacher: Teacher,
        steps: Iterator[Step],
        minutes: float,
        workspace: Path | None = None,
    ) -> None:
        layers = len(layers_of(teacher.model))
        self._pairs = list(
            zip(range(len(kept)), [*(k - 1 for k in kept[1:]), layers - 1], strict=True)
        )
        self.model, self._teacher = model, teacher
        self._limit = 60 * minutes
        self._workspace = Workspace(workspace)
        self._dtype = next(model.parameters()).dtype
        first, width = next(steps), cast(Any, model).config.hidden_size
        self._steps = chain([first], steps)
        self._learns_labels = bool(first.losses)
        self._rate = LEARNING_RATE * min(1.0, WIDE / width) * (FEW_TEXTS if first.repeats else 1.0)
        self._parameters = _own_parameters(model)
        model.float()
        self._optimizer = torch.optim.AdamW(
            self._parameters.values(), lr=self._rate, weight_decay=WEIGHT_DECAY, fused=True
        )
        self._state = _State()
        self._best: dict[str, torch.Tensor] = {}
        self._lowest: torch.Tensor | None = None
        self._targets: dict[int, tuple[Batch, _Targets]] = {}  # by id; a kept batch keeps its own
        self._room = TARGET_BYTES

    def run(self) -> tuple[dict[str, torch.Tensor], Recovered]:
        """Train until the time is over; keep the last weights that are not worse than others.

        Returns the trained tensors by name, and the effect.
        """
        divergences = self._teacher.held.divergences(self.model)
        before = float(divergences.mean())
        if not self._resume(before):
            self._state.before = before
            self._look(divergences)
        state, saved = self._state, time.monotonic()
        while state.seconds < self._limit:
            begun = time.monotonic()
            self._step(next(self._steps))
            state.steps += 1
            state.seconds += time.monotonic() - begun
            if state.seconds >= self._limit * state.looks / LOOKS:
                self._look(self._teacher.held.divergences(self.model))
            if time.monotonic() - saved > CHECKPOINT_SECONDS:
                self._checkpoint()
                saved = time.monotonic()
        put(self.model, self._best)
        self.model.to(self._dtype)
        for parameter in self.model.parameters():
            parameter.grad = None
        best = {name: each.to(self._dtype) for name, each in self._best.items()}
        return best, Recovered(before, state.best, state.seconds, by_labels=self._learns_labels)

    def _step(self, step: Step) -> None:
        share = min(self._state.seconds / self._limit, 1.0)
        rate = min(share / WARM_UP, 1.0) * 0.5 * (1 + math.cos(math.pi * share))
        for group in self._optimizer.param_groups:
            group["lr"] = self._rate * max(rate, 0.01) / self._state.slower
        self._optimizer.zero_grad(set_to_none=True)
        rows = [len(next(iter(batch.values()))) for batch in step.batches]
        losses = step.losses or (None,) * len(rows)
        for batch, count, by_labels in zip(step.batches, rows, losses, strict=True):
            loss = self._loss(batch, step.repeats, by_labels)
            (loss * (count / sum(rows))).backward()
        if nn.utils.clip_grad_norm_(self._parameters.values(), CLIP).isfinite():
            self._optimizer.step()

    def _loss(
        self,
        batch: Batch,
        repeats: bool,
        by_labels: Callable[[Any], torch.Tensor] | None = None,
    ) -> torch.Tensor:
        with mixed_precision(next(iter(batch.values())).device), torch.enable_grad():
            dense = self._dense(batch, repeats)
            with _outputs(self.model) as outputs:
                output = self.model(**without_cache(self.model, batch))
        mask = token_mask(batch, outputs[0])
        loss = self._teacher.answers.distance(output, dense.answer, batch)
        if by_labels is not None:
            loss = loss + LABELS * by_labels(output)
        for (own, _), layer in zip(self._pairs, dense.layers, strict=True):
            target = layer.float()
            distance = (outputs[own][mask].float() - target).square().mean()
            loss = loss + distance / target.var() / len(self._pairs)
        return loss

    def _dense(self, batch: Batch, repeats: bool) -> _Targets:
        """What the dense model gives for a batch; kept if it repeats, while there is room."""
        if id(batch) in self._targets:
            return self._targets[id(batch)][1]
        with torch.no_grad(), _outputs(self._teacher.model) as layers:
            output = self._teacher.model(**without_cache(self.model, batch))
        mask, name = token_mask(batch, layers[0]), self._teacher.answers.output
        answer = SimpleNamespace(**{name: getattr(output, name)})
        found = _Targets(answer, [layers[layer][mask] for _, layer in self._pairs])
        kept = (getattr(output, name), *found.layers)
        size = sum(each.numel() * each.element_size() for each in kept)
        if repeats and size <= self._room:
            self._room -= size
            self._targets[id(batch)] = batch, found
        return found

    def _look(self, divergences: torch.Tensor) -> None:
        """Keep the weights unless they are worse than earlier ones; write the progress.

        A model that also learns from labels is not judged by its distance from the dense one.

        divergences: (texts,) of the held-out texts.
        """
        state, divergence = self._state, float(divergences.mean())
        state.looks += 1
        learned = self._learns_labels and math.isfinite(divergence)
        if self._lowest is None or learned or not is_worse(divergences, self._lowest):
            state.best = divergence
            self._best = {name: p.detach().clone() for name, p in self._parameters.items()}
        elif divergence > WORSE * state.before:
            state.slower *= SLOWER
            for name, parameter in self._parameters.items():
                parameter.data.copy_(self._best[name])
            for moments in self._optimizer.state.values():
                for tensor in moments.values():
                    tensor.zero_()
        if self._lowest is None or divergence < float(self._lowest.mean()):
            self._lowest = divergences
        self._workspace.report(state.seconds, self._limit, state.best)

    def _checkpoint(self) -> None:
        tensors = {f"now.{name}": p.detach() for name, p in self._parameters.items()}
        tensors |= {f"best.{name}": each for name, each in self._best.items()}
        if self._lowest is not None:
            tensors[_LOWEST] = self._lowest
        for name, parameter in self._parameters.items():
            for key, value in self._optimizer.state[parameter].items():
                tensors[f"{key}.{name}"] = torch.as_tensor(value)
        self._workspace.write(tensors, self._state.__dict__)

    def _resume(self, before: float) -> bool:
        """Resume from a checkpoint; returns whether there was one.

        before: divergence before training; it identifies the model and texts of a checkpoint.
        """
        found = self._workspace.read()
        if found is None:
            return False
        tensors, facts = found
        if not math.isclose(facts.get("before", math.inf), before, rel_tol=1e-3):
            return False
        known = {each.name for each in fields(_State)}  # older versions kept more
        self._state = _State(**{name: each for name, each in facts.items() if name in known})
        self._lowest = tensors.get(_LOWEST, torch.tensor([self._state.best]))
        for name, parameter in self._parameters.items():
            parameter.data.copy_(tensors[f"now.{name}"])
            self._best[name] = tensors[f"best.{name}"].to(parameter)
            self._optimizer.state[parameter] = {
                key: tensors[f"{key}.{name}"].to(parameter.device)  # fused: the step, too
                for key in ("step", "exp_avg", "exp_avg_sq")
            }
        for _ in range(self._state.steps):
            next(self._steps)  # already used
        return True


def is_worse(divergences: torch.Tensor, others: torch.Tensor) -> bool:
    """Whether the mean is higher by more than the standard error of the difference, or not finite.

    Some hundred held-out texts, a few of them far off, do not show which of two weights is better:
    the lowest mean chose weights after an eighth of the time (0.036 nats on 500 other texts), where
    the last ones were better (0.029). divergences, others: (texts,) of the same texts.
    """
    difference = divergences - others
    error = float(difference.std(correction=0)) / math.sqrt(max(1, len(difference) - 1))
    return not float(difference.mean()) <= error  # NaN, too


def _own_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Give the model trainable copies of the tensors that it shares with the dense model."""
    fixed = {
        id(parameter)
        for module in model.modules()
        if isinstance(module, nn.Embedding)
        for parameter in module.parameters(recurse=False)
    }
    # A tensor under two names is trained under the first.
    own = {name: p for name, p in model.named_parameters() if id(p) not in fixed}
    _freeze(model, fixed)
    put(model, {name: p.detach().clone() for name, p in own.items()})
    every = dict(model.named_parameters())
    found = {name: every[name] for name in own}
    for parameter in found.values():
        parameter.requires_grad_()
    return found


def _freeze(model: nn.Module, fixed: set[int]) -> None:
    """Replace these parameters by frozen ones of equal values; the dense model keeps its own."""
    frozen: dict[int, nn.Parameter] = {}
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            if id(parameter) in fixed:
                wrapper = nn.Parameter(parameter.detach(), requires_grad=False)
                setattr(module, name, frozen.setdefault(id(parameter), wrapper))


@contextmanager
def _outputs(model: nn.Module) -> Iterator[list[torch.Tensor]]:
    """Collect the output of each layer, (batch, length, hidden), in forwards of the model."""
    found: list[torch.Tensor] = []

    def keep(module: nn.Module, arguments: Any, output: Any) -> None:
        found.append(output[0] if isinstance(output, tuple) else output)

    with ExitStack() as hooks:
        for layer in layers_of(model):
            hooks.enter_context(layer.register_forward_hook(keep))
        yield found
