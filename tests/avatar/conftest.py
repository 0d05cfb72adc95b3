from __future__ import annotations

import pytest
from avatar import small


@pytest.fixture(scope="session")
def released_folder(tmp_path_factory):
    """A released model's folder, in small."""
    return small.folder(tmp_path_factory.mktemp("released"))


@pytest.fixture
def talk(tmp_path):
    """A second of sound."""
    return small.tone(tmp_path / "talk.wav")


@pytest.fixture
def face(tmp_path):
    """A picture of a character."""
    return small.portrait(tmp_path / "face.png")
