"""SIGINT and SIGTERM: how they end a command, and when they are ignored."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from paretoformer.search.records.errors import Interrupted


@dataclass
class Interrupts:
    """The signals that asked this process to end.

    polled: `check` is called regularly, so a first signal raises nothing by itself. An exception
    that a handler raises inside a finaliser would be printed and lost.
    """

    received: list[int] = field(default_factory=list)
    polled: bool = False

    def handle(self, number: int, frame: Any) -> None:
        self.received.append(number)
        if not self.polled or len(self.received) > 1:
            raise Interrupted(number)

    def check(self) -> None:
        """Raises Interrupted after a signal."""
        if self.received:
            raise Interrupted(self.received[-1])


INTERRUPTS = Interrupts()
"""One per process, since signals belong to the process and not to a dispatcher."""


@contextmanager
def interruptible() -> Iterator[None]:
    """SIGINT and SIGTERM raise `Interrupted` in the main thread during the block.

    Ray turns any exception of a handler into a bare `KeyboardInterrupt`; the signal's number is
    restored here.
    """
    INTERRUPTS.received.clear()
    with _handled(INTERRUPTS.handle):
        try:
            yield
        except Interrupted:
            raise
        except KeyboardInterrupt:
            received = INTERRUPTS.received
            raise Interrupted(received[-1] if received else signal.SIGINT) from None
        finally:
            INTERRUPTS.received.clear()


@contextmanager
def ignore_signals() -> Iterator[None]:
    """Keep a second Ctrl-C from cutting the clean-up short."""
    with _handled(signal.SIG_IGN):
        yield


@contextmanager
def _handled(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    old = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, previous in old.items():
            signal.signal(number, previous)
