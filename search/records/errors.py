"""Errors that a user can fix, with the exit status of the command.

ParetoformerError
├── UserError            2   wrong input: what is wrong, and how to fix it
│   ├── StudyError           the study file
│   ├── RunError             the run folder
│   └── DiskFull             no room; the same command continues once there is some
├── NoAnswer             1   the search ran, but nothing satisfies the requirement
├── StudyFailed          1   the dense model itself cannot be measured
└── Stopped              130 or 143, as a shell reports SIGINT and SIGTERM
"""

from __future__ import annotations


class ParetoformerError(Exception):
    """Anything that ends a command with a message and no traceback."""

    status: int = 1


class UserError(ParetoformerError):
    status = 2


class StudyError(UserError):
    pass


class RunError(UserError):
    pass


class DiskFull(UserError):
    pass


class NoAnswer(ParetoformerError):
    pass


class StudyFailed(ParetoformerError):
    pass


class OtherMachineWarning(UserWarning):
    """A front was measured on a machine that differs from this one."""


class UncheckedWarning(UserWarning):
    """Something cannot be checked, because the run did not record it."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM; a `KeyboardInterrupt`, since Ray's waits let nothing else through."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number


class Stopped(ParetoformerError):
    def __init__(self, interrupted: Interrupted) -> None:
        super().__init__(
            "Interrupted. What was finished is kept: the same command goes on from there."
        )
        self.status = interrupted.status
