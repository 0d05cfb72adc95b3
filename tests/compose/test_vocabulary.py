"""Names that were replaced appear nowhere any more: docs/vocabulary.md has one word for one meaning."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CODE = sorted(ROOT.glob("packages/*/src/**/*.py"))
RECIPES = sorted(ROOT.glob("packages/*/src/**/recipes/*.toml"))
PAGES = [
    *(path for path in ROOT.glob("*.md") if path.name != "CHANGELOG.md"),  # which lists them
    *(path for path in ROOT.glob("docs/**/*.md") if "api" not in path.parts),
    *ROOT.glob("packages/*/README.md"),
]

# What was called so, and what it is called now.
NAMES = {
    r"Kept": "BlockCache",
    r"Layout": "PackedSequence, or CheckpointFormat",
    r"Card": "ModelSpec",
    r"\w+\.prints|prints(?=\s*[:=])": "fingerprints",
    r"lean": "inference",
    r"feeds": "adapter_inputs",
    r"FeedPort": "AdapterInputPort",
    r"confined?|Confined": "restrict_to_mask, MaskRestriction",
    r"pinned|Pin": "fixed_frames, FixedFrame",
    r"def encode_batch": "training_condition",
    r"Looker": "LlavaEncoder",
    r"senses|Eye|Sight": "FeatureExtractor, FrameSampler",
    r"Maker|Stated": "AudioGenerator, AudioModelConfig",
    r"Footage": "VideoSegment",
    r"import keeping|keeping\.\w+": "stage_cache",
    r"heeds?": "check_supported",
    r"Asked(?=[(\]|,:)])|class Asked": "EvalRequest",
    r"LED": "renoise_start",
    r"Apart": "NotBatchable",
    r"memory_in_one_line": "translate_oom",
}
OPTIONS = {
    r"avatar-hush": "--avatar-speech-gate",
    r"avatar-lively": "--avatar-expression-scale",
    r"avatar-head(?!-scale)": "--avatar-head-scale",
    r"avatar-look": "--avatar-image-prompt",
    r"avatar-hold": "--avatar-fix-first-frame",
    r"avatar-confine": "--avatar-restrict-to-mask",
    r"audio-scale": "--audio-cfg",
}


def found(pattern: re.Pattern[str], paths: list[Path]) -> list[str]:
    """`file:line: text` wherever a pattern matches."""
    return [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()}"
        for path in paths
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
        if pattern.search(line)
    ]


@pytest.mark.parametrize("old", NAMES)
def test_names_in_code(old):
    assert not found(re.compile(rf"(?<![\w-])(?:{old})(?![\w])"), CODE), f"now {NAMES[old]}"


@pytest.mark.parametrize("old", OPTIONS)
def test_options_in_code_recipes_and_docs(old):
    assert not found(re.compile(rf"--{old}\b"), [*CODE, *RECIPES, *PAGES]), f"now {OPTIONS[old]}"


def test_a_name_is_found_where_it_is():
    assert found(re.compile(r"(?<![\w-])(?:OPTIONS)(?!\w)"), [Path(__file__)])
