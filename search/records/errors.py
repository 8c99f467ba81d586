"""Errors that a user can fix, each with the exit status of its command.

ParetoformerError
├── UserError            2   the input is wrong: what, and how to fix it
│   ├── StudyError           the study file
│   ├── RunError             the run folder
│   └── DiskFull             a file system without room; the same command goes on when there is some
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
    """A front was measured on a machine unlike this one."""


class UncheckedWarning(UserWarning):
    """Something that should be compared was not recorded, so it is taken as it is."""


class Interrupted(KeyboardInterrupt):
    """SIGINT or SIGTERM arrived. Of this kind, because Ray's waits let no other one through."""

    def __init__(self, signal_number: int) -> None:
        super().__init__(signal_number)
        self.status = 128 + signal_number


class Stopped(ParetoformerError):
    """A command was interrupted."""

    def __init__(self, interrupted: Interrupted) -> None:
        super().__init__(
            "Interrupted. What was finished is kept: the same command goes on from there."
        )
        self.status = interrupted.status
