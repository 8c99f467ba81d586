"""Images in folders, and in cells of tables."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from paretoformer.evaluators.common.remark import Remark
from paretoformer.evaluators.data.table import DataError, Table, reason

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")


def read_image_folder(folder: str, image: str, label: str) -> Table:
    """The images below a folder, labelled by the name of the folder that contains them.

    image, label: names for the two columns. Unlike in `datasets`, a folder such as `test` is not a
    split, and other and hidden files are counted.

    Raises:
        DataError: there are no images.
    """
    top = Path(folder)
    found = sorted(path for path in top.rglob("*") if path.is_file())
    files = [path for path in found if not _is_hidden(path.relative_to(top))]
    paths = [path for path in files if path.suffix.lower() in ENDINGS]
    if not paths:
        raise DataError(f"{folder} holds no image ({', '.join(ENDINGS)}).")
    values: dict[str, list[Any]] = {image: list(map(str, paths))}
    remarks = []
    if label:
        values[label] = [None if path.parent == top else path.parent.name for path in paths]
        remarks.append(Remark(f"{top.name}: an image is labelled by the name of its folder."))
    if others := len(files) - len(paths):
        remarks.append(Remark(f"{top.name}: {others} files that are no images are not read."))
    if hidden := len(found) - len(files):
        remarks.append(Remark(f"{top.name}: hidden files, not read: {hidden}."))
    return Table(tuple(values), values, tuple(remarks))


def _is_hidden(path: Path) -> bool:
    """Such as `._cat.jpg`, as macOS writes it, and `.ipynb_checkpoints/cat.jpg`."""
    return any(part.startswith(".") for part in path.parts)


def image_bytes(source: str, row: int, value: Any) -> bytes | None:
    """The bytes of an image; DataError if it cannot be opened.

    A cell holds bytes, a path relative to the data file `source`, or both, as in `datasets`.
    """
    try:
        from PIL import Image, ImageOps, UnidentifiedImageError
    except ImportError:
        raise DataError("images need Pillow: pip install 'paretoformer[images]'.") from None
    cell = (value.get("bytes") or value.get("path")) if isinstance(value, dict) else value
    try:
        if isinstance(cell, str):
            cell = (Path(source).parent / cell).read_bytes() if cell.strip() else None
        if cell is None:
            return None
        with Image.open(io.BytesIO(cell)) as image:
            ImageOps.exif_transpose(image)  # decodes it: a truncated file has a valid header
    except UnidentifiedImageError:  # its message names an object in memory
        raise DataError(_refusal(source, row, value, "no format that Pillow knows")) from None
    except Exception as error:  # decoders raise various errors
        raise DataError(_refusal(source, row, value, reason(error))) from None
    return bytes(cell)


def _refusal(source: str, row: int, value: Any, why: str) -> str:
    shown = value if isinstance(value, str) else "its cell"
    return f"{source}: row {row} holds no image that can be opened ({shown}): {why}"
