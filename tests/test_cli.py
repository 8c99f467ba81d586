"""The commands: bad input gets one line, status 2, and leaves nothing behind."""

from __future__ import annotations

import inspect
import json
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from paretoformer.evaluators.common.target import physical_cores
from paretoformer.search import cli
from paretoformer.search import run as search_run
from paretoformer.search.publish.best import load_best
from paretoformer.search.publish.summary import answer
from paretoformer.search.study.spec import DEFAULT_STUDY, parse_spec
from paretoformer.spaces.attention import names
from tests.conftest import Run
from tests.tiny import write_data, write_model, write_study

CORES = physical_cores()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("cli") / "study")


def study_with(tiny: Path, old: str, new: str) -> Path:
    """The tiny study with one thing changed."""
    text = tiny.read_text()
    assert old in text
    changed = tiny.with_name("changed.toml")
    changed.write_text(text.replace(old, new))
    return changed


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("trials =", "trails =", "unknown key `trails`. Did you mean 'trials'?"),
        ("trials = 6", 'trials = "six"', "`trials`: Input should be a valid integer"),
        ("trials = 6", "trials = 6\nobjectives = ['accuracy', 'latency']", "unknown objective"),
        (
            "trials = 6",
            "trials = 6\nobjectives = ['accuracy', 'energy_mj']",
            "objective 'energy_mj' cannot be measured here",
        ),
        ('path = "model"', 'path = "./absent"', "cannot load the model"),
        ('path = "model"', 'path = "model"\ntask = "ner"', "unknown task 'ner'"),
        ('"data.csv"', '"absent.csv"', "no data file"),
        ('"data.csv"', '"empty.csv"', "empty.csv is empty"),
        ('"data.csv"', '"broken.parquet"', "cannot read"),
        ('"data.csv"', '"data.csv"\nlabel = "labels"', "no column 'labels'. Did you mean 'label'"),
        ('"data.csv"', '"odd.csv"', "label 'good' is unknown to the model, which has 2 labels"),
        ("search_examples = 40", "search_examples = 400", "Lower data.search_examples"),
        ("threads = 2", 'device = "tpu"', "unknown device 'tpu'"),
        ("threads = 2", 'device = "cuda:7"', "is not here"),
        ("threads = 2", 'device = "cuda:999"', "is not here"),
        ("threads = 2", 'device = "cpu:3"', "unknown device 'cpu:3'"),
        ("trials = 6", "trials = 6\nseed = 99999999999", "`seed`: Input should be less than"),
        ("threads = 2", "[space]\nattention = []", "space.attention is an empty list"),
        ("threads = 2", "[space]\nruntime = []", "space.runtime is an empty list"),
        (
            "threads = 2",
            '[space]\nheads="off"\nattention=["full"]\nfeed_forward="off"\nlayers="off"\n'
            'runtime=["torch"]',
            "there is nothing to search",
        ),
        ('path = "model"', 'path = "a\\u0000"', "holds a NUL character"),
        ("threads = 2", '[search]\nstorage = "sqlite:////absent/s.db"', "cannot open the storage"),
        ("threads = 2", '[search]\nstorage = "sqlite:///:memory:"', "it is in memory"),
        ("threads = 2", "threads = 5000", f"5000, but this process may use {CORES} physical"),
        ("sequence_length = 64", "sequence_length = 640", "the model has room for 80 tokens"),
        ("threads = 2", '[space]\nattention = ["windw"]', "Did you mean 'window'"),
        ("threads = 2", '[search]\nstorage = "nonsense"', "cannot open the storage"),
    ],
)
def test_wrong_study_is_refused_in_one_line(
    run: Run, tiny: Path, tmp_path: Path, old: str, new: str, message: str
) -> None:
    (tiny.parent / "empty.csv").touch()
    (tiny.parent / "broken.parquet").write_bytes(b"PAR1 no")
    odd = tiny.with_name("data.csv").read_text().replace(",1\n", ",good\n")
    (tiny.parent / "odd.csv").write_text(odd)
    out = tmp_path / "run"
    status, _, error = run("search", study_with(tiny, old, new), "--out", out)
    assert status == 2
    assert message in error
    assert error.startswith("paretoformer: ")
    assert error.count("\n") == 1
    assert "Traceback" not in error
    assert not out.exists()


def test_unsupported_family_is_refused_with_those_supported(
    run: Run, tiny: Path, tmp_path: Path
) -> None:
    write_config(tiny, model_type="gpt_neox")
    status, _, error = run("search", with_other_model(tiny), "--out", tmp_path / "run")
    assert status == 2
    assert "Unsupported model family 'gpt_neox'" in error
    assert "Supported: bert, roberta" in error
    assert not (tmp_path / "run").exists()


def write_config(tiny: Path, **config: object) -> None:
    """A model folder `other` that holds nothing but a config."""
    other = tiny.parent / "other"
    other.mkdir(exist_ok=True)
    (other / "config.json").write_text(json.dumps(config))


def with_other_model(tiny: Path, attention: str = '"all"') -> Path:
    space = f"threads = 2\n[space]\nattention = {attention}"
    text = tiny.read_text().replace('path = "model"', 'path = "other"')
    study = tiny.with_name("other.toml")
    study.write_text(text.replace("threads = 2", space))
    return study


def test_family_that_does_another_task_is_refused_before_anything_runs(
    run: Run, tiny: Path, tmp_path: Path
) -> None:
    write_config(tiny, model_type="vit")
    status, _, error = run("search", with_other_model(tiny), "--out", tmp_path / "run")
    assert status == 2
    assert "A 'vit' model does no text-classification. Families that do: bert, roberta" in error
    assert "deit" not in error


def test_mechanism_that_cannot_be_causal_is_refused_before_anything_runs(
    run: Run, tiny: Path, tmp_path: Path
) -> None:
    write_config(tiny, model_type="gpt2", pad_token_id=0)
    study = with_other_model(tiny, '["window", "nystrom"]')
    status, _, error = run("search", study, "--out", tmp_path / "run")
    assert status == 2
    assert "attention 'nystrom' cannot be causal, as this model needs it to be" in error
    assert not (tmp_path / "run").exists()


def test_causal_model_without_a_padding_token_is_refused(
    run: Run, tiny: Path, tmp_path: Path
) -> None:
    write_config(tiny, model_type="gpt2")
    status, _, error = run("search", with_other_model(tiny), "--out", tmp_path / "run")
    assert status == 2
    assert "has no pad_token_id" in error


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("front", "absent"), "there is no run folder absent"),
        (("best", "absent"), "there is no run folder absent"),
        (("report", "absent"), "there is no run folder absent"),
        (("dashboard", "absent"), "is not a run folder"),
        (("search", "absent.toml"), "no study file absent.toml"),
        (("search", "review"), "Did you mean 'reviews'?"),
        (("search", "."), ". is no study file. For a model, give its --data FILE, too."),
        (("search", "org/model"), "or a model and its --data FILE"),
        (("search", "reviews", "--data", "x.csv"), "but reviews is a study, which names its own"),
        (("search", "my.toml", "--data", "x.csv"), "but my.toml is a study, which names its own"),
        (("search", "--trials", "many"), "Invalid value for '--trials'"),
        (("serch",), "No such command 'serch'"),
        (("front",), "Missing argument 'run'"),
    ],
)
def test_wrong_command_line_is_refused_in_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: tuple[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    status, _, error = run(*arguments)
    assert status == 2
    assert message in error
    assert error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_front_prints_dense_first(run: Run, example: Path) -> None:
    status, output, _ = run("front", example)
    assert status == 0
    rows = output.splitlines()
    first = next(line for line in rows if "1.00x" in line)
    assert "dense" in first
    for name in ("accuracy", "latency_ms", "memory_mb", "parameters", "speed-up"):
        assert name in output


def test_table_in_a_pipe_is_never_cut(
    run: Run, example: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "40")
    for command in (("front", example), ("best", example), ("techniques",)):
        assert "…" not in run(*command)[1]
    rows = run("techniques")[1].splitlines()
    (line,) = (row for row in rows if row.strip().startswith("lowrank"))
    assert "rank 32/64/128" in line


def test_front_as_json_has_every_row(run: Run, example: Path) -> None:
    status, output, _ = run("front", example, "--json")
    rows = json.loads(output)
    assert status == 0
    assert rows[0]["role"] == "dense"
    assert rows[0]["candidate"]["version"] == 1


def test_best_as_json_is_the_python_answer(run: Run, example: Path) -> None:
    status, output, _ = run("best", example, "--json")
    assert status == 0
    assert json.loads(output)["candidate_id"] == load_best(example).candidate.id


def test_best_without_an_answer_has_status_1_and_the_nearest(run: Run, example: Path) -> None:
    status, _, error = run("best", example, "--require", "accuracy>=1.5")
    assert status == 1
    assert "no point satisfies the requirement. Nearest: trial" in error
    assert error.count("\n") == 1


def test_requirement_that_does_not_parse_has_status_2(run: Run, example: Path) -> None:
    status, _, error = run("best", example, "--require", "accuracy is good")
    assert status == 2
    assert "write METRIC OP VALUE" in error


def test_export_writes_over_nothing(run: Run, example: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    status, _, error = run("export", example, tmp_path)
    assert status == 2
    assert "is not an empty folder" in error


def test_help_teaches_every_command(run: Run) -> None:
    status, output, _ = run("--help")
    assert status == 0
    for command in ("search", "front", "best", "export", "report", "dashboard"):
        assert command in output


def test_help_shows_a_study_file_that_can_be_copied(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    status, output, _ = run("search", "--help")
    assert status == 0
    assert "pip install 'paretoformer[demo]'" in output
    text = output.partition("Arguments")[0]
    lines = [line.rstrip() for line in text.splitlines()]
    assert "\n\n\n" not in "\n".join(lines).strip()
    first = next(i for i, line in enumerate(lines) if line.endswith("[model]"))
    last = next(i for i, line in enumerate(lines) if "sequence_length" in line)
    copied = parse_spec(textwrap.dedent("\n".join(lines[first : last + 1])), source=Path("my.toml"))
    assert copied.data.confirm_examples == 1000


@pytest.mark.slow
def test_package_runs_as_a_module() -> None:
    command = [sys.executable, "-m", "paretoformer", "--help"]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "dashboard" in output


def test_shell_completion_knows_the_commands(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_PARETOFORMER_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "paretoformer se")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert run()[1].split() == ["search"]


def test_last_line_is_the_answer_in_words(example: Path) -> None:
    found = load_best(example)
    last = answer(example).splitlines()[-1]
    assert last.startswith(f"Fastest with accuracy >= dense - 0.01: trial {found.trial}, ")
    assert f"{found.candidate.heads.total} of 72 heads" in last
    assert found.speedup_text in last
    assert last.endswith(f"`paretoformer export {example} out/`")


@pytest.mark.parametrize("family", ["roberta", "electra"])
def test_families_load_from_a_folder(family: str, tmp_path: Path) -> None:
    from paretoformer.search.study.spec import load_spec
    from paretoformer.search.study.subject import load_subject

    study = write_study(tmp_path)
    shutil.rmtree(tmp_path / "model")
    write_model(tmp_path / "model", family)
    subject = load_subject(load_spec(study))
    assert len(subject.workload.splits["search"]) == 40


def test_splits_of_one_file_share_no_text(tmp_path: Path) -> None:
    from paretoformer.evaluators.data.examples import DataSource
    from paretoformer.evaluators.data.splits import read_splits

    rows = write_data(tmp_path / "data.csv").read_text().splitlines()
    doubled = [rows[0], *rows[1:], *(row.upper().replace(" ", "  ") for row in rows[1:])]
    (tmp_path / "double.csv").write_text("\n".join(doubled).replace("TEXT,LABEL\n", ""))
    source = DataSource(path=str(tmp_path / "double.csv"), search_examples=40, confirm_examples=60)
    splits = read_splits(source, seed=1).examples
    keys = [set(split.identities()) for split in splits.values()]
    assert [len(split) for split in splits.values()] == [60, 40, 60]
    assert not keys[0] & keys[1]
    assert not keys[0] & keys[2]
    assert not keys[1] & keys[2]
    assert read_splits(source, seed=1).examples == splits
    assert read_splits(source, seed=2).examples != splits


def test_default_study_of_the_command_is_that_of_python() -> None:
    for function in (cli.search, search_run.search):
        assert inspect.signature(function).parameters["study"].default == DEFAULT_STUDY


def test_techniques_lists_every_mechanism(run: Run) -> None:
    status, output, _ = run("techniques")
    assert status == 0
    for name in names():
        assert name in output
    rows = json.loads(run("techniques", "--json")[1])
    by_name = {row["name"]: row for row in rows if row["axis"] == "attention"}
    assert list(by_name) == list(names())
    served = {row["name"]: row["here"] for row in rows if row["axis"] == "runtime"}
    assert served["torch"] == "yes"
    assert {"onnxruntime:int8", "openvino:int8", "compile"} <= set(served)
    assert by_name["window"]["causal"]
    assert not by_name["nystrom"]["causal"]
    assert by_name["lowrank"]["parameters"] == {"rank": [32, 64, 128]}
