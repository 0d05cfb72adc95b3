"""The reference picture: as latents, as a frame that is held, and read by the language model."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from avatar import small
from avatar.driven import CONFIG, weights
from hy_avatar import image_prompt, reference, sizes
from hy_avatar.config import AvatarConfig
from hy_avatar.plugin import Avatar
from hy_core import Request, generate
from hy_core.condition import Condition
from hy_core.errors import ConflictError, HyError
from hy_core.text import Template, Templates
from PIL import Image

BOX = "0.3,0.3,0.7,0.7"


@pytest.mark.parametrize(
    ("picture", "size"),
    [
        ((1920, 1080), (1216, 704)),
        ((1024, 1024), (704, 704)),
        ((768, 1024), (704, 960)),
        ((4000, 500), (2624, 320)),
    ],
)
def test_released_sizes(picture, size):
    assert sizes.size_for(*picture) == size
    assert abs(size[0] * size[1] - 704 * 1216) / (704 * 1216) < 0.3 or size[0] * size[1] < 704 * 1216


def test_sizes_of_models():
    assert [sizes.class_for(height) for height in (720, 704, 544, 300, 64)] == [704, 704, 512, 256, None]


def test_the_picture_fills_the_clip(face):
    shown = reference.pixels(Image.open(face), 32, 32)
    assert shown.shape == (1, 3, 1, 32, 32) and shown.min() >= -1 and shown.max() <= 1
    red, green, _ = shown[0, :, 0, 16, 16]
    assert red > green > 0  # the face is in the middle


def test_latents_of_a_picture_that_stands_still(tiny):
    """One frame's are those of each frame of a clip of it, however long."""
    shown = torch.rand(2, 3, 1, 16, 16) * 2 - 1
    latents = reference.latents(tiny.vae, shown)
    assert latents.shape == (2, 16, 1, 2, 2)
    still = tiny.vae.to_model(tiny.vae.encode(shown.expand(-1, -1, 9, -1, -1)).mode())
    assert torch.allclose(latents.expand_as(still), still, atol=1e-5)


def test_the_first_frame_is_the_picture(released_folder, face):
    """Token replacement by the core's pin: held at every step, and in conflict with whoever gives it too."""
    request = Request(
        "x", negative="y", width=32, height=32, frames=5, fps=25, steps=2, cfg=7.5, model=str(released_folder)
    )
    free = generate(request, [Avatar(image=face)]).frames
    held = generate(request, [Avatar(image=face, fix_first_frame=True)]).frames
    assert not np.array_equal(free, held)
    cond = Condition([torch.zeros(1, 4)], torch.zeros(1, 4), 2, (4, 4))
    cond.fix_frames("i2v", [0], torch.zeros(1, 16, 1, 4, 4))
    with pytest.raises(ConflictError, match="i2v and avatar both set latent frame 0"):
        cond.fix_frames("avatar", [0], torch.zeros(1, 16, 1, 4, 4))


def test_a_clip_begins_as_the_weights_were_trained(tiny, face, tmp_path):
    """With the picture itself if they were, unless told otherwise."""

    def begins(trained, **options):
        file = weights(tiny, tmp_path / "a.safetensors", replace(CONFIG, fix_first_frame=trained))
        cond = tiny.condition()
        Avatar(image=face, weights=file, **options).encode(tiny.request, cond)
        return sorted(cond.fixed_frames)

    assert begins(False) == [] and begins(True) == [0]
    assert begins(False, fix_first_frame=True) == [0] and begins(True, fix_first_frame=False) == []


# -- read by the language model --------------------------------------------------------------------------


@pytest.fixture(scope="module")
def encoder(released_folder):
    return image_prompt.ImagePromptEncoder.load(image_prompt.find(released_folder), "cpu", None)


def test_the_layout_is_the_released_one(encoder, face):
    """Prompt, then a line of words, then all of the picture, without the template's beginning."""
    states = encoder.encode("a woman sings", Image.open(face))
    ids = encoder.ids("a woman sings")
    assert ids[-1] == encoder.image_token and ids.count(encoder.image_token) == 1
    text = encoder.tokenizer.decode(ids[encoder.crop : -1])
    assert text.startswith("a woman sings") and text.endswith("\nThe person looks like")
    assert states.shape == (len(ids) - encoder.crop - 1 + small.PATCHES, 32)


def test_equal_to_the_whole_model(encoder, released_folder, face):
    """The states of the whole model three layers from its end, with the picture where its token stands."""
    from transformers import LlavaForConditionalGeneration

    whole = LlavaForConditionalGeneration.from_pretrained(released_folder / "llava_llama_image")
    ids = encoder.ids("a woman sings")
    expanded = torch.tensor([ids[:-1] + [encoder.image_token] * small.PATCHES])
    pixels = encoder.processor(Image.open(face).convert("RGB"), return_tensors="pt")["pixel_values"]
    with torch.no_grad():
        states = whole(input_ids=expanded, pixel_values=pixels, output_hidden_states=True).hidden_states[-3]
    ours = encoder.encode("a woman sings", Image.open(face))
    assert torch.allclose(ours, states[0, encoder.crop :], atol=1e-5)


def test_a_long_prompt_doesn_t_cost_the_picture(encoder, face):
    """The released code cuts behind the picture's token, and loses it."""
    ids = encoder.ids("many words " * 200)
    assert len(ids) == encoder.budget and ids[-1] == encoder.image_token
    assert encoder.encode("many words " * 200, Image.open(face)).shape[0] == 256 - 1 + small.PATCHES


def test_pictures_matter_and_words_too(encoder, face):
    other = Image.new("RGB", (40, 40), (250, 0, 0))
    one = encoder.encode("x", Image.open(face))
    assert not torch.allclose(one[-4:], encoder.encode("x", other)[-4:], atol=1e-4)
    assert not torch.allclose(one[-4:], encoder.encode("z", Image.open(face))[-4:], atol=1e-4)


def test_instead_of_the_prompt(tiny, released_folder, face):
    """With "instead" the prompt has no influence; with "beside" it has."""

    def text(mode, prompt):
        cond = tiny.condition()
        cond.encoding = replace(cond.encoding, folder=released_folder)
        Avatar(image=face, image_prompt=mode)._set_image_prompt(replace(tiny.request, prompt=prompt), cond)
        return cond.tokens()[0]

    assert torch.equal(text("instead", "one"), text("instead", "two"))
    assert text("instead", "one").shape != text("beside", "one").shape


def test_who_can_see(released_folder, tmp_path):
    assert image_prompt.find(released_folder).model == released_folder / "llava_llama_image"
    assert image_prompt.find(tmp_path) is None and image_prompt.find(None) is None


def test_a_tokenizer_without_pictures(encoder):
    plain = small.tokenizer()
    words = {word: index for word, index in plain.get_vocab().items() if word != "<image>"}
    del words

    class Wrapped:
        token = None

        def __call__(self, text, **options):
            return plain(text.replace("<image>", ""), **options)

        def convert_tokens_to_ids(self, token):
            return plain.convert_tokens_to_ids(token)

    class Model:
        model = encoder.model

        class config:
            image_token_id = encoder.image_token

    templates = Templates(Template("", ""), Template("", ""), 64)
    with pytest.raises(HyError, match="0 picture tokens"):
        image_prompt.ImagePromptEncoder(Model, Wrapped(), encoder.processor, templates)


def test_the_contract(contract, tiny, face, tmp_path):
    """The rules for plugins, with weights of our own form."""
    import json

    from hy_avatar import network
    from hy_core.weights import save_port_weights

    config = AvatarConfig(speech=small.SPEECH)
    network.attach_modules(tiny.dit, "avatar", config)
    save_port_weights(
        tiny.dit, "avatar", tmp_path / "a.safetensors", {"config": json.dumps(config.to_json())}
    )
    contract(Avatar, image=face, weights=tmp_path / "a.safetensors")


def test_own_weights_in_a_run(tiny, face, talk, tmp_path, released_folder):
    """A model that isn't a released one, with weights of its own and plain guidance."""
    import copy
    import json

    from hy_avatar import network
    from hy_core.testing.tiny import randomised
    from hy_core.weights import save_port_weights

    config, dit = AvatarConfig(speech=small.SPEECH), copy.deepcopy(tiny.dit)
    network.attach_modules(dit, "avatar", config)
    for block in dit.double_blocks:
        randomised(block.after, 1)
    save_port_weights(dit, "avatar", tmp_path / "a.safetensors", {"config": json.dumps(config.to_json())})
    options = dict(image=face, weights=tmp_path / "a.safetensors", whisper=released_folder / "whisper-tiny")
    request = replace(tiny.request, cfg=2.0, negative="noise")

    def clip(**more):
        avatar = Avatar(**options, speech=[talk], speaker=[BOX], **more)
        avatar.validate(request)
        return generate(request, [avatar], model=tiny.model).frames.astype(int)

    loud, quiet = clip(), clip(strength=0.0)
    assert np.abs(loud - quiet).max() > 0
    (tmp_path / "b.safetensors").write_bytes(b"junk")
    with pytest.raises(HyError):
        generate(request, [Avatar(image=face, weights=tmp_path / "b.safetensors")], model=tiny.model)
