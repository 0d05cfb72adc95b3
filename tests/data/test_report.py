"""The report: numbers of the funnel, pictures of what was dropped, and names that want to be HTML."""

from __future__ import annotations

import base64
import html.parser
import io
import re

import numpy as np
import pytest
from data import synthetic
from data.test_decide import recipe
from hy_core.media import write
from hy_data.report import gallery, plots
from hy_data.report.page import write_page
from hy_data.report.terminal import funnels
from hy_data.report.words import shown
from hy_data.select.decide import decide
from hy_data.table import read_scores, write_scores
from PIL import Image
from rich.console import Console

EVIL = '"><script>alert(1)</script><img src=x onerror=alert(2)>\u202egnp.{{7*7}}{% raw %}'


class Page(html.parser.HTMLParser):
    """Tags, attributes and text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.text = ""
        self.handlers: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        for name, value in attributes:
            if name in ("src", "href"):
                self.sources.append(value)
            if name.startswith("on"):
                self.handlers.append(name)

    def handle_data(self, data):
        self.text += data


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A folder whose clips are real files with hostile names, and its page."""
    folder = tmp_path_factory.mktemp("report")
    raw = folder / "raw"
    rows = []
    for number in range(6):
        frames = np.full((8, 36, 64, 3), 40 * number, np.uint8)
        frames[4:, :, :, 0] = 255  # the middle of the clip is red
        path = raw / f"{number}{EVIL.replace('/', '_')}.mp4"
        write(path, frames, 8.0)
        rows.append(
            {
                "id": f"../../{number}<b>",
                "path": path,
                "start": 0.0,
                "stop": 1.0,
                "width": 64,
                "height": 36,
                "frames": 8,
                "status": "ok",
                "captions": [EVIL],
                "blur": float(number),
                "style": EVIL,
                "concept": number % 2,
                "sampling_weight": 1.0 + number % 2,
            }
        )
    rows.append(
        {"id": "x", "path": "gone.mp4", "status": "ok", "width": 64, "height": 36, "frames": 8, "blur": 2.5}
    )
    rows.append({"id": "y", "path": "bad.mp4", "status": "failed", "stage": EVIL, "reason": EVIL})
    write_scores(rows, folder / "scores.parquet")
    spec = {"height": 32, "width": 32, "frames": 8}
    decide(
        folder,
        {
            "sets": {
                "sharp": {**spec, "keep": 0.3, "scores": ["blur"], "better": {"blur": "high"}},
                "plain": {**spec, "limits": {"style": {"none": [EVIL], "missing": "keep"}}},
            }
        },
    )
    before = sorted(folder.parent.iterdir())
    path = write_page(folder)
    assert sorted(folder.parent.iterdir()) == before
    return folder, path.read_text(encoding="utf-8")


def test_nothing_of_a_name_a_caption_or_a_reason_becomes_html(pages):
    _, text = pages
    page = Page(text)
    assert "script" not in page.tags and not page.handlers
    assert all(source.startswith(("data:image/", "#set-")) for source in page.sources)
    assert "<script>alert(1)" in page.text and "{{7*7}}" in page.text  # shown as text
    assert "\u202e" not in text
    assert "default-src 'none'" in text


def test_pictures_are_the_middles_of_dropped_clips_and_stay_in_the_folder(pages):
    folder, text = pages
    pictures = re.findall(r'src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) >= 6
    image = Image.open(io.BytesIO(base64.b64decode(pictures[0])))
    assert image.size == (64, 36) and image.getpixel((30, 20))[0] > 200
    stored = sorted((folder / "cache" / "report").iterdir())
    assert len(stored) == 6 and all(re.fullmatch(r"[0-9a-f]{32}\.jpg", path.name) for path in stored)
    assert "no picture" in text  # of the file that is gone


def test_the_page_shows_numbers_of_the_funnel_and_the_balance_of_concepts(pages):
    folder, text = pages
    page = Page(text)
    assert re.search(r"2 of 8 clips, 32x32x8", page.text) or re.search(r"3 of 8 clips, 32x32x8", page.text)
    assert "Dropped by the rule “blur >=" in page.text
    assert page.text.count("histogram") == 0 and text.count("data:image/svg+xml") >= 3
    assert "concepts; as diverse as" in page.text


def test_a_gallery_goes_from_the_threshold_to_the_worst(tmp_path):
    synthetic.write(tmp_path, 400)
    decision = decide(tmp_path, recipe(a={"limits": {"blur": {"min": 50}}}))
    manifest = read_scores(tmp_path / "manifest.parquet")
    step = next(step for step in decision.sets[0]["funnel"] if step["score"] == "blur")
    clips = gallery.dropped(manifest, "a", step, 5)
    values = [float(clip["reasons"][0].split()[1]) for clip in clips]
    assert len(values) == 5 and values == sorted(values, reverse=True) and values[0] > 49 and values[-1] < 20
    assert len(gallery.kept(manifest, "a", 3)) == 3


def test_the_table_prints_every_rule_and_no_markup(pages):
    folder, _ = pages
    synthetic_out = io.StringIO()
    from hy_data.select.decide import read_decision

    for table in funnels(read_decision(folder).sets):
        Console(file=synthetic_out, width=200).print(table)
    text = synthetic_out.getvalue()
    assert "blur >= " in text and "(solved)" in text and "failed in" in text
    assert "\u202e" not in text and "\x1b" not in text


def test_a_report_without_clips(tmp_path):
    write_scores([], tmp_path / "scores.parquet")
    decide(tmp_path, recipe(a={}))
    assert "0 of 0 clips" in write_page(tmp_path).read_text()


def test_histograms_mark_every_threshold_and_the_same_gives_the_same_bytes():
    values = np.concatenate([np.random.default_rng(0).normal(size=1000), [np.nan, 1e9]])
    first = plots.histogram(values, {"256p ≥": 0.5, "360p ≥": 1.25}, "$x_1$ & <b>")
    assert first == plots.histogram(values, {"256p ≥": 0.5, "360p ≥": 1.25}, "$x_1$ & <b>")
    text = first.decode()
    assert "256p ≥: 0.5" in text and "360p ≥: 1.25" in text and "$x_1$ &amp; &lt;b&gt;" in text
    assert plots.histogram(np.array([]), {}, "none").startswith(b"<?xml")


def test_diversity_counts_equal_concepts():
    assert plots.effective([1, 1, 1, 1]) == pytest.approx(4)
    assert plots.effective([1, 0, 0]) == pytest.approx(1)


def test_text_is_one_visible_line():
    assert shown("a\nb\x1b[31m\u202ec\x00") == "a b [31m c"
    assert len(shown("x" * 10**6)) == 160
    assert shown(None) == ""
