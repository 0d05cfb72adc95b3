"""Caption back-ends that ask a model: an endpoint (a small HTTP server here) and transformers (a tiny LLaVA)."""

from __future__ import annotations

import base64
import io
import json
import pickle
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hy_core.data import ClipRecord
from hy_core.errors import MissingError, UsageError
from hy_data.captions.backends.endpoint import Endpoint, EndpointError
from hy_data.captions.backends.vlm import VisionLanguageModel
from hy_data.captions.schema import CaptionError
from hy_data.stages.caption import Caption
from PIL import Image

FRAMES = np.full((3, 32, 48, 3), 90, np.uint8)
RECORD = ClipRecord(Path("a.mp4"))
GOOD = '```json\n{"short_description": "A dog.",}\n```'


class Server:
    """A chat endpoint that gives the queued answers: a status with a text, "drop" to break the connection, "slow"."""

    def __init__(self) -> None:
        self.answers: list[tuple[int, str] | str] = []
        self.requests: list[tuple[dict[str, str], dict[str, Any], float]] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                outer.requests.append(({**self.headers, "path": self.path}, body, time.monotonic()))
                answer = outer.answers.pop(0) if len(outer.answers) > 1 else outer.answers[0]
                if answer == "drop":
                    self.connection.close()
                    return
                if answer == "slow":
                    time.sleep(0.6)
                status, text = (200, GOOD) if isinstance(answer, str) else answer
                data = json.dumps({"choices": [{"message": {"content": text}}]}).encode()
                self.send_response(status)
                if status == 429:
                    self.send_header("Retry-After", "0")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *_: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def ask(server: Server, **values: Any) -> str:
    endpoint = Endpoint(server.url, "vlm", first_wait=0.01, **values)
    return endpoint.caption(RECORD, FRAMES, 2.0).caption.short_description


def test_frames_and_key_are_sent(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HY_CAPTION_KEY", "secret")
    server.answers = [(200, GOOD)]
    assert ask(server) == "A dog."
    headers, body, _ = server.requests[0]
    assert headers["path"] == "/v1/chat/completions" and headers["Authorization"] == "Bearer secret"
    *pictures, text = body["messages"][0]["content"]
    assert body["model"] == "vlm" and "JSON" in text["text"] and len(pictures) == 3
    data = base64.b64decode(pictures[0]["image_url"]["url"].removeprefix("data:image/jpeg;base64,"))
    assert Image.open(io.BytesIO(data)).size == (48, 32)


def test_failures_that_pass_are_tried_again(server: Server) -> None:
    server.answers = [(503, "busy"), (429, "slow down"), "drop", (200, GOOD)]
    assert ask(server) == "A dog."
    assert len(server.requests) == 4


def test_a_timeout_is_tried_again_and_then_reported(server: Server) -> None:
    server.answers = ["slow"]
    with pytest.raises(EndpointError, match="after 2 tries.*Timeout"):
        ask(server, timeout=0.1, retries=1)
    assert len(server.requests) == 2


def test_a_refusal_ends_at_once_with_a_hint(server: Server) -> None:
    server.answers = [(401, "no key")]
    with pytest.raises(EndpointError, match="HTTP 401") as caught:
        ask(server)
    assert "HY_CAPTION_KEY" in str(caught.value.hint) and len(server.requests) == 1


def test_useless_answers_are_asked_again_and_then_a_fault_of_the_clip(server: Server) -> None:
    server.answers = [(200, "I can't"), (200, GOOD)]
    assert ask(server) == "A dog."
    server.answers = [(200, "I can't")]
    with pytest.raises(CaptionError, match="after 3 tries"):
        ask(server)


def test_requests_are_spread_over_a_minute(server: Server) -> None:
    server.answers = [(200, GOOD)]
    endpoint = Endpoint(server.url, "vlm", per_minute=600)
    for _ in range(4):
        endpoint.caption(RECORD, FRAMES, 2.0)
    times = [moment for *_, moment in server.requests]
    assert times[-1] - times[0] > 0.28


def test_the_stage_asks_an_endpoint(server: Server, tmp_path: Path) -> None:
    from hy_core.media import open_writer

    with open_writer(tmp_path / "a.mp4", 8.0) as writer:
        writer.add(np.zeros((8, 32, 48, 3), np.uint8))
    server.answers = [(200, GOOD)]
    stage = pickle.loads(pickle.dumps(Caption(backend="endpoint", url=server.url, model="vlm", frames=2)))
    (record,) = stage.run(ClipRecord(tmp_path / "a.mp4"))
    assert record.captions == ("A dog.",) and record.results["caption_repairs"] == 1
    with pytest.raises(MissingError, match="url and model"):
        Caption(backend="endpoint").setup()
    with pytest.raises(UsageError, match="no http address"):
        Caption(backend="endpoint", url="file:///etc", model="x").setup()


@pytest.fixture(scope="module")
def llava(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A LLaVA of a few thousand random weights, with the files of a real one."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import (
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        PreTrainedTokenizerFast,
    )
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    folder = tmp_path_factory.mktemp("llava")
    special = ["<s>", "</s>", "<image>"]
    vocabulary = {t: i for i, t in enumerate([*special, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    inner = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    inner.pre_tokenizer, inner.decoder = pre_tokenizers.ByteLevel(False), decoders.ByteLevel()
    inner.add_special_tokens(special)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, bos_token="<s>", eos_token="</s>", pad_token="</s>"
    )
    pictures = CLIPImageProcessorPil(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    template = (
        "{% for m in messages %}{% for c in m['content'] %}{% if c['type'] == 'image' %}<image>"
        "{% else %}{{ c['text'] }}{% endif %}{% endfor %}{% endfor %}"
    )
    LlavaProcessor(
        pictures, tokenizer, patch_size=14, vision_feature_select_strategy="default",
        chat_template=template, num_additional_image_tokens=1,
    ).save_pretrained(folder)  # fmt: skip
    size: dict[str, Any] = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }
    torch.manual_seed(0)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**size, image_size=28, patch_size=14, projection_dim=16),
        text_config=LlamaConfig(
            **size, vocab_size=len(vocabulary), bos_token_id=0, eos_token_id=1, pad_token_id=1
        ),
        image_token_index=2,
        vision_feature_layer=-1,
    )
    LlavaForConditionalGeneration(config).save_pretrained(folder)
    return folder


def test_a_model_of_transformers_answers_from_its_folder(
    llava: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = VisionLanguageModel(llava, frames=3, tries=2, max_tokens=8)
    with pytest.raises(CaptionError, match="after 2 tries"):  # random weights answer nothing of use
        model.caption(RECORD, FRAMES, 2.0)
    pictures = [Image.fromarray(frame) for frame in FRAMES]
    answer = model.ask("What is this?", pictures)
    assert answer and answer == pickle.loads(pickle.dumps(model)).ask("What is this?", pictures)
    monkeypatch.setattr(VisionLanguageModel, "ask", lambda *_: GOOD)
    assert model.caption(RECORD, FRAMES, 2.0).caption.short_description == "A dog."


def test_a_folder_without_a_model_is_told(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="holds no processor"):
        VisionLanguageModel(tmp_path).setup()
