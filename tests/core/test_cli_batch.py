"""hy generate --batch: many prompts from one file, and going on where it stopped."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from hy_core import media, provenance
from hy_core.cli import run
from hy_core.cli.batch import read_rows, slug
from hy_core.errors import UsageError
from hy_core.media.video import VideoWriter
from hy_core.plugins import installed


@pytest.fixture
def hy(tmp_path, monkeypatch, capsys, small_folder, loaded):
    """Run `hy` in an empty folder with the small model, loaded once; `loads` counts the loading."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / ".settings"))
    monkeypatch.setenv("HY_MODELS", str(small_folder.parent))
    monkeypatch.setenv("HY_MODEL", "small")
    loads = []
    monkeypatch.setattr("hy_core.models.load", lambda *arguments: loads.append(1) or loaded)

    def call(*arguments):
        code = run([str(one) for one in arguments])
        return code, *capsys.readouterr()

    call.loads = loads
    return call


def test_a_file_with_a_prompt_per_line_makes_a_folder_of_clips(hy) -> None:
    Path("prompts.txt").write_text("a red circle\n\n# not this\na blue square\na red circle\n")
    code, out, _ = hy("generate", "--batch", "prompts.txt")
    assert code == 0 and len(hy.loads) == 1
    assert out.split() == [
        f"prompts/{n}.mp4" for n in ("a-red-circle-0", "a-blue-square-0", "a-red-circle-1")
    ]
    first, _, third = (media.read(path).frames for path in out.split())
    assert not np.array_equal(first, third)  # a prompt that comes again takes the next seed


def test_what_is_finished_is_not_made_again(hy) -> None:
    Path("p.txt").write_text("one\ntwo\nthree\n")
    hy("generate", "--batch", "p.txt")
    made = {path.name: path.stat().st_mtime_ns for path in Path("p").iterdir()}
    Path("p/two-0.mp4").unlink()
    code, out, err = hy("generate", "--batch", "p.txt")
    assert code == 0 and out.split() == ["p/two-0.mp4"] and "2 of 3 clips are finished already" in err
    now = {path.name: path.stat().st_mtime_ns for path in Path("p").iterdir()}
    assert now["one-0.mp4"] == made["one-0.mp4"] and now["three-0.mp4"] == made["three-0.mp4"]
    before = len(hy.loads)
    assert hy("generate", "--batch", "p.txt")[1] == "" and len(hy.loads) == before  # nothing to load


def test_clips_of_other_weights_do_not_count_as_finished(hy, small_folder, tmp_path, monkeypatch) -> None:
    Path("p.txt").write_text("one\n")
    hy("generate", "--batch", "p.txt")
    shutil.copytree(small_folder, tmp_path / "models" / "small")
    monkeypatch.setenv("HY_MODELS", str(tmp_path / "models"))
    assert hy("generate", "--batch", "p.txt")[1] == ""  # a copy of the same weights
    with (tmp_path / "models" / "small" / "vae.safetensors").open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    assert hy("generate", "--batch", "p.txt")[1].split() == ["p/one-0-2.mp4"]


def test_another_request_does_not_count_as_finished_and_overwrites_nothing(hy) -> None:
    Path("p.txt").write_text("one\n")
    hy("generate", "--batch", "p.txt")
    _, out, _ = hy("generate", "--batch", "p.txt", "--steps", 4)
    assert out.split() == ["p/one-0-2.mp4"]
    _, out, _ = hy("generate", "--batch", "p.txt", "--steps", 4, "--json")
    assert json.loads(out)[0]["finished_before"] is True


def test_rows_may_have_settings_of_their_own(hy) -> None:
    rows = [
        {"prompt": "a fox", "seed": 5, "steps": 2, "frames": 1, "output": "fox.png"},
        {"prompt": "a cow", "size": "48x32", "output": "cow.webm"},
        "a hen",
    ]
    Path("rows.jsonl").write_text("\n".join(json.dumps(row) for row in rows))
    code, out, err = hy("generate", "--batch", "rows.jsonl", "-o", "out/", "--seed", 9, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [one["path"] for one in found] == ["out/fox.png", "out/cow.webm", "out/a-hen-9.mp4"]
    assert [one["seed"] for one in found] == [5, 9, 9]
    assert media.probe("out/cow.webm").width == 48 and provenance.read("out/fox.png")["request"]["steps"] == 2


def test_toml_rows_are_clip_tables(hy) -> None:
    Path("rows.toml").write_text(
        '[[clip]]\nprompt = "a fox"\nseed = 2\n[[clip]]\nprompt = "a cow"\nsteps = 2\n'
    )
    _, out, _ = hy("generate", "--batch", "rows.toml")
    assert out.split() == ["rows/a-fox-2.mp4", "rows/a-cow-0.mp4"]


def test_a_row_makes_the_clip_that_it_makes_alone(hy) -> None:
    Path("p.txt").write_text("one\ntwo\nthree\n")
    hy("generate", "--batch", "p.txt", "--seed", 3)
    hy("generate", "two", "--seed", 3, "-o", "alone.mp4")
    assert Path("alone.mp4").read_bytes() == Path("p/two-3.mp4").read_bytes()


def test_a_batch_goes_through_together_when_asked(hy) -> None:
    Path("p.txt").write_text("one\ntwo\nthree\n")
    code, _, err = hy("generate", "--batch", "p.txt", "-o", "by-two/", "--rows", 2, "--progress", "json")
    events = [json.loads(line) for line in err.splitlines()]
    assert (
        code == 0 and sum(event["event"] == "step" for event in events) == 2 * 3
    )  # two groups of three steps
    hy("generate", "--batch", "p.txt", "-o", "by-one/")
    for name in ("one-0", "two-0", "three-0"):
        one, two = (media.read(f"{folder}/{name}.mp4").frames.astype(int) for folder in ("by-one", "by-two"))
        assert abs(one - two).mean() < 2


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("p.txt", "\n# nothing\n", "no prompts"),
        ("p.jsonl", '{"prompt": "a"}\n{"prompt": ', "p.jsonl:2"),
        ("p.jsonl", '{"seed": 1}', "no prompt"),
        ("p.jsonl", "3", "p.jsonl:1"),
        ("p.jsonl", '{"prompt": "a", "stesp": 3}', "stesp"),
        ("p.jsonl", '{"prompt": "a", "model": "other"}', "model"),
        ("p.jsonl", '{"prompt": "a", "frames": 6}', "4k+1"),
        ("p.jsonl", '{"prompt": "a", "output": "a.mp4"}\n{"prompt": "b", "output": "a.mp4"}', "two rows"),
        ("p.jsonl", '{"prompt": "a", "output": "a.xyz"}', ".xyz"),
        ("p.toml", 'prompt = "a"', "[[clip]]"),
        ("p.toml", "[[clip]", "TOML"),
    ],
)
def test_a_wrong_batch_is_refused_before_any_work(hy, name: str, text: str, says: str) -> None:
    Path(name).write_text(text, encoding="utf-8")
    code, out, err = hy("generate", "--batch", name)
    assert code == 2 and not out and says in err and not hy.loads


def test_a_batch_needs_a_folder_and_no_prompt(hy) -> None:
    Path("p.txt").write_text("one\n")
    assert hy("generate", "a prompt", "--batch", "p.txt")[0] == 2
    assert "folder" in hy("generate", "--batch", "p.txt", "-o", "a.mp4")[2]
    assert hy("generate", "--batch", "missing.txt")[0] == 2


def test_a_stopped_batch_keeps_what_is_done(hy, monkeypatch) -> None:
    Path("p.txt").write_text("one\ntwo\nthree\n")
    real, calls = VideoWriter.finish, []

    def stop(writer) -> None:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        real(writer)

    monkeypatch.setattr(VideoWriter, "finish", stop)
    code, out, _ = hy("generate", "--batch", "p.txt")
    assert (
        code == 130
        and out.split() == ["p/one-0.mp4"]
        and [p.name for p in Path("p").iterdir()] == ["one-0.mp4"]
    )
    _, out, err = hy("generate", "--batch", "p.txt")
    assert out.split() == ["p/two-0.mp4", "p/three-0.mp4"] and "1 of 3" in err


def test_names_are_made_of_prompts() -> None:
    assert slug("A fox, in SNOW!") == "a-fox-in-snow"
    assert slug("../../etc/passwd") == "etc-passwd"
    assert slug("圆 圈 ünïcode") == "圆-圈-ünïcode"
    assert slug("x" * 100) == "x" * 40 and slug("…!") == "clip"
    assert len(slug("word " * 50)) <= 40 and not slug("word " * 50).endswith("-")


def test_files_that_are_not_text_are_refused(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="UTF-8"):
        read_rows(tmp_path / "p.txt")


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\v", "\f", "\x1c"])
def test_only_line_ends_end_a_line(tmp_path: Path, separator: str) -> None:
    text = f"a red{separator}circle\r\na blue square\r\ra {separator} star\n"
    (tmp_path / "p.txt").write_bytes(text.encode())
    assert [row.prompt for row in read_rows(tmp_path / "p.txt")] == [
        f"a red{separator}circle",
        "a blue square",
        f"a {separator} star",
    ]
    if separator >= " ":
        row = json.dumps({"prompt": f"a{separator}b"}, ensure_ascii=False)
        (tmp_path / "p.jsonl").write_text(row, encoding="utf-8")
        assert [row.prompt for row in read_rows(tmp_path / "p.jsonl")] == [f"a{separator}b"]


def test_a_json_list_is_a_batch(tmp_path: Path) -> None:
    (tmp_path / "p.json").write_text('[{"prompt": "a fox",\n "seed": 3}, "a cow"]')
    rows = read_rows(tmp_path / "p.json")
    assert [row.prompt for row in rows] == ["a fox", "a cow"] and rows[0].core["seed"] == 3
    for text in ('{"prompt": "a fox"}', "[3]", "[", "[" * 100_000):
        (tmp_path / "p.json").write_text(text)
        with pytest.raises(UsageError, match="p.json"):
            read_rows(tmp_path / "p.json")


def test_an_endless_batch_file_is_refused() -> None:
    with pytest.raises(UsageError, match="not a file"):
        read_rows(Path("/dev/zero"))


@pytest.mark.parametrize("output", ["../a.png", "/tmp/a.png", "x/../../a.png", "link/a.png", "a\0.png", ""])
def test_an_output_outside_the_folder_is_refused(hy, tmp_path: Path, output: str) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "link").symlink_to(tmp_path)
    Path("rows.jsonl").write_text(json.dumps({"prompt": "a", "frames": 1, "output": output}))
    code, out, err = hy("generate", "--batch", "rows.jsonl", "-o", "out/")
    assert code == 2 and not out and "output" in err and "rows.jsonl:1" in err and not hy.loads


def test_outputs_of_one_file_in_two_spellings_are_one_output(hy) -> None:
    rows = [{"prompt": "a", "output": "a.mp4"}, {"prompt": "b", "output": "./x/../a.mp4"[:2] + "a.mp4"}]
    Path("rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    assert "two rows" in hy("generate", "--batch", "rows.jsonl")[2] and not hy.loads


def test_a_row_overwrites_no_other_file(hy) -> None:
    Path("out").mkdir()
    Path("out/a.png").write_text("mine")
    Path("rows.jsonl").write_text(json.dumps({"prompt": "a", "frames": 1, "output": "a.png"}))
    code, _, err = hy("generate", "--batch", "rows.jsonl", "-o", "out/")
    assert code == 2 and "out/a.png exists" in err and Path("out/a.png").read_text() == "mine"
    Path("out/a.png").unlink()
    assert hy("generate", "--batch", "rows.jsonl", "-o", "out/")[0] == 0
    made = Path("out/a.png").read_bytes()
    assert "1 of 1" in hy("generate", "--batch", "rows.jsonl", "-o", "out/")[2]
    code, _, err = hy("generate", "--batch", "rows.jsonl", "-o", "out/", "--steps", 2)
    assert code == 2 and "isn't this row's" in err and Path("out/a.png").read_bytes() == made


def test_another_process_takes_a_name_in_the_meantime(hy, monkeypatch) -> None:
    """Default names count on; a row's own output is refused and what is there stays."""
    real = VideoWriter.finish

    def later(writer: VideoWriter) -> None:
        writer.path.write_text("theirs")
        real(writer)

    monkeypatch.setattr(VideoWriter, "finish", later)
    Path("p.txt").write_text("one\n")
    code, out, _ = hy("generate", "--batch", "p.txt")
    assert code == 0 and out.split() == ["p/one-0-2.mp4"] and Path("p/one-0.mp4").read_text() == "theirs"
    Path("rows.jsonl").write_text(json.dumps({"prompt": "one", "output": "a.mp4"}))
    code, out, err = hy("generate", "--batch", "rows.jsonl", "-o", "q/")
    assert code == 1 and not out and "a.mp4 exists" in err and Path("q/a.mp4").read_text() == "theirs"
    code, out, _ = hy("generate", "one", "--seed", 0)
    assert out.split() == ["one-0-2.mp4"] and Path("one-0.mp4").read_text() == "theirs"


@pytest.mark.parametrize("lost", ["f-01.png", "f-03.png", "f-05.png"])
def test_numbered_pictures_are_finished_only_when_all_are_there(hy, lost: str) -> None:
    Path("rows.jsonl").write_text(json.dumps({"prompt": "a", "frames": 5, "output": "f-%02d.png"}))
    assert hy("generate", "--batch", "rows.jsonl", "-o", "out/")[0] == 0
    assert provenance.read("out/f-01.png")["pictures"] == 5
    assert "1 of 1" in hy("generate", "--batch", "rows.jsonl", "-o", "out/")[2]
    Path("out", lost).unlink()
    code, out, err = hy("generate", "--batch", "rows.jsonl", "-o", "out/")
    if lost == "f-01.png":  # the others are what a killed process left
        assert code == 0 and len(list(Path("out").iterdir())) == 5
    else:
        assert code == 2 and "out/f-01.png exists" in err and not out


def test_a_changed_plugin_file_makes_its_clips_again(hy) -> None:
    code = "from hy_core import Conditioner, hookimpl\n\n\nclass Dawn(Conditioner):\n    name = 'dawn'\n\n\n"
    code += "@hookimpl\ndef register_conditioners():\n    return [Dawn]\n"
    Path("dawn.py").write_text(code)
    Path("p.txt").write_text("one\n")
    flags = "--batch", "p.txt", "-p", "dawn.py"
    assert hy("generate", *flags)[1].split() == ["p/one-0.mp4"]
    assert "-p " + str(Path("dawn.py").resolve()) in hy("inspect", "--command", "p/one-0.mp4")[1]
    assert hy("generate", *flags)[1] == ""
    Path("dawn.py").write_text(code + "# changed\n")
    installed.cache_clear()  # as in another process
    assert hy("generate", *flags)[1].split() == ["p/one-0-2.mp4"]
    assert "has changed since" in hy("inspect", "p/one-0.mp4")[2]


def test_an_output_that_is_no_text_is_one_line(hy) -> None:
    Path("rows.jsonl").write_text('{"prompt": "a", "output": [1, 1]}\n')
    code, _, err = hy("generate", "--batch", "rows.jsonl", "--dry-run", "-o", "out/")
    assert code == 2 and "output: needs text" in err and "unexpected" not in err
