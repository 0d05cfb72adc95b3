"""The plugins of a process: select, load, isolate and time them; one typed method per hook.

One class of over 350 lines: loading, registrations and observers share the tables of what is loaded and registered.

All of it is one subject: the plugins of a process.
"""

from __future__ import annotations

import copy
import importlib.metadata
import importlib.util
import inspect
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache, cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from hy_core import builtin, hooks, options
from hy_core.conditioner import Conditioner
from hy_core.errors import HyError, PluginError
from hy_core.found import Found, check_requirements, file_sha256, read_installed, remedy
from hy_core.guard import failure, guarded, place, reason
from hy_core.hooks import Check
from hy_core.registered import KINDS, NAME, READERS, Entry, Registered, read_target
from hy_core.trace import trace

if TYPE_CHECKING:
    import click

    from hy_core.request import Request, Result

CORE = "(core)"  # no plugin can be called so
HOOKS = tuple(name for name in vars(hooks) if name.startswith(("register_", "on_")))
log = logging.getLogger("hy")


class Plugins:
    """The plugins of one run. `found` is read without imports; only what `load` names is imported.

    `entries` are entry points of the group `hy.plugins` (those installed, unless given); `only` restricts
    what may be selected (the environment variable HY_PLUGINS, a comma-separated list, unless given).
    """

    def __init__(
        self,
        entries: Iterable[importlib.metadata.EntryPoint] | None = None,
        only: Iterable[str] | None = None,
    ) -> None:
        if only is None and "HY_PLUGINS" in os.environ:
            only = [name.strip() for name in os.environ["HY_PLUGINS"].split(",")]
        self._only = None if only is None else frozenset(only)
        self._entries = entries
        self._manager = pluggy.PluginManager("hy")
        self._manager.add_hookspecs(hooks)
        self._loaded: dict[str, Found] = {}
        self._said: dict[tuple[str, str], list[tuple[str, Any]]] = {}
        self._seconds: dict[str, float] = {}
        self.add(_core(), builtin)

    # finding

    @cached_property
    def _installed(self) -> dict[str, tuple[importlib.metadata.EntryPoint, Found]]:
        return read_installed(self._entries)

    @property
    def found(self) -> dict[str, Found]:
        """The installed plugins that may be selected, sorted by name; nothing is imported."""
        return {name: found for name, (_, found) in self._installed.items() if self._allowed(name)}

    @property
    def off(self) -> dict[str, Found]:
        """The installed plugins that HY_PLUGINS leaves out."""
        return {name: found for name, (_, found) in self._installed.items() if not self._allowed(name)}

    @property
    def loaded(self) -> dict[str, Found]:
        """The plugins loaded so far, in the order of their selection; not the core's own."""
        return {name: found for name, found in self._loaded.items() if name != CORE}

    def has(self, hook: str) -> bool:
        """Whether a loaded plugin has this hook."""
        return any(hook in self.hooks(name) for name in self._loaded)

    def distributions(self, names: Iterable[str]) -> list[str]:
        """The distributions that the loaded ones of these plugins come from; a plugin that is a file has none."""
        loaded = (self._loaded[name] for name in names if name in self._loaded)
        return sorted({found.distribution for found in loaded if not found.file and found.version})

    def records(self, names: Iterable[str]) -> list[dict[str, str]]:
        """What provenance holds of the loaded ones of these plugins: name, path ("" if installed), sha256."""
        return [self._loaded[name].record() for name in names if name in self._loaded]

    def _allowed(self, name: str) -> bool:
        return self._only is None or name in self._only

    # loading

    def load(self, *names: str) -> list[str]:
        """Import plugins by name, or by the path of a Python file, once; return their names.

        PluginError, in one line, for one that is missing, switched off, installed twice or broken. A broken
        one is left out entirely; those loaded before stay.
        """
        return [self._timed(name) for name in names]

    def _timed(self, name: str) -> str:
        start = time.perf_counter()
        name = self._load(name)
        self._seconds.setdefault(name, time.perf_counter() - start)
        return name

    def _load(self, name: str) -> str:
        if name.endswith(".py") or "/" in name or os.sep in name:
            return self._load_file(Path(name))
        if name in self._loaded:
            return name
        if name not in self._installed:
            near = options.nearest(name, self.found)
            known = ", ".join(self.found) or "none"
            hint = f"did you mean {near}?" if near else f"installed: {known}; more: hy plugins install"
            raise PluginError(f"no plugin {name!r}", hint)
        entry, found = self._installed[name]
        self._refuse_off(name)
        if found.rivals:
            every = " and ".join((found.package, *found.rivals))
            raise PluginError(f"plugin {name!r} is installed twice: by {every}", "uninstall one of them")
        if not NAME.fullmatch(name):
            raise PluginError(
                f"{found.package}: {name!r} isn't a name for a plugin", "its author must mend that"
            )
        check_requirements(found)
        with _one_line(found):
            module = entry.load()
        self.add(found, module)
        return name

    def _load_file(self, path: Path) -> str:
        name = path.stem
        if not NAME.fullmatch(name):
            raise PluginError(
                f"{str(path)!r} isn't a name for a plugin", "use lower case, such as night_sky.py"
            )
        try:
            path = path.expanduser().resolve()
            there = path.is_file()
        except (OSError, RuntimeError, ValueError) as error:  # a loop of links, no such home, NUL
            raise PluginError(f"can't read the plugin file {str(path)!r}: {reason(error)}") from None
        if name in self._loaded and self._loaded[name].file == str(path):
            return name
        if not there:
            raise PluginError(f"no such plugin file: {path}")
        self._refuse_off(name)
        taken = self._loaded.get(name) or self.found.get(name)
        if taken:
            raise PluginError(f"{path} and {taken.package} both are plugin {name!r}", "rename the file")
        spec = importlib.util.spec_from_file_location(f"hy_local_{name}", path)
        if spec is None or spec.loader is None:
            raise PluginError(f"{path} isn't a Python file", "a plugin is a file NAME.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[spec.name] = module  # dataclasses look their module up by name
        found = Found(name, path.name, module=str(path), file=str(path))
        try:
            with _one_line(found):
                found = replace(found, sha256=file_sha256(path))
                spec.loader.exec_module(module)
            self.add(replace(found, summary=_first_line(module)), module)
        except BaseException:
            sys.modules.pop(spec.name, None)
            raise
        return name

    def _refuse_off(self, name: str) -> None:
        if not self._allowed(name):
            allowed = ",".join(sorted(self._only or ()))
            raise PluginError(
                f"plugin {name!r} is switched off by HY_PLUGINS={allowed}", "add it there, or unset it"
            )

    def add(self, found: Found | str, module: Any) -> None:
        """Take a module, or any object with hookimpls, as a plugin; refuse one whose hooks don't fit."""
        if isinstance(found, str):
            found = Found(found, found, module=getattr(module, "__name__", type(module).__name__))
        if found.name in self._loaded:
            raise PluginError(f"plugin {found.name!r} is loaded already", "take another name")
        try:
            self._manager.register(module, found.name)
            self._manager.check_pending()
            if not self.hooks(found.name):
                raise PluginError(
                    f"plugin {found.name!r} has no hooks", "mark them with @hookimpl from hy_core"
                )
        except (pluggy.PluginValidationError, ValueError, PluginError) as error:
            wrong = [hook for hook in self.hooks(found.name) if hook not in HOOKS]
            if self._manager.get_plugin(found.name) is not None:
                self._manager.unregister(name=found.name)
            if isinstance(error, PluginError):
                raise
            near = options.nearest(wrong[0], HOOKS) if wrong else None
            reason = f"there is no hook {wrong[0]!r}" if wrong else " ".join(str(error).split())
            hint = f"did you mean {near}?" if near else "see docs/plugins/hooks.md for the signatures"
            raise PluginError(f"plugin {found.name!r}: {reason}", hint) from error
        self._loaded[found.name] = found

    def hooks(self, name: str) -> list[str]:
        """The hooks that a loaded plugin has, sorted."""
        plugin = self._manager.get_plugin(name)
        return sorted(caller.name for caller in self._manager.get_hookcallers(plugin) or ()) if plugin else []

    def examine(self, name: str) -> Health:
        """Load an installed plugin, call its registration hooks, and say how that went; never raise."""
        found = self._loaded.get(name) or self._installed[name][1]
        if not self._allowed(name):
            return Health(found, [], 0.0, "off", "HY_PLUGINS leaves it out")
        light, start = "torch" not in sys.modules, time.perf_counter() - self._seconds.get(name, 0.0)
        state, detail, hint = "ok", "", None
        try:
            self.load(name)
            for hook in self.hooks(name):
                if hook.startswith("register_"):
                    self._collect(hook)
        except HyError as error:
            state, detail, hint = "broken", error.message, error.hint
        took = (time.perf_counter() - start) * 1000
        known = self.hooks(name) if name in self._loaded else []
        if state == "broken" and known:  # so that the next one isn't blamed for it
            self._manager.unregister(name=name)
            del self._loaded[name]
        if state == "ok" and light and "torch" in sys.modules:
            state, detail = "slow", "imports torch at start-up"
            hint = "import torch inside the methods that need it"
        return Health(found, known, took, state, detail, hint)

    # what they register

    def conditioners(self, names: Iterable[str] | None = None) -> Registered[type[Conditioner]]:
        """Conditioner classes of the plugins named, loading them, in that order; without names, of all."""
        owners = None if names is None else self.load(*names)
        entries: dict[str, Entry[Any]] = self._collect("register_conditioners", owners)
        for name, entry in entries.items():
            kind: Any = entry.target
            kind.name = name  # flags, TOML tables and ports go by the registered name
        twice = [name for name, entry in entries.items() if getattr(entry.target, "name", name) != name]
        if twice:
            raise PluginError(
                f"plugin {entries[twice[0]].owner!r} registers one class twice", "make a subclass"
            )
        return Registered("conditioner", entries)

    def models(self, kind: str) -> Registered[Any]:
        """Networks of one kind: dit, vae, text or vocoder."""
        if kind not in KINDS:
            raise ValueError(f"a model is one of {', '.join(KINDS)}, not {kind!r}")
        entries, prefix = self._collect("register_models"), f"{kind}:"
        ours = {
            name.removeprefix(prefix): entry for name, entry in entries.items() if name.startswith(prefix)
        }
        return Registered(f"{kind} model", ours)

    def samplers(self) -> Registered[Callable[..., Any]]:
        """Samplers by name."""
        return Registered("sampler", self._collect("register_samplers"), guarded)

    def adapters(self) -> Registered[Any]:
        """Kinds of adapters by name."""
        return Registered("adapter", self._collect("register_adapters"))

    def presets(self) -> Registered[Path]:
        """Preset files by name."""
        return Registered("preset", self._collect("register_presets"))

    def writers(self) -> Registered[Callable[[Result, Path], None]]:
        """Writers by suffix, such as ".webp"."""
        return Registered("writer", self._collect("register_writers"), guarded)

    def objectives(self) -> Registered[Any]:
        """Training objectives by name."""
        return Registered("objective", self._collect("register_objectives"))

    def recipes(self) -> Registered[Path]:
        """Training recipes by name."""
        return Registered("recipe", self._collect("register_recipes"))

    def strategies(self) -> Registered[Any]:
        """Training strategies by name."""
        return Registered("strategy", self._collect("register_strategies"))

    def datasets(self) -> Registered[Any]:
        """Data sets by name."""
        return Registered("dataset", self._collect("register_datasets"))

    def stages(self) -> Registered[Any]:
        """Steps of the data pipeline by name."""
        return Registered("stage", self._collect("register_stages"))

    def rewriters(self) -> Registered[Any]:
        """Back-ends of `--rewrite` by name."""
        return Registered("rewriter", self._collect("register_rewriters"), guarded)

    def checks(self) -> Registered[Callable[[], Check]]:
        """Checks of `hy doctor` by name."""
        return Registered("check", self._collect("register_checks"), guarded)

    def commands(self, names: Iterable[str]) -> Registered[click.Command]:
        """Commands that these plugins register, loading them; `hy plugins run` calls them."""
        return Registered("command", self._collect("register_commands", self.load(*names)))

    def registered(self, name: str) -> dict[str, list[str]]:
        """What a loaded plugin registers, by hook: the names."""
        asked = [hook for hook in self.hooks(name) if hook.startswith("register_")]
        return {hook: [key for key, _ in self._registrations(name, hook)] for hook in asked}

    def _collect(self, hook: str, owners: Iterable[str] | None = None) -> dict[str, Entry[Any]]:
        table: dict[str, Entry[Any]] = {}
        for owner in dict.fromkeys(self._loaded if owners is None else owners):
            for name, target in self._registrations(owner, hook):
                if name in table:
                    raise PluginError(f"{name!r} is registered by {self._both(table[name].owner, owner)}")
                table[name] = Entry(owner, target)
        return table

    def _registrations(self, owner: str, hook: str) -> list[tuple[str, Any]]:
        if (owner, hook) not in self._said:
            said: list[tuple[str, Any]] = []
            reader: Callable[..., tuple[str, Any]] = READERS.get(hook, read_target)

            def register(*arguments: Any, **keywords: Any) -> None:
                said.append(reader(owner, *arguments, **keywords))

            with _one_line(self._loaded[owner], hook, self._manager.get_plugin(owner)):
                self._call(owner, hook, register=register)
            self._said[owner, hook] = said
        return self._said[owner, hook]

    def _call(self, owner: str, hook: str, **arguments: Any) -> None:
        others = [plugin for name, plugin in self._manager.list_name_plugin() if name != owner]
        if hook in self.hooks(owner):
            with trace(owner, hook):
                caller: Any = self._manager.subset_hook_caller(hook, others)
                caller(**arguments)

    def _both(self, one: str, other: str) -> str:
        first, second = self._loaded[one], self._loaded[other]
        if one == other:
            return f"{first.distribution} twice"
        if first.distribution == second.distribution:
            return f"{one} and {other} of {first.distribution}"
        return f"{first.distribution} and {second.distribution}"

    # observers

    def run_start(self, request: Request) -> None:
        """Tell every observer that a run begins."""
        self._tell("on_run_start", request=request)

    def step(self, request: Request, step: int, steps: int, seconds: float) -> None:
        """Tell every observer that a sampling step is done."""
        self._tell("on_step", request=request, step=step, steps=steps, seconds=seconds)

    def run_end(self, request: Request, result: Result | None, error: BaseException | None) -> None:
        """Tell every observer that a run is over."""
        self._tell("on_run_end", request=request, result=_looked_at(result), error=error)

    def _tell(self, hook: str, **arguments: Any) -> None:
        for owner in self._loaded:
            try:
                self._call(owner, hook, **arguments)
            except (Exception, SystemExit) as error:  # an observer must never end a run
                function = getattr(self._manager.get_plugin(owner), hook, None)
                log.error("%s", failure(owner, hook, error, function), exc_info=debugging())


@dataclass(frozen=True)
class Health:
    """How one plugin is: `state` is ok, slow (imports torch at start-up), broken or off."""

    found: Found
    hooks: list[str]
    milliseconds: float
    state: str
    detail: str = ""
    hint: str | None = None


@cache
def installed() -> Plugins:
    """The plugins of this process: the one instance that the command line uses. Tests make their own."""
    return Plugins()


def debugging() -> bool:
    """Whether HY_DEBUG asks for tracebacks."""
    return os.environ.get("HY_DEBUG", "") not in ("", "0")


def _core() -> Found:
    return Found(CORE, "hy-core", "", "What the core registers itself", builtin.__name__)


def _looked_at(result: Result | None) -> Result | None:
    """A copy of a result for observers: its arrays can't be written, and what they assign stays theirs."""
    if result is None:
        return None
    frames, sound = result.frames, result.sound
    if hasattr(frames, "flags"):  # a NumPy array
        frames = frames.view()
        frames.flags.writeable = False
    if sound is not None:
        samples = sound.samples.view()
        samples.flags.writeable = False
        sound = replace(sound, samples=samples)
    return replace(result, frames=frames, sound=sound, provenance=copy.deepcopy(result.provenance))


@contextmanager
def _one_line(found: Found, call: str = "", module: Any = None) -> Iterator[None]:
    """Turn whatever a plugin raises while it loads, or in a registration hook, into a PluginError of one line."""
    try:
        yield
    except HyError as error:
        raise PluginError(f"plugin {found.name!r}: {error.message}", error.hint) from error
    except (Exception, SystemExit) as error:
        hint = remedy(error, found)
        if call:
            message = failure(
                found.name, call, error, getattr(module, call, None), getattr(module, "__file__", None)
            )
            raise PluginError(message, hint) from error
        where = place(error, file=found.file) if found.file else ""
        where = f" ({where})" if where else ""
        raise PluginError(f"plugin {found.name!r} failed to load{where}: {reason(error)}", hint) from error


def _first_line(module: Any) -> str:
    return (inspect.getdoc(module) or "").partition("\n")[0]
