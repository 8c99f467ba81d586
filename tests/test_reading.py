"""Data files as people have them: nothing is dropped, or taken otherwise, in silence."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import datasets
import pandas as pd
import pytest

from paretoformer.evaluators.data.examples import DataSource
from paretoformer.evaluators.data.reading import read_columns
from paretoformer.evaluators.data.splits import read_splits
from paretoformer.evaluators.data.table import ClassLabel, DataError

ROWS = 80


def source(path: Path, **settings: object) -> DataSource:
    sizes = {"search_examples": 10, "confirm_examples": 10}
    return DataSource.model_validate({"path": str(path), **sizes, **settings})


def rows(path: Path, **settings: object) -> dict[str, object]:
    """Text -> label, of all splits."""
    splits = read_splits(source(path, **settings), seed=0).examples.values()
    return {t: label for each in splits for t, label in zip(each.texts, each.labels, strict=True)}


def said(path: Path, **settings: object) -> str:
    return "\n".join(each.text for each in read_splits(source(path, **settings), 0).remarks)


def lines(separator: str = ",", more: tuple[str, ...] = ()) -> str:
    body = [f"a text {i}{separator}{i % 2}" for i in range(ROWS)]
    return "\n".join([f"text{separator}label", *body, *more]) + "\n"


@pytest.mark.parametrize("word", ["None", "NA", "null", "n/a", "nan"])
def test_words_that_look_like_nothing_are_texts_and_labels(tmp_path: Path, word: str) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=(f"{word},0", f"an odd one,{word}")))
    found = rows(path)
    assert found[word] == "0"
    assert found["an odd one"] == word
    assert "left out" not in said(path)


def test_rows_that_lack_something_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=(",1", "no label,", "neither", "  ,1")))
    assert len(rows(path)) == ROWS
    assert "rows.csv: left out of 84 rows: 2 without a text, 2 without a label." in said(path)


def test_empty_second_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    body = [f"one {i},two {i},{i % 2}" for i in range(ROWS)]
    path.write_text("\n".join(["text,other,label", *body, "one,,1"]) + "\n")
    assert "1 without a second text" in said(path, text_pair="other")


def test_repeated_texts_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=("A  Text 3,1",)))
    assert "1 row repeats an earlier text; each text is used once" in said(path)


def test_quotation_marks_of_an_unquoted_tsv_are_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.tsv"
    path.write_text(lines("\t", ('"it begins so\t0', 'and " ends\t1')))
    assert rows(path)['"it begins so'] == "0"
    assert "quotation marks are part of the text" in said(path)


def test_quoted_line_breaks_stay_in_the_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=('"two\nlines, and a comma",1',)))
    assert rows(path)["two\nlines, and a comma"] == "1"


def test_lines_of_a_quoted_text_may_each_have_the_delimiter(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=('"one, and\nmore",1',)))
    assert rows(path)["one, and\nmore"] == "1"
    assert "quotation marks" not in said(path)


def test_a_long_text_may_be_quoted(tmp_path: Path) -> None:
    long = "a word " * 30_000
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=(f'"{long}",1',)))
    assert rows(path)[long] == "1"


def test_a_quotation_mark_that_is_never_closed_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=('"two, or\nmore lines', "the end,1")))
    with pytest.raises(DataError, match="quotation marks do not fit: line 84"):
        rows(path)


@pytest.mark.parametrize("ending", ["parquet", "jsonl"])
def test_only_the_wanted_columns_are_kept(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"rows.{ending}"
    made = datasets.Dataset.from_dict({"text": ["a"], "label": [0], "picture": ["large"]})
    write = {"parquet": made.to_parquet, "jsonl": made.to_json}[ending]
    write(path)
    found = read_columns(str(path), ["text", "label", "absent"], "utf-8")
    assert found.names == ("text", "label", "picture")
    assert found.values.keys() == {"text", "label"}


def test_named_classes_of_a_parquet_file_keep_their_names(tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    features = datasets.Features(
        {"text": datasets.Value("string"), "label": datasets.ClassLabel(names=["no", "yes"])}
    )
    table = {"text": ["a", "b", "c"], "label": [1, 0, -1]}
    datasets.Dataset.from_dict(table, features=features).to_parquet(path)
    found = read_columns(str(path), ["label"], "utf-8").values["label"]
    assert found == [ClassLabel(1, "yes"), ClassLabel(0, "no"), None]


@pytest.mark.parametrize(
    ("name", "separator"),
    [("rows.csv", ";"), ("rows.csv", "\t"), ("ROWS.TSV", "\t"), ("rows.tsv", ",")],
)
def test_the_delimiter_is_found(tmp_path: Path, name: str, separator: str) -> None:
    path = tmp_path / name
    path.write_text(lines(separator))
    assert len(rows(path)) == ROWS


@pytest.mark.parametrize("name", ["exp[1]", "sp ace", "gl*b"])
def test_folders_may_have_any_name(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()
    cells = [line.split(",") for line in lines().splitlines()[1:]]
    table = datasets.Dataset.from_dict(
        {"text": [a for a, _ in cells], "label": [b for _, b in cells]}
    )
    (tmp_path / name / "rows.csv").write_text(lines())
    table.to_parquet(tmp_path / name / "rows.parquet")
    for ending in ("csv", "parquet"):
        assert len(rows(tmp_path / name / f"rows.{ending}")) == ROWS


@pytest.mark.parametrize("name", ["rows.csv.gz", "ROWS.CSV.GZ"])
def test_a_file_may_be_compressed(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(gzip.compress(lines().encode()))
    assert len(rows(path)) == ROWS


def test_another_encoding_is_named_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(lines(more=("café,1",)).encode("latin-1"))
    with pytest.raises(DataError, match=r"not utf-8: byte 0xe9 in line 82.*data\.encoding"):
        rows(path)
    assert rows(path, encoding="latin-1")["café"] == "1"
    with pytest.raises(DataError, match="knows no encoding 'klingon'"):
        rows(path, encoding="klingon")


def test_utf_16_is_read_by_its_mark(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_bytes(lines(more=("café,1",)).encode("utf-16"))
    assert rows(path)["café"] == "1"


def test_labels_may_change_their_type_late(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    body = [{"text": f"text {i}", "label": i % 2} for i in range(12_000)]
    body.append({"text": "the last", "label": "x"})
    path.write_text("\n".join(map(json.dumps, body)))
    settings = {"search_examples": 6000, "confirm_examples": 5960}
    assert "x" in rows(path, **settings).values()


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "a", "label": 0}\n{"text": "b", \n')
    with pytest.raises(DataError, match=r"line 2 is not JSON"):
        rows(path)


@pytest.mark.parametrize("value", [["a"], {"role": "user"}])
def test_texts_that_are_lists_are_refused(tmp_path: Path, value: object) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps({"text": value, "label": 0}) for _ in range(ROWS)))
    with pytest.raises(DataError, match=r"'text' of row 1 is (a list|an object), not a text"):
        rows(path)


@pytest.mark.parametrize("shape", ["list", "held"])
def test_json_may_be_a_list_or_hold_one(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "rows.json"
    body = [{"text": f"text {i}", "label": i % 2} for i in range(ROWS)]
    path.write_text(json.dumps(body if shape == "list" else {"version": 1, "data": body}))
    assert len(rows(path)) == ROWS


def test_rows_longer_than_the_header_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("text,label\n" + "\n".join(f"a,{i},0" for i in range(ROWS)))
    with pytest.raises(DataError, match="row 1 has more cells than the first line names"):
        rows(path)


def test_every_split_has_its_share_of_each_class(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    body = [f"text {i},{'rare' if i < 20 else 'usual'}" for i in range(200)]
    path.write_text("\n".join(["text,label", *body]) + "\n")
    settings = {"search_examples": 50, "confirm_examples": 50, "stratify": True}
    splits = read_splits(source(path, **settings), seed=3).examples
    for each in (splits["search"], splits["confirm"]):
        assert 4 <= each.labels.count("rare") <= 6


def test_old_runs_keep_the_order_of_their_examples(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines())
    before, after = (read_splits(source(path, stratify=s), 0).examples for s in (None, True))
    assert before["search"].texts[:3] == ("a text 13", "a text 52", "a text 8")
    assert before["search"] != after["search"]


@pytest.mark.parametrize("quoted", ['say \\"hi\\", twice', '\\"begins so', 'ends so\\"'])
def test_quotation_marks_behind_backslashes_are_text_as_spark_writes_them(
    tmp_path: Path, quoted: str
) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=(f'"{quoted}",1', "C:\\new\\table,0")))
    found = rows(path)
    assert found[quoted.replace("\\", "")] == "1"
    assert found["C:\\new\\table"] == "0"
    assert '\\" is a quotation mark, as Spark writes it' in said(path)


def test_backslash_at_the_end_of_a_quoted_cell_is_text(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text(lines(more=('"a folder, C:\\dir\\",1',)))
    assert rows(path)["a folder, C:\\dir\\"] == "1"


def test_delimiter_that_excel_names_in_the_first_line_is_used(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("sep=;\n" + lines(";"))
    assert len(rows(path)) == ROWS
    assert "separated by ';'" in said(path)


@pytest.mark.parametrize("ending", [".csv", ".parquet", ".jsonl"])
def test_folder_of_parts_is_read_as_one_file(tmp_path: Path, ending: str) -> None:
    folder = tmp_path / f"rows{ending}"
    folder.mkdir()
    for part in range(2):
        frame = pd.DataFrame({"text": [f"{part} {i}" for i in range(40)], "label": "a"})
        path = folder / f"part-0000{part}{ending}"
        if ending == ".csv":
            frame.to_csv(path, index=False)
        elif ending == ".parquet":
            frame.to_parquet(path)
        else:
            frame.to_json(path, orient="records", lines=True)
    for name in ("_SUCCESS", f".part-00000{ending}.crc", f"_committed{ending}"):
        (folder / name).write_text("")
    assert len(rows(folder)) == 80
    assert f"rows{ending}: its 2 parts are read as one file." in said(folder)


def test_parts_with_other_columns_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "rows.csv"
    folder.mkdir()
    (folder / "part-0.csv").write_text(lines())
    (folder / "part-1.csv").write_text(lines().replace("label", "class"))
    with pytest.raises(DataError, match="parts have other columns: text, label and text, class"):
        rows(folder)
