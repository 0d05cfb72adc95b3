"""pocket's rewriter: paraphrases of the world's captions in several languages, and the network that reads them."""

from __future__ import annotations
