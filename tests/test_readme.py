"""README is one page; its blocks run, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

from paretoformer.evaluators.tasks import task_names
from paretoformer.search.study.spec import parse_spec
from paretoformer.spaces.axes import axes
from paretoformer.spaces.models.families import FAMILIES
from paretoformer.spaces.runtimes import runtimes

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "README.md").read_text("utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)


def test_it_is_one_page() -> None:
    assert len(TEXT.splitlines()) <= 130


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert BLOCKS
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(ROOT / "runs")
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=6, num_attention_heads=12, intermediate_size=64
    )
    names: dict[str, object] = {"my_model": transformers.BertForSequenceClassification(config)}
    for block in BLOCKS:
        exec(block, names)
    assert (tmp_path / "out" / "compression.json").exists()


def test_the_smallest_study_is_one() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", TEXT, re.DOTALL)
    assert parse_spec(block, source=Path("mine.toml")).target.sequence_length == "data"


def test_every_axis_task_runtime_and_family_is_named() -> None:
    names = {*task_names(), *FAMILIES, *(each.name for each in (*axes(), *runtimes()))}
    assert not [name for name in sorted(names) if f"`{name}`" not in TEXT]
