"""The study file: typed and validated; an error names the key."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping, Sequence, Set
from importlib.resources import files
from pathlib import Path
from typing import Annotated, Any, Literal

import tomli_w
from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    create_model,
    field_validator,
    model_validator,
)

from paretoformer.evaluators.common.device import cuda_index
from paretoformer.evaluators.common.target import DATA
from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.reading import is_data_file
from paretoformer.evaluators.demo import MOVED, is_demo, moved
from paretoformer.evaluators.tasks import task_names, task_of
from paretoformer.search.records.errors import StudyError
from paretoformer.spaces.axes import axes, axis_of
from paretoformer.spaces.axes.axis import Axis
from paretoformer.spaces.common.malformed import one_line
from paretoformer.spaces.common.registry import did_you_mean

NO_LIMIT = 1_000_000
"""Trials of a study that has minutes instead."""
SHORTEST = 8
"""Fewest tokens of a timed text."""
NEW_DEFAULTS = (
    ("recovery", "distill_minutes"),
    ("target", "sequence_length"),
    ("timing", "search_seconds"),
    ("timing", "confirm_seconds"),
    ("space", "runtime"),
)
"""Keys whose default has changed, or that a built-in study no longer has: an older run keeps its
own."""


class _Section(BaseModel):
    """Strict values: `true` and `"50"` are not numbers. Numbers are finite."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class ModelSection(_Section):
    path: str = Field(description="Hub id or local folder of the fine-tuned model.")
    task: str = Field(default="text-classification", description="What the model does.")
    trust_remote_code: bool = Field(
        default=False, description="Run Python code that comes with the model."
    )


class TargetSection(_Section):
    device: str = Field(default="cpu", description="cpu, cuda, cuda:0 or mps.")
    threads: int | None = Field(
        default=None,
        ge=1,
        description="CPU threads; default: all physical cores available to the process.",
        examples=[4],
    )
    batch_size: int = Field(default=1, ge=1, description="Texts in a timed forward pass.")
    sequence_length: Annotated[int, Field(ge=SHORTEST)] | Literal["data"] = Field(
        default=DATA,
        description='"data": texts are timed at their own lengths (text-generation: at up to 512 '
        "tokens); a number: at that, and cut to it.",
    )
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Dtype of the torch model."
    )
    grid_intensity: float = Field(
        default=0, ge=0, description="Grams of CO2 per kWh, to convert measured energy to carbon."
    )
    resource: str = Field(
        default="", description="Run timings on the Ray nodes with this resource; needs --address."
    )

    @field_validator("sequence_length", mode="before")
    @classmethod
    def _is_a_length(cls, length: Any) -> Any:
        if length == DATA or (type(length) is int and length >= SHORTEST):
            return length
        raise ValueError(f'a whole number of at least {SHORTEST} tokens, or "{DATA}"')

    @field_validator("device")
    @classmethod
    def _is_a_device(cls, device: str) -> str:
        try:
            cuda_index(device)
        except ValueError as error:
            raise ValueError(str(error).rstrip(".")) from None
        return device


class DataSection(DataSource):
    model_config = ConfigDict(strict=True)


def _key(axis: Axis[Any]) -> Any:
    return axis.setting, Field(axis.setting_default, description=axis.setting_help)


SpaceSection: Any = create_model(
    "SpaceSection",
    __base__=_Section,
    **{axis.name: _key(axis) for axis in axes() if axis.setting_key is None},
)
"""The `[space]` section: one key per axis, except for axes whose key is in another section."""


def _section(name: str) -> dict[str, Any]:
    """The keys of axes in this section."""
    placed = ((axis.setting_key, axis) for axis in axes())
    return {place[1]: _key(axis) for place, axis in placed if place and place[0] == name}


_OfRecovery: Any = create_model("_OfRecovery", __base__=_Section, **_section("recovery"))


class RecoverySection(_OfRecovery):  # type: ignore[misc]
    distill_minutes: float | None = Field(
        default=None,
        ge=0,
        description="Minutes in total to train the most promising candidates after the search; "
        "default: a share of search.minutes.",
        examples=[0],
    )
    texts: str | list[str] = Field(
        default="",
        description="File with more unlabelled texts for repair and distillation, or a list of "
        "files, which are mixed.",
    )

    @property
    def text_files(self) -> list[str]:
        given = [self.texts] if isinstance(self.texts, str) else self.texts
        return [path for path in given if path]


class SearchSection(_Section):
    sampler: Literal["nsga2", "tpe", "gp", "random", "surrogate", "auto"] = Field(
        default="auto",
        description="Proposes what is not planned; auto: surrogate where it can learn, else nsga2.",
    )
    table: bool = Field(
        default=True,
        description="Measure the damage of each block's options, and solve for time budgets.",
    )
    storage: str = Field(default="", description="SQLAlchemy URL; default: SQLite in the run.")
    trial_seconds: float = Field(default=600, gt=0, description="Time limit of one trial.")
    minutes: float | None = Field(
        default=None,
        gt=0,
        description="Time for the whole study; default: 20, if no number of trials is given.",
        examples=[20],
    )
    require: list[str] = Field(
        default_factory=list,
        description="What an answer must satisfy; the search concentrates there.",
    )

    @model_validator(mode="after")
    def _has_what_it_learns_from(self) -> SearchSection:
        if self.sampler == "surrogate" and not self.table:
            raise ValueError('sampler = "surrogate" needs table = true')
        return self


class TimingSection(_Section):
    width: float = Field(
        default=0.02,
        gt=0,
        description="A timing ends when its 95% interval is narrower than this share of the mean,",
    )
    search_seconds: float = Field(
        default=3,
        gt=0,
        description="or after this long in the search (plus one second of warm-up),",
    )
    confirm_seconds: float = Field(default=10, gt=0, description="or this long in confirmation.")
    patience_minutes: float = Field(
        default=10, ge=0, description="How long a timing waits for a quiet machine."
    )


class Spec(_Section):
    """A complete study file."""

    name: str = Field(
        pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="Default: the name of the file."
    )
    trials: int = Field(
        default=NO_LIMIT,
        ge=1,
        description="Candidates to measure, instead of search.minutes.",
        examples=[100],
    )
    seed: int = Field(
        default=0, ge=0, lt=2**32, description="Seed of the splits and of everything random."
    )
    objectives: list[str] = Field(
        default=["accuracy", "latency_ms"],
        description="The metrics of the Pareto front; two or more.",
    )
    model: ModelSection
    data: DataSection
    target: TargetSection = TargetSection()
    space: SpaceSection = SpaceSection()
    recovery: RecoverySection = RecoverySection()
    search: SearchSection = SearchSection()
    timing: TimingSection = TimingSection()

    @field_validator("objectives")
    @classmethod
    def _two_or_more(cls, objectives: list[str]) -> list[str]:
        if len(objectives) < 2:
            raise ValueError("a front needs two or more objectives")
        if len(set(objectives)) != len(objectives):
            raise ValueError("an objective stands twice")
        return objectives

    @model_validator(mode="after")
    def _one_source(self) -> Spec:
        data = self.data
        three = (data.train, data.search, data.confirm)
        if data.path and any(three):
            raise ValueError("data: give either `path`, or `train`, `search` and `confirm`")
        if not data.path and not all(three):
            raise ValueError("data: give `path`, or all of `train`, `search` and `confirm`")
        return self

    def setting(self, axis: str) -> Any:
        section, key = axis_of(axis).setting_key or ("space", axis)
        return getattr(getattr(self, section), key)

    def to_toml(self) -> str:
        return tomli_w.dumps(self.model_dump(exclude_none=True))

    def settled(self, there: Spec | None) -> Spec:
        """Open settings filled from the existing run `there`, or from a new run's defaults."""
        stratify = self.data.stratify
        if stratify is None:
            stratify = True if there is None else bool(there.data.stratify)
        update: dict[str, Any] = {"data": self.data.model_copy(update={"stratify": stratify})}
        if there is not None and "objectives" not in self.model_fields_set:
            update["objectives"] = there.objectives  # the default has changed
        for section, key in NEW_DEFAULTS if there is not None else ():
            own = update.get(section, getattr(self, section))
            if key not in own.model_fields_set:
                old = getattr(getattr(there, section), key)
                update[section] = own.model_copy(update={key: old})
        if self.search.minutes is None and "trials" not in self.model_fields_set:
            update["trials"] = NO_LIMIT if there is None else there.trials
            minutes = DEFAULT_MINUTES if there is None else there.search.minutes
            update["search"] = self.search.model_copy(update={"minutes": minutes})
        return self.model_copy(update=update)


BUILTIN = ("embedder", "reviews", "long-reviews")
DEFAULT_STUDY = BUILTIN[0]
DEFAULT_MINUTES = 20.0
"""Minutes of a new study with neither minutes nor trials."""
UNLABELLED = "fidelity"
"""The quality metric for data without labels."""


def is_study(study: str | Path) -> bool:
    """Whether this is a built-in name or a file, rather than a model."""
    named = str(study) in BUILTIN or Path(study).suffix == ".toml"
    return named or os.path.isfile(study)  # unlike `Path.is_file`, false for too long a name


def load_spec(
    study: str | Path,
    *,
    text: str | None = None,
    trials: int | None = None,
    seed: int | None = None,
    require: Sequence[str] = (),
    minutes: float | None = None,
) -> Spec:
    """The study of a built-in name or a .toml file, with paths made absolute.

    Paths in the file are relative to its folder. text: of a file that is not written.
    The other arguments override the file.

    Raises:
        StudyError: no such study, not TOML, or a wrong key or value, which the message names.
    """
    overrides: dict[str, Any] = {"trials": trials, "seed": seed}
    of_search = {"require": list(require) or None, "minutes": minutes}
    return parse_spec(
        _text_of(study) if text is None else text,
        source=Path(study),
        overrides=overrides,
        of_search=of_search,
    )


def _text_of(study: str | Path) -> str:
    if str(study) in BUILTIN:
        return files("paretoformer.search").joinpath(f"builtin/{study}.toml").read_text("utf-8")
    if os.path.isfile(study):
        return _read(Path(study))
    if str(study) in MOVED:
        raise StudyError(moved(str(study)))
    if is_study(study):
        raise StudyError(f"no study file {study}.")
    if os.path.exists(study):
        raise StudyError(f"{study} is no study file. For a model, give its --data FILE, too.")
    raise StudyError(
        f"no built-in study {str(study)!r}.{did_you_mean(str(study), BUILTIN)} "
        f"Built in: {', '.join(BUILTIN)}; or give a .toml file, or a model and its --data FILE."
    )


def parse_spec(
    text: str,
    *,
    source: Path,
    overrides: Mapping[str, Any] | None = None,
    of_search: Mapping[str, Any] | None = None,
) -> Spec:
    """`load_spec` for text; `source` names it in errors.

    overrides, of_search: keys of the file and of its section `search`; None: not overridden.
    """
    try:
        raw: dict[str, Any] = tomllib.loads(text)
        _check_texts(raw)
    except tomllib.TOMLDecodeError as error:
        raise StudyError(f"{source} is not TOML: {error}.") from None
    except RecursionError:
        raise StudyError(f"{source} is nested too deeply to be a study.") from None
    except ValueError as error:  # a number with too many digits for Python, or a NUL
        raise StudyError(f"{source}: {error}.") from None
    given = {k: value for k, value in (of_search or {}).items() if value is not None}
    raw |= {k: value for k, value in (overrides or {}).items() if value is not None}
    raw.setdefault("name", source.stem)
    if given and isinstance(raw.setdefault("search", {}), dict):
        raw["search"] |= given
    overridden = {name for name, value in (overrides or {}).items() if value is not None}
    _set_limit(raw, overridden | given.keys())
    _set_objectives(raw)
    try:
        spec = Spec.model_validate(raw)
    except ValidationError as error:
        raise StudyError(f"{source}: {_first(error)}") from None
    try:
        return _absolute(spec, source.resolve().parent)
    except (OSError, RuntimeError, ValueError) as error:  # too long, `~nobody`
        raise StudyError(f"{source}: a path cannot be read: {one_line(error)}.") from None


def _set_limit(raw: dict[str, Any], overridden: Set[str]) -> None:
    """Minutes of the command line replace trials of the file, and vice versa."""
    section = raw.get("search")
    if not isinstance(section, dict) or not section.get("minutes"):
        return
    if "minutes" not in overridden and "trials" in overridden:
        del section["minutes"]
    elif "trials" not in overridden:
        if "minutes" in overridden:
            raw.pop("trials", None)
        raw.setdefault("trials", NO_LIMIT)


def _set_objectives(raw: dict[str, Any]) -> None:
    """Default objectives: the task's score, or fidelity without labels; and latency."""
    data, model = (raw.get(section) for section in ("data", "model"))
    name = model.get("task") if isinstance(model, dict) else None
    task = task_of(name) if name in task_names() else None
    without = isinstance(data, dict) and data.get("label") == ""
    if without and not (task and task.labelled("")):
        raw.setdefault("objectives", [UNLABELLED, "latency_ms"])
    elif task:
        raw.setdefault("objectives", [task.scores[0], "latency_ms"])


def read_spec(path: Path) -> Spec:
    """The study of a run folder, from its `study.toml`.

    Raises:
        StudyError: the file cannot be read, or is not a study.
    """
    return parse_spec(_read(path), source=path)


def stored_spec(data: Any, source: str) -> Spec:
    """A study from the metadata of a table or an export; `source` names it in errors.

    Raises:
        StudyError: it is not a study.
    """
    try:
        return Spec.model_validate(data)
    except ValidationError as error:
        raise StudyError(f"the study that {source} holds is damaged: {_first(error)}") from None


def check_varies(spec: Spec) -> None:
    """Raises StudyError if every axis has only one value, whatever the model."""
    if all(axis.is_fixed(spec.setting(axis.name)) for axis in axes()):
        raise StudyError(
            "there is nothing to search: [space] leaves one value of every axis. Let at least one "
            'vary, such as heads = "ranked" or runtime = "all".'
        )


def _check_texts(value: Any, key: str = "") -> None:
    """Raises ValueError, naming the key, if a text has a NUL, which paths and names cannot have."""
    if isinstance(value, dict):
        for name, item in value.items():
            _check_texts(name, key or "a key")
            _check_texts(item, f"{key}.{name}" if key else name)
    elif isinstance(value, list):
        for item in value:
            _check_texts(item, key)
    elif isinstance(value, str) and "\0" in value:
        raise ValueError(f"`{key}` holds a NUL character, {value!r}")


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise StudyError(f"cannot read {path}: {error}.") from None


def _first(error: ValidationError) -> str:
    """The first error in one line, and the number of others."""
    errors = error.errors()
    worst = next((fault for fault in errors if fault["type"] == "extra_forbidden"), errors[0])
    where = [str(part) for part in worst["loc"] if not str(part).startswith(("literal[", "list["))]
    if worst["type"] == "string_type" and where[-1] == "str":  # of a key that may be a list, too
        where.pop()
    key = ".".join(where)
    if worst["type"] == "extra_forbidden":
        known = _keys(where[:-1])
        message = f"unknown key `{key}`.{did_you_mean(where[-1], known)} Known: {', '.join(known)}."
    elif worst["type"] == "missing":
        message = f"`{key}` is missing."
    else:
        reason = worst["msg"].removeprefix("Value error, ")
        given = worst["input"]
        shown = "" if isinstance(given, dict | BaseModel) else f", but got {_short(given)}"
        message = f"`{key}`: {reason}{shown}." if key else f"{reason}."
    more = len(errors) - 1
    return message + (f" ({more} more)" if more else "")


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _keys(path: list[str]) -> list[str]:
    model: type[BaseModel] = Spec
    for part in path:
        annotation = model.model_fields[part].annotation
        assert isinstance(annotation, type)
        model = annotation
    return list(model.model_fields)


def _absolute(spec: Spec, base: Path) -> Spec:
    """Local paths resolved against the study file's folder; others unchanged."""

    def resolve(path: str, *, file: bool) -> str:
        if not path or is_demo(path):
            return path
        local = base / Path(path).expanduser()
        looks_local = path.startswith((".", "/", "~")) or (file and is_data_file(path))
        if not looks_local and not local.exists():
            return path
        resolved = str(local.resolve())
        if file and is_data_file(path) and not is_data_file(resolved):
            return os.path.abspath(local)  # a link whose target has no ending, as in a Hub's cache
        return resolved

    data = spec.data
    names = ("path", "train", "search", "confirm", "other")
    found = {name: resolve(getattr(data, name), file=True) for name in names}
    model = spec.model.model_copy(update={"path": resolve(spec.model.path, file=False)})
    texts = [resolve(path, file=True) for path in spec.recovery.text_files]
    return spec.model_copy(
        update={
            "data": data.model_copy(update=found),
            "model": model,
            "recovery": spec.recovery.model_copy(
                update={"texts": "".join(texts) if len(texts) < 2 else texts}
            ),
        }
    )
