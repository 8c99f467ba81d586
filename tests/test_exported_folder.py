"""An exported folder: what was changed by hand is refused, and nobody loads it as another model."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import paretoformer as pf
from paretoformer.spaces import Candidate, HeadMask
from paretoformer.spaces.axes.neuron_mask import NeuronMask
from paretoformer.spaces.common.malformed import digest_of
from paretoformer.spaces.models.families import FAMILIES
from tests.test_cutting import tiny as deep
from tests.test_surgery import MASK, WINDOW, inputs, logits, tiny

OWN = "paretoformer.safetensors"
CHANGED = "was changed since it was written"


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export with fewer heads and another mechanism."""
    model = pf.compress(tiny("bert"), Candidate(MASK, (WINDOW, WINDOW)))
    return pf.save_compressed(model, tmp_path_factory.mktemp("export") / "new")


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy to be changed."""
    return Path(shutil.copytree(written, tmp_path / "copy"))


def facts_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "compression.json").read_text())
    return found


def write_facts(folder: Path, facts: dict[str, Any]) -> None:
    (folder / "compression.json").write_text(json.dumps(facts))


def as_version(folder: Path, version: int) -> dict[str, Any]:
    """The folder as an older version wrote it; returns its facts."""
    facts = facts_of(folder)
    for key in ("digest", "config", "weights"):
        facts.pop(key, None)
    if (folder / OWN).exists():
        (folder / OWN).rename(folder / "model.safetensors")
    facts |= {"version": version}
    facts["sha256"] = {"model.safetensors": sha256(folder / "model.safetensors")}
    config = json.loads((folder / "config.json").read_text())
    for key in ("transformers_weights", "quantization_config"):
        config.pop(key, None)
    (folder / "config.json").write_text(json.dumps(config))
    if version == 1:
        for key in ("candidate_id", "sha256", "dense_config"):
            facts.pop(key)
    write_facts(folder, facts)
    return facts


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def refused(folder: Path, *words: str) -> None:
    """With a ValueError, in one line that has these words."""
    with pytest.raises(ValueError, match=".") as caught:
        pf.load_compressed(folder)
    text = str(caught.value)
    assert "\n" not in text
    assert all(each in text for each in words), text


def as_dense(facts: dict[str, Any]) -> dict[str, Any]:
    return json.loads(Candidate.dense(2, 4).to_json())


CHANGES: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no version": (lambda f: f.pop("version"), "damaged: KeyError"),
    "a newer version": (lambda f: f.update(version=9), "format version 9"),
    "a version in words": (lambda f: f.update(version="two"), "format version 'two'"),
    "no candidate": (lambda f: f.pop("candidate"), "candidate"),
    "a number for a candidate": (lambda f: f.update(candidate=3), "not a candidate"),
    "another candidate": (lambda f: f.update(candidate=as_dense(f)), "not the one that was saved"),
    "a mechanism swapped": (
        lambda f: f["candidate"]["attention"][0].update(
            name="strided", params={"stride": 3, "window": 2, "global_tokens": 1}
        ),
        "not the one that was saved",
    ),
    "no id": (lambda f: f.pop("candidate_id"), "candidate_id"),
    "a function for a dtype": (lambda f: f.update(dtype="load"), "dtype is one of float32"),
    "a list for a dtype": (lambda f: f.update(dtype=["float32"]), "dtype is one of float32"),
    "no dtype": (lambda f: f.pop("dtype"), "dtype"),
    "no architecture": (lambda f: f.update(architecture="Trainer"), "no model 'Trainer'"),
    "no class": (lambda f: f.update(architecture=None), "no model None"),
    "a class without a config": (
        lambda f: f.update(architecture="PreTrainedModel"),
        "no model 'PreTrainedModel'",
    ),
    "no config": (lambda f: f.pop("dense_config"), "dense_config"),
    "a text for a config": (lambda f: f.update(dense_config="bert"), "damaged"),
    "an absurd width": (
        lambda f: f["dense_config"].update(hidden_size=10**6),
        "should have the shape (100, 1000000), and there is the shape (100, 32)",
    ),
    "an absurd number of labels": (
        lambda f: f["dense_config"].update(num_labels=10**12),
        "num_labels is a number up to",
    ),
    "heads of no width": (lambda f: f["dense_config"].update(num_attention_heads=0), "heads"),
    "width that heads do not divide": (lambda f: f["dense_config"].update(hidden_size=30), "model"),
    "an unknown activation": (lambda f: f["dense_config"].update(hidden_act="gone"), "model"),
    "more layers": (lambda f: f["dense_config"].update(num_hidden_layers=10**6), "1000000"),
    "no digests": (lambda f: f.pop("sha256"), "sha256"),
    "a digest of a file outside": (
        lambda f: f["sha256"].update({"../../etc/passwd": ""}),
        "a file outside of the folder",
    ),
    "digests that are a list": (lambda f: f.update(sha256=[]), "no digest of the weights"),
}


@pytest.mark.parametrize("change", CHANGES)
def test_whatever_is_changed_in_the_facts_is_refused(
    folder: Path, written: Path, tmp_path: Path, change: str
) -> None:
    """By the digest of the facts; and what older versions wrote, which have none, by what it says.

    A digest is no seal: whoever changes the facts may write it anew, and gets no further.
    """
    do, words = CHANGES[change]
    facts = facts_of(folder)
    do(facts)
    write_facts(folder, facts)
    refused(folder, "compression.json" if "version" not in change else "version")
    facts.pop("digest")
    write_facts(folder, facts | {"digest": digest_of(facts)})
    refused(folder, words)
    older = as_version(shutil.copytree(written, tmp_path / "older"), 2)
    do(older)
    write_facts(tmp_path / "older", older)
    refused(tmp_path / "older", words)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, '{"version": 3'])
def test_text_that_is_no_object_is_refused(folder: Path, text: str) -> None:
    (folder / "compression.json").write_text(text)
    refused(folder, "compression.json is damaged")


def rewrite(folder: Path, change: Callable[[dict[str, torch.Tensor]], Any]) -> None:
    """Other tensors under the name of the weights."""
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


WEIGHTS: dict[str, Callable[[dict[str, torch.Tensor]], Any]] = {
    "not a number": lambda t: t["classifier.weight"].fill_(float("nan")),
    "another number": lambda t: t["classifier.weight"].mul_(1.001),
    "another shape": lambda t: t.update({"classifier.weight": torch.zeros(3, 32)}),
    "none of this name": lambda t: t.pop("classifier.weight"),
    "one more": lambda t: t.update(more=torch.zeros(2)),
    "nothing": lambda t: t.clear(),
    "those of another model": lambda t: (t.clear(), t.update(other=torch.zeros(4))),
}


@pytest.mark.parametrize("change", WEIGHTS)
@pytest.mark.parametrize("version", [3, 2])
def test_weights_that_are_not_those_written_are_refused(
    folder: Path, change: str, version: int
) -> None:
    if version < 3:
        as_version(folder, version)
    rewrite(folder, WEIGHTS[change])
    refused(folder, ".safetensors is missing or was changed")


@pytest.mark.parametrize("change", sorted(set(WEIGHTS) - {"another number"}))
def test_weights_without_a_digest_are_refused_where_they_cannot_be_right(
    folder: Path, change: str
) -> None:
    """Version 1 kept none."""
    as_version(folder, 1)
    rewrite(folder, WEIGHTS[change])
    refused(folder, "model.safetensors")


@pytest.mark.parametrize("version", [3, 2, 1])
def test_torn_and_foreign_weights_are_refused(folder: Path, version: int) -> None:
    if version < 3:
        as_version(folder, version)
    path = next(folder.glob("*.safetensors"))
    content = path.read_bytes()
    for other in (content[:100], content[:-4], b"PK\3\4", b"", b"\xff" * 8 + content):
        path.write_bytes(other)
        refused(folder, path.name)
    path.unlink()
    refused(folder, path.name)
    path.mkdir()
    refused(folder, path.name)


@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 64},
        {"id2label": {"0": "bad", "1": "good"}},
        {"auto_map": {"AutoConfig": "evil.Config"}},
        {"model_type": "unheard_of"},
        {"transformers_weights": "model.safetensors"},
    ],
    ids=str,
)
def test_changed_config_is_refused(folder: Path, change: dict[str, Any]) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(folder, "config.json", CHANGED)


def test_config_that_only_looks_different_is_the_same(folder: Path) -> None:
    """As after a check-out with other line ends."""
    path = folder / "config.json"
    path.write_bytes(path.read_bytes().replace(b"\n", b"\r\n"))
    assert logits(pf.load_compressed(folder)).isfinite().all()


@pytest.mark.parametrize(
    "change",
    [
        {"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "unheard_of"},
        {"hidden_size": 10**6},
        {"hidden_size": "wide"},
        {"num_attention_heads": 0},
        {"num_hidden_layers": 10**6},
        {"model_type": None},
        {"hidden_act": "gone"},
    ],
    ids=str,
)
def test_config_of_version_1_asks_nobody_and_is_refused(
    folder: Path, change: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    as_version(folder, 1)
    monkeypatch.setattr("builtins.input", lambda *_: pytest.fail("asked at the prompt"))
    (folder / "evil.py").write_text("raise SystemExit('ran')")
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    refused(folder)


def test_folder_that_is_a_file_holds_no_model(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "absent", tmp_path):
        with pytest.raises(FileNotFoundError, match="holds no compressed model|has no compression"):
            pf.load_compressed(path)


@pytest.mark.parametrize("version", [1, 2])
def test_folder_of_an_older_version_is_loaded(folder: Path, version: int, written: Path) -> None:
    as_version(folder, version)
    assert torch.equal(logits(pf.load_compressed(folder)), logits(pf.load_compressed(written)))


@pytest.mark.parametrize("head", ["CausalLM", "SequenceClassification"])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_tied_weights_stand_once_in_the_file(family: str, head: str, tmp_path: Path) -> None:
    model = deep(family, head, tie_word_embeddings=True)
    compressed = pf.compress(model, Candidate(HeadMask(((True, False, True, True),) * 5)))
    again = pf.load_compressed(pf.save_compressed(compressed, tmp_path))
    assert torch.equal(logits(again), logits(compressed))


PLAIN = """
import json, sys, torch, transformers
transformers.utils.logging.set_verbosity_error()
batch = torch.load(sys.argv[1], weights_only=True)
found = {}
for folder in sys.argv[3:]:
    config = json.load(open(f"{folder}/config.json"))
    image = "pixel_values" in batch[config["model_type"]]
    auto = f"AutoModelFor{'Image' if image else 'Sequence'}Classification"
    architecture = json.load(open(f"{folder}/compression.json"))["architecture"]
    for name in (auto, architecture):
        try:
            model = getattr(transformers, name).from_pretrained(folder).eval()
            with torch.no_grad():
                found[f"{folder} {name}"] = model(**batch[config["model_type"]]).logits
        except Exception as error:
            found[f"{folder} {name}"] = f"{type(error).__name__}: {error}"
assert not any(name.startswith("paretoformer") for name in sys.modules)
torch.save(found, sys.argv[2])
"""


def opened_plainly(tmp_path: Path, folders: list[Path], batches: dict[str, Any]) -> dict[str, Any]:
    """What transformers alone makes of each folder, by two classes, in a process of its own."""
    torch.save(batches, tmp_path / "batches.pt")
    files = [tmp_path / "batches.pt", tmp_path / "found.pt"]
    subprocess.run([sys.executable, "-c", PLAIN, *map(str, (*files, *folders))], check=True)
    found: dict[str, Any] = torch.load(files[1], weights_only=True)
    return found


EVERY = HeadMask.all(5, 4)
CUT = {
    "heads": Candidate(HeadMask(((True, False, True, False),) * 5)),
    "headless": Candidate(HeadMask(((False,) * 4, *((True,) * 4,) * 4))),
    "mechanism": Candidate(EVERY, (WINDOW,) * 5),
    "neurons": Candidate(EVERY, feed_forward=NeuronMask((b"\xff" + bytes(7), *(None,) * 4), 64)),
    "no neurons": Candidate(EVERY, feed_forward=NeuronMask((b"",) * 5)),
}


def test_who_cannot_rebuild_an_export_refuses_it_by_name(tmp_path: Path) -> None:
    folders = []
    batches = {}
    for family in ("bert", "distilbert", "gpt2", "llama", "vit"):
        model: Any = deep(family)
        batches[model.config.model_type] = inputs(model)
        for name, candidate in CUT.items():
            folders.append(tmp_path / f"{family} {name}")
            pf.save_compressed(pf.compress(model, candidate), folders[-1])
    found = opened_plainly(tmp_path, folders, batches)
    assert len(found) == 2 * len(folders)
    for name, what in found.items():
        assert isinstance(what, str), f"{name} was loaded"
        assert "compressed by paretoformer: load it with paretoformer.load_compressed" in what
    for folder in folders:
        assert logits(pf.load_compressed(folder)).isfinite().all()


def test_weights_are_found_by_nobody_who_looks_for_the_usual_name(folder: Path) -> None:
    """Such as older transformers, or whoever brings a config of their own."""
    assert {path.name for path in folder.glob("*.safetensors")} == {OWN}
    config = transformers.BertConfig()
    with pytest.raises(OSError, match="no file named"):
        transformers.BertForSequenceClassification.from_pretrained(folder, config=config)


def test_export_that_transformers_can_rebuild_stays_loadable(tmp_path: Path) -> None:
    """Whole, and with fewer layers; a last layer that computes one token answers the same."""
    expected, batches = {}, {}
    for family in FAMILIES:
        model: Any = deep(family)
        batches[model.config.model_type] = inputs(model)
        dense = Candidate.dense(5, 4)
        readout = "first" if FAMILIES[family].reads_first else "all"
        fewer = dense.replaced(layers=(True, False, True, False, True), readout=readout)
        for name, candidate in {"dense": dense, "fewer": fewer}.items():
            compressed = pf.compress(model, candidate)
            folder = pf.save_compressed(compressed, tmp_path / f"{family} {name}")
            expected[folder] = logits(compressed)
    found = opened_plainly(tmp_path, list(expected), batches)
    assert len(found) >= 2 * len(FAMILIES)
    for name, what in found.items():
        assert not isinstance(what, str), what
        before = expected[Path(name.rpartition(" ")[0])]
        torch.testing.assert_close(what, before, atol=1e-5, rtol=1e-5, msg=name)
