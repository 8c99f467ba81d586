"""Fifteen minutes on one's own data: what `init` with its defaults and one `search` come to.

    python benchmarks/own_data.py --tasks banking77 sick --minutes 5 15 [--seeds 0 1 2]
        [--data ../shared/data] [--work DIR] [--python CHECKOUT] [--json FILE] [--served]

    python benchmarks/own_data.py --given mpnet MODEL DATA --minutes 30 ...

Runs the commands as a user does, in a folder of their own, and then reads the run folder. Prints a
markdown table, a line for each run. `--json` keeps the same runs, one object per line: those that
it holds already are not run again. `--python` takes the code of another checkout for the commands.
Each run begins with an empty cache but for models. `--served` exports each answer and times it
alone on real texts, one by one in random order: its speed-up stands next to the front's. Without
`--minutes`, only makes the models.

banking77: 77 intents. wnut17: rare entities. sick: relatedness of pairs, a cross-encoder. MiniLM is
fine-tuned on their training rows, once; the rows of the other files are the user's data. reviews,
embedder, long-reviews: the built-in studies, with their own keys.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from datetime import date
from itertools import accumulate, pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers

from paretoformer.evaluators.common.target import Target, describe_machine, physical_cores
from paretoformer.evaluators.data.examples import DataSource, Examples
from paretoformer.evaluators.data.rows import read_examples
from paretoformer.evaluators.demo import cache_folder, model_path, with_files
from paretoformer.evaluators.demo.assets import minilm
from paretoformer.evaluators.demo.training import fine_tune
from paretoformer.evaluators.metrics import metric_of
from paretoformer.evaluators.tasks import task_of
from paretoformer.search.publish.best import load_best
from paretoformer.search.records.errors import NoAnswer
from paretoformer.search.records.parquet import read_front, read_table
from paretoformer.search.records.run_folder import RunFolder
from paretoformer.search.report.evidence import timeline
from paretoformer.spaces.candidate import Candidate
from paretoformer.spaces.common.atomic import atomic_folder
from paretoformer.spaces.runtimes.torch_runtime import TorchRunnable

LENGTH = 64
"""Maximum tokens of a text in fine-tuning."""
SERVED = 300
"""Texts that `--served` times."""
BUILT_IN = ("reviews", "embedder", "long-reviews")


@dataclass(frozen=True)
class Own:
    """A task, with names of columns that `init` guesses.

    training, data: files of training rows and of the user's rows.
    """

    task: str
    ending: str
    training: tuple[str, ...]
    data: tuple[str, ...]
    epochs: int
    columns: Mapping[str, str] = field(default_factory=dict)
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Column of the source -> column written; empty: the files are copied as they are."""

    @property
    def source(self) -> DataSource:
        return DataSource(**self.columns)


OWN = {
    "banking77": Own(
        "text-classification",
        ".csv",
        ("banking77/train.csv",),
        ("banking77/test.csv",),
        epochs=4,
        columns={"text": "text", "label": "category"},
    ),
    "wnut17": Own(
        "token-classification",
        ".conll",
        ("wnut17/wnut17train.conll",),
        ("wnut17/emerging.dev.conll", "wnut17/emerging.test.annotated"),
        epochs=6,
    ),
    "sick": Own(
        "text-regression",
        ".csv",
        ("sick/SICK_train.txt", "sick/SICK_trial.txt"),
        ("sick/SICK_test_annotated.txt",),
        epochs=4,
        columns={"text": "sentence1", "text_pair": "sentence2", "label": "score"},
        renamed={
            "sentence_A": "sentence1",
            "sentence_B": "sentence2",
            "relatedness_score": "score",
        },
    ),
}


def write_rows(own: Own, files: Sequence[Path], path: Path) -> None:
    if not own.renamed:
        path.write_text("\n\n".join(file.read_text("utf-8").strip() for file in files) + "\n")
        return
    with path.open("w", encoding="utf-8", newline="") as out:
        writer = csv.writer(out)
        writer.writerow(own.renamed.values())
        for row in _tab_separated(files):
            writer.writerow(row[name] for name in own.renamed)


def _tab_separated(files: Sequence[Path]) -> Iterator[dict[str, str]]:
    for path in files:
        with path.open(encoding="utf-8", newline="") as file:
            yield from csv.DictReader(file, delimiter="\t")


def _config(own: Own, labels: Sequence[Any]) -> dict[str, Any]:
    """The head's classes by name; one number for a regression."""
    if own.task == "text-regression":
        return {"num_labels": 1}
    words = own.task == "token-classification"
    names = sorted({x for row in labels for x in row} if words else set(labels))
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def make(name: str, folder: Path, data: Path) -> None:
    """Write `model`, the user's `data.*`, and `made.json`: complete or not at all."""
    own = OWN[name]
    with atomic_folder(folder) as part:
        for split in ("training", "data"):
            files = [data / file for file in getattr(own, split)]
            write_rows(own, files, part / f"{split}{own.ending}")
        facts = train(own, part)
        (part / "made.json").write_text(json.dumps(facts, indent=2) + "\n", "utf-8")
    print(f"{folder}: {facts}", flush=True)


def train(own: Own, folder: Path) -> dict[str, Any]:
    """Fine-tune MiniLM on `training.*`; returns its quality on all rows of `data.*`."""
    begun = time.monotonic()
    torch.manual_seed(0)
    torch.set_num_threads(physical_cores())
    transformers.utils.logging.set_verbosity_error()  # no warning about the new head
    task, base = task_of(own.task), minilm()
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    raw = {split: _examples(own, folder, split) for split in ("training", "data")}
    config = _config(own, raw["training"].labels)
    model: Any = task.auto.from_pretrained(base, attention_probs_dropout_prob=0.0, **config)
    rows = {
        split: examples.relabelled(task.read_labels(examples.labels, model.config).values)
        for split, examples in raw.items()
    }
    target = Target(sequence_length=LENGTH)
    splits: Any = {"train": rows["training"], "search": rows["data"]}
    workload = task.encode(splits, tokenizer, model.config, target)
    fine_tune(model, task, workload, epochs=own.epochs, progress=_shown)
    bench: Any = SimpleNamespace(
        task=task,
        workload=workload,
        split=workload.splits["search"],
        target=target,
        runnable=TorchRunnable(model),
        dense=model,
        memo={},
    )
    score = task.scores[0]
    quality = metric_of(score).measure(bench).value
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    counts = {f"{split}_rows": len(examples) for split, examples in rows.items()}
    return {score: round(quality, 4), **counts, "seconds": round(time.monotonic() - begun)}


def _examples(own: Own, folder: Path, split: str) -> Examples:
    form = task_of(own.task).form
    return read_examples(str(folder / f"{split}{own.ending}"), own.source, form, 0)[0]


def _shown(what: str, done: int, steps: int) -> None:
    if done % 100 == 0:
        print(f"{what}: {done} of {steps}", flush=True)


@dataclass(frozen=True)
class Checkout:
    """The code that the commands run."""

    path: Path

    @property
    def commit(self) -> str:
        """With a digest of changes that are not committed."""
        changes = self._git("diff", "HEAD", "--", "src", "search", "evaluators", "spaces")
        name = self._git("rev-parse", "--short", "HEAD").strip()
        return f"{name}+{hashlib.sha256(changes.encode()).hexdigest()[:6]}" if changes else name

    def _git(self, *arguments: str) -> str:
        command = ["git", "-C", str(self.path), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    def environment(self, cache: Path | None = None) -> dict[str, str]:
        own = {"PYTHONPATH": str(self.path / "src")}
        if cache is not None:
            own |= {
                "PARETOFORMER_CACHE": str(cache),
                "TORCHINDUCTOR_CACHE_DIR": str(cache / "inductor"),
            }
        return os.environ | own

    def run(self, *arguments: str, folder: Path, cache: Path, log: Path) -> None:
        """A command of `paretoformer`; raises CalledProcessError if it fails."""
        command = [sys.executable, "-m", "paretoformer", *arguments]
        with log.open("ab") as out:
            subprocess.run(
                command,
                cwd=folder,
                env=self.environment(cache),
                stdout=out,
                stderr=subprocess.STDOUT,
                check=True,
            )


@dataclass(frozen=True)
class Run:
    """What one line of the table is about."""

    task: str
    minutes: float
    seed: int
    commit: str

    @property
    def name(self) -> str:
        return f"{self.task}-{self.minutes:g}-{self.seed}-{self.commit}"

    @property
    def key(self) -> dict[str, Any]:
        return asdict(self)


def fresh_cache(folder: Path) -> Path:
    """A cache with the models of the user's cache, and nothing that helps a second run."""
    folder.mkdir(parents=True)
    for path in cache_folder().iterdir() if cache_folder().exists() else ():
        if path.is_dir() and path.name not in ("blocks", "own", "inductor"):
            (folder / path.name).symlink_to(path.resolve())
    return folder


def execute(
    run: Run, checkout: Checkout, work: Path, served: bool, given: Mapping[str, Sequence[str]]
) -> dict[str, Any]:
    """Run the commands in a new folder; the object that `--json` keeps.

    given: task -> another model, and its data.
    """
    folder = work / "runs" / run.name
    shutil.rmtree(folder, ignore_errors=True)
    cache, log = fresh_cache(folder / "cache"), folder / "log.txt"
    study = run.task
    paths = given.get(run.task, ())
    if run.task in OWN:
        data = work / run.task / f"data{OWN[run.task].ending}"
        paths = [str(path.resolve()) for path in (work / run.task / "model", data)]
    if paths:
        study = "study.toml"
        checkout.run("init", *paths, "--out", study, folder=folder, cache=cache, log=log)
    options = ["--minutes", f"{run.minutes:g}", *(["--seed", str(run.seed)] if run.seed else [])]
    begun = time.time()
    try:
        checkout.run("search", study, *options, folder=folder, cache=cache, log=log)
    except subprocess.CalledProcessError:
        return run.key | {"error": log.read_text("utf-8").strip().rpartition("\n")[2]}
    found = RunFolder(next((folder / "runs").iterdir()))
    result = run.key | {
        "date": str(date.today()),
        "first_screen": first_screen(log.read_text("utf-8")),
        "seconds": seconds(found, begun, time.time()),
        **answer(found),
    }
    if served and "speedup" in result:
        try:
            result["served"] = serve(found, checkout, folder)
        except (subprocess.CalledProcessError, ValueError) as error:  # the run itself is kept
            print(f"{run.name} was not served: {error}", file=sys.stderr)
    return result


def serve(found: RunFolder, checkout: Checkout, folder: Path) -> dict[str, Any]:
    """Times of real texts alone, one by one, each model in a fresh process.

    dense_ms: the uncompressed model in torch, before and after the answer.

    Raises:
        ValueError: the data are images.
    """
    export, log = folder / "export", folder / "log.txt"
    run = str(found.path.resolve())
    checkout.run("export", run, str(export), folder=folder, cache=folder / "cache", log=log)
    study = json.loads((export / "measured.json").read_text("utf-8"))["study"]
    source = DataSource.model_validate(study["data"])
    source = with_files(source)
    form = task_of(study["model"]["task"]).form
    if form == "image":
        raise ValueError("it has no texts")
    every = read_examples(source.confirm or source.path, source, form, 0)[0]
    # The first rows of a file may be of another length than those that the front was timed at.
    order = np.random.default_rng(0).permutation(len(every))
    rows = every.take(order[:SERVED].tolist())
    texts = [text if form == "text" else " ".join(text) for text in rows.texts]
    pairs = [pair and [text, pair] for text, pair in zip(texts, rows.pairs, strict=True)]
    file = folder / "texts.json"
    file.write_text(json.dumps([pair or text for text, pair in zip(texts, pairs, strict=True)]))
    threads = found.read_machine()["threads"]  # the study may leave them to the machine
    options = ["--threads", str(threads)]
    if isinstance(longest := study["target"]["sequence_length"], int):  # else nothing is cut
        options += ["--length", str(longest)]

    def timed(model: Path) -> float:
        script = str(Path(__file__).with_name("served_alone.py"))
        command = [sys.executable, script, str(model), "--each", str(file), *options]
        environment = checkout.environment(folder / "cache")
        return float(subprocess.check_output(command, text=True, env=environment))

    dense = Path(model_path(study["model"]["path"]))
    before, own, after = (timed(model) for model in (dense, export, dense))
    return {
        "dense_ms": [before, after],
        "answer_ms": own,
        "speedup": (before + after) / 2 / own,
        "texts": len(texts),
    }


def first_screen(log: str) -> dict[str, str]:
    """The five first lines of a search, by name."""
    names = ("model", "data", "target", "varied", "time")
    lines = re.findall(rf"^({'|'.join(names)}) +(.*)$", log, re.MULTILINE)
    return dict(reversed(lines))


def seconds(folder: RunFolder, begun: float, ended: float) -> dict[str, float]:
    """Wall time by phase, one after the other; their sum is the whole command.

    start: until the model is loaded and checked. workers: from the plan to the first job.
    alternatives: until a compressed candidate is timed. distil: with what the search goes on with.
    confirm: with new workers and the report.
    """
    trials = read_table(folder.trials)[0].to_pandas()
    candidates = dict(
        zip(trials["trial"], map(Candidate.from_json, trials["candidate"]), strict=True)
    )
    jobs = timeline(trials)
    chosen = jobs["trial"].map(candidates)
    distilled = chosen.map(is_distilled)
    cut = ~chosen.map(is_uncut)
    first = jobs["started"].min()
    searched = ~distilled & ~(jobs["ended"] > jobs[distilled]["started"].min())  # NaN: all
    marks = {
        "start": folder.machine.stat().st_mtime,
        "prepare": min(folder.evidence.stat().st_mtime, first),
        "workers": first,
        "alternatives": jobs[cut & (jobs["phase"] == "timing")]["started"].min(),
        "search": jobs[searched]["ended"].max(),
        "distil": jobs["ended"].max(),
        "confirm": ended,
    }
    known = [begun if mark != mark else mark for mark in marks.values()]  # NaN: no such job
    reached = accumulate([begun, *known], max)
    lengths = (round(after - before, 1) for before, after in pairwise(reached))
    return dict(zip(marks, lengths, strict=True))


def is_uncut(candidate: Candidate) -> bool:
    """Whether it is the uncompressed model, in any runtime."""
    return set(candidate.changes()) <= {"runtime"}


def is_distilled(candidate: Candidate) -> bool:
    return candidate.seconds > 0


def answer(folder: RunFolder) -> dict[str, Any]:
    """The answer of `best`, and how many candidates were tried for it."""
    front, facts = read_front(folder.path)
    trials = read_table(folder.trials)[0].to_pandas()
    tried = [text for text in map(Candidate.from_json, trials["candidate"]) if not is_uncut(text)]
    counts = {
        "machine": describe_machine(facts.machine),
        "candidates": len(tried),
        "distilled": sum(map(is_distilled, tried)),
        "failed": int((trials["state"] != "complete").sum()),
        "confirmed": len(front),
    }
    try:
        best = load_best(folder.path)
    except NoAnswer as reason:
        return counts | {"answer": str(reason)}
    quality = facts.qualities[0]
    other = best.alternative
    return counts | {
        "answer": best.candidate.phrase,
        "speedup": best.speedup_interval,
        "alternative": None if other is None else {"name": other.name, "speedup": other.speedup},
        "over_alternative": None if other is None else best.speedup / other.speedup,
        "quality": quality,
        "value": best.metrics[quality].value,
        "dense": best.dense[quality].value,
        "warning": best.warning,
    }


COLUMNS = (
    *("task", "minutes", "seed", "commit", "over torch", "over the best alternative"),
    *("served alone", "quality (dense)", "candidates", "seconds", "first screen", "answer"),
)


def cells(found: Mapping[str, Any]) -> list[str]:
    own = [found["task"], f"{found['minutes']:g}", str(found["seed"]), found["commit"]]
    if "error" in found:
        return [*own, *[""] * (len(COLUMNS) - 5), found["error"]]
    tried = f"{found['candidates']}, {found['distilled']} distilled, {found['failed']} failed"
    spent = ", ".join(f"{name} {length:.0f}" for name, length in found["seconds"].items())
    took = f"{found['first_screen'].get('time', '?').partition(';')[0]}; took "
    took += f"{sum(found['seconds'].values()) / 60:.1f}"
    return [*own, *_gains(found), tried, spent, took, found["answer"]]


def _gains(found: Mapping[str, Any]) -> list[str]:
    if "speedup" not in found:
        return ["none", "", "", ""]
    value, low, high = found["speedup"]
    mark = " !" if found["warning"] else ""
    over = "no alternative"
    if other := found["alternative"]:
        over = f"{found['over_alternative']:.2f}x {other['name']} ({other['speedup']:.2f}x)"
    alone = f"{found['served']['speedup']:.2f}x" if "served" in found else ""
    quality = f"{found['quality']} {found['value']:.4f} ({found['dense']:.4f})"
    return [f"{value:.2f}x ({low:.2f} to {high:.2f}){mark}", over, alone, quality]


def print_table(rows: Sequence[Mapping[str, Any]]) -> None:
    """Markdown; `!` marks an answer with a warning."""
    for machine in dict.fromkeys(row["machine"] for row in rows if "machine" in row):
        print(f"{machine}, {date.today()}\n")
    print(f"| {' | '.join(COLUMNS)} |\n|{' --- |' * len(COLUMNS)}")
    for row in rows:
        print(f"| {' | '.join(cells(row))} |")


def kept(path: Path) -> dict[Run, dict[str, Any]]:
    """The runs in a file that ended well."""
    if not path.exists():
        return {}
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    names = Run.__dataclass_fields__
    return {Run(**{n: row[n] for n in names}): row for row in rows if "error" not in row}


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tasks", nargs="+", choices=(*OWN, *BUILT_IN), default=[])
    parser.add_argument(
        "--given", nargs=3, action="append", default=[], metavar=("NAME", "MODEL", "DATA")
    )
    parser.add_argument("--minutes", nargs="+", type=float, default=[])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0])
    parser.add_argument("--data", type=Path, default=Path("../shared/data"))
    parser.add_argument("--work", type=Path, default=cache_folder() / "own")
    parser.add_argument("--python", type=Path, default=Path(__file__).parent.parent)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--served", action="store_true", help="also time the answer on real texts")
    arguments = parser.parse_args(argv)
    checkout, file = Checkout(arguments.python.resolve()), arguments.json
    work = arguments.work.resolve()
    tasks = [name for name in arguments.tasks if is_made(name, work, arguments.data)]
    given = {name: [os.path.abspath(path) for path in paths] for name, *paths in arguments.given}
    wanted = [
        Run(name, minutes, seed, checkout.commit)
        for name in (*tasks, *given)
        for minutes in arguments.minutes
        for seed in arguments.seeds
    ]
    found = kept(file) if file else {}
    for run in wanted:
        if run not in found:
            found[run] = execute(run, checkout, work, arguments.served, given)
            print(json.dumps(found[run]), file=sys.stderr, flush=True)
            if file:
                with file.open("a", encoding="utf-8") as lines:
                    lines.write(json.dumps(found[run]) + "\n")
    if wanted:
        print_table(list(found.values()))


def is_made(name: str, work: Path, data: Path) -> bool:
    """Make its model and data, unless that was done; whether that is possible."""
    if name in BUILT_IN:
        model_path(f"demo:{name}")  # in the user's cache
        return True
    if (work / name / "made.json").exists():
        return True
    missing = [data / file for file in OWN[name].training + OWN[name].data]
    missing = [path for path in missing if not path.is_file()]
    if missing:
        print(f"{name} is left out: there is no {missing[0]}.", file=sys.stderr)
        return False
    make(name, work / name, data)
    return True


if __name__ == "__main__":
    main()
