"""From text to answer: what a request takes, with its tokenisation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from paretoformer.evaluators.metrics.bench import Bench
from paretoformer.evaluators.metrics.registry import register
from paretoformer.evaluators.metrics.timing import Timing


class EndToEnd(Timing):
    """Milliseconds from texts to their answers, `batch_size` at a time: tokenisation with the
    model's own tokenizer, one forward, and classes, numbers or vectors as an array.

    The mean over texts that are as long as those of the search split, in random order, whatever the
    target's `sequence_length`; longer ones are cut at that. A small compressed model may take less
    time than its tokenizer.
    """

    name = "end_to_end_ms"
    slow = True
    of_texts = True

    def calls(self, bench: Bench, model: Any) -> Sequence[Callable[[], Any]]:
        return [
            partial(_answer, bench, model, rows) for rows in bench.workload.stream(bench.target)
        ]


def _answer(bench: Bench, model: Any, rows: Sequence[int]) -> Any:
    requests = bench.workload.requests
    assert requests is not None  # of a task with `of_texts`
    return bench.task.predict(model(**requests(rows)))


register(EndToEnd())
