"""The search: Optuna proposes candidates, Ray workers measure them, the front is kept in Parquet.

The thin shell around `spaces` and `evaluators`. Importing any module of this package makes it the
attribute `paretoformer.search`, which is also the name of the public function; so the package is
callable, and `paretoformer.search(...)` is `paretoformer.search.run.search(...)` either way.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Path:
        """Run a study; see `paretoformer.search.run.search`."""
        from paretoformer.search.run import search

        return search(*arguments, **options)


sys.modules[__name__].__class__ = _CallablePackage
