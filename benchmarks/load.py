"""Start-up and loading beside the diffusers package, each in fresh processes; prints a Markdown table.

    python benchmarks/load.py --width 1024 --double 4 --single 8 --repeats 3

A DiT with random weights is saved once in the folder layout of diffusers; both packages load that folder.
Times are processor seconds (medians); memory is what the process holds at most beyond what it held after its
imports.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

COMMANDS = {
    "hy --help": [sys.executable, "-m", "hy_core", "--help"],
    "diffusers-cli --help": [str(Path(sys.executable).with_name("diffusers-cli")), "--help"],
    "import hy_core": [sys.executable, "-c", "import hy_core"],
    "import hy_core.session": [sys.executable, "-c", "import hy_core.session"],
    "import HunyuanVideoPipeline": [sys.executable, "-c", "from diffusers import HunyuanVideoPipeline"],
}


def processor_seconds(command: Sequence[str]) -> float:
    """User and system time of a child process."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def save(folder: Path, args: argparse.Namespace) -> int:
    """Write a random DiT as diffusers does; return its number of parameters."""
    import torch
    from diffusers import HunyuanVideoTransformer3DModel

    torch.manual_seed(0)
    model = HunyuanVideoTransformer3DModel(
        num_attention_heads=args.width // 128,
        attention_head_dim=128,
        num_layers=args.double,
        num_single_layers=args.single,
    )
    model.to(torch.bfloat16).save_pretrained(folder)
    return sum(parameter.numel() for parameter in model.parameters())


def measure(load: Callable[[], object]) -> dict[str, float]:
    """Processor seconds, wall seconds and additional peak memory of a call, and of touching every weight."""
    Path("/proc/self/clear_refs").write_text("5")  # Linux: begin a new peak
    held = peak()
    clock, wall = time.process_time(), time.perf_counter()
    model = load()
    for parameter in model.parameters():  # what is mapped counts only when it is read
        parameter.detach().sum()
    seconds = {"cpu": time.process_time() - clock, "wall": time.perf_counter() - wall}
    return {**seconds, "mb": peak() - held}


def peak() -> float:
    """The most memory this process has held since the last reset, mapped files included, in MB."""
    status = Path("/proc/self/status").read_text()
    return int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024


def load_ours(folder: str) -> dict[str, float]:
    import torch
    from hy_core.weights import load_dit

    return measure(lambda: load_dit(folder, "cpu", torch.bfloat16))


def load_theirs(folder: str) -> dict[str, float]:
    import torch
    from diffusers import HunyuanVideoTransformer3DModel

    return measure(lambda: HunyuanVideoTransformer3DModel.from_pretrained(folder, torch_dtype=torch.bfloat16))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--width", type=int, default=1024, help="multiple of 128")
    parser.add_argument("--double", type=int, default=4)
    parser.add_argument("--single", type=int, default=8)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--load", nargs=2, metavar=("WHO", "FOLDER"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.load:
        print(json.dumps({"hy": load_ours, "diffusers": load_theirs}[args.load[0]](args.load[1])))
        return

    print("| start-up | processor s |\n|---|---|")
    for name, command in COMMANDS.items():
        times = [processor_seconds(command) for _ in range(args.repeats)]
        print(f"| {name} | {statistics.median(times):.2f} |")

    with tempfile.TemporaryDirectory() as folder:
        count = save(Path(folder), args)
        print(f"\n| load a DiT of {count / 1e6:.0f} M, bf16 | processor s | wall s | memory MB |")
        print("|---|---|---|---|")
        for who in ("diffusers", "hy"):
            command = [sys.executable, __file__, "--load", who, folder]
            runs = [
                json.loads(subprocess.run(command, check=True, capture_output=True).stdout)
                for _ in range(args.repeats)
            ]
            cpu, wall, mb = (statistics.median(run[key] for run in runs) for key in ("cpu", "wall", "mb"))
            print(f"| {who} | {cpu:.2f} | {wall:.2f} | {mb:.0f} |")
        print(f"\n(The weights alone are {count * 2 / 2**20:.0f} MB.)")


if __name__ == "__main__":
    main()
