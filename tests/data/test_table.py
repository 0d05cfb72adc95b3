"""The table of scores: types that don't depend on blocks, sorting, hostile values, memory."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hy_core.data import Score
from hy_core.errors import HyError, MissingError
from hy_data import table
from hy_data.table import BASE, is_vector, read_path, read_scores, score_of, stage_of, write_scores


def row(number: int, **values):
    return {"id": f"{number:016x}", "path": f"{number}.mp4", "status": "ok", **values}


def column(path, rows, name="x"):
    write_scores(rows, path)
    return read_scores(path)[name]


@pytest.mark.parametrize(
    ("values", "kind", "read"),
    [
        ([1, 2, None], pa.int64(), [1, 2, None]),
        ([1, 2.5, None], pa.float64(), [1.0, 2.5, None]),
        ([True, None, False], pa.bool_(), [True, None, False]),
        ([float("nan"), 1.0], pa.float64(), [None, 1.0]),
        ([None, None], pa.float64(), [None, None]),
        ([2**70, 1], pa.float64(), [2.0**70, 1.0]),
        (["a", None], pa.string(), ["a", None]),
        ([[1, 2.5], [], None], pa.list_(pa.float32()), [[1.0, 2.5], [], None]),
        ([[1, "a"], [2]], pa.string(), ['[1, "a"]', "[2]"]),
        ([{"a": 0.1}, None], pa.string(), ['{"a": 0.1}', None]),
        ([1, "1"], pa.string(), ["1", '"1"']),
        ([[0.1], 0.1], pa.string(), ["[0.1]", "0.1"]),
        ([np.float32(0.5), 1], pa.float64(), [0.5, 1.0]),
        ([np.ones(2, np.float16), None], pa.list_(pa.float16()), [[1.0, 1.0], None]),
        ([np.ones(2, np.float64), np.ones(1, np.float16)], pa.list_(pa.float32()), [[1.0, 1.0], [1.0]]),
        ([np.ones(2, np.uint8), None], pa.list_(pa.uint8()), [[1, 1], None]),
        ([np.ones(2, np.uint8), np.ones(2, np.float16)], pa.list_(pa.float32()), [[1.0, 1.0], [1.0, 1.0]]),
        ([np.ones((1, 2), np.uint8)], pa.list_(pa.list_(pa.uint8())), [[[1, 1]]]),
        ([np.ones((1, 2), np.float32)], pa.list_(pa.list_(pa.float32())), [[[1.0, 1.0]]]),
    ],
)
@pytest.mark.parametrize("block", [1, 100])
def test_the_type_of_a_column_follows_from_all_of_its_values(
    tmp_path, monkeypatch, values, kind, read, block
):
    """... and blocks of one row give what one block gives."""
    monkeypatch.setattr(table, "GROUP_ROWS", block)
    found = column(tmp_path / "s.parquet", [row(n, x=value) for n, value in enumerate(values)])
    assert found.type == kind
    assert found.to_pylist() == read


def test_rows_are_sorted_and_the_bytes_do_not_depend_on_their_order(tmp_path, monkeypatch):
    monkeypatch.setattr(table, "GROUP_ROWS", 7)
    rows = [row(n, x=n / 3, v=np.full(4, n, np.float16), **({"y": "é"} if n % 2 else {})) for n in range(50)]
    write_scores(rows, tmp_path / "sorted.parquet")
    random.Random(1).shuffle(rows)
    write_scores(iter(rows), tmp_path / "shuffled.parquet")
    assert (tmp_path / "sorted.parquet").read_bytes() == (tmp_path / "shuffled.parquet").read_bytes()
    found = read_scores(tmp_path / "shuffled.parquet", ["id", "x", "not there"])
    assert found.column_names == ["id", "x"]
    assert found["id"].to_pylist() == sorted(one["id"] for one in rows)
    assert pq.ParquetFile(tmp_path / "sorted.parquet").num_row_groups == 8


def test_base_columns_come_first_and_no_rows_are_a_table_too(tmp_path):
    assert write_scores([], tmp_path / "none.parquet") == 0
    empty = read_scores(tmp_path / "none.parquet")
    assert empty.schema.names == list(BASE) and len(empty) == 0
    write_scores([row(1, zeta=1, alpha=2, crop=[0, 0, 4, 4], frames=np.int64(7))], tmp_path / "one.parquet")
    one = read_scores(tmp_path / "one.parquet")
    assert one.schema.names == [*BASE, "alpha", "zeta"]
    assert one["crop"].to_pylist() == [[0, 0, 4, 4]] and one["frames"].to_pylist() == [7]


def test_columns_say_which_values_are_wanted_and_which_hold_vectors(tmp_path):
    score = Score("blur", "how sharp", "high", "px")
    write_scores(
        [row(1, blur=2.0, note="n", embedding=np.ones(3))], tmp_path / "s.parquet", [("sharpness", score)]
    )
    schema = read_scores(tmp_path / "s.parquet").schema
    assert score_of(schema.field("blur")) == score and stage_of(schema.field("blur")) == "sharpness"
    assert score_of(schema.field("note")) is None
    assert is_vector(schema.field("embedding")) and not is_vector(schema.field("blur"))


def test_wrong_rows_are_refused_and_leave_the_old_table(tmp_path):
    target = tmp_path / "s.parquet"
    write_scores([row(1)], target)
    before = target.read_bytes()
    with pytest.raises(HyError, match=r"0000000000000002 comes twice"):
        write_scores([row(2), row(1), row(2)], target)
    with pytest.raises(HyError, match="no id"):
        write_scores([row(1), {"path": "a"}], target)
    with pytest.raises(HyError, match="width is not int32"):
        write_scores([row(1, width="wide")], target)
    assert target.read_bytes() == before
    assert sorted(tmp_path.iterdir()) == [target]


def test_reading_names_what_is_wrong(tmp_path):
    with pytest.raises(MissingError, match="no such table"):
        read_scores(tmp_path / "none.parquet")
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 nonsense")
    with pytest.raises(HyError, match="can't be read as Parquet"):
        read_scores(tmp_path / "bad.parquet")


@pytest.mark.parametrize(
    "name", ["plain.mp4", "ünïcode 视频.mp4", os.fsdecode(b"bad-\xff.mp4"), "percent-bytes:%41", "a\nb\t\0"]
)
def test_a_path_of_any_bytes_comes_back(tmp_path, name):
    found = column(tmp_path / "s.parquet", [row(1) | {"path": Path(name)}], "path")
    assert read_path(found[0].as_py()) == Path(name)


def test_text_that_is_not_unicode_is_escaped(tmp_path):
    rows = [row(1, note="\udcff", caption={"a": "\udc80"}, captions=["\udc80"])]
    write_scores(rows, tmp_path / "s.parquet")
    read = read_scores(tmp_path / "s.parquet").to_pylist()[0]
    assert read["note"] == r"\udcff" and read["captions"] == [r"\udc80"]


MILLION = """
import sys, time, resource
from hy_data.table import write_scores
import numpy as np
vector = np.zeros(64, np.float16)
def rows():
    rng = np.random.default_rng(0)
    for first in range(0, 1_000_000, 1000):
        scores = rng.random((1000, 30)).tolist()
        for n, one in enumerate(scores, first):
            number = n * 0x9E3779B97F4A7C15 % 2**64
            yield {"id": f"{number:016x}", "path": f"{n}.mp4", "status": "ok", "frames": 65, "embedding": vector,
                   **{f"score_{i}": value for i, value in enumerate(one)}}
count = write_scores(rows(), sys.argv[1])
print(count, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_million_unsorted_rows_need_no_more_than_two_gigabytes(tmp_path):
    out = subprocess.run(
        [sys.executable, "-c", MILLION, str(tmp_path / "s.parquet")],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    count, seconds, gigabytes = (float(one) for one in out.split())
    print(f"a million unsorted rows: {seconds:.0f} CPU s, peak {gigabytes:.2f} GB")
    assert count == 1_000_000 and gigabytes < 2
