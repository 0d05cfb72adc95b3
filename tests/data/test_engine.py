"""The engine: every clip gets its rows, faults cost one row each, and nothing depends on the order of work."""

from __future__ import annotations

from pathlib import Path

import pytest
from data.engine_runs import account, corrupt_clips, digest, good_clip, recipe_of, score, table
from hy_core.errors import HyError, MissingError, UsageError
from hy_data.engine.driver import DIED, HUNG


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    for number in range(10):
        good_clip(folder / f"good-{number}.mp4", 20 * number)
    for number in range(3):
        good_clip(folder / f"crash-{number}.mp4", 20 * number + 5)
    for number in range(2):
        good_clip(folder / f"hang-{number}.mp4", 20 * number + 7)
    corrupt_clips(folder)
    return folder


@pytest.fixture(scope="module")
def ran(faulty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ran") / "out"
    score(faulty, out)
    return out


def test_faults_cost_ten_rows_and_no_innocent(ran: Path) -> None:
    rows = table(ran)
    assert len(rows) == 20
    bad = {name: row for name, row in rows.items() if row["status"] != "ok"}
    assert len(bad) == 10 and all(row["reason"] for row in bad.values())
    for name, row in rows.items():
        if name.startswith("good"):
            assert row["status"] == "ok" and row["tries"] == 1 and row["calm"] == 1
        if name.startswith("crash"):
            assert (row["status"], row["stage"], row["reason"], row["tries"]) == (
                "failed",
                "trouble",
                DIED,
                2,
            )
        if name.startswith("hang"):
            assert (row["status"], row["stage"], row["reason"], row["tries"]) == (
                "failed",
                "trouble",
                HUNG,
                2,
            )
    assert rows["bad-empty.mp4"]["stage"] == "source" and "is empty" in rows["bad-empty.mp4"]["reason"]
    assert rows["bad-sound.mp4"]["status"] == "filtered" and rows["bad-sound.mp4"]["reason"] == "no pictures"
    assert rows["bad-noise.mp4"]["status"] == "failed"


def test_a_failed_stage_leaves_the_results_of_its_group_and_ends_the_clip(ran: Path) -> None:
    row = table(ran)["crash-1.mp4"]
    assert row["double"] == pytest.approx(2 * row["brightness"]) and row["brightness"] > 0
    assert row["calm"] is None and row["seen"] is None
    assert '"means"' in str(table(ran)["good-1.mp4"]["seen"])


def test_results_do_not_depend_on_workers_or_order(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    for number, name in enumerate(["a", "raise", "mistake", "filter", "leak", "crash", "b", "c"]):
        good_clip(tmp_path / "in" / f"{name}.mp4", 20 * number)
    (tmp_path / "in" / "twin.mp4").write_bytes((tmp_path / "in" / "a.mp4").read_bytes())
    score(tmp_path / "in", tmp_path / "two")
    score(
        tmp_path / "in", tmp_path / "one", recipe_of(engine={"workers": 1, "queue": 1, "clips_per_worker": 4})
    )
    assert account(tmp_path / "one") == account(tmp_path / "two")
    assert digest(tmp_path / "one") == digest(tmp_path / "two")
    rows = table(tmp_path / "one")
    why = {name: (row["status"], row["stage"], row["reason"]) for name, row in rows.items()}
    for name, status, reason in (
        ("raise", "failed", "unexpected ValueError: an unexpected"),
        ("mistake", "failed", "this clip is not wanted here"),
        ("filter", "filtered", "named so"),
        ("leak", "failed", DIED),
        ("crash", "failed", DIED),
    ):
        assert why[f"{name}.mp4"] == (status, "trouble", reason)
    assert all(why[f"{name}.mp4"][0] == "ok" for name in "abc")
    assert why["twin.mp4"][:2] == ("filtered", "source") and why["twin.mp4"][2].endswith("a.mp4")


def test_a_second_run_does_nothing_and_a_changed_option_runs_what_needs_it(
    ran: Path, faulty: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before, rows = digest(ran), account(ran)
    changed = recipe_of(stage={"bright": {"scale": 3.0}})
    score(faulty, ran, changed)
    new = {row[1] for row in set(account(ran)) - set(rows)}
    assert new == {"bright", "after", "last"}  # not extent and trouble
    assert digest(ran) != before
    monkeypatch.setattr("hy_data.engine.run.make_executor", lambda *a: pytest.fail("a stage ran again"))
    score(faulty, ran)
    assert digest(ran) == before


def test_a_file_becomes_clips_whose_ids_follow_from_content_and_span(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    good_clip(tmp_path / "in" / "a.mp4", 9, 24)
    stages = ("extent", "halves", "bright", "last")
    score(tmp_path / "in", tmp_path / "out", recipe_of(stages))
    from hy_data.table import read_scores

    rows = read_scores(tmp_path / "out" / "scores.parquet").to_pylist()
    assert [row["part"] for row in sorted(rows, key=lambda row: row["start"])] == [0, 1]
    assert all(row["frames"] == 24 and row["status"] == "ok" for row in rows)
    assert sorted(row["mark"] for row in rows) == [[0, 1], [1, 2]]
    ids = {row["id"] for row in rows}
    (tmp_path / "in" / "a.mp4").rename(tmp_path / "in" / "b.mp4")
    score(tmp_path / "in", tmp_path / "again", recipe_of(stages))
    assert {row["id"] for row in read_scores(tmp_path / "again" / "scores.parquet").to_pylist()} == ids


def test_a_stage_that_cannot_start_ends_the_run_in_one_line(tmp_path: Path) -> None:
    good_clip(tmp_path / "a.mp4")
    plugin = tmp_path / "broken_stage.py"
    plugin.write_text(
        "import os\nfrom hy_core import hookimpl\nfrom hy_core.data import Stage\n"
        "from hy_core.errors import MissingError\n"
        "class Dies(Stage):\n    name = 'dies'\n    def setup(self): os._exit(3)\n"
        "class Lacks(Stage):\n    name = 'lacks'\n    def setup(self): raise MissingError('no weights', 'get some')\n"
        "@hookimpl\ndef register_stages(register):\n    register('dies', Dies)\n    register('lacks', Lacks)\n"
    )
    from hy_data import recipe

    for name, kind, message in (("dies", HyError, "workers in a row"), ("lacks", MissingError, "no weights")):
        one = recipe.parse({"stages": [name], "plugins": [str(plugin)]})
        with pytest.raises(kind, match=message):
            score(tmp_path / "a.mp4", tmp_path / "out", one)
    with pytest.raises(UsageError, match="no stage 'dise'"):
        score(
            tmp_path / "a.mp4", tmp_path / "out", recipe.parse({"stages": ["dise"], "plugins": [str(plugin)]})
        )
    with pytest.raises(UsageError, match=r"stage\.bright\.scale"):
        score(tmp_path / "a.mp4", tmp_path / "out", recipe_of(stage={"bright": {"scale": "x"}}))


@pytest.mark.slow
def test_ray_gives_the_same_ledger(faulty: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    score(faulty, tmp_path / "local")
    score(faulty, tmp_path / "ray", recipe_of(engine={"executor": "ray", "workers": 2, "min_deadline": 8.0}))
    assert account(tmp_path / "ray") == account(tmp_path / "local")
    assert digest(tmp_path / "ray") == digest(tmp_path / "local")
