"""The README's Python blocks run as they stand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import transformers

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text("utf-8"), re.DOTALL)


def test_python_blocks_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert len(BLOCKS) >= 2
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(ROOT / "runs")
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=6, num_attention_heads=12, intermediate_size=64
    )
    names: dict[str, object] = {"my_model": transformers.BertForSequenceClassification(config)}
    for block in BLOCKS:
        exec(block, names)
    assert (tmp_path / "out" / "compression.json").exists()


def test_commands_of_the_readme_exist() -> None:
    from typer.main import get_command

    from paretoformer.search.cli import app

    text = (ROOT / "README.md").read_text("utf-8")
    used = set(re.findall(r"^paretoformer (\w+)", text, re.MULTILINE))
    known = get_command(app).commands  # type: ignore[attr-defined]
    assert used
    assert used <= set(known)
