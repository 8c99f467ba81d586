"""Image classification: vit, deit and dinov2, from folders of images, Parquet and csv files."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pytest
import torch
import transformers
from PIL import Image

from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import Examples
from paretoformer.evaluators.tasks import image_classification, task_of
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.spec import load_spec
from paretoformer.search.study.subject import load_subject, try_dense
from paretoformer.search.study.template import init
from paretoformer.spaces import Candidate, HeadMask
from tests.sampled import sampled
from tests.tiny import HEADS, LAYERS, SMALL_SPACE, kept

NAMES = ("cat", "dog")
SIZE, PATCH = 24, 8
CUT = Candidate(HeadMask(((True,) + (False,) * (HEADS - 1),) * LAYERS))


@kept
def write_image_model(folder: Path, model_type: str = "vit") -> None:
    torch.manual_seed(0)
    config = transformers.AutoConfig.for_model(
        model_type,
        hidden_size=32,
        num_hidden_layers=LAYERS,
        num_attention_heads=HEADS,
        **({"mlp_ratio": 2} if model_type == "dinov2" else {"intermediate_size": 64}),
        image_size=SIZE,
        patch_size=PATCH,
        architectures=["DeiTForImageClassification"] if model_type == "deit" else None,
        id2label=dict(enumerate(NAMES)),
        label2id={name: number for number, name in enumerate(NAMES)},
    )
    model = transformers.AutoModelForImageClassification.from_config(config)
    with torch.no_grad():
        model.classifier.weight.mul_(50)
    model.save_pretrained(folder)
    transformers.ViTImageProcessorPil(size={"height": SIZE, "width": SIZE}).save_pretrained(folder)


def images(count: int) -> list[Image.Image]:
    rng = np.random.default_rng(0)
    grain = rng.integers(0, 256, (count, 4, 5, 3), dtype=np.uint8)
    return [Image.fromarray(each).resize((40, 30)) for each in grain]


def answers_of(folder: Path, pictures: list[Image.Image]) -> list[str]:
    """What the model says, through transformers alone; each of the classes to half of them."""
    processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    model = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    with torch.inference_mode():
        logits = model(**processor(pictures, return_tensors="pt")).logits
        model.classifier.bias.sub_(logits.median(dim=0).values)
        logits = model(**processor(pictures, return_tensors="pt")).logits
    model.save_pretrained(folder)
    return [NAMES[i] for i in logits.argmax(dim=-1).tolist()]


def png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "png")
    return buffer.getvalue()


def write_image_study(folder: Path, model_type: str = "vit") -> Path:
    """A model that is always right, on a folder of images by class."""
    model = write_image_model(folder / "model", model_type)
    pictures = images(160)
    for number, (image, name) in enumerate(zip(pictures, answers_of(model, pictures), strict=True)):
        place = folder / "pictures" / name
        place.mkdir(parents=True, exist_ok=True)
        image.save(place / f"{number:03}.png")
    study = folder / "images.toml"
    study.write_text(
        """trials = 6
[model]
path = "model"
task = "image-classification"
[data]
path = "pictures"
search_examples = 40
confirm_examples = 60
[target]
threads = 2
[timing]
search_seconds = 0.2
confirm_seconds = 0.2
patience_minutes = 0
"""
        + SMALL_SPACE
    )
    return study


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_image_study(tmp_path_factory.mktemp("images") / "study")


@sampled("model_type, more", [("vit", 1), ("deit", 2), ("dinov2", 1)], [("vit", 1)])
def test_model_is_right_on_its_own_answers(tmp_path: Path, model_type: str, more: int) -> None:
    study = write_image_study(tmp_path / "study", model_type)
    subject = load_subject(load_spec(study))
    assert subject.target.sequence_length == (SIZE // PATCH) ** 2 + more
    assert not [each for each in try_dense(subject, load_spec(study)).remarks if each.doubt]
    batch = subject.workload.timing_batch(subject.target)
    assert batch["pixel_values"].shape == (1, 3, SIZE, SIZE)


def test_folders_say_how_they_are_read(study: Path) -> None:
    (study.parent / "pictures" / "cat" / "notes.md").write_text("not an image")
    said = " ".join(each.text for each in load_subject(load_spec(study)).remarks)
    assert "pictures: an image is labelled by the name of its folder." in said
    assert "pictures: 1 files that are no images are not read." in said


def rows_of(study: Path) -> list[dict[str, Any]]:
    paths = sorted((study.parent / "pictures").rglob("*.png"))
    return [{"path": path, "label": path.parent.name} for path in paths]


def write_parquet(study: Path, out: Path) -> None:
    """As `datasets` writes images and classes, whose names are in another order."""
    rows = rows_of(study)
    features = datasets.Features(
        image=datasets.Image(), label=datasets.ClassLabel(names=list(reversed(NAMES)))
    )
    values = {"image": [str(r["path"]) for r in rows], "label": [r["label"] for r in rows]}
    datasets.Dataset.from_dict(values, features=features).to_parquet(out)


def write_csv(study: Path, out: Path) -> None:
    rows = rows_of(study)
    paths = [r["path"].relative_to(out.parent) for r in rows]
    pd.DataFrame({"image": paths, "label": [r["label"] for r in rows]}).to_csv(out, index=False)


def write_bytes(study: Path, out: Path) -> None:
    rows = rows_of(study)
    values = {"image": [r["path"].read_bytes() for r in rows], "label": [r["label"] for r in rows]}
    pd.DataFrame(values).to_parquet(out)


@pytest.mark.parametrize(
    ("name", "write"),
    [("a.parquet", write_parquet), ("a.csv", write_csv), ("b.parquet", write_bytes)],
)
def test_other_formats_give_the_same_images(
    study: Path, name: str, write: Callable[[Path, Path], None]
) -> None:
    write(study, study.parent / name)
    other = study.parent / f"{name}.toml"
    other.write_text(study.read_text().replace('"pictures"', f'"{name}"'))
    one, two = (load_subject(load_spec(each)).workload for each in (study, other))
    found = [
        {(e["pixel_values"].tobytes(), int(y)) for e, y in zip(s.examples, s.labels, strict=True)}
        for s in (one.splits["search"], two.splits["search"])
    ]
    assert found[0] == found[1] or name == "a.parquet"  # which is in another order
    assert set().union(*found) <= {
        (e["pixel_values"].tobytes(), int(y))
        for split in one.splits.values()
        for e, y in zip(split.examples, split.labels, strict=True)
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text.replace('"pictures"', '"model"'), "holds no image"),
        (lambda text: text.replace('"pictures"', '"torn.csv"'), "row 2 holds no image that can be"),
        (lambda text: text.replace('"pictures"', '"lost.csv"'), "row 1 holds no image that can be"),
        (lambda text: text.replace('"pictures"', '"named.csv"'), "Name yours as data.image"),
        (lambda text: text.replace('task = "image-classification"', ""), "does no text-class"),
    ],
)
def test_wrong_input_is_refused_in_one_line(
    study: Path, change: Callable[[str], str], message: str
) -> None:
    folder = study.parent
    whole = next((folder / "pictures").rglob("*.png")).read_bytes()
    (folder / "torn.png").write_bytes(whole[: len(whole) // 2])
    good = next((folder / "pictures").rglob("*.png")).relative_to(folder)
    (folder / "torn.csv").write_text(f"image,label\n{good},cat\ntorn.png,dog\n")
    (folder / "lost.csv").write_text("image,label\nlost.png,cat\n")
    (folder / "named.csv").write_text(f"photo,label\n{good},cat\n")
    wrong = folder / "wrong.toml"
    wrong.write_text(change(study.read_text()))
    with pytest.raises(StudyError, match=message) as raised:
        load_subject(load_spec(wrong))
    assert "\n" not in str(raised.value)


def test_images_for_recovery_fit_the_memory(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(image_classification, "MOST_BYTES", 10 * 3 * SIZE * SIZE * 4)
    task = task_of("image-classification")
    data = tuple(r["path"].read_bytes() for r in rows_of(study)[:20])
    examples = Examples(data, ("",) * 20, (0,) * 20)
    model = transformers.AutoConfig.from_pretrained(study.parent / "model")
    processor = task.processor(str(study.parent / "model"))
    made = task.encode({"recovery": examples}, processor, model, Target())
    assert len(made.splits["recovery"]) == 10
    assert "Of 20 images for recovery, 10 are held" in made.remarks[0].text


def test_init_names_the_task_and_no_text(study: Path, tmp_path: Path) -> None:
    folder = study.parent
    out, _ = init(str(folder / "model"), str(folder / "pictures"), tmp_path / "new.toml")
    text = out.read_text()
    assert 'task = "image-classification"' in text
    assert "\ntext = " not in text
    out.write_text(text.replace("_examples = 500", "_examples = 40").replace("1000", "60"))
    assert len(load_subject(load_spec(out)).workload.splits["search"]) == 40


def test_photos_are_turned_upright() -> None:
    """By their EXIF orientation: 6 means that the top is at the right."""
    upright = Image.fromarray(np.random.default_rng(0).integers(0, 256, (8, 6, 3), dtype=np.uint8))
    turned = upright.transpose(Image.Transpose.ROTATE_90)
    exif = Image.Exif()
    exif[0x0112] = 6
    buffer = io.BytesIO()
    turned.save(buffer, "png", exif=exif)
    examples = Examples((png(upright), buffer.getvalue()), ("", ""), (0, 0))

    def processor(pictures: list[Image.Image], return_tensors: str) -> dict[str, np.ndarray]:
        return {"pixel_values": np.stack([np.asarray(each) for each in pictures])}

    first, second = image_classification._pixels(examples, processor)
    np.testing.assert_array_equal(first, second)
