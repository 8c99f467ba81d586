"""Studies of other tasks on real weights and data.

    python benchmarks/tasks.py tagger DIR        [--data ../shared/data]
    python benchmarks/tasks.py cross-encoder DIR [--data ../shared/data]
    python benchmarks/tasks.py images DIR        (Debian's dataset-fashion-mnist)
    python benchmarks/tasks.py language DIR      [--data ../shared/data]
    paretoformer search DIR/study.toml --out DIR/run

Writes a model, its data and a study into DIR. All models but the last are fine-tuned for minutes.
The last two need the weights that examples/README.md installs.

tagger: MiniLM on wikigold, entities. cross-encoder: MiniLM on SICK, relatedness of pairs. images:
DINOv2 ViT-S/14 at 98 pixels with a linear classifier on Fashion-MNIST. language: SmolLM2-135M on
wikitext-2, without repair or table, which take hours on two cores.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import runpy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers

from paretoformer.evaluators.common.target import Target
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.splits import read_splits
from paretoformer.evaluators.demo.assets import minilm
from paretoformer.evaluators.demo.training import fine_tune
from paretoformer.evaluators.tasks import task_of

EXAMPLES = Path(__file__).parent.parent / "examples"

STUDY = """\
trials = 40
[model]
path = "model"
task = "{task}"
[data]
train = "{train}"
search = "{search}"
confirm = "{confirm}"
search_examples = {search_examples}
confirm_examples = {confirm_examples}
{more}
[target]
batch_size = 1
sequence_length = 64
[timing]
search_seconds = 1.0
confirm_seconds = 3
[recovery]
distill_minutes = 4
"""


def write_study(folder: Path, task: str, ending: str, sizes: tuple[int, int], more: str) -> None:
    names = {name: f"{name}{ending}" for name in ("train", "search", "confirm")}
    text = STUDY.format(
        task=task, search_examples=sizes[0], confirm_examples=sizes[1], more=more, **names
    )
    (folder / "study.toml").write_text(text, "utf-8")


def write_fine_tuned(
    folder: Path, task_name: str, config: Mapping[str, Any], source: DataSource, epochs: int
) -> None:
    """Train MiniLM with a new head on the file `train` of a study, and save it as `model`."""
    torch.manual_seed(0)
    transformers.utils.logging.set_verbosity_error()
    task, base = task_of(task_name), minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model: Any = task.auto.from_pretrained(base, attention_probs_dropout_prob=0.0, **config)

    def read_labels(labels: Sequence[Any]) -> Any:
        return task.read_labels(labels, model.config)

    found = read_splits(source, 0, "", read_labels, task.form).examples
    rows = found["train"]
    for name in ("steer", "recovery"):  # the rest of the training file
        rows = rows.joined(found[name]) if name in found else rows
    workload = task.encode({"train": rows}, tokenizer, model.config, Target(sequence_length=64))
    fine_tune(model, task, workload, epochs=epochs, progress=_shown)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")


def _shown(what: str, done: int, steps: int) -> None:
    if done % 50 == 0:
        print(f"{what}: {done} of {steps}", flush=True)


def tagger(folder: Path, data: Path) -> None:
    text = (data / "wikigold" / "wikigold.conll.txt").read_text("utf-8")
    sentences = [sentence for sentence in text.strip().split("\n\n") if "DOCSTART" not in sentence]
    order = np.random.default_rng(0).permutation(len(sentences))
    parts = {"confirm": order[:450], "search": order[450:750], "train": order[750:]}
    for name, rows in parts.items():
        lines = "\n\n".join(sentences[i] for i in rows) + "\n"
        (folder / f"{name}.conll").write_text(lines, "utf-8")
    names = ["O", *(f"{b}-{kind}" for kind in ("PER", "LOC", "ORG", "MISC") for b in "BI")]
    config = {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
    source = DataSource(
        **{name: str(folder / f"{name}.conll") for name in parts},
        search_examples=250,
        confirm_examples=400,
    )
    write_fine_tuned(folder, "token-classification", config, source, epochs=8)
    write_study(folder, "token-classification", ".conll", (250, 400), "")


def cross_encoder(folder: Path, data: Path) -> None:
    rows = {}
    for name, file in (("train", "SICK_train.txt"), ("test", "SICK_test_annotated.txt")):
        with (data / "sick" / file).open(encoding="utf-8", newline="") as source_file:
            rows[name] = [
                {
                    "text": row["sentence_A"],
                    "pair": row["sentence_B"],
                    "label": float(row["relatedness_score"]),
                }
                for row in csv.DictReader(source_file, delimiter="\t")
            ]
    order = np.random.default_rng(0).permutation(len(rows["test"]))
    test = [rows["test"][i] for i in order]
    parts = {"train": rows["train"], "search": test[:800], "confirm": test[800:]}
    for name, part in parts.items():
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)), "utf-8")
    source = DataSource(
        **{name: str(folder / f"{name}.jsonl") for name in parts},
        text_pair="pair",
        search_examples=500,
        confirm_examples=2000,
    )
    write_fine_tuned(folder, "text-regression", {"num_labels": 1}, source, epochs=3)
    write_study(folder, "text-regression", ".jsonl", (500, 2000), 'text_pair = "pair"')


FASHION = (
    *("T-shirt", "trouser", "pullover", "dress", "coat"),
    *("sandal", "shirt", "sneaker", "bag", "boot"),
)
SIDE = 98


def images(folder: Path, data: Path) -> None:
    import io

    import pandas as pd
    from PIL import Image

    place = Path("/usr/share/datasets/fashion-mnist")
    if not place.is_dir():
        raise SystemExit("install Debian's dataset-fashion-mnist first.")
    counts = {"train": 3000, "search": 500, "confirm": 1500}
    pictures, labels = {}, {}
    for name, kind in (("train", "train"), ("test", "t10k")):
        raw = gzip.decompress((place / f"{kind}-images-idx3-ubyte.gz").read_bytes())
        pictures[name] = np.frombuffer(raw, np.uint8, offset=16).reshape(-1, 28, 28)
        raw = gzip.decompress((place / f"{kind}-labels-idx1-ubyte.gz").read_bytes())
        labels[name] = np.frombuffer(raw, np.uint8, offset=8)
    processor = transformers.ViTImageProcessorPil(size={"height": SIDE, "width": SIDE})
    for name, count in counts.items():
        kind = "train" if name == "train" else "test"
        start = counts["search"] if name == "confirm" else 0
        rows = []
        for i in range(start, start + count):
            buffer = io.BytesIO()
            Image.fromarray(pictures[kind][i]).convert("RGB").save(buffer, "png")
            rows.append({"image": buffer.getvalue(), "label": FASHION[labels[kind][i]]})
        pd.DataFrame(rows).to_parquet(folder / f"{name}.parquet")
    example = runpy.run_path(str(EXAMPLES / "images" / "prepare.py"))
    model = example["vit"](SIDE, FASHION)
    some = [Image.fromarray(x).convert("RGB") for x in pictures["train"][: counts["train"]]]
    example["fit_classifier"](model, processor, some, labels["train"][: counts["train"]])
    model.save_pretrained(folder / "model")
    processor.save_pretrained(folder / "model")
    write_study(folder, "image-classification", ".parquet", (500, 1500), "")


LANGUAGE = """\
trials = 12
objectives = ["perplexity", "decode_ms"]
[model]
path = "model"
task = "text-generation"
[data]
train = "train.txt"
search = "search.txt"
confirm = "confirm.txt"
search_examples = 48
confirm_examples = 160
[target]
batch_size = 1
sequence_length = 64
[space]
runtime = ["torch", "onnxruntime", "openvino:int8_weights"]
attention = ["full"]
layers = "off"
[search]
table = false
require = ["perplexity <= 1.1 * dense"]
[recovery]
least_squares = false
"""
PARAGRAPHS = {"train": 240, "search": 60, "confirm": 220}


def language(folder: Path, data: Path) -> None:
    runpy.run_path(str(EXAMPLES / "language" / "prepare.py"))["write_model"](folder / "model")
    start = {"valid": 0, "test": 0}
    for name, count in PARAGRAPHS.items():
        file = "valid" if name == "train" else "test"
        lines = (data / "wikitext2" / f"{file}.txt").read_text("utf-8").splitlines()
        long = [line.strip() for line in lines if len(line) > 300]
        some = long[start[file] : start[file] + count]
        start[file] += count
        (folder / f"{name}.txt").write_text("\n".join(some) + "\n", "utf-8")
    (folder / "study.toml").write_text(LANGUAGE, "utf-8")


STUDIES = {
    "tagger": tagger,
    "cross-encoder": cross_encoder,
    "images": images,
    "language": language,
}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    arguments = parser.parse_args(argv)
    arguments.folder.mkdir(parents=True)
    STUDIES[arguments.study](arguments.folder, arguments.data)
    print(f"paretoformer search {arguments.folder}/study.toml --out {arguments.folder}/run")


if __name__ == "__main__":
    main()
