"""Write the rewriter of a model folder: config.json, lexicon.json and model.safetensors."""

from __future__ import annotations

from pathlib import Path

from hy_core.files import write_json
from hy_core.rewrite.reader import Reader
from hy_core.rewrite.words import Lexicon
from hy_core.weights.save import save_safetensors

from hy_world.rewriting.captions import schema


def save(reader: Reader, lexicon: Lexicon, folder: Path) -> None:
    """Write a trained reader in half precision, with the lexicon and the captions' texts that it needs."""
    import torch

    folder.mkdir(parents=True, exist_ok=True)
    write_json(
        folder / "config.json", {"rewriter": 1, "reader": reader.config.to_dict(), "captions": schema()}
    )
    write_json(
        folder / "lexicon.json",
        {phrase: list(tags) for phrase, tags in sorted(lexicon.phrases.items())},
        None,
    )
    state = {name: value.detach().to(torch.float16) for name, value in reader.state_dict().items()}
    save_safetensors(folder / "model.safetensors", state)
