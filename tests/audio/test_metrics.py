"""Metrics equal their definitions, by closed forms and by other libraries, and move the right way."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
import torch
from audio.clips import clip, pictures, tone
from hy_audio.metrics.distances import cosine, frechet_distance, inception_score, kl_divergence, softmax
from hy_audio.metrics.embedders import Clap, Classifier, MelStatistics, embedder
from hy_audio.metrics.measures import files, measure, summary
from hy_audio.sound_files import write_sound
from hy_audio.sync import count_matches, motion_curve, onset_curve, score_sync
from hy_core import media
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.request import Sound
from hy_world.render import render
from hy_world.scene import sample_scene
from hy_world.sound import sound

# -- distances -------------------------------------------------------------------------------------------


def test_frechet_distance_has_its_closed_form():
    from scipy.linalg import sqrtm

    rng = np.random.default_rng(0)
    one = rng.standard_normal((300, 8)) @ rng.standard_normal((8, 8))
    other = rng.standard_normal((200, 8)) @ rng.standard_normal((8, 8)) + 1
    a, b = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    shift = one.mean(0) - other.mean(0)
    expected = shift @ shift + np.trace(a + b - 2 * sqrtm(a @ b).real)
    assert frechet_distance(one, other) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-8)
    assert frechet_distance(one, one + 2) == pytest.approx(8 * 4)
    few = rng.standard_normal((5, 64))  # singular covariances
    assert math.isfinite(frechet_distance(few, few[:3])) and frechet_distance(few, few) == pytest.approx(
        0, abs=1e-6
    )
    for wrong in ((one, other[:, :3]), (one[:1], other), (one[0], other)):
        with pytest.raises(UsageError):
            frechet_distance(*wrong)


def test_divergence_is_from_real_to_made_and_paired():
    from scipy.stats import entropy

    rng = np.random.default_rng(0)
    real, made = 3 * rng.standard_normal((20, 10)), 3 * rng.standard_normal((20, 10))
    expected = np.mean([entropy(p, q) for p, q in zip(softmax(real), softmax(made), strict=True)])
    assert kl_divergence(real, made) == pytest.approx(expected, rel=1e-2)
    published = torch.nn.functional.kl_div(
        (torch.tensor(made).softmax(1) + 1e-6).log(), torch.tensor(real).softmax(1), reduction="sum"
    )
    assert kl_divergence(real, made) == pytest.approx(float(published) / 20, rel=1e-12)
    sure = 2000 * np.eye(10)  # zeros in fp64
    assert kl_divergence(sure, sure) == pytest.approx(0, abs=1e-5)
    assert kl_divergence(sure, sure[::-1]) == pytest.approx(-math.log(1e-6), rel=1e-3)
    assert kl_divergence(real, made) != pytest.approx(kl_divergence(made, real), rel=1e-3)
    assert kl_divergence(real, real) == pytest.approx(0, abs=1e-4)
    assert kl_divergence(real, real[::-1]) > 1
    with pytest.raises(UsageError):
        kl_divergence(real, made[:3])


def test_inception_score_counts_sure_and_even_classes():
    sure = 50 * np.eye(10)[np.arange(1000) % 10]
    assert inception_score(sure) == pytest.approx(10, rel=0.06) and inception_score(
        sure, splits=1
    ) == pytest.approx(10)
    assert inception_score(np.zeros((100, 10))) == pytest.approx(1)
    assert inception_score(50 * np.eye(10)[np.zeros(100, int)]) == pytest.approx(1)
    assert inception_score(sure[:3]) == pytest.approx(1)  # fewer sounds than splits


@pytest.mark.parametrize("count", [10, 23, 96, 100, 1007])
def test_inception_score_has_the_published_parts(count):
    """Whose borders are at i N // 10, also where ten doesn't divide the number of sounds."""
    logits = 3 * np.random.default_rng(count).standard_normal((count, 12))
    order = np.random.RandomState(2020).permutation(count)
    shuffled, scores = torch.tensor(logits[order], dtype=torch.float64), []
    for index in range(10):
        part = shuffled[index * count // 10 : (index + 1) * count // 10]
        p, log_p = part.softmax(1), part.log_softmax(1)
        scores.append((p * (log_p - p.mean(0, keepdim=True).log())).sum(1).mean().exp().item())
    assert inception_score(logits) == pytest.approx(np.mean(scores), rel=1e-12)


def test_a_class_that_no_sound_has_adds_nothing_to_the_inception_score():
    sure = 2000 * np.eye(4)[np.arange(40) % 2]  # two of four classes, probabilities of 0 and 1 in fp64
    assert inception_score(sure, splits=1) == pytest.approx(2)


def test_cosines():
    assert cosine(np.eye(3), 5 * np.eye(3)) == pytest.approx(1)
    assert cosine(np.eye(3), -np.eye(3)) == pytest.approx(-1)
    assert cosine(np.eye(4), np.roll(np.eye(4), 1, 0)) == 0


# -- timing ----------------------------------------------------------------------------------------------


def bounces(count: int = 12) -> list:
    rng, found = np.random.default_rng(3), []
    while len(found) < count:
        scene = sample_scene(rng, "all", objects=1)
        if scene.things[0].motion == "bounce":
            found.append(scene)
    return found


@pytest.mark.parametrize(("frames", "fps"), [(17, 8.0), (17, 12.0), (33, 24.0)])
def test_true_sound_agrees_with_motion_and_late_sound_is_late(frames, fps):
    scenes, good, late = bounces(), [], []
    for index, scene in enumerate(scenes):
        picture = motion_curve(
            ((i / fps, frame) for i, frame in enumerate(render(scene, frames))), frames / fps
        )
        wave = sound(scene, frames, fps, index)
        good.append(score_sync(onset_curve([wave[None]]), picture, frame=1 / fps))
        behind = np.roll(wave, 2560)
        late.append(score_sync(onset_curve([behind[None]]), picture, 0.08, 0.0))
    assert np.mean([one.f1 for one in good]) >= 0.9 and np.mean([one.iou for one in good]) >= 0.8
    assert np.mean([abs(one.offset) for one in good]) < 0.03
    assert np.mean([one.f1 for one in late]) < 0.2
    assert np.mean([one.offset for one in late]) == pytest.approx(0.16, abs=0.03)


def test_what_does_not_move_or_sound_has_no_events():
    still = motion_curve(((i / 8, np.full((8, 8, 3), 9, np.uint8)) for i in range(17)), 17 / 8)
    assert not len(still.peaks) and not len(onset_curve([np.zeros((1, 34000))]).peaks)
    rng = np.random.default_rng(0)
    assert not len(onset_curve([0.1 * rng.standard_normal((1, 64000)).astype(np.float32)]).peaks)
    nothing = score_sync(onset_curve([np.zeros((1, 34000))]), still)
    assert math.isnan(nothing.f1) and math.isnan(nothing.offset)
    assert count_matches([1.0, 2.0], [1.05, 3.0], 0.1) == 1 and count_matches([], [1.0], 1) == 0
    assert count_matches([1.0, 1.01], [1.0], 0.1) == 1


def test_onsets_do_not_depend_on_pieces():
    wave = np.concatenate([sound(scene, seed=index) for index, scene in enumerate(bounces(18))])[None]  # 38 s
    whole, parts = onset_curve([wave]), onset_curve(np.array_split(wave, 23, axis=1))
    assert np.array_equal(whole.peaks, parts.peaks) and len(whole.peaks) >= 34


# -- embedders -------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    """A tiny random CLAP with a real tokenizer, in a folder as transformers saves it."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import (
        ClapConfig,
        ClapFeatureExtractor,
        ClapModel,
        ClapProcessor,
        PreTrainedTokenizerFast,
    )

    folder = tmp_path_factory.mktemp("clap")
    words = ["<s>", "<pad>", "</s>", "<unk>", "a", "dog", "rain", "tin", "roof", "on"]
    plain = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="<unk>"))
    plain.pre_tokenizer = pre_tokenizers.Whitespace()
    plain.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=plain, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        model_max_length=32,
    )  # fmt: skip
    audio = {
        "hidden_size": 64, "patch_embeds_hidden_size": 8, "depths": [1, 1, 1, 1], "num_attention_heads": [1, 1, 2, 2],
        "spec_size": 256, "patch_size": 4, "patch_stride": [4, 4], "num_mel_bins": 64, "window_size": 8,
        "projection_dim": 12, "num_hidden_layers": 4,
    }  # fmt: skip
    text = {
        "vocab_size": len(words), "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 16, "max_position_embeddings": 40, "projection_dim": 12,
    }  # fmt: skip
    ClapModel(ClapConfig(audio_config=audio, text_config=text, projection_dim=12)).save_pretrained(folder)
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc"), tokenizer).save_pretrained(folder)
    return str(folder)


def test_clap_embeds_sounds_and_words_in_one_space(clap):
    tower = embedder(f"clap:{clap}")
    assert isinstance(tower, Clap) and tower.rate == 48000
    one = tower(tone(2.0)[0])
    again = tower(tone(2.0)[0])
    long = tower(tone(12.0)[0])  # longer than it hears at once: still the same each time
    assert one.features.shape == (12,) and np.array_equal(one.features, again.features)
    assert np.array_equal(long.features, tower(tone(12.0)[0]).features)
    words = tower.texts(["a dog", "rain on a tin roof"])
    assert words.shape == (2, 12) and -1 <= cosine(np.stack([one.features] * 2), words) <= 1


def test_a_classifier_gives_features_and_logits(tmp_path):
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    config = ASTConfig(
        hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, max_length=64,
        num_mel_bins=16, patch_size=8, frequency_stride=8, time_stride=8, num_labels=7,
    )  # fmt: skip
    ASTForAudioClassification(config).save_pretrained(tmp_path / "ast")
    ASTFeatureExtractor(num_mel_bins=16, max_length=64).save_pretrained(tmp_path / "ast")
    tower = embedder(f"classifier:{tmp_path / 'ast'}")
    found = tower(tone(1.0, 16000)[0])
    assert isinstance(tower, Classifier) and found.features.shape == (16,) and found.logits.shape == (7,)


def test_wrong_embedders_are_one_line(tmp_path):
    for name in ("nothing", "clap:", "json:dumps"):
        with pytest.raises(UsageError):
            embedder(name)
    for name in (f"clap:{tmp_path}", "no_such_module:it"):
        with pytest.raises(MissingError):
            embedder(name)
    assert isinstance(embedder("hy_audio.metrics.embedders:MelStatistics"), MelStatistics)


# -- files and the command -------------------------------------------------------------------------------


def test_a_file_is_measured(tmp_path):
    path = write_sound(
        tmp_path / "a.wav", [np.concatenate([tone(2, level=0.5), np.zeros((1, 96000), np.float32)], 1)], 48000
    )
    found = measure(path, {"mel": MelStatistics()})
    assert found.seconds == pytest.approx(4) and found.silent == pytest.approx(0.5, abs=0.02) and found.tail
    assert found.peak == pytest.approx(-6, abs=0.1) and found.timing is None
    import pyloudnorm
    import soundfile

    samples, rate = soundfile.read(path)
    assert found.loudness == pytest.approx(pyloudnorm.Meter(rate).integrated_loudness(samples), abs=0.05)
    assert found.embeddings["mel"].features.shape == (128,)
    stereo = write_sound(tmp_path / "b.wav", [tone(2, channels=2)], 48000)
    mono = write_sound(tmp_path / "c.wav", [tone(2)], 48000)
    assert measure(stereo, {}).loudness == pytest.approx(measure(mono, {}).loudness + 3.01, abs=0.05)
    with pytest.raises(HyError, match="no sound"):
        measure(clip(tmp_path / "d.mp4"), {})


@pytest.fixture(scope="module")
def sets(tmp_path_factory):
    """Clips of the world with their sound, with other takes of it, and with it a quarter of a second late."""
    rng, folder = np.random.default_rng(3), tmp_path_factory.mktemp("sets")
    scenes = [*bounces(4), *(sample_scene(rng, "all", objects=1) for _ in range(8))]
    for index, scene in enumerate(scenes):
        wave, video = sound(scene, seed=index), render(scene)
        late = np.concatenate([np.zeros(4000, np.float32), wave])[: len(wave)]
        for name, samples in (("real", wave), ("again", sound(scene, seed=99 + index)), ("late", late)):
            media.write(folder / name / f"{index:02}.mp4", video, 8, Sound(samples[None], 16000))
    return folder


def test_hy_eval_audio_tells_good_from_late(hy, sets):
    found = {}
    for name in ("again", "late"):
        done = hy("eval", "audio", str(sets / name), "--real", str(sets / "real"), "--json")
        assert done.exit_code == 0, done
        found[name] = json.loads(done.stdout)
    good, late = found["again"], found["late"]
    assert good["files"] == 12 and good["onset_f1"] >= 0.9 and good["offset"] <= 0.03
    assert late["onset_f1"] <= 0.2 and late["offset"] == pytest.approx(0.25, abs=0.05)
    assert good["mel"]["fd"] < 0.2 * late["mel"]["fd"] and good["silent_tails"] == 0
    table = hy("eval", "audio", str(sets / "again")).stdout
    assert "F1 of onsets and motion" in table and "Frechet" not in table


def test_hy_eval_audio_scores_captions_with_clap(hy, sets, clap, tmp_path):
    (tmp_path / "captions.json").write_text(json.dumps({f"{i:02}": "a dog" for i in range(12)}))
    done = hy(
        "eval", "audio", str(sets / "again"), "--embedder", f"clap:{clap}",
        "--captions", str(tmp_path / "captions.json"), "--json",
    )  # fmt: skip
    assert done.exit_code == 0, done
    assert -1 <= json.loads(done.stdout)[f"clap:{clap}"]["clap"] <= 1


def test_hy_eval_audio_leaves_out_what_has_no_sound_and_says_so(hy, tmp_path):
    write_sound(tmp_path / "a.wav", [tone(1)], 48000)
    clip(tmp_path / "b.mp4")
    (tmp_path / "c.mp4").write_text("no clip")
    done = hy("eval", "audio", str(tmp_path), "--json")
    assert done.exit_code == 0 and json.loads(done.stdout)["files"] == 1
    assert done.stderr.count("left out") == 2
    (tmp_path / "a.wav").unlink()
    done = hy("eval", "audio", str(tmp_path))
    assert done.exit_code == 2 and "nothing in" in done.stderr
    (tmp_path / "captions.json").write_text("[1]")
    write_sound(tmp_path / "a.wav", [tone(1)], 48000)
    done = hy("eval", "audio", str(tmp_path), "--captions", str(tmp_path / "captions.json"))
    assert done.exit_code == 2 and "captions" in done.stderr


def test_folders_are_walked_and_empty_ones_refused(tmp_path):
    media.write(tmp_path / "x" / "a.mp4", pictures(2), 2)
    (tmp_path / "x" / "notes.txt").write_text("no")
    assert [path.name for path in files(tmp_path)] == ["a.mp4"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError):
        files(tmp_path / "empty")
    assert summary([])["files"] == 0
