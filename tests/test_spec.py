"""The study file: what is wrong is named, with how to mend it."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from paretoformer.evaluators.common.target import check_device
from paretoformer.search.planning.survey import slowness_of
from paretoformer.search.records.errors import StudyError
from paretoformer.search.study.samplers import make_sampler
from paretoformer.search.study.spec import BUILTIN, NO_LIMIT, check_varies, load_spec, parse_spec
from paretoformer.spaces.axes import axis_of
from tests.test_surgery import tiny

GOOD = """
[model]
path = "org/model"
[data]
path = "org/data"
"""


def parse(text: str, **overrides: int):
    return parse_spec(text, source=Path("mine.toml"), overrides=overrides)


@pytest.mark.parametrize("name", BUILTIN)
def test_builtin_study_is_valid(name: str) -> None:
    assert load_spec(name).name == name


def test_reviews_is_the_study_that_was_promised() -> None:
    spec = load_spec("reviews")
    assert spec.settled(None).search.minutes == 20
    assert spec.objectives == ["accuracy", "latency_ms"]
    assert (spec.target.batch_size, spec.target.sequence_length) == (1, 64)
    assert spec.data.search_examples == 500


def test_older_run_of_a_built_in_study_keeps_what_the_file_said_then() -> None:
    runtimes = '[space]\nruntime = ["onnxruntime:*", "openvino:*"]\n'
    there = parse(f"{GOOD}{runtimes}[timing]\nsearch_seconds = 1.0\nconfirm_seconds = 3\n")
    spec = parse(GOOD).settled(there)
    assert (spec.timing, spec.space) == (there.timing, there.space)
    assert (
        parse(f"{GOOD}[timing]\nsearch_seconds = 2.0\n").settled(there).timing.search_seconds == 2
    )


def test_wrong_texts_and_a_key_named_like_a_type_are_named_by_their_key() -> None:
    with pytest.raises(StudyError, match=r"`recovery\.texts`: Input should be a valid string"):
        parse(f"{GOOD}[recovery]\ntexts = 5\n")
    with pytest.raises(StudyError, match=r"unknown key `recovery\.str`"):
        parse(f"{GOOD}[recovery]\nstr = 5\n")


def test_name_defaults_to_the_file_and_options_override() -> None:
    spec = parse(GOOD, trials=7, seed=3)
    assert (spec.name, spec.trials, spec.seed) == ("mine", 7, 3)


def test_resolved_study_is_the_same_study() -> None:
    spec = parse(GOOD + '[space]\nattention = ["window"]\n')
    assert parse_spec(spec.to_toml(), source=Path("elsewhere/study.toml")) == spec


def test_paths_are_relative_to_the_study_file(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    study = tmp_path / "s.toml"
    study.write_text('[model]\npath = "model"\n[data]\npath = "rows.csv"\n')
    spec = load_spec(study)
    assert spec.model.path == str(tmp_path / "model")
    assert spec.data.path == str(tmp_path / "rows.csv")


def test_hub_id_stays_a_hub_id() -> None:
    assert parse(GOOD).model.path == "org/model"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("trails = 3" + GOOD, "unknown key `trails`. Did you mean 'trials'?"),
        (GOOD + "[target]\nbatchsize = 1", "unknown key `target.batchsize`. Did you mean 'batch"),
        (GOOD + "[data2]\n", "unknown key `data2`. Did you mean 'data'?"),
        ("[data]\npath = 'x'", "`model` is missing"),
        ("[model]\n[data]\npath = 'x'", "`model.path` is missing"),
        ("trials = 'many'" + GOOD, "`trials`: Input should be a valid integer"),
        ("trials = 0" + GOOD, "`trials`: Input should be greater than or equal to 1, but got 0"),
        ("objectives = ['accuracy']" + GOOD, "needs two or more objectives"),
        (GOOD + "[search]\nsampler = 'nsga3'", "`search.sampler`: Input should be 'nsga2'"),
        (GOOD + "[timing]\npatience_minutes = -1", "greater than or equal to 0, but got -1"),
        (GOOD + "[target]\ndtype = 'int8'", "`target.dtype`: Input should be 'float32'"),
        (GOOD + "search = 'a.csv'", "either `path`, or `train`, `search` and `confirm`"),
        ("[model]\npath='x'\n[data]\ntrain='a.csv'", "give `path`, or all of `train`"),
        ("name = 'a/b'" + GOOD, "`name`: String should match pattern"),
        ("= 3", "is not TOML"),
        ("trials = true" + GOOD, "`trials`: Input should be a valid integer, but got True"),
        ("trials = '50'" + GOOD, "`trials`: Input should be a valid integer, but got '50'"),
        ("trials = 5.0" + GOOD, "`trials`: Input should be a valid integer, but got 5.0"),
        ("seed = -1" + GOOD, "`seed`: Input should be greater than or equal to 0"),
        ("seed = 4294967296" + GOOD, "`seed`: Input should be less than 4294967296"),
        ("seed = " + "9" * 5000 + GOOD, "mine.toml: "),
        (
            GOOD + "search_examples = '50'",
            "`data.search_examples`: Input should be a valid integer",
        ),
        (
            GOOD + "search_examples = true",
            "`data.search_examples`: Input should be a valid integer",
        ),
        (GOOD + "[search]\nminutes = inf", "`search.minutes`: Input should be a finite number"),
        (GOOD + "[search]\nminutes = nan", "`search.minutes`: Input should be a finite number"),
        (GOOD + "[search]\nminutes = true", "`search.minutes`: Input should be a valid number"),
        (GOOD + "[search]\ntable = 1", "`search.table`: Input should be a valid boolean"),
        (
            GOOD + "[search]\ntrial_seconds = inf",
            "`search.trial_seconds`: Input should be a finite",
        ),
        *(
            (
                f"{GOOD}[target]\nsequence_length = {value}",
                '`target.sequence_length`: a whole number of at least 8 tokens, or "data", but got',
            )
            for value in ("'50'", "7", "true", "64.0", "'texts'", "[]", "nan")
        ),
        (GOOD + "[timing]\nwidth = inf", "`timing.width`: Input should be a finite number"),
        (GOOD + "[target]\ngrid_intensity = inf", "`target.grid_intensity`: Input should be a fin"),
        (GOOD + "[recovery]\ndistill_minutes = inf", "`recovery.distill_minutes`: Input should be"),
        (GOOD + "[target]\ndevice = 'cpu:3'", "unknown device 'cpu:3': use cpu, cuda, cuda:0"),
        (GOOD + "[target]\ndevice = 'cuda:-1'", "unknown device 'cuda:-1'"),
        (GOOD + "[target]\ndevice = 'cuda:01'", "unknown device 'cuda:01'"),
        (GOOD + "[target]\ndevice = ''", "unknown device ''"),
        ("[model]\npath = 'a\\u0000b'\n".replace("'", '"'), "`model.path` holds a NUL character"),
        (GOOD + '[space]\nattention = ["a\\u0000"]', "`space.attention` holds a NUL character"),
        (GOOD + '["a\\u0000"]\nb = 1', "`a key` holds a NUL character"),
        ("a = " + "[" * 5000, "is nested too deeply"),
        ("a = " + "[" * 5000 + "]" * 5000 + GOOD, "is nested too deeply"),
        ("[model]\npath='~nobody-here/x'\n[data]\npath='d'", "a path cannot be read"),
    ],
)
def test_what_is_wrong_is_named_in_one_line(text: str, message: str) -> None:
    with pytest.raises(StudyError) as caught:
        parse(text)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith("mine.toml")


def test_whole_number_stands_for_any_number() -> None:
    spec = parse(GOOD + "[search]\nminutes = 10\n[timing]\nwidth = 1\n[target]\nthreads = 2")
    assert (spec.search.minutes, spec.timing.width, spec.target.threads) == (10, 1, 2)


@pytest.mark.parametrize("device", ["cpu", "mps", "cuda", "cuda:0", "cuda:11"])
def test_device_is_written_as_torch_does(device: str) -> None:
    assert parse(GOOD + f"[target]\ndevice = '{device}'").target.device == device


def test_device_that_torch_takes_for_another_is_not_here() -> None:
    """To torch, `cuda:999` is device -25."""
    with pytest.raises(ValueError, match="'cuda:999' is not here: this machine has"):
        check_device("cuda:999")


def test_every_seed_serves_every_sampler() -> None:
    for name in ("auto", "nsga2", "tpe", "gp", "random"):
        assert make_sampler(name, 2**32 - 1 + 60) is not None


@pytest.mark.parametrize("setting", ["attention = []", "runtime = []"])
def test_empty_list_is_refused(setting: str) -> None:
    spec = parse(GOOD + f"[space]\n{setting}")
    name = setting.partition(" ")[0]
    with pytest.raises(ValueError, match=f"space.{name} is an empty list: name"):
        axis_of(name).check_setting(spec.setting(name))


NOTHING = """
[space]
heads = "off"
attention = ["full"]
feed_forward = "off"
layers = "off"
runtime = ["torch:float32"]
"""


def test_space_of_one_point_is_refused() -> None:
    with pytest.raises(StudyError, match="there is nothing to search: .* leaves one value"):
        check_varies(parse(GOOD + NOTHING))


@pytest.mark.parametrize(
    ("fixed", "varied"),
    [
        ('heads = "off"', 'heads = "ranked"'),
        ('["full"]', '["full", "window"]'),
        ('["full"]', '["window"]'),
        ('layers = "off"', 'layers = "mask"'),
        ('["torch:float32"]', '["onnxruntime"]'),
        ('["torch:float32"]', '"all"'),
    ],
)
def test_space_in_which_one_axis_varies_is_searched(fixed: str, varied: str) -> None:
    assert fixed in NOTHING
    check_varies(parse(GOOD + NOTHING.replace(fixed, varied)))


def test_missing_file_and_unknown_name_are_told_apart() -> None:
    with pytest.raises(StudyError, match=r"no study file absent\.toml"):
        load_spec("absent.toml")
    with pytest.raises(StudyError, match="no built-in study 'review'. Did you mean 'reviews'"):
        load_spec("review")
    with pytest.raises(StudyError, match="no built-in study"):
        load_spec("a" * 5000)


def test_trials_and_minutes_of_the_command_line_stand_for_those_of_the_file() -> None:
    by_minutes = GOOD + "[search]\nminutes = 5\n"

    def limits(**given: Any) -> tuple[int, float | None]:
        trials = {"trials": given.get("trials")}
        minutes = {"minutes": given.get("minutes")}
        spec = parse_spec(by_minutes, source=Path("s.toml"), overrides=trials, of_search=minutes)
        return spec.trials, spec.search.minutes

    assert limits() == (NO_LIMIT, 5)
    assert limits(minutes=7) == (NO_LIMIT, 7)
    assert limits(trials=8) == (8, None)
    assert limits(trials=8, minutes=7) == (8, 7)


def context_of(minutes: float = math.inf, *, generates: bool = False, slowness: float = 1.0) -> Any:
    return SimpleNamespace(
        device="cpu",
        dtype="float32",
        unmeasurable=lambda value: "",
        minutes=minutes,
        slowness=slowness,
        generates=generates,
    )


@pytest.mark.parametrize("setting", ["all", ["openvino:*"]])
def test_weights_alone_are_quantised_for_language_models_or_where_they_are_named(
    setting: Any,
) -> None:
    axis: Any = axis_of("runtime")
    value = "openvino:int8_weights"
    found = axis.survey(setting, context_of())
    assert value not in [*found.choices, *found.left_out]
    named = axis.survey(["openvino", value], context_of()).choices
    meant = axis.survey(setting, context_of(generates=True)).choices
    assert value in named
    assert value in meant


def test_every_precision_of_a_runtime_is_named_by_a_star() -> None:
    axis: Any = axis_of("runtime")
    context = context_of()
    axis.check_setting(["torch:*"], device="cpu")
    found = axis.survey(["torch:*"], context)
    named = [*found.choices, *found.left_out]
    assert sorted(named) == sorted(["torch", "torch:bfloat16", "torch:float16", "torch:int8"])
    with pytest.raises(ValueError, match=r"unknown runtime 'torhc'\. Did you mean 'torch'"):
        axis.check_setting(["torhc:*"], device="cpu")


def test_short_study_leaves_out_the_runtimes_that_it_has_no_time_for() -> None:
    axis: Any = axis_of("runtime")
    every, some, few = (axis.survey("all", context_of(minutes)) for minutes in (math.inf, 15, 5))
    slow = {value for value in every.choices if value.startswith("compile")}
    assert set(every.choices) - set(some.choices) == slow
    runtimes = [value.partition(":")[0] for value in few.choices[1:]]  # without the default
    assert len(set(runtimes)) == len(runtimes)
    assert "torch:int8" not in few.choices  # runtimes with files of their own are faster
    dropped = set(every.choices) - set(few.choices)
    assert dropped > slow
    for value in dropped:
        assert "5 minutes" in few.left_out[value]
    named = ["torch", "torch:bfloat16", "torch:int8", "compile"]
    known = axis.survey(named, context_of()).choices
    assert axis.survey(named, context_of(minutes=5)).choices == known


@pytest.mark.parametrize("has", [{"avx2": True}, {"avx2": True, "avx_vnni": True}, {}])
def test_precision_that_is_slower_here_is_tried_only_if_it_is_named(
    monkeypatch: pytest.MonkeyPatch, has: dict[str, bool]
) -> None:
    axis: Any = axis_of("runtime")
    monkeypatch.setattr("paretoformer.spaces.runtimes.openvino.capabilities", lambda: has)
    found = axis.survey("all", context_of())
    is_slower = has == {"avx2": True}
    assert ("openvino:int8" in found.choices) is not is_slower
    assert ("VNNI" in found.left_out.get("openvino:int8", "")) is is_slower
    assert "openvino:int8" in axis.survey(["openvino:int8"], context_of()).choices


@pytest.mark.parametrize(("tokens", "slower"), [(20, 1.0), (400, 3.0)])
def test_long_texts_take_as_many_times_longer_to_score(tokens: int, slower: float) -> None:
    scored = {size: SimpleNamespace(examples=range(size)) for size in (200, 100)}
    inputs = SimpleNamespace(size=lambda example: tokens)
    workload = SimpleNamespace(splits={"search": scored[200]}, steering=scored[100], inputs=inputs)
    subject: Any = SimpleNamespace(workload=workload, model=tiny("bert"))
    assert slowness_of(subject) == slower


def test_minutes_are_fewer_for_a_large_model() -> None:
    axis: Any = axis_of("runtime")
    large = axis.survey("all", context_of(30, slowness=4))
    assert large.choices == axis.survey("all", context_of(5)).choices
    assert any("30 minutes with this much to compute" in why for why in large.left_out.values())
    assert "openvino:int8" not in large.choices  # it would calibrate every candidate
