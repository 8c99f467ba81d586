"""The examples of CONTRIBUTING.md run, each in a process that knows nothing of the others."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

TEXT = (Path(__file__).parent.parent / "CONTRIBUTING.md").read_text("utf-8")
PAGES = dict(re.findall(r"^## (\w+ \w+)\n.*?```python\n(.*?)```", TEXT, re.DOTALL | re.MULTILINE))


def test_there_is_a_page_for_each_thing_to_add() -> None:
    assert list(PAGES) == ["A mechanism", "An axis", "A runtime", "A task", "A metric"]


@pytest.mark.slow
def test_every_example_runs() -> None:
    """By itself, but in one process: each registers another name."""
    code = "import json, sys\nfor page in json.load(sys.stdin): exec(page, {'__name__': 'page'})"
    pages = json.dumps(list(PAGES.values()))
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, input=pages, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_files_and_folders_that_it_names_exist() -> None:
    root = Path(__file__).parent.parent
    named = re.findall(r"`((?:spaces|evaluators|search|tests)/[\w./]*)`", TEXT)
    assert len(named) > 10
    assert not [name for name in named if not (root / name).exists()]
