"""The documentation: what is generated is up to date, what it shows runs, what it names exists."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from typer.main import get_command

import paretoformer as pf
from paretoformer.search.cli import app
from paretoformer.search.study.spec import Spec

ROOT = Path(__file__).parent.parent
PAGES = {
    path.relative_to(ROOT).as_posix(): path.read_text("utf-8")
    for path in (*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"))
}
GENERATED = (
    "docs/reference/study-file.md",
    "docs/reference/commands.md",
    "docs/reference/catalogue.md",
    "docs/results.md",
    "README.md",
    "docs/index.md",
    "CONTRIBUTING.md",
)


def blocks(page: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGES[page], re.DOTALL)


@pytest.fixture(scope="module")
def generated() -> dict[str, str]:
    pages = runpy.run_path(str(ROOT / "docs" / "generate.py"))["pages"]()
    return {path.relative_to(ROOT).as_posix(): text for path, text in pages.items()}


@pytest.mark.parametrize("page", GENERATED)
def test_generated_page_is_up_to_date(page: str, generated: dict[str, str]) -> None:
    assert set(generated) == set(GENERATED)
    assert generated[page] == PAGES[page], "run: python docs/generate.py"


@pytest.mark.parametrize("page", ["docs/tutorial.md", "docs/how-to/choose.md"])
def test_python_blocks_run(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    names: dict[str, object] = {}
    for block in blocks(page, "python"):
        exec(block, names)
    assert names


def test_python_of_the_run_folder_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    (block,) = blocks("docs/reference/run-folder.md", "python")
    exec(block, {})


@pytest.mark.nightly
@pytest.mark.slow
def test_served_as_the_page_says(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "runs").symlink_to(ROOT / "runs")
    _export(tmp_path / "out")
    config = transformers.BertConfig(
        hidden_size=48, num_hidden_layers=6, num_attention_heads=12, intermediate_size=64
    )
    names: dict[str, Any] = {"my_model": transformers.BertForSequenceClassification(config)}
    with_us, alone, another = blocks("docs/how-to/serve.md", "python")
    exec(with_us, names)
    text = names["tokenizer"]("the film was good", return_tensors="pt")
    expected = names["model"](**text).logits
    exec(alone, names)
    torch.testing.assert_close(torch.from_numpy(names["logits"]), expected, atol=1e-6, rtol=0)
    exec(another, names)
    assert (tmp_path / "other" / "compression.json").exists()


def _export(folder: Path) -> None:
    """A small classifier without three of its heads, in ONNX Runtime, with a tokenizer."""
    words = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "film", "was", "good")
    tokenizer = transformers.BertTokenizer(vocab={word: i for i, word in enumerate(words)})
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=64,
    )
    dense = json.loads(pf.Candidate.dense(2, 4).to_json())
    changed = {"version": 2, "heads": ["1100", "1110"], "runtime": "onnxruntime"}
    candidate = pf.Candidate.from_json(json.dumps(dense | changed))
    model = transformers.BertForSequenceClassification(config)
    pf.save_compressed(pf.compress(model, candidate), folder)
    tokenizer.save_pretrained(folder)


@pytest.mark.parametrize("page", PAGES)
def test_commands_and_their_options_exist(page: str) -> None:
    known: Any = get_command(app)
    used = [line for block in blocks(page, "sh") for line in block.splitlines()]
    for name, rest in re.findall(r"(?<!-)\bparetoformer (\w+)([^#\n]*)", "\n".join(used)):
        options = {option for each in known.commands[name].params for option in each.opts}
        assert set(re.findall(r"(?<!\S)(--[\w-]+)", rest)) <= options, name


@pytest.mark.parametrize("page", PAGES)
def test_keys_of_study_files_exist(page: str) -> None:
    for block in blocks(page, "toml"):
        _check_keys(tomllib.loads(block), Spec.model_json_schema())


def _check_keys(given: dict[str, Any], schema: dict[str, Any]) -> None:
    for key, value in given.items():
        field = schema["properties"][key]
        if isinstance(value, dict):
            section = Spec.model_json_schema()["$defs"][field["$ref"].rpartition("/")[2]]
            _check_keys(value, section)


@pytest.mark.parametrize("page", PAGES)
def test_files_that_are_linked_exist(page: str) -> None:
    links = re.findall(r"\]\(([^)#:\s]+)(?:#[\w-]+)?\)", PAGES[page])
    assert not [link for link in links if not ((ROOT / page).parent / link).exists()]


def test_every_public_name_is_in_the_reference() -> None:
    named = set(re.findall(r"::: paretoformer\.([\w.]+)", PAGES["docs/reference/api.md"]))
    assert {name for name in pf.__all__ if name != "search"} | {"search.run.search"} <= named


def test_every_column_of_the_example_is_explained(example: Path) -> None:
    """`M` stands for a metric."""
    text = PAGES["docs/reference/run-folder.md"]
    metrics = "|".join(pf.load_best(example).metrics)
    generic = [
        re.sub(rf"^(search_)?({metrics})(?=_|$)", r"\1M", column)
        for column in pf.load_front(example).columns
    ]
    assert not [column for column in generic if f"`{column}`" not in text]


@pytest.mark.skipif(not find_spec("mkdocs"), reason="mkdocs is not installed")
@pytest.mark.slow
def test_site_is_built_without_a_warning(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "https://" not in "".join(
        re.findall(
            r'<(?:script|link)[^>]*(?:src|href)="(.*?)"', (tmp_path / "index.html").read_text()
        )
    )
