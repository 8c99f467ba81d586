"""Small files of a model's folder or Hub id, beside its config and weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import EntryNotFoundError, LocalEntryNotFoundError

from paretoformer.evaluators.data.pointers import is_pointer


def read_json(path: str, name: str) -> Any:
    """The parsed file of a folder or Hub id; None if there is none, or none is known of."""
    file = Path(path) / name
    if not Path(path).is_dir():
        try:
            file = Path(hf_hub_download(path, name))
        except EntryNotFoundError:
            return None
    return json.loads(file.read_text("utf-8")) if file.is_file() else None


def is_unknown(path: str, name: str) -> bool:
    """Whether a Hub id may have this file, but it is not in the local cache, and the Hub cannot be
    asked."""
    if Path(path).is_dir():
        return False
    try:
        hf_hub_download(path, name)
    except LocalEntryNotFoundError:
        return True
    except EntryNotFoundError:
        pass
    return False


def token_limit(path: str) -> int:
    """The most tokens that its tokenizer gives, as its config says; 0 if it says nothing."""
    return int((read_json(path, "tokenizer_config.json") or {}).get("model_max_length") or 0)


def check_fetched(path: str) -> None:
    """Raises ValueError if a file of a folder is only a pointer of Git LFS."""
    for file in (*Path(path).glob("*.safetensors"), *Path(path).glob("*.json")):
        if is_pointer(file):
            raise ValueError(
                f"{file.name} is a pointer of Git LFS, not the file itself: run `git lfs pull` in "
                "its folder."
            )
