"""Deciding: thresholds that are solved, sets that choose from others, reasons, and what a changed threshold costs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from data import synthetic
from data.synthetic import RECIPE
from hy_core.errors import MissingError, UsageError
from hy_data.select.decide import decide, read_decision
from hy_data.select.rules import reason_text
from hy_data.select.sets import read_sets
from hy_data.select.thresholds import solve
from hy_data.table import read_scores, write_scores


@pytest.fixture(scope="module")
def decided(tmp_path_factory):
    folder = tmp_path_factory.mktemp("decided")
    synthetic.write(folder, 4000)
    return folder, decide(folder, RECIPE)


def recipe(**sets):
    return {"sets": {name: {"height": 64, "width": 64, **table} for name, table in sets.items()}}


# -- thresholds --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("keep", [0.01, 0.2, 0.37, 0.5, 1.0])
def test_all_scores_together_keep_the_wanted_share_at_one_quantile(keep):
    rng = np.random.default_rng(0)
    scores = {"a": rng.normal(size=2000), "b": rng.normal(size=2000), "c": rng.gamma(1, size=2000)}
    scores["b"] += scores["a"]  # correlated: a product of shares would be wrong
    solved = solve(scores, {"a": "high", "b": "low", "c": "high"}, keep)
    passed = (
        (scores["a"] >= solved.thresholds["a"])
        & (scores["b"] <= solved.thresholds["b"])
        & (scores["c"] >= solved.thresholds["c"])
    )
    assert passed.sum() == pytest.approx(keep * 2000, abs=3)
    for name, values in scores.items():
        bound = solved.thresholds[name]
        dropped = np.mean(values > bound if name == "b" else values < bound)
        assert dropped == pytest.approx(solved.level, abs=1.5 / 2000)


def test_equal_values_are_kept_or_dropped_together():
    """Most clips have no text at all: they are the best, and no share of them is dropped at random."""
    text = np.array([0.0] * 90 + list(np.linspace(0.1, 1, 10)))
    assert solve({"text": text}, {"text": "low"}, 0.95).thresholds["text"] == pytest.approx(0.5)
    assert solve({"text": text}, {"text": "low"}, 0.5).thresholds["text"] == 0
    both = solve({"text": text, "blur": np.arange(100.0)}, {"text": "low", "blur": "high"}, 0.5)
    assert both.thresholds == {"text": 0, "blur": pytest.approx(40, abs=1)}


def test_a_score_that_was_not_measured_counts_as_dropped():
    values = np.array([np.nan] * 50 + list(range(50)))
    assert solve({"a": values}, {"a": "high"}, 0.25).thresholds["a"] == 25
    assert solve({"a": np.full(3, np.nan)}, {"a": "high"}, 0.5).thresholds == {}


# -- sets --------------------------------------------------------------------------------------------------


def test_every_set_obeys_its_rules_and_chooses_from_its_parent(decided):
    folder, decision = decided
    rows = read_scores(folder / "manifest.parquet").to_pylist()
    by_name = {one["name"]: one for one in decision.sets}
    limits = by_name["256p"]["limits"]
    for row in rows:
        allowed = (
            row["status"] == "ok"
            and row["height"] * row["width"] >= 256 * 256
            and row["frames"] >= 65
            and row["text_area"] <= 0.05
        )
        expected = (
            allowed and row["blur"] >= limits["blur"]["min"] and row["motion"] >= limits["motion"]["min"]
        )
        assert row["kept_256p"] == expected
        assert not row["kept_360p"] or (row["kept_256p"] and row["height"] * row["width"] >= 360 * 640)
        assert row["kept_256p"] == (row["reasons_256p"] == [])
    for name, keep in (("256p", 0.5), ("360p", 0.4)):
        one = by_name[name]
        assert one["kept"] == pytest.approx(keep * one["pool"], abs=3)
        assert one["kept"] == sum(row[f"kept_{name}"] for row in rows)
        assert one["funnel"][-1]["left"] == one["kept"]
        assert one["clips"] - sum(step["dropped"] for step in one["funnel"]) == one["kept"]
    assert by_name["360p"]["limits"]["blur"]["min"] > limits["blur"]["min"]  # thresholds rise


def test_reasons_name_every_score_with_its_value_and_threshold(decided):
    folder, decision = decided
    rows = read_scores(folder / "manifest.parquet").to_pylist()
    limits = next(one for one in decision.sets if one["name"] == "256p")["limits"]
    seen = set()
    for row in rows[:400]:
        found = {(one["score"], one["sense"]): one for one in row["reasons_256p"]}
        seen |= found.keys()
        if row["status"] != "ok":
            assert found["usable", "null"]["found"] == row["reason"]
            continue
        low = row["blur"] < limits["blur"]["min"]
        assert (("blur", "min") in found) == low
        if low:
            assert found["blur", "min"]["value"] == row["blur"]
            assert found["blur", "min"]["threshold"] == limits["blur"]["min"]
            assert (
                reason_text(found["blur", "min"])
                == f"blur {row['blur']:.4g} is below {limits['blur']['min']:.4g}"
            )
    assert {
        ("usable", "null"),
        ("frames", "min"),
        ("text_area", "max"),
        ("motion", "min"),
        ("side", "min"),
    } <= seen
    texts = {reason_text(one) for row in rows for one in row["reasons_pictures"]}
    assert {
        "camera is zoom in",
        "people 0 is below 1",
        "people 7 is above 5",
        "probe: no frames",
    } <= texts
    assert "not in 256p" in {reason_text(one) for row in rows for one in row["reasons_360p"]}


def test_the_files_of_a_set_hold_its_rows_and_thresholds(decided):
    folder, decision = decided
    for one in decision.sets:
        table = read_scores(folder / "sets" / f"{one['name']}.parquet")
        assert json.loads((folder / "sets" / f"{one['name']}.json").read_text()) == one
        assert len(table) == one["kept"] * (2 if one["name"] == "pictures" else 1)
        assert "blur" in table.column_names and "kept_256p" not in table.column_names
    assert read_decision(folder) == decision


def test_a_set_of_images_takes_frames_of_clips_and_picture_files(tmp_path):
    clip = {"start": 2.0, "stop": 6.0, "width": 64, "height": 64, "frames": 100, "status": "ok", "x": 1.0}
    picture = {**clip, "start": None, "stop": None, "frames": 1}
    write_scores([{"id": "a", **clip}, {"id": "b", **picture}], tmp_path / "scores.parquet")
    decide(tmp_path, recipe(p={"kind": "image", "pictures": 4}))
    rows = read_scores(tmp_path / "sets/p.parquet").to_pylist()
    assert [(row["id"], row["clip"], row["time"]) for row in rows] == [
        ("a-0", "a", 2.5),
        ("a-1", "a", 3.5),
        ("a-2", "a", 4.5),
        ("a-3", "a", 5.5),
        ("b", "b", None),
    ]


def test_crops_and_rates_count(tmp_path):
    """A clip is as large as its crop, and as long as its seconds at the rate of the set."""
    base = {"start": 0.0, "stop": 4.0, "width": 100, "height": 100, "frames": 200, "status": "ok"}
    rows = [
        {"id": "a", **base},
        {"id": "b", **base, "crop": [0, 0, 60, 60]},
        {"id": "c", **base, "stop": 3.0},
    ]
    write_scores(rows, tmp_path / "scores.parquet")
    decide(
        tmp_path,
        recipe(
            own={"frames": 100},
            slow={"frames": 49, "fps": 16},
            large={"enlarge": 1.1, "frames": 49, "fps": 16},
        ),
    )
    kept = {
        name: read_scores(tmp_path / f"sets/{name}.parquet")["id"].to_pylist()
        for name in ("own", "slow", "large")
    }
    assert kept == {"own": ["a", "c"], "slow": ["a"], "large": ["a", "b"]}
    reasons = read_scores(tmp_path / "manifest.parquet")["reasons_slow"].to_pylist()
    assert [reason_text(one) for one in reasons[2]] == ["frames at 16 fps 48 is below 49"]


def test_people_choose_and_reject_clips_by_lists(tmp_path):
    synthetic.write(tmp_path, 6)
    (tmp_path / "good.txt").write_text(f"{1:016x}\n{2:016x}, a note\n\n")
    (tmp_path / "bad.txt").write_text(f"{2:016x}\n")
    decide(tmp_path, recipe(sft={"only": "good.txt", "without": "bad.txt"}))
    assert read_scores(tmp_path / "sets/sft.parquet")["id"].to_pylist() == [f"{1:016x}"]
    last = read_scores(tmp_path / "manifest.parquet")["reasons_sft"].to_pylist()
    assert [reason_text(one) for one in last[2]] == ["listed in bad.txt is true"]


def test_missing_scores_drop_or_pass(tmp_path):
    base = {"width": 64, "height": 64, "frames": 65, "status": "ok"}
    write_scores([{"id": "a", **base, "x": 1.0}, {"id": "b", **base}], tmp_path / "scores.parquet")
    keep = {"limits": {"x": {"min": 0, "missing": "keep"}, "nowhere": {"max": 1, "missing": "keep"}}}
    decide(tmp_path, recipe(drop={"limits": {"x": {"min": 0}}}, keep=keep))
    assert read_scores(tmp_path / "sets/drop.parquet")["id"].to_pylist() == ["a"]
    assert read_scores(tmp_path / "sets/keep.parquet")["id"].to_pylist() == ["a", "b"]
    reasons = read_scores(tmp_path / "manifest.parquet")["reasons_drop"].to_pylist()
    assert [reason_text(one) for one in reasons[1]] == ["x was not measured"]


def test_without_clips_the_sets_are_empty(tmp_path):
    write_scores([], tmp_path / "scores.parquet")
    (only,) = decide(tmp_path, recipe(a={"keep": 0.5, "scores": ["fps"], "better": {"fps": "high"}})).sets
    assert only["kept"] == 0 and only["limits"] == {}
    assert len(read_scores(tmp_path / "sets/a.parquet")) == 0


def test_deciding_again_replaces_everything_and_the_same_gives_the_same_bytes(tmp_path):
    synthetic.write(tmp_path, 300)
    decide(tmp_path, RECIPE)
    first = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    (tmp_path / "sets" / "mine.parquet").write_bytes(first["scores.parquet"])
    decide(tmp_path, RECIPE)
    assert {name: next(tmp_path.rglob(name)).read_bytes() for name in first} == first
    decide(tmp_path, recipe(other={}))
    assert sorted(path.name for path in (tmp_path / "sets").iterdir()) == [
        "mine.parquet",
        "other.json",
        "other.parquet",
    ]


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        ({}, "no sets"),
        ({"../a": {"height": 1, "width": 1}}, "letters, digits"),
        ({"a": {"height": 1}}, "width"),
        ({"a": {"height": 1, "width": 1, "wdith": 3}}, "wdith"),
        ({"a": {"height": 0, "width": 1}}, "height = 0"),
        ({"a": {"height": 1, "width": 1, "keep": 1.5, "scores": ["blur"]}}, "keep = 1.5"),
        ({"a": {"height": 1, "width": 1, "keep": 0.5}}, "no scores"),
        ({"a": {"height": 1, "width": 1, "scores": ["blur"]}}, "no keep"),
        ({"a": {"height": 1, "width": 1, "from": "b"}}, "there is no such set"),
        (
            {"a": {"height": 1, "width": 1, "from": "b"}, "b": {"height": 1, "width": 1, "from": "a"}},
            "choose from each other",
        ),
        ({"a": {"height": 1, "width": 1, "limits": {"blur": 3}}}, r"limits.blur = 3"),
        ({"a": {"height": 1, "width": 1, "limits": {"blur": {"least": 3}}}}, "limits.blur"),
        ({"a": {"height": 1, "width": 1, "limits": {"blur": {"min": "x"}}}}, "needs a number"),
        ({"a": {"height": 1, "width": 1, "limits": {"blurr": {"min": 1}}}}, "no stage measured blurr"),
        ({"a": {"height": 1, "width": 1, "limits": {"camera": {"min": 1}}}}, "camera is not a number"),
        (
            {"a": {"height": 1, "width": 1, "keep": 0.5, "scores": ["people"]}},
            "people are wanted isn't known",
        ),
        ({"a": {"height": 1, "width": 1, "only": "none.txt"}}, "none.txt"),
        ({"a": {"height": 1, "width": 1, "kind": "image", "frames": 5}}, "frames = 5"),
    ],
)
def test_a_wrong_recipe_is_refused_before_anything_is_written(tmp_path, sets, message):
    synthetic.write(tmp_path, 30)
    with pytest.raises(UsageError, match=message):
        decide(tmp_path, {"sets": sets})
    assert [path.name for path in tmp_path.iterdir()] == ["scores.parquet"]


def test_without_scores_there_is_nothing_to_decide(tmp_path):
    with pytest.raises(MissingError, match=r"scores.parquet"):
        decide(tmp_path, RECIPE)


def test_sets_come_after_the_sets_they_choose_from():
    assert [spec.name for spec in read_sets(RECIPE["sets"])] == ["256p", "360p", "pictures"]


def test_a_changed_threshold_takes_under_two_seconds_for_ten_thousand_clips(tmp_path, monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(10_000, 32)).astype(np.float16)
    rows = ({**row, "embedding": vector} for row, vector in zip(synthetic.rows(10_000), vectors, strict=True))
    write_scores(rows, tmp_path / "scores.parquet", synthetic.SCORES)
    table = {"duplicates": {"method": "vector"}, "concepts": {"count": 2}}
    decide(tmp_path, {**table, **RECIPE})
    changed = {**table, "sets": {**RECIPE["sets"], "256p": {**RECIPE["sets"]["256p"], "keep": 0.3}}}
    monkeypatch.setattr("hy_data.select.steps.find_duplicates", lambda *_: pytest.fail("searched again"))
    begin = time.process_time()
    decide(tmp_path, changed)
    assert time.process_time() - begin < 2
    assert pq.ParquetFile(tmp_path / "manifest.parquet").metadata.num_rows == 10_000


def test_duplicates_are_dropped_and_concepts_balanced_within_each_set(tmp_path):
    """Forty clips of one concept, ten of another, and a copy of the first."""
    rng = np.random.default_rng(0)
    rows = []
    for number, row in enumerate(synthetic.rows(60)):
        vector = np.eye(8)[int(number % 5 == 4)] + rng.normal(size=8) * 0.02
        rows.append({**row, "embedding": vector.astype(np.float16)})
    rows[1] |= {"embedding": rows[0]["embedding"], "width": 10_000, "height": 10_000}
    write_scores(rows, tmp_path / "scores.parquet")
    first_five = dict(rows[5])
    exact = {"method": "vector", "certain": 0.99999}
    table = {"duplicates": exact, "concepts": {"count": 2, "alpha": 1.0}}
    decision = decide(tmp_path, {**table, **recipe(a={}, few={"limits": {"people": {"max": 3}}})})
    assert decision.notes == ()
    before = (tmp_path / "manifest.parquet").read_bytes()
    rows[5] |= {"embedding": rows[0]["embedding"]}  # stored duplicates are of other vectors now
    write_scores(rows, tmp_path / "scores.parquet")
    decide(tmp_path, {**table, **recipe(a={})})
    assert read_scores(tmp_path / "manifest.parquet")["duplicate_of"].null_count == 58
    write_scores([*rows[:5], first_five, *rows[6:]], tmp_path / "scores.parquet")
    decide(tmp_path, {**table, **recipe(a={}, few={"limits": {"people": {"max": 3}}})})
    assert (tmp_path / "manifest.parquet").read_bytes() == before
    manifest = read_scores(tmp_path / "manifest.parquet").to_pylist()
    assert manifest[0]["duplicate_of"] == manifest[1]["id"] and manifest[1]["kept_a"]
    assert [reason_text(one) for one in manifest[0]["reasons_a"]] == [
        f"near-duplicate of {manifest[1]['id']}"
    ]
    assert "embedding" not in manifest[0]
    for name in ("a", "few"):
        kept = read_scores(tmp_path / f"sets/{name}.parquet").to_pylist()
        drawn = [sum(row["sampling_weight"] for row in kept if row["concept"] == one) for one in (0, 1)]
        assert drawn[0] == pytest.approx(drawn[1], rel=1e-3)
        assert np.mean([row["sampling_weight"] for row in kept]) == pytest.approx(1)


def test_steps_without_their_columns_are_skipped_with_a_note_or_refused(tmp_path):
    synthetic.write(tmp_path, 20)
    notes = decide(tmp_path, RECIPE).notes
    assert [note.split(":")[0] for note in notes] == ["near-duplicates are kept", "concepts are not balanced"]
    with pytest.raises(UsageError, match="no column embedding"):
        decide(tmp_path, {**RECIPE, "concepts": {"count": 2}})
    with pytest.raises(UsageError, match=r"\[duplicates\] methd"):
        decide(tmp_path, {**RECIPE, "duplicates": {"methd": "off"}})
    assert decide(tmp_path, {**RECIPE, "duplicates": {"method": "off"}}).notes[0].endswith("method is off")


MILLION = """
import resource, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from data import synthetic
from hy_data.select.decide import decide
begin = time.process_time()
decide(Path(sys.argv[1]), synthetic.RECIPE)
print(time.process_time() - begin, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
"""


@pytest.mark.slow
def test_a_million_clips_are_decided_in_a_minute_and_two_gigabytes(tmp_path):
    synthetic.write(tmp_path, 1_000_000)
    command = [sys.executable, "-c", MILLION, str(tmp_path), str(Path(__file__).parents[1])]
    out = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    seconds, gigabytes = (float(one) for one in out.split())
    print(f"a million clips, 3 sets: {seconds:.1f} CPU s, peak {gigabytes:.2f} GB")
    assert seconds < 60 and gigabytes < 2
