"""The plugin `avatar`: its conditioner and what it registers. Torch is imported only to run."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hy_core import Conditioner, hookimpl
from hy_core.errors import HyError, UsageError

from hy_avatar import checks, sizes
from hy_avatar.config import RELEASED
from hy_avatar.model_files import ModelFiles
from hy_avatar.options import AvatarOptions

if TYPE_CHECKING:
    from hy_core.condition import Condition
    from hy_core.dit import DiT
    from hy_core.flow.guidance import Branch
    from hy_core.flow.policy import SamplingPolicy
    from hy_core.request import Request, Result
    from hy_core.training import TrainingBatch
    from PIL import Image
    from torch import Tensor

    from hy_avatar.driver_condition import DriverConditionBuilder


LEAST_FRAMES = 5
"""Frames of the shortest clip: two latent frames."""


class Avatar(Conditioner):
    """Animate the person in a picture: speech drives the mouth, a video of a face the expression, poses the body."""

    Options = AvatarOptions

    options: AvatarOptions

    _builder: DriverConditionBuilder | None = None  # set by `attach_for_training`

    def defaults(self, model: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return a size in the picture's shape for models of large pictures, and frames as long as the drivers are."""
        found: dict[str, Any] = {}
        if short := sizes.class_for(min(model["height"], model["width"])):
            width, height = sizes.size_for(*self.picture().size, short)
            found |= {"width": width, "height": height}
        options = self.options
        if options.speech or options.pose or options.expression:
            from hy_avatar import pose, sound  # import PyAV, which a look at the options doesn't need

            lengths = [sound.seconds(path) for path in options.speech]
            lengths = lengths or [pose.seconds(path) for path in (options.pose, options.expression) if path]
            # One frame would be a picture, which has no sound and no motion.
            found["frames"] = max(sound.frames_for(max(lengths), model["fps"]), LEAST_FRAMES)
        return found

    def validate(self, request: Request) -> None:
        """Check that all files can be read and that the options fit together; UsageError names the option."""
        self.picture()
        checks.check_speakers(self)
        checks.check_files(self)
        checks.warn_of_unused(self)

    def picture(self) -> Image.Image:
        """Return the picture of the person, RGB and upright; UsageError without one."""
        from hy_core.media import read_picture

        if self.options.image is None:
            raise UsageError("avatar: no picture of the person is given", "--avatar-image FILE")
        try:
            return read_picture(self.options.image)
        except HyError as error:
            raise self.error("image", error.message) from None

    # -- the network -------------------------------------------------------------------------------------

    def files(self, folder: Path | None) -> ModelFiles:
        """Return where the weights of a run with this model are, and what they support."""
        return ModelFiles(self.name, self.options, self.error, folder, training=self._builder is not None)

    def weights(self, folder: Path | None = None) -> str | None:
        """Return the file of --avatar-weights, else the model's own."""
        file = self.files(folder).weights
        return str(file) if file else None

    def attach(self, dit: DiT, folder: Path | None = None) -> None:
        """Attach the modules that the weights belong to; MissingError if the model has none."""
        from hy_avatar.network import attach_modules

        files = self.files(folder)
        files.check_present()
        config = files.config()
        files.check_supported(config)
        attach_modules(dit, self.name, config)

    def attach_for_training(
        self, dit: DiT, table: Mapping[str, Any], folder: Path | None = None
    ) -> Mapping[str, str]:
        """Attach the modules of the recipe's table, or of the weights from which training starts."""
        from hy_avatar.driver_condition import DriverConditionBuilder
        from hy_avatar.network import attach_modules
        from hy_avatar.recipe import TrainingConfig

        settings = TrainingConfig.read(table)
        files = ModelFiles(self.name, self.options, self.error, folder, training=True)
        config = settings.avatar_config(files)
        attach_modules(dit, self.name, config)
        self._builder = DriverConditionBuilder(self.name, config, settings)
        return {"config": json.dumps(config.to_json())}

    def owns_key(self, key: str, folder: Path | None = None) -> bool:
        """Whether a tensor of a released checkpoint is the avatar's."""
        from hy_avatar import released

        return self.files(folder).weights is None and released.owns_key(key)

    def attach_from_checkpoint(
        self, dit: DiT, state: Mapping[str, Tensor], folder: Path | None = None
    ) -> None:
        """Attach the released modules, filled from the checkpoint.

        `state` holds tensors of any shape by name.
        """
        from hy_avatar import released

        files = self.files(folder)
        files.check_supported(files.check_drivers(RELEASED))
        released.load(dit, self.name, state)

    # -- the condition -----------------------------------------------------------------------------------

    def encode(self, request: Request, cond: Condition) -> None:
        """Add the reference picture, the drivers, and the places where each acts."""
        from hy_avatar import released
        from hy_avatar.network import slice_frames
        from hy_avatar.objective import without

        options, files = self.options, self.files(cond.encoding.folder)
        config = files.config()
        inputs = self._inputs(request, cond)
        reference = inputs["reference"][:, :, :1]
        if cond.negative:
            as_released = files.is_sampled_as_released()
            inputs = released.negative(inputs) if as_released else without(inputs, config.guided)
        cond.add_context(self.name, inputs["reference"][:, :, :1], [-1], "video")
        if config.fix_first_frame if options.fix_first_frame is None else options.fix_first_frame:
            cond.fix_frames(self.name, [0], reference)
        cond.set_adapter_inputs(self.name, inputs, slice_frames)
        if options.image_prompt != "off":
            self._set_image_prompt(request, cond)

    def plan_sampling(self, request: Request, cond: Condition, policy: SamplingPolicy) -> None:
        """Denoise in windows, restrict speech and expression to the face, and sample as released, if asked."""
        from hy_avatar import released
        from hy_avatar.objective import without

        options, files = self.options, self.files(cond.encoding.folder)
        policy.set_windows(self.name, released.WINDOWS)
        config = files.config()
        is_restricted = (
            config.restrict_to_mask if options.restrict_to_mask is None else options.restrict_to_mask
        )
        _, face_mask = self._drivers(request, cond)
        if is_restricted and face_mask is not None:
            outside = without(self._inputs(request, cond), ("speech", "expression"))
            policy.restrict_to_mask(self.name, cond, face_mask, outside)
        if files.is_sampled_as_released():
            released.plan(policy, self.name, request.cfg, options.cache)

    def branches(self, request: Request, cond: Condition) -> Iterable[Branch]:
        """Return the guidance terms on speech, for a model that is sampled as released."""
        from hy_avatar import released

        if not self.files(cond.encoding.folder).is_sampled_as_released() or request.cfg == 1:
            return ()
        return released.guide(cond, self.name, request.cfg)

    def training_condition(self, batch: TrainingBatch, cond: Condition) -> Tensor:
        """Add the drivers of a batch's clips, from their annotations; return loss weights [B, 1, F, h, w]."""
        if self._builder is None:
            raise RuntimeError("training_condition is called before attach_for_training")
        return self._builder.fill(batch, cond)

    def adds_sound(self) -> bool:
        """Whether there is speech."""
        return bool(self.options.speech)

    def finish(self, request: Request, result: Result) -> None:
        """Add the speech to the clip."""
        if self.options.speech:
            from hy_avatar import sound

            length = len(result.frames) / result.fps
            result.sound = sound.track(self.options.speech, length, result.sound)

    def _drivers(self, request: Request, cond: Condition) -> tuple[dict[str, Any], Tensor | None]:
        """Return `drivers.Drivers.inputs`, made once for all guidance branches."""
        from hy_avatar.drivers import Drivers

        def make() -> tuple[dict[str, Any], Tensor | None]:
            files = self.files(cond.encoding.folder)
            drivers = Drivers(self.options, self.picture(), request, files.config(), self.error)
            return drivers.inputs(cond, files.is_sampled_as_released())

        made: tuple[dict[str, Any], Tensor | None] = cond.encoding.clip_cache.get(
            f"{self.name}.drivers", make
        )
        return made

    def _inputs(self, request: Request, cond: Condition) -> dict[str, Any]:
        """Return the adapter inputs of the positive branch."""
        from hy_avatar import controls

        options, config = self.options, self.files(cond.encoding.folder).config()
        motion = controls.inputs(options.head_scale, options.expression_scale, request.fps, config.controls)
        return self._drivers(request, cond)[0] | motion

    def _set_image_prompt(self, request: Request, cond: Condition) -> None:
        """Replace the text by the states of the model's LLaVA, which reads the picture with the prompt, if any."""
        from hy_avatar import image_prompt

        def encode() -> list[Tensor]:
            if cond.encoding.vae is None or (folders := image_prompt.find(cond.encoding.folder)) is None:
                return []
            prompts = [request.prompt, *([request.negative] if request.cfg != 1 else [])]
            if self.options.image_prompt == "instead":
                prompts = [""] * len(prompts)
            weight = next(cond.encoding.vae.parameters())
            return image_prompt.encode(folders, prompts, self.picture(), weight.device, weight.dtype)

        if states := cond.encoding.clip_cache.get(f"{self.name}.text", encode):
            cond.set_text(self.name, [states[1 if cond.negative else 0]])


Register = Callable[..., None]


@hookimpl
def register_conditioners(register: Register) -> None:
    """Register the conditioner `avatar`."""
    register(Avatar)


@hookimpl
def register_presets(register: Register) -> None:
    """Register the files in `presets/`."""
    for path in sorted(Path(__file__).with_name("presets").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_objectives(register: Register) -> None:
    """Register the training of a face codec."""
    register("face-codec", "hy_avatar.expression_objective:FaceCodecObjective")


@hookimpl
def register_recipes(register: Register) -> None:
    """Register the files in `recipes/`."""
    for path in sorted(Path(__file__).with_name("recipes").glob("*.toml")):
        register(path.stem, path)


@hookimpl
def register_datasets(register: Register) -> None:
    """Register the user's own clips, prepared by the stages."""
    register("talking-clips", "hy_avatar.clips:TalkingClips")


@hookimpl
def register_stages(register: Register) -> None:
    """Register the stages that prepare clips of talking people."""
    register("talking-head", "hy_avatar.stages.heads:TalkingHead")
    register("face-points", "hy_avatar.stages.points:FacePoints")
    register("face-mask", "hy_avatar.stages.points:FaceMask")
    register("person-pose", "hy_avatar.stages.poses:PersonPose")
    register("speech-features", "hy_avatar.stages.voices:SpeechFeatures")
    register("voice-presence", "hy_avatar.stages.voices:VoicePresence")
    register("lip-sync", "hy_avatar.stages.voices:LipSync")
