"""Training texts: all but the held-out ones, and new ones where there are few."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from paretoformer.evaluators.data.recovery_texts import endless_batches
from paretoformer.evaluators.data.workload import Encoded, Inputs, Split, Workload
from paretoformer.evaluators.tasks.text import TextInputs

BEGIN, END = 1, 2
TEXTS = TextInputs({"input_ids": 0})


def text(words: Sequence[int]) -> Encoded:
    return {"input_ids": np.array([BEGIN, *words, END])}


def workload(count: int) -> Workload:
    rows = tuple(text([10 + n] * (1 + n % 7)) for n in range(count))
    texts = Split(rows, np.zeros(count))
    return Workload({"train": texts, "recovery": texts}, TEXTS)


words = st.lists(st.integers(3, 99), max_size=9)


@given(words, words, st.integers(0, 99))
def test_spliced_text_begins_like_one_and_ends_like_the_other(
    first: list[int], second: list[int], seed: int
) -> None:
    one, other = text(first), text(second)
    found = TEXTS.spliced(one, other, np.random.default_rng(seed))
    assert found is not None
    ids = list(found["input_ids"])
    assert ids[0] == BEGIN
    assert ids[-1] == END
    assert len(ids) <= max(map(TEXTS.size, (one, other)))
    cuts = range(1, len(first) + 2)
    assert any(
        ids[:cut] == list(one["input_ids"][:cut]) and is_part(ids[cut:-1], second) for cut in cuts
    )


def is_part(some: list[int], whole: list[int]) -> bool:
    places = range(len(whole) - len(some) + 1)
    return not some or any(whole[place : place + len(some)] == some for place in places)


def test_few_texts_come_again_and_every_second_step_is_new() -> None:
    steps = list(islice(endless_batches(workload(200), "cpu", 0), 40))
    assert [step.repeats for step in steps] == [True, False] * 20
    again = {id(step.batches[0]) for step in steps if step.repeats}
    assert len(again) == 11  # 150 of 200 are not held out; 200 ranked the heads
    new = [step.batches[0]["input_ids"] for step in steps if not step.repeats]
    assert any(len(set(row.tolist()) - {0, BEGIN, END}) > 1 for batch in new for row in batch)


def test_texts_that_cannot_be_spliced_come_again() -> None:
    class Whole(TextInputs):
        spliced = Inputs.spliced

    texts = workload(200)
    whole = Workload(texts.splits, Whole({"input_ids": 0}))
    assert all(step.repeats for step in islice(endless_batches(whole, "cpu", 0), 20))


def test_batches_bring_the_labels_of_their_texts() -> None:
    """Each label is the first word of its text; spliced texts have none."""

    def loss(output: Any, labels: torch.Tensor) -> torch.Tensor:
        assert labels.tolist() == output.logits.tolist()
        return torch.tensor(1.0)

    here = workload(200)
    splits = {
        name: Split(split.examples, np.array([each["input_ids"][1] for each in split.examples]))
        for name, split in here.splits.items()
    }
    for step in islice(endless_batches(Workload(splits, TEXTS), "cpu", 0, loss), 40):
        assert len(step.losses) == (len(step.batches) if step.repeats else 0)
        for batch, by_labels in zip(step.batches, step.losses, strict=False):
            assert by_labels(SimpleNamespace(logits=batch["input_ids"][:, 1])) == 1.0
    unknown = {name: Split(each.examples, np.full(200, -1)) for name, each in splits.items()}
    assert not next(endless_batches(Workload(unknown, TEXTS), "cpu", 0, loss)).losses
