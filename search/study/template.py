"""Write a study file for one model and its data: every key with its default and meaning.

Both come from the pydantic models that read the file.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from shlex import quote
from typing import Any, Literal, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from paretoformer.evaluators.common.target import DATA
from paretoformer.evaluators.data.beir import is_beir
from paretoformer.evaluators.data.examples import DataSource, Form
from paretoformer.evaluators.data.reading import (
    is_data_file,
    is_plain_text,
    joined_lines,
    read_columns,
)
from paretoformer.evaluators.data.splits import TRAIN_AT_LEAST
from paretoformer.evaluators.demo import is_demo
from paretoformer.evaluators.tasks import Task, check_family, load_config, task_names, task_of
from paretoformer.search.records.errors import StudyError, UserError
from paretoformer.search.study.columns import Columns, Head, columns_of, read_head, usable_rows
from paretoformer.search.study.spec import ModelSection, Spec, is_study, parse_spec
from paretoformer.search.study.subject import CHARACTERS
from paretoformer.spaces.common.malformed import one_line

ENCODING = str(DataSource.model_fields["encoding"].default)
DEFAULT_TASK = str(ModelSection.model_fields["task"].default)
COMMENT_COLUMN = 34
WIDTH = 100
SPARE = 1.5
"""Rows per measured example: duplicates go, and ranking and repairs need some."""


def init(
    model: str,
    data: str,
    out: Path | None = None,
    *,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    encoding: str = ENCODING,
) -> tuple[Path, Columns]:
    """Write a study file; returns its path and the columns it names.

    text, text_pair, label: columns of the data; None: guessed from the names in its head.
    encoding: of a data file.

    Raises:
        StudyError: the model or the data cannot be used, or a column cannot be guessed.
        UserError: the file exists already.
    """
    out = out or Path(f"{_name(model)}.toml")
    if out.exists():
        raise UserError(f"{out} exists already: choose another --out.")
    given, columns = _given(model, data, out, text, text_pair, label, encoding)
    written = study_text(given, out)
    with out.open("x", encoding="utf-8") as file:
        file.write(written)
    return out, columns


def guessed_study(model: str, data: str) -> tuple[Path, str, str]:
    """The study that `init` would write here, without the comments.

    Returns its file's path, its text, and what was guessed in one line.

    Raises:
        StudyError: the model or the data cannot be used, or a column cannot be guessed.
        UserError: `model` is a study.
    """
    if is_study(model):
        raise UserError(f"--data is for a model, but {model} is a study, which names its own data.")
    out = Path(f"{_name(model)}.toml")
    given, columns = _given(model, data, out)
    task = given["model"].get("task", DEFAULT_TASK)
    choose = f"paretoformer init {quote(model)} {quote(data)}"
    return out, _toml(given), f"Guessed: {columns}; task {task}. To choose: {choose}"


def _given(
    model: str,
    data: str,
    out: Path,
    text: str | None = None,
    text_pair: str | None = None,
    label: str | None = None,
    encoding: str = ENCODING,
) -> tuple[dict[str, dict[str, Any]], Columns]:
    """The sections of a study file `out` that depend on model and data, and the columns."""
    chosen = _task(model, data)
    task = task_of(chosen.get("task", DEFAULT_TASK))
    form = task.form
    head = read_head(data, encoding) if _is_file(data) else None
    images = form == "image"
    if head:
        if form == "passage":
            if text_pair or label:
                raise StudyError(
                    f"{chosen['task']} needs texts alone: leave out --label and --text-pair."
                )
            text_pair, label = "", ""
        columns = columns_of(
            data, head.names, text, text_pair, label, images=images, scores_pairs=task.embeds
        )
    else:
        defaults = DataSource.model_fields
        columns = Columns(
            defaults["text"].default if text is None else text,
            text_pair or "",
            defaults["label"].default if label is None else label,
        )
    target = _target(model, task)
    if head and form == "passage" and is_plain_text(data):
        lines = read_columns(data, head.names, encoding)
        passages = joined_lines(lines, CHARACTERS * target["sequence_length"]).values
        head = replace(head, rows=max(map(len, passages.values())))
    elif head and not images:
        head = replace(head, rows=usable_rows(data, columns, encoding))
    given = {
        "model": {"path": _from(out, model)} | chosen,
        "data": {"path": _from(out, data)} | _data(columns, head, encoding, form),
        "target": target,
    }
    return given, columns


def study_text(given: Mapping[str, Mapping[str, Any]], source: Path) -> str:
    """The file: given values as keys, all others as comments with their defaults."""
    spec = parse_spec(_toml(given), source=source)
    shown = [
        f"# Run it: paretoformer search {source.name} --dry-run, then without --dry-run.",
        "# Paths are relative to this file. Remove the # of a key to change its default.",
        "",
        *_keys(spec, {}, skipped=("name",)),
    ]
    for name in Spec.model_fields:
        section = getattr(spec, name)
        if isinstance(section, BaseModel):
            shown += ["", f"[{name}]", *_keys(section, given.get(name, {}))]
    return "\n".join(shown) + "\n"


def _toml(given: Mapping[str, Mapping[str, Any]]) -> str:
    lines = []
    for name, section in given.items():
        lines += [f"[{name}]", *(f"{key} = {_value(item)}" for key, item in section.items())]
    return "\n".join(lines)


def _keys(
    section: BaseModel, given: Mapping[str, Any], skipped: tuple[str, ...] = ()
) -> Iterator[str]:
    """The lines of a section's keys, without subsections; given ones first."""
    fields = type(section).model_fields
    for key in sorted(fields, key=lambda key: key not in given):
        default = getattr(section, key)
        if key in given:
            yield from _line(f"{key} = {_value(given[key])}", fields[key])
        elif key not in skipped and not isinstance(default, BaseModel):
            example = (fields[key].examples or [default])[0]  # some defaults depend on others
            yield from _line(f"#{key} = {_value(example)}", fields[key])


def _line(key: str, field: FieldInfo) -> Iterator[str]:
    """The key with its meaning; a long meaning has its own line before."""
    meaning = _meaning(field)
    whole = f"{key:<{COMMENT_COLUMN - 1}} # {meaning}"
    if not meaning:
        yield key
    elif len(whole) <= WIDTH:
        yield whole
    else:
        yield from (f"# {meaning}", key)


def _meaning(field: FieldInfo) -> str:
    """The description, and the choices if they are listed."""
    choices = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
    parts = (field.description or "", f"One of {', '.join(choices)}." if choices else "")
    return " ".join(filter(None, parts))


def _value(value: Any) -> str:
    """For TOML, which writes strings, numbers, booleans and lists of them like JSON."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _name(model: str) -> str:
    """The model's name, with only characters that a study's name may have."""
    last = Path(model).resolve().name if Path(model).exists() else model
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", re.split(r"[/:]", last)[-1]).lstrip("-._")
    return name or "study"


def _from(out: Path, path: str) -> str:
    """A local path, relative to the folder of the study file."""
    local = Path(path).expanduser()
    if is_demo(path) or local.is_absolute() or not local.exists():
        return path
    return os.path.relpath(local, out.parent)


def _is_file(data: str) -> bool:
    """Whether this is a data file, existing or not, rather than the id of a data set."""
    return Path(data).is_file() or is_data_file(data)


def _data(columns: Columns, head: Head | None, encoding: str, form: Form) -> dict[str, Any]:
    """Columns, and as many examples as a small file allows."""
    names = {"text": columns.text, "text_pair": columns.text_pair, "label": columns.label}
    unused = ("text_pair", "label") if form == "passage" else ("text_pair",)
    shown = {key: name for key, name in names.items() if name or key not in unused}
    if form == "image":
        column = shown.pop("text")
        known = head is not None or column != DataSource.model_fields["text"].default
        shown = ({"image": column} if known else {}) | shown  # a folder has the default names
    if encoding != ENCODING:
        shown["encoding"] = encoding
    keys = ("search_examples", "confirm_examples")
    wanted = {key: int(DataSource.model_fields[key].default) for key in keys}
    usable = max(0, head.rows - TRAIN_AT_LEAST) if head else 0
    share = usable / (SPARE * sum(wanted.values())) if head else 1.0
    return shown | {key: max(1, int(min(1.0, share) * count)) for key, count in wanted.items()}


def _target(model: str, task: Task) -> dict[str, Any]:
    """The lengths of the data, or the length of a language model's prompts."""
    if task.form == "image":
        return {}
    return {"sequence_length": task.length(_config(model), DATA) if task.generates else DATA}


def _names(architectures: str | Sequence[str]) -> Sequence[str]:
    """All architectures: transformers lists one, or several for some families."""
    return (architectures,) if isinstance(architectures, str) else architectures


def _task(model: str, data: str) -> dict[str, str]:
    """The task of the model's class, or of passages that are ranked, if it is not the default.

    Raises:
        StudyError: the model cannot be loaded, or its family has no such task.
    """
    if is_demo(model):
        return {}
    config = _config(model)
    classes = set(config.architectures or ())
    fitting = [
        name
        for name in task_names()
        if classes & set(_names(task_of(name).architectures.get(config.model_type, ())))
        and task_of(name).guessed
        and not task_of(name).unsuitable(config)
    ]
    marked = [name for name in task_names() if task_of(name).guessed and task_of(name).marks(model)]
    usual = [DEFAULT_TASK] if DEFAULT_TASK in fitting else fitting
    task = next(iter([*marked, *usual]), DEFAULT_TASK)
    if is_beir(data):
        embeds = task_of(task).embeds
        ranking = (name for name in task_names() if task_of(name).form == "ranking")
        task = next(name for name in ranking if task_of(name).embeds == embeds)
    try:
        check_family(task_of(task), config)
    except ValueError as error:
        raise StudyError(str(error)) from None
    return {} if task == DEFAULT_TASK else {"task": task}


def _config(model: str) -> Any:
    try:
        return load_config(model)
    except Exception as error:  # the config's own code may raise anything
        raise StudyError(f"cannot load the model {model}: {one_line(error)}") from None
