"""Native loading: after `import paretoformer`, transformers' own classes open an export."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import transformers

import paretoformer as pf
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.attention.menu import menu
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.models.families import FAMILIES
from tests.sampled import sampled
from tests.test_cutting import tiny as deep
from tests.test_exported_folder import CUT
from tests.test_surgery import DAILY, inputs, logits

EVERY = HeadMask.all(5, 4)
ALL = CUT | {
    "everything": Candidate(
        HeadMask(((True, False, True, False), *((True,) * 4,) * 4)),
        feed_forward=NeuronMask((b"\xff" + bytes(7), *(None,) * 4), 64),
        layers=(True, True, False, True, True),
    ),
}
NO_FIRST_LAYER = Candidate(EVERY, layers=(False, True, True, True, True))


def auto(model: Any) -> Any:
    image = "pixel_values" in inputs(model)
    return getattr(transformers, f"AutoModelFor{'Image' if image else 'Sequence'}Classification")


@sampled(
    "family, name",
    [
        (f, name)
        for f in FAMILIES
        for name in ALL
        if not (FAMILIES[f].only_full and name == "mechanism")
    ],
    [
        *(("bert", name) for name in ALL),
        *((family, "everything") for family in DAILY),
    ],
)
def test_what_transformers_opens_answers_as_what_was_saved(
    family: str, name: str, tmp_path: Path
) -> None:
    model: Any = deep(family)
    compressed = pf.compress(model, ALL[name])
    folder = pf.save_compressed(compressed, tmp_path / "first")
    opened = auto(model).from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits(compressed))
    again = pf.load_compressed(pf.save_compressed(opened, tmp_path / "second"))
    torch.testing.assert_close(logits(again), logits(compressed))


def test_modernbert_without_its_first_layer_is_not_opened_as_another_model(tmp_path: Path) -> None:
    """transformers would leave out the norm of the one that takes its place."""
    model: Any = deep("modernbert")
    compressed = pf.compress(model, NO_FIRST_LAYER)
    folder = pf.save_compressed(compressed, tmp_path)
    torch.testing.assert_close(logits(auto(model).from_pretrained(folder)), logits(compressed))


@pytest.mark.parametrize("choice", menu(None, 40), ids=str)
def test_mechanisms_are_those_that_were_saved(choice: Any, tmp_path: Path) -> None:
    compressed = pf.compress(deep("bert"), Candidate(EVERY, (choice,) * 5))
    folder = pf.save_compressed(compressed, tmp_path)
    opened = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    torch.testing.assert_close(logits(opened), logits(compressed))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """An export with fewer heads, neurons and layers."""
    return pf.save_compressed(pf.compress(deep("bert"), ALL["everything"]), tmp_path / "export")


@pytest.mark.parametrize("size", ["1GB", "20KB"])
def test_what_save_pretrained_writes_loads_again(folder: Path, tmp_path: Path, size: str) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    model.save_pretrained(tmp_path / "again", max_shard_size=size)
    assert (len(list((tmp_path / "again").glob("*.safetensors"))) > 1) == (size == "20KB")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "again")
    torch.testing.assert_close(logits(again), logits(model))


def test_what_is_pushed_to_a_hub_loads_again(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The hub is a folder: what would be uploaded is copied there."""
    hub = tmp_path / "hub"

    def upload(self: Any, files: str, repo: str, *args: Any, **kwargs: Any) -> None:
        shutil.copytree(files, hub)

    made = SimpleNamespace(create_repo=lambda *args, **kwargs: SimpleNamespace(repo_id="me/it"))
    card = SimpleNamespace(save=lambda path: Path(path).write_text("a card"))
    monkeypatch.setattr(transformers.utils.hub, "hf_api", lambda: made)
    monkeypatch.setattr(
        transformers.utils.hub, "create_and_tag_model_card", lambda *args, **kwargs: card
    )
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    monkeypatch.setattr(type(model), "_upload_modified_files", upload)
    model.push_to_hub("me/it")
    again = transformers.AutoModelForSequenceClassification.from_pretrained(hub)
    torch.testing.assert_close(logits(again), logits(model))


def test_it_may_be_trained(folder: Path) -> None:
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).train()
    model(**inputs(model)).logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.classifier.parameters())


ORDERS = {
    "paretoformer first": "import paretoformer, transformers",
    "transformers first": "import transformers, paretoformer",
    "a model was made before": (
        "import transformers; transformers.BertModel; import paretoformer; transformers.BertModel"
    ),
}


@pytest.mark.slow
@sampled("order", ORDERS, ["a model was made before"])
def test_either_package_may_be_imported_first(folder: Path, order: str) -> None:
    code = (
        f"{ORDERS[order]}\nimport sys\n"
        "model = transformers.AutoModelForSequenceClassification.from_pretrained(sys.argv[1])\n"
        "print(sum(p.numel() for p in model.parameters()))"
    )
    output = subprocess.run(
        [sys.executable, "-c", code, str(folder)], check=True, capture_output=True, text=True
    ).stdout
    wanted = sum(each.numel() for each in pf.load_compressed(folder).parameters())
    assert int(output.split()[-1]) == wanted


def test_import_brings_neither_torch_nor_transformers() -> None:
    code = "import sys, paretoformer; print({'torch', 'transformers'} & sys.modules.keys())"
    output = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert output.strip() == "set()"


def test_runtime_that_does_not_run_is_named(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"]["candidate"] |= {"runtime": "torch:bfloat16", "version": 2}
    path.write_text(json.dumps(config))
    with caplog.at_level(logging.WARNING, logger="paretoformer"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert "measured in torch:bfloat16; from_pretrained runs its weights in torch" in caplog.text


@pytest.mark.parametrize(
    "change",
    [
        {"candidate": None},
        {"candidate": {"heads": "many"}},
        {"dense_config": 3},
        {"dense_config": {"num_hidden_layers": 2}},
        {"dense_config": {"num_labels": 10**9}},
    ],
    ids=str,
)
def test_damaged_facts_are_refused_in_one_line(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["quantization_config"] |= change
    path.write_text(json.dumps(config))
    with pytest.raises(ValueError, match="config.json does not describe a compressed model") as it:
        transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    assert "\n" not in str(it.value)


def test_weights_of_another_structure_are_refused(folder: Path, tmp_path: Path) -> None:
    other = pf.save_compressed(pf.compress(deep("bert"), CUT["heads"]), tmp_path / "other")
    shutil.copy(other / "paretoformer.safetensors", folder / "paretoformer.safetensors")
    with pytest.raises(RuntimeError, match="size mismatch|mismatched|ignore_mismatched_sizes"):
        transformers.AutoModelForSequenceClassification.from_pretrained(folder)
