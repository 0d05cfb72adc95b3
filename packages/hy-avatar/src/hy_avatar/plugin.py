"""The plugin `avatar`: its options, and what it tells the network. Torch is imported only to run."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core import Conditioner, hookimpl
from hy_core.errors import HyError, MissingError, UsageError
from hy_core.models import POCKET
from hy_core.options import flag

from hy_avatar import sizes
from hy_avatar.options import EXPRESSION_SCALE, HEAD_SCALE, Options

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.dit import DiT
    from hy_core.flow.guidance import Branch
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.request import Request, Result
    from PIL import Image
    from torch import Tensor

    from hy_avatar.network import AvatarConfig
    from hy_avatar.training import Teacher

log = logging.getLogger(__name__)

SHIPPED = Path(__file__).with_name("pocket") / "avatar.safetensors"
"""Weights of ours for the built-in model."""
RELEASED = "llava_llama_image"
"""A folder that only a released model's has."""
BELONG = {
    "speech": ("strength", "speech_gate", "whisper"),
    "expression": ("expression_strength", "face_codec"),
    "pose": ("pose_strength", "pose_person", "pose_fit", "dwpose"),
}
"""Options that say something about a driver."""


class Avatar(Conditioner):
    """Drive a character: the mouth follows speech, the face an actor, the body a dancer; a picture says who it is."""

    Options = Options

    teacher: Teacher
    """What `training_condition` learns by; there once `learn` was called."""

    _learns = False

    def defaults(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """The picture's shape, for models of large pictures; frames for all of the speech, or of other drivers."""
        wishes: dict[str, Any] = {}
        if short := sizes.class_for(min(model["height"], model["width"])):
            width, height = sizes.size_for(*self.picture().size, short)
            wishes |= {"width": width, "height": height}
        options = self.options
        if options.speech or options.pose or options.expression:
            from hy_avatar import (  # read media: what that needs isn't loaded for a look at the options
                pose,
                sound,
            )

            lengths = [sound.seconds(path) for path in options.speech]
            lengths = lengths or [pose.seconds(path) for path in (options.pose, options.expression) if path]
            wishes["frames"] = sound.frames_for(max(lengths), model["fps"])
        return wishes

    def validate(self, request: Request) -> None:
        """Look at the picture, the sounds and the masks, and whether they belong together."""
        from hy_avatar import pose, sound
        from hy_avatar.speakers import Choice

        options = self.options
        self.picture()
        for path in options.speech:
            try:
                sound.check(path)
            except UsageError:
                raise
            except HyError as error:
                raise self.error("speech", error.message) from None
        for name, given in (("speaker", options.speaker), ("mask", options.mask)):
            if given and len(given) != self.options.faces_driven:
                raise self.error(name, f"{len(given)} for {self.options.faces_driven} faces that are driven")
        if options.speaker and options.mask:
            raise self.error("mask", "says where the speech acts, and so does --avatar-speaker; drop one")
        for text in options.speaker:
            try:
                Choice.read(text)
            except UsageError as error:
                raise self.error("speaker", error.message) from None
        for name, paths in (
            ("mask", options.mask),
            ("whisper", [options.whisper]),
            ("weights", [options.weights]),
            ("pose", [options.pose]),
            ("expression", [options.expression]),
            ("dwpose", [options.dwpose]),
            ("face_codec", [options.face_codec]),
        ):
            if missing := next((path for path in paths if path is not None and not path.exists()), None):
                raise self.error(name, f"no such file or folder: {missing}")
        for name, path in (("pose", options.pose), ("expression", options.expression)):
            try:
                if path and not pose.seconds(path):
                    raise self.error(name, f"{path} has no frames")
            except UsageError:
                raise
            except HyError as error:
                raise self.error(name, error.message) from None

        self.tell_idle()

    def tell_idle(self) -> None:
        """Warn of options that do nothing because what they belong to isn't given."""
        for driver, names in BELONG.items():
            idle = [one for one in names if getattr(self.options, one) != getattr(type(self.options), one)]
            if idle and not getattr(self.options, driver):
                log.warning("%s does nothing without %s", flag(self.name, idle[0]), flag(self.name, driver))

    def picture(self) -> Image.Image:
        """The picture of the character."""
        from hy_core.media import read_picture

        if self.options.image is None:
            raise UsageError("avatar: no picture of the character is given", "--avatar-image FILE")
        try:
            return read_picture(self.options.image)
        except HyError as error:
            raise self.error("image", error.message) from None

    # -- the network -------------------------------------------------------------------------------------

    def file(self, folder: Path | None) -> Path | None:
        """The file with the modules' weights: that of --avatar-weights, one in the model's folder, or the shipped one.

        The shipped one belongs to the built-in model. Training doesn't go on from it: a recipe that begins with the
        built-in model says itself what is attached.
        """
        places = [folder / f"{self.name}.safetensors"] if folder else []
        if folder == POCKET and not self._learns:
            places.append(SHIPPED)
        return self.options.weights or next((place for place in places if place.is_file()), None)

    def weights(self, folder: Path | None = None) -> str | None:
        """The file of --avatar-weights, or of the model."""
        file = self.file(folder)
        return str(file) if file else None

    def config(self, folder: Path | None) -> AvatarConfig:
        """What the weights say of themselves; as released for a model that has no such file in its folder."""
        from hy_core.weights.files import find, metadata

        from hy_avatar import released
        from hy_avatar.network import AvatarConfig

        if (file := self.file(folder)) is None:
            return self.fits(released.CONFIG)
        try:
            return self.fits(AvatarConfig.from_json(json.loads(metadata(find(file))["config"])))
        except (KeyError, ValueError):
            raise self.error("weights", f"{file} doesn't say what it holds") from None

    def fits(self, config: AvatarConfig) -> AvatarConfig:
        """The config, if it knows all drivers that are asked for."""
        options = self.options
        for name, wanted, known in (
            ("speech", options.speech, config.speech),
            ("expression", options.expression, config.expression),
            ("pose", options.pose, config.pose != "none"),
        ):
            if wanted and not known:
                raise self.error(
                    name, f"this model's avatar follows no {name}: its weights have no modules for it"
                )
        return config

    def attach(self, dit: DiT, folder: Path | None = None) -> None:
        """Attach the modules that the weights are for."""
        from hy_avatar.network import extend

        if self.file(folder) is None:
            raise MissingError(
                "this model has no avatar in it, and no --avatar-weights are given",
                "give a released HunyuanVideo-Avatar model's folder as --model, or weights that were trained for it",
            )
        config = self.config(folder)
        self.heeds(config, folder)
        extend(dit, self.name, config)

    def heeds(self, config: AvatarConfig, folder: Path | None = None) -> None:
        """UsageError for an option that was given and that this model knows nothing to do with."""
        from hy_avatar import look

        options = self.options
        mel = config.speech is not None and config.speech.encoder == "mel"
        for name, given, known, why in (
            ("head_scale", options.head_scale != HEAD_SCALE, config.controls, "knows no amounts of motion"),
            (
                "expression_scale",
                options.expression_scale != EXPRESSION_SCALE,
                config.controls,
                "knows no amounts of motion",
            ),
            ("whisper", options.whisper, not mel, "hears mel bands, not Whisper"),
            (
                "image_prompt",
                options.image_prompt == "instead",
                look.find(folder),
                "has no language model that sees pictures",
            ),
            (
                "cache",
                not options.cache,
                self.as_released(folder),
                "isn't sampled as released",
            ),
        ):
            if given and not known:
                raise self.error(name, f"this model {why}; leave it out")

    def attach_for_training(
        self, dit: DiT, table: Mapping[str, Any], folder: Path | None = None
    ) -> Mapping[str, str]:
        """Attach what the recipe's table says, or what the weights are for that training goes on from."""
        from dataclasses import replace

        from hy_avatar.network import ASKED, AvatarConfig, extend
        from hy_avatar.training import Settings, Teacher

        self._learns = True
        settings = Settings.read(table)
        given = AvatarConfig.from_json(settings.config) if settings.config else None
        if given is None and self.file(folder) is None:
            raise UsageError(
                "[conditioning.avatar]: nothing says what to attach",
                "add a table config to it, see docs/how-to/train.md",
            )
        config = self.config(folder) if self.file(folder) else given
        if given is not None and given.modules() != config.modules():
            raise UsageError(
                "[conditioning.avatar.config]: other modules than those of the weights training goes on from",
                "leave the table out",
            )
        if given is not None:  # the rest of it may be said anew
            config = replace(
                config, **{name: getattr(given, name) for name in ASKED if name in settings.config}
            )
        extend(dit, self.name, config)
        self.teacher = Teacher(self.name, config, settings)
        return {"config": json.dumps(config.to_json())}

    def owns_key(self, key: str, folder: Path | None = None) -> bool:
        """The avatar's modules in a released checkpoint."""
        from hy_avatar import released

        return self.file(folder) is None and released.owns_key(key)

    def attach_from_checkpoint(
        self, dit: DiT, state: Mapping[str, Tensor], folder: Path | None = None
    ) -> None:
        """Attach the released modules, filled from the checkpoint."""
        from hy_avatar import released

        self.heeds(self.fits(released.CONFIG), folder)
        released.load(dit, self.name, state)

    # -- the condition -----------------------------------------------------------------------------------

    def encode(self, request: Request, cond: Condition) -> None:
        """Add picture, speech, expression and pose, and the places where each acts."""
        from hy_avatar import released
        from hy_avatar.network import part
        from hy_avatar.objective import undriven

        options, config = self.options, self.config(cond.folder)
        drivers, _ = self.drivers(request, cond)
        feed = self.feed(request, cond)
        if cond.negative and self.as_released(cond.folder):
            feed = released.negative(feed)
        elif cond.negative:
            feed = undriven(feed, config.guided)
        cond.add_context(self.name, feed["reference"][:, :, :1], [-1], "video")
        if config.fix_first_frame if options.fix_first_frame is None else options.fix_first_frame:
            cond.fix_frames(self.name, [0], drivers["reference"][:, :, :1])
        cond.set_adapter_inputs(self.name, feed, part)
        if options.image_prompt != "off":
            self.see(request, cond)

    def feed(self, request: Request, cond: Condition) -> dict[str, Any]:
        """The adapter inputs of the positive branch."""
        from hy_avatar import controls

        drivers, _ = self.drivers(request, cond)
        options, config = self.options, self.config(cond.folder)
        return drivers | controls.feed(
            options.head_scale, options.expression_scale, request.fps, config.controls
        )

    def plan_sampling(self, request: Request, cond: Condition, policy: SamplingPolicy) -> None:
        """Denoise in windows, restrict speech and expression to the face, and sample as released, if asked."""
        from hy_avatar import released
        from hy_avatar.objective import undriven

        options, config = self.options, self.config(cond.folder)
        policy.set_windows(self.name, released.WINDOWS)
        restricted = config.restrict_to_mask if options.restrict_to_mask is None else options.restrict_to_mask
        _, faces = self.drivers(request, cond)
        if restricted and faces is not None:
            outside = undriven(self.feed(request, cond), ("speech", "expression"))
            policy.restrict_to_mask(self.name, cond, faces, outside)
        if self.as_released(cond.folder):
            released.plan(policy, self.name, request.cfg, options.cache)

    def training_condition(self, batch: Mapping[str, Any], cond: Condition) -> None:
        """Tell the network of a batch's clips what their drivers would."""
        self.teacher.give(batch, cond)

    def as_released(self, folder: Path | None) -> bool:
        """Whether a run of the model in this folder samples as the released model's does."""
        found = folder is not None and (folder / RELEASED).is_dir()
        return self.options.guidance == "released" or (self.options.guidance == "auto" and found)

    def branches(self, request: Request, cond: Condition) -> Iterable[Branch]:
        """Guidance on speech, as released."""
        from hy_avatar import released

        if not self.as_released(cond.folder) or request.cfg == 1:
            return ()
        return released.guide(cond, self.name, request.cfg)

    def drivers(self, request: Request, cond: Condition) -> tuple[dict[str, Any], Tensor | None]:
        """The drivers' adapter inputs, and a mask of the driven faces' latents; see `hy_avatar.drivers`."""
        from hy_avatar.drivers import Drivers

        def make() -> tuple[dict[str, Any], Tensor | None]:
            made = Drivers(self.options, self.picture(), request, self.config(cond.folder), self.error)
            return made.feed(cond, self.as_released(cond.folder))

        return cond.clip_cache.get(f"{self.name}.drivers", make)

    def see(self, request: Request, cond: Condition) -> None:
        """Let the model's language model read the picture with the prompt, if there is one that can."""
        from hy_avatar import look

        def read() -> list[Tensor]:
            if (folder := look.find(cond.folder)) is None:
                return []
            prompts = [request.prompt, *([request.negative] if request.cfg != 1 else [])]
            weight = next(cond.vae.parameters())
            mode = "instead" if self.options.image_prompt == "instead" else "beside"
            return look.read(folder, prompts, self.picture(), mode, weight.device, weight.dtype)

        if states := cond.clip_cache.get(f"{self.name}.text", read):
            cond.set_text(self.name, [states[1 if cond.negative else 0]])

    def finish(self, request: Request, result: Result) -> None:
        """Put the speech into the clip."""
        if self.options.speech:
            from hy_avatar import sound

            length = len(result.frames) / result.fps
            result.sound = sound.track(self.options.speech, length, result.sound)


@hookimpl
def register_conditioners(register: Any) -> None:
    """The conditioner `avatar`."""
    register(Avatar)


@hookimpl
def register_presets(register: Any) -> None:
    """The files in `presets/`."""
    for path in sorted(Path(__file__).with_name("presets").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_objectives(register: Any) -> None:
    """What makes a face codec."""
    register("face-codec", "hy_avatar.expression_objective:FaceCodecObjective")


@hookimpl
def register_recipes(register: Any) -> None:
    """The files in `recipes/`."""
    for path in sorted(Path(__file__).with_name("recipes").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_datasets(register: Any) -> None:
    """Clips of one's own, as the stages have prepared them."""
    register("talking-clips", "hy_avatar.clips:TalkingClips")


@hookimpl
def register_stages(register: Any) -> None:
    """The steps that prepare clips of talking heads."""
    register("talking-head", "hy_avatar.stages.heads:TalkingHead")
    register("face-points", "hy_avatar.stages.points:FacePoints")
    register("face-mask", "hy_avatar.stages.points:FaceMask")
    register("person-pose", "hy_avatar.stages.poses:PersonPose")
    register("speech-features", "hy_avatar.stages.voices:SpeechFeatures")
    register("voice-presence", "hy_avatar.stages.voices:VoicePresence")
    register("lip-sync", "hy_avatar.stages.voices:LipSync")
