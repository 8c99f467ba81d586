"""The comments of pyproject.toml say which file needs a package."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_every_path_in_a_comment_exists() -> None:
    comments = re.findall(r"#(.*)", (ROOT / "pyproject.toml").read_text("utf-8"))
    named = {path for each in comments for path in re.findall(r"[\w.]+/[\w./]*\w|\w+/", each)}
    assert len(named) > 20
    assert not sorted(path for path in named if not (ROOT / path).exists())
