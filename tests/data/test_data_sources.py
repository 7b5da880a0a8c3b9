"""Local files of every kind, real ones, and what is said when they are not what they should be."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from pathlib import Path

import pytest
from datasets import Dataset, DatasetDict
from pyarrow.parquet import ParquetFile

from grpo_dist.config.sections import DataSection, SourceSection
from grpo_dist.data.columns import map_columns
from grpo_dist.data.filtered import write_rows
from grpo_dist.data.json_cells import read_problems
from grpo_dist.data.readers import is_local, split_of
from grpo_dist.data.sources import load_rows
from grpo_dist.errors import DataError

ROWS = [{"prompt": "Was ist 2+2?", "answer": "4"}, {"prompt": "十二 minus пять 🙂", "answer": "7"}]


def jsonl(rows) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def rows_of(path, split="train", **stated) -> list[dict]:
    return list(load_rows(DataSection(name_or_path=str(path), **stated), split))


def error_of(path, split="train", **stated) -> str:
    with pytest.raises(DataError) as raised:
        rows_of(path, split, **stated)
    return str(raised.value)


@pytest.fixture(autouse=True)
def in_empty_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def write_csv(path: Path, delimiter: str = ",") -> None:
    lines = [delimiter.join(row.values()) for row in ROWS]
    path.write_text("\n".join([delimiter.join(ROWS[0]), *lines]) + "\n")


WRITERS = {
    "a.jsonl": lambda path: path.write_text(jsonl(ROWS)),
    "a.ndjson": lambda path: path.write_text(jsonl(ROWS).rstrip("\n")),
    "a.json": lambda path: path.write_text(json.dumps(ROWS, indent=1)),
    "lines.json": lambda path: path.write_text(jsonl(ROWS)),
    "data.json": lambda path: path.write_text(json.dumps({"version": 1, "data": ROWS})),
    "rows.json": lambda path: path.write_text(json.dumps({"problems": ROWS})),
    "array.jsonl": lambda path: path.write_text(json.dumps(ROWS)),
    "bom.jsonl": lambda path: path.write_text(jsonl(ROWS), encoding="utf-8-sig"),
    "crlf.jsonl": lambda path: path.write_bytes(jsonl(ROWS).replace("\n", "\r\n\r\n").encode()),
    "a.csv": write_csv,
    "a.tsv": lambda path: write_csv(path, "\t"),
    "A.CSV": write_csv,
    "a.parquet": lambda path: Dataset.from_list(ROWS).to_parquet(path),
    "a.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS).encode())),
    "bom.jsonl.gz": lambda path: path.write_bytes(gzip.compress(jsonl(ROWS).encode("utf-8-sig"))),
    "a.json.bz2": lambda path: path.write_bytes(bz2.compress(json.dumps(ROWS).encode())),
    "a.csv.xz": lambda path: path.write_bytes(lzma.compress(b"prompt,answer\nx,1\n")),
}


@pytest.mark.parametrize("name", WRITERS)
def test_reads_every_format(name):
    WRITERS[name](Path(name))
    expected = [{"prompt": "x", "answer": "1"}] if name == "a.csv.xz" else ROWS
    assert rows_of(name) == expected


@pytest.mark.parametrize(
    "name", ["with space.jsonl", 'it\'s "quoted".jsonl', "[a]*?.jsonl", "ünï/çødé 数.jsonl", "a;echo $HOME`id`.jsonl"]
)
def test_hostile_names(tmp_path, name):
    path = tmp_path / "a [1] 'b'" / name
    path.parent.mkdir(parents=True)
    path.write_text(jsonl(ROWS))
    assert rows_of(path) == ROWS
    assert rows_of(path.parent) == ROWS


def test_home_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "a.jsonl").write_text(jsonl(ROWS))
    assert rows_of("~/a.jsonl") == ROWS


def test_splits_of_a_folder():
    for name in ("train.jsonl", "gsm8k_test.jsonl", "dev-1.jsonl", "more.jsonl", "data/rl-00000-of-00001.jsonl"):
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).write_text(jsonl([{"file": name}]))
    for ignored in (".cache/hidden.jsonl", "dataset_info.json", "notes.txt"):
        Path(ignored).parent.mkdir(exist_ok=True)
        Path(ignored).write_text("{}")
    assert [row["file"] for row in rows_of(".")] == ["more.jsonl", "train.jsonl"]
    assert rows_of(".", "validation") == [{"file": "dev-1.jsonl"}]
    assert rows_of(".", "rl") == [{"file": "data/rl-00000-of-00001.jsonl"}]
    assert [row["file"] for row in rows_of("*.jsonl", "test+train[:1]")] == ["gsm8k_test.jsonl", "more.jsonl"]
    assert ". has no split 'valid'; there is: rl, validation, test, train" in error_of(".", "valid")
    assert "--set data.split=validation" in error_of(".", "valid")


def test_one_file_is_train_and_what_it_is_called():
    Path("test.jsonl").write_text(jsonl(ROWS))
    assert rows_of("test.jsonl") == rows_of("test.jsonl", "test") == ROWS
    assert "test.jsonl has no split 'validation'; there is: train, test" in error_of("test.jsonl", "validation")


@pytest.mark.parametrize(
    ("path", "split"),
    [
        ("train-00000-of-00002.parquet", "train"),
        ("data/test-00001-of-00002.parquet", "test"),
        ("test/part-1.jsonl", "test"),
        ("x/validation/train.jsonl", "validation"),
        ("math.eval.jsonl", "test"),
        ("contest.jsonl", "train"),
        ("latest.jsonl", "train"),
    ],
)
def test_split_of_a_file(path, split):
    assert split_of(Path(path)) == split


def test_folders_in_front_of_a_pattern_name_no_split(tmp_path):
    folder = tmp_path / "test" / "val"
    folder.mkdir(parents=True)
    (folder / "a.jsonl").write_text(jsonl(ROWS))
    assert rows_of(f"{folder}/*.jsonl") == rows_of(folder) == ROWS
    assert rows_of(f"{tmp_path}/**/*.jsonl", "test") == ROWS


def test_slices():
    Path("a.jsonl").write_text(jsonl({"n": n} for n in range(10)))
    assert [row["n"] for row in rows_of("a.jsonl", "train[2:4]")] == [2, 3]
    assert [row["n"] for row in rows_of("a.jsonl", "train[-20%:]")] == [8, 9]
    assert len(rows_of("a.jsonl", "train[:1000]")) == 10
    assert "'train[:x]' is not a split or a slice of one" in error_of("a.jsonl", "train[:x]")
    assert "a.jsonl has no rows in split 'train[5:5]'" in error_of("a.jsonl", "train[5:5]")


def test_saved_to_disk():
    dataset = Dataset.from_list(ROWS)
    dataset.save_to_disk("one")
    DatasetDict(train=dataset, test=dataset.select([1])).save_to_disk("two")
    assert rows_of("one") == ROWS
    assert rows_of("two", "test[:1]") == ROWS[1:]
    assert "two has no split 'dev'; there is: train, test" in error_of("two", "dev")
    next(Path("one").glob("*.arrow")).unlink()
    assert "not a complete data set of save_to_disk" in error_of("one")


def download_of_the_recipe() -> None:
    """The layout of DAPO-Math-17k-Processed, downloaded as a folder."""
    card = "---\nlicense: mit\nconfigs:\n"
    for config in ("all", "en"):
        Path(f"dapo/{config}").mkdir(parents=True)
        Dataset.from_list([{"prompt": config, "solution": "34"}]).to_parquet(
            f"dapo/{config}/train-00000-of-00001.parquet"
        )
        card += f"- config_name: {config}\n  data_files:\n  - split: train\n    path: {config}/train-*\n"
    Path("dapo/README.md").write_text(f"{card}---\n# DAPO\n")


def test_configurations_of_a_downloaded_repository():
    download_of_the_recipe()
    assert rows_of("dapo", config="en") == [{"prompt": "en", "solution": "34"}]
    assert "dapo has several configurations: all, en" in error_of("dapo")
    assert "has no configuration 'cn'; there is: all, en" in error_of("dapo", config="cn")
    assert "dapo has no split 'test'; there is: train" in error_of("dapo", "test", config="en")
    card = Path("dapo/README.md")
    card.write_text(card.read_text().replace("config_name: all", "config_name: all\n  default: true"))
    assert rows_of("dapo") == [{"prompt": "all", "solution": "34"}]
    Path("dapo/en/train-00000-of-00001.parquet").unlink()
    assert "its README names files that are not there" in error_of("dapo", config="en")
    card.write_text("---\nconfigs: [\n---\n")
    assert "README.md: the front matter is not YAML" in error_of("dapo", config="en")


@pytest.mark.parametrize(
    "entry",
    [
        "data_files: ../../secret/*.jsonl",
        "data_files: [{split: train, path: [train/../../../secret/a.jsonl]}]",
        "data_files: {train: ABSOLUTE/secret/a.jsonl}",
        "{data_dir: ../../secret, data_files: '*.jsonl'}",
        "data_dir: ABSOLUTE/secret",
    ],
)
def test_the_card_of_a_folder_leads_to_no_other_folder(tmp_path, entry):
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "a.jsonl").write_text('{"prompt": "p", "solution": "s"}\n')
    folder = tmp_path / "sets" / "one"
    (folder / "train").mkdir(parents=True)
    (folder / "README.md").write_text(f"---\nconfigs:\n- {entry.replace('ABSOLUTE', str(tmp_path))}\n---\n")
    assert "leads out of the folder" in error_of(str(folder))


@pytest.mark.parametrize(
    "front", ["configs: 5", "configs: [x, 7, null]", "configs: {a: 1}", "date: 2024-13-45", "[" * 9999]
)
def test_a_card_of_any_kind_is_left_alone_or_one_error(tmp_path, front):
    (tmp_path / "README.md").write_text(f"---\n{front}\n---\n")
    (tmp_path / "train.jsonl").write_text('{"prompt": "p"}\n')
    if front[0] in "d[":
        assert "not YAML" in error_of(str(tmp_path))
    else:
        assert rows_of(str(tmp_path)) == [{"prompt": "p"}]


def test_configurations_without_a_readme_are_subfolders():
    download_of_the_recipe()
    Path("dapo/README.md").unlink()
    assert rows_of("dapo", config="en") == [{"prompt": "en", "solution": "34"}]
    assert "--set data.config=en" in error_of("dapo", config="eng")


def test_a_changed_file_is_read_anew_and_nothing_is_cached(tmp_path, monkeypatch):
    path = tmp_path / "a.jsonl"
    path.write_text(jsonl([{"prompt": "a"}]))
    stamp = path.stat()
    assert rows_of(path) == [{"prompt": "a"}]
    path.write_text(jsonl([{"prompt": "b"}]))
    os.utime(path, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))
    assert rows_of(path) == [{"prompt": "b"}]
    assert load_rows(SourceSection(name_or_path=str(path)), "train").cache_files == []
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["a.jsonl"]


def test_csv_cells_are_text():
    Path("a.csv").write_text('prompt,answer\n"two\nlines, ""quoted""",007\nNA,\n')
    assert rows_of("a.csv") == [
        {"prompt": 'two\nlines, "quoted"', "answer": "007"},
        {"prompt": "NA", "answer": ""},
    ]


def test_very_long_cells():
    long = "x" * 1_000_000
    Path("a.csv").write_text(f"prompt,answer\n{long},1\n")
    Path("a.jsonl").write_text(jsonl([{"prompt": long}]))
    assert rows_of("a.csv")[0]["prompt"] == rows_of("a.jsonl")[0]["prompt"] == long


def test_rows_of_different_keys_and_types():
    Path("a.jsonl").write_text(
        jsonl([{"prompt": "a", "answer": 34}, {"prompt": "b", "answer": "1/2", "when": "2024-01-01"}])
    )
    assert rows_of("a.jsonl") == [
        {"prompt": "a", "answer": 34, "when": None},
        {"prompt": "b", "answer": "1/2", "when": "2024-01-01"},
    ]
    Path("b.jsonl").write_text(jsonl([{"n": 10**30}, {"n": 1}]))
    assert rows_of("b.jsonl") == [{"n": 10**30}, {"n": 1}]


CELLS = (
    [{"a": 1}, {"b": {"c": None}}, {}, None],
    [{"b": 1, "a": 2}, {"a": 1, "b": 2}],
    [7, "7", "x", None, True, 2.0, 1 / 3, 10**30, -(2**63), 5e-324, "[1]", "null", [], [1, "x", {"y": [2, 3.5]}]],
    [1, 2.5, 3],
    [[], [1], ["x"], [[1.0]]],
    [[{"name": "look", "arguments": {"at": "é\u2028"}}], [{"name": "add", "arguments": {"a": 1, "b": [2]}}]],
)


@pytest.mark.parametrize("cells", CELLS)
def test_json_cells_stay_as_they_are_in_the_row(cells, tmp_path):
    Path("a.jsonl").write_text(jsonl([{"prompt": str(n), "extra": cell} for n, cell in enumerate(cells)]))
    rows = load_rows(DataSection(name_or_path="a.jsonl"), "train")
    mapped = map_columns(rows, DataSection(name_or_path="a.jsonl", columns={"other": "extra"}), ("prompt",))
    mapped.to_parquet(tmp_path / "kept.parquet")
    for dataset, name in ((rows, "extra"), (mapped, "other"), (read_problems(tmp_path / "kept.parquet"), "other")):
        assert json.dumps(dataset[name][:]) == json.dumps(cells)
        assert json.dumps([row[name] for row in dataset]) == json.dumps(cells)
    write_rows(ParquetFile(tmp_path / "kept.parquet").read(), Path("again.jsonl"))
    assert [json.dumps(row["other"]) for row in rows_of("again.jsonl")] == [json.dumps(cell) for cell in cells]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"a": 1}\n{"a": 2,}\n', "a.jsonl:2: not JSON: "),
        ("a.jsonl", '{"a": 1}\n\n[1]\n', "a.jsonl:3: a row is a JSON object, this is '[1]'"),
        ("a.jsonl", '{"a": 1} {"a": 2}\n', "a.jsonl:1: not JSON: Extra data at column 10"),
        ("a.json", '{"a": 1}\n{"a": 2\n', "a.json:2: not JSON: "),
        ("a.json", '[{"a": 1},\n{"a": 2]', "a.json:2: not JSON: "),
        ("a.json", "{\n'a': 1}", "a.json:2: not JSON: "),
        (
            "a.json",
            '{"prompt": "p", "answer": 1}',
            "a.json: rows are expected, this is an object with the keys prompt, answer",
        ),
        ("a.json", '{"prompt": ["p"], "answer": ["1"]}', "a.json: rows are expected, this is an object"),
        ("a.json", '"text"', "a.json: rows are expected, this is 'text'"),
        ("a.json", '[{"a": 1}, 7]', "a.json, row 2: a row is a JSON object, this is '7'"),
        ("a.json", "[" * 100_000, "a.json: nested too deeply to be rows"),
        ("a.jsonl", "", "a.jsonl has no rows in split 'train'"),
        ("a.json", "[]", "a.json has no rows in split 'train'"),
        ("a.csv", "prompt,answer\n", "a.csv has no rows in split 'train'"),
        ("a.csv", "a,b\n1,2\n3\n", "a.csv:3: 1 cells, but the header has 2: a, b"),
        ("a.csv", "a,a\n1,2\n", "a.csv:1: two columns have the same name: a, a"),
        ("a.csv", 'a,b\n"1,2\n', "a.csv:2: not CSV: unexpected end of data"),
        ("a.parquet", "PAR1 no", "a.parquet: not readable as Parquet: "),
        ("a.jsonl.gz", "not gzip", "a.jsonl.gz: cannot be read: "),
        ("a.jsonl", '{"a": "\\ud800"}\n', "column 'a', row 1: half a surrogate pair"),
        ("a.jsonl", '{"a": {"b": [1, "\\ud800"]}}\n{"a": 1}\n', "column 'a', row 1: half a surrogate pair"),
        ("a.txt", "text", "a.txt is not a data file"),
        ("a.parquet.gz", "x", "a.parquet.gz is not a data file"),
    ],
)
def test_malformed_files(name, content, said):
    Path(name).write_text(content)
    assert said in error_of(name)


def test_not_utf8():
    Path("a.jsonl").write_bytes(jsonl([{"a": "�"}]).encode() * 20_000 + '{"a": "é"}\n'.encode("latin-1"))
    assert "a.jsonl:20001: not UTF-8" in error_of("a.jsonl")


def test_truncated_gzip():
    Path("a.jsonl.gz").write_bytes(gzip.compress(jsonl(ROWS * 100).encode())[:-20])
    assert "a.jsonl.gz: cannot be read: Compressed file ended" in error_of("a.jsonl.gz")


def test_mixed_formats():
    Path("d").mkdir()
    for name in ("a.jsonl", "b.jsonl", "c.csv"):
        Path("d", name).write_text("")
    message = error_of("d")
    assert "d holds files of several formats: 1 csv, 2 json" in message
    assert """→ choose with a pattern: --set 'data.name_or_path='"'"'d/**/*.jsonl'"'"''""" in message
    assert error_of("d/**/*.jsonl").startswith("data.name_or_path: d/**/*.jsonl has no rows")


def test_nothing_there():
    Path("gsm8k_train.jsonl").write_text(jsonl(ROWS))
    Path("empty").mkdir()
    Path("docs").mkdir()
    Path("docs/README.md").write_text("# Words")
    assert "gsm8k_tran.jsonl does not exist\n  → did you mean gsm8k_train.jsonl?" in error_of("gsm8k_tran.jsonl")
    assert "paths are relative to" in error_of("./nowhere/at/all.csv")
    assert "no file matches 'x*.jsonl'" in error_of("x*.jsonl")
    assert "no data file in empty (it is empty)" in error_of("empty")
    assert "no data file in docs (found: README.md)" in error_of("docs")
    assert "'a b' is neither a path that exists nor a data set id" in error_of("a b")


def test_embedded_belongs_to_the_caller():
    assert "the embedded problems belong to the embedded model" in error_of("embedded")


def test_warm_start_data_is_named_in_its_own_messages():
    with pytest.raises(DataError, match=r"^warm_start\.data\.name_or_path: x\.jsonl does not exist"):
        load_rows(SourceSection(name_or_path="x.jsonl"), "train")


@pytest.mark.parametrize(
    ("name", "local"),
    [
        ("openai/gsm8k", False),
        ("gsm8k", False),
        ("./gsm8k", True),
        ("a/*.csv", True),
        ("x.jsonl.gz", True),
        ("~/d", True),
    ],
)
def test_what_counts_as_local(name, local):
    assert is_local(name) is local
