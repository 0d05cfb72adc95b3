"""1,000 hostile inputs, each from its seed: no traceback, no hang, no bomb, no code run, one line where it fails.

The quick suite takes a sample of 30; `-m slow` runs all. A failure names the kind and the number of each case that
failed: the same number makes the same case again.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from queue import LifoQueue
from random import Random

import pytest
from core.conftest import save_text
from hostile import inputs
from hostile.forks import Case, Forks, Outcome

pytestmark = pytest.mark.skipif(
    not hasattr(os, "fork") or not Path("/proc/self/status").exists(), reason="needs Linux"
)

EXTRA_BYTES = 400 << 20
CPU_SECONDS = 20.0
#: Cases of the whole suite by kind, and how many of them the quick suite takes.
KINDS: dict[str, tuple[inputs.Maker, int, int]] = {
    "safetensors": (inputs.safetensors, 90, 2),
    "archive": (inputs.archive, 100, 3),
    "shards": (inputs.shards, 40, 2),
    "lora": (inputs.lora, 100, 3),
    "model": (inputs.model_folder, 70, 2),
    "media": (inputs.media_file, 220, 5),
    "config": (inputs.config, 150, 4),
    "options": (inputs.options, 120, 3),
    "pasted": (inputs.pasted, 40, 2),
}
KILLS, DISKS = (40, 2), (30, 2)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model and a small file of each kind, from which cases are made."""
    import torch
    from hy_core.dit import DiT, DiTConfig
    from hy_core.vae import VAE, VAEConfig
    from safetensors.torch import save_file

    folder = tmp_path_factory.mktemp("base")
    (small := folder / "small").mkdir()
    torch.manual_seed(0)
    dit = DiT(
        DiTConfig(
            width=32, heads=2, depth_double=1, depth_single=1, depth_refiner=1, rope_dims=(4, 6, 6), in_channels=4,
            out_channels=4, text_dim=16, pooled_dim=16, guidance=False,
        )
    )  # fmt: skip
    vae = VAE(VAEConfig(channels=(8, 8, 8, 8), latent_channels=4, layers=1, groups=4))
    save_file(dit.state_dict(), small / "dit.safetensors")
    save_file(vae.state_dict(), small / "vae.safetensors")
    save_text(small)
    defaults = {
        "width": 32,
        "height": 32,
        "frames": 5,
        "fps": 8.0,
        "steps": 2,
        "guidance": None,
        "shift": 5.0,
    }
    config = {"name": "small", "dit": dit.config.to_json(), "vae": vae.config.to_json(), "defaults": defaults}
    (small / "config.json").write_text(json.dumps(config))
    inputs.make_media(folder / "media")
    return folder


@pytest.fixture(scope="module")
def pool(base: Path) -> Iterator[LifoQueue[Forks]]:
    """Two processes that fork, each started when it is first needed."""
    environment = {
        "HY_MODELS": str(base),
        "HY_MODEL": "small",
        "XDG_CONFIG_HOME": str(base / "settings"),
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
        "HF_HUB_OFFLINE": "0",  # hy itself must not look for a hub
        "http_proxy": "http://127.0.0.1:9",
        "https_proxy": "http://127.0.0.1:9",
    }
    queue: LifoQueue[Forks] = LifoQueue()
    made = [Forks(environment) for _ in range(2)]
    for one in made:
        queue.put(one)
    yield queue
    for one in made:
        one.close()


def on(pool: LifoQueue[Forks], case: Case) -> Outcome:
    """Run a case on a process that is free."""
    forks = pool.get()
    try:
        return forks.run(case)
    finally:
        pool.put(forks)


def wrong(case: Case, found: Outcome) -> str | None:
    """What a case breaks of the promises; None if nothing."""
    text = found.out + found.err
    if found.timed_out or found.cpu > CPU_SECONDS:
        return f"took {found.cpu:.0f} CPU seconds"
    if found.peak > 4 * case.size + EXTRA_BYTES:
        return f"took {found.peak >> 20} MiB for {case.size:,} bytes"
    if "Traceback" in text or re.search(r"unexpected \w+(Error|Exception|Iteration)", text):
        return f"traceback: {_last(text)}"
    if found.code < 0 or found.code == 70:
        return f"ended with {found.code}: {_last(text)}"
    if any(Path(case.folder).rglob("SENTINEL")):
        return "ran code"
    lines = [line for line in found.err.splitlines() if line.startswith(("Error", "Usage"))]
    if found.code and len(lines) != 1:
        return f"exit {found.code} with {len(lines)} lines of error: {found.err[:300]!r}"
    return None


def _last(text: str) -> str:
    return " | ".join(text.strip().splitlines()[-3:])[-400:]


def check(numbers: range, one: Callable[[int], str | None]) -> None:
    """Run cases on both processes and report all that are wrong."""
    with ThreadPoolExecutor(2 if len(numbers) > 10 else 1) as threads:
        found = dict(zip(numbers, threads.map(one, numbers), strict=True))
    bad = {number: text for number, text in found.items() if text}
    assert not bad, f"{len(bad)} of {len(found)}:\n" + "\n".join(
        f"{n}: {text}" for n, text in list(bad.items())[:20]
    )


def sample(count: int, quick: int, slow: bool) -> range:
    """All numbers, or for the quick suite a few from a random one on."""
    if slow:
        return range(count)
    first = secrets.randbelow(count - quick)
    return range(first, first + quick)


both = pytest.mark.parametrize(
    "slow", [False, pytest.param(True, marks=[pytest.mark.slow, pytest.mark.timeout(900)])]
)


@both
@pytest.mark.parametrize("kind", KINDS)
def test_hostile_inputs(kind: str, slow: bool, base: Path, pool: LifoQueue[Forks], tmp_path: Path) -> None:
    maker, count, quick = KINDS[kind]

    def one(number: int) -> str | None:
        folder = tmp_path / str(number)
        folder.mkdir()
        case = maker(folder, Random(f"{kind} {number}"), base)
        found = on(pool, case)
        text = wrong(case, found)
        if not text and kind == "pasted" and found.code == 0:
            text = paste(found.out, folder)
        shutil.rmtree(folder, ignore_errors=True)
        return text and f"{text}  [{case.argv or case.call}]"

    check(sample(count, quick, slow), one)


def paste(command: str, folder: Path) -> str | None:
    """Run a printed command in a shell, with a `hy` that does nothing."""
    tools = folder / "tools"
    tools.mkdir()
    (tools / "hy").write_text("#!/bin/sh\nexit 0\n")
    (tools / "hy").chmod(0o755)
    path = f"{tools}:{os.environ['PATH']}"
    subprocess.run(
        ["sh", "-c", command], cwd=folder, env={"PATH": path}, capture_output=True, timeout=30, check=False
    )
    return "pasted, it ran code" if any(folder.rglob("SENTINEL")) else None


@both
def test_kills_at_any_moment(slow: bool, pool: LifoQueue[Forks], tmp_path: Path) -> None:
    """A file is there whole or not at all, and the next run removes what a killed one left."""

    def one(number: int) -> str | None:
        random = Random(f"kill {number}")
        folder = tmp_path / str(number)
        folder.mkdir()
        name = random.choice(("out.gif", "out.mp4", "out.webm", "out.png", "%02d.png"))
        number_of = random.choice((signal.SIGKILL, signal.SIGTERM, signal.SIGHUP))
        frames = "1" if name == "out.png" else "9"
        argv = ["generate", "x", "--frames", frames, "--seed", "1", "-q", "-o", name]
        case = inputs.command("kill", folder, *argv)
        case.kill = (int(number_of), random.random() * 2.0)
        found = on(pool, case)
        if number_of != signal.SIGKILL or found.code != -signal.SIGKILL:
            left = [path.name for path in folder.iterdir() if path.name.endswith(".part")]
            if left or "Traceback" in found.err or found.code not in (0, 130):
                return f"{number_of.name}: code {found.code}, left {left}, {_last(found.err)}"
        whole = [
            path
            for path in folder.iterdir()
            if path.is_file() and path.suffix in (".gif", ".mp4", ".webm", ".png")
        ]
        for path in whole:
            read = on(pool, inputs.call("read", folder, "hy_core.media:read", path))
            if read.code:
                return f"{path.name} is there but not whole: {_last(read.err)}"
        if found.code != -signal.SIGKILL:
            return None
        again = on(pool, inputs.command("again", folder, *argv))
        left = [path.name for path in folder.iterdir() if path.name.endswith(".part")]
        return f"the next run: {again.code}, left {left}, {_last(again.err)}" if again.code or left else None

    check(sample(*KILLS, slow), one)


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """A file system of some bytes; skips where this process may not mount one."""
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={size}", "hy-test", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        pytest.skip(f"no mount here: {error}")
    if done.returncode:
        pytest.skip(f"can't mount a small file system: {done.stderr.strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], capture_output=True, check=False)


@both
def test_full_disk(slow: bool, pool: LifoQueue[Forks], tmp_path: Path) -> None:
    """What doesn't fit is one line; the older file of that name and no part of the new one stay."""
    with small_disk(tmp_path / "probe", 1 << 20):
        pass

    def one(number: int) -> str | None:
        random = Random(f"disk {number}")
        (folder := tmp_path / str(number)).mkdir()
        name = random.choice(("out.gif", "out.mp4", "out.webm", "%02d.png", "w.safetensors"))
        with small_disk(folder / "disk", random.choice((4096, 8192, 12288))) as disk:
            old = disk / (name if "%" not in name else "00.png")
            old.write_bytes(b"old")
            if name == "w.safetensors":
                case = inputs.call("disk", folder, "hostile.test_hostile:write_weights", old)
            else:
                argv = ("generate", "x", "--frames", "9", "--seed", "1", "-q", "-o", disk / name)
                case = inputs.command("disk", folder, *argv)
            found = on(pool, case)
            if text := wrong(case, found):
                return text
            if found.code and old.is_file() and old.read_bytes() != b"old":
                return f"{name}: the older file is damaged"
            left = [path.name for path in disk.rglob("*") if path.name.endswith(".part")]
            if left or (found.code and not re.search(r"space|write|full", found.err)):
                return f"{name}: left {left}, {_last(found.err)}"
        return None

    check(sample(*DISKS, slow), one)


def write_weights(path: str) -> None:
    """Write a file of weights that is larger than the disk."""
    import torch
    from hy_core.weights import save_safetensors

    save_safetensors(path, {"a": torch.zeros(100_000)})
