"""Exported C programs on emulated microcontrollers: instructions, flash and RAM, beside 8-bit multiplications.

    python benchmarks/microcontroller.py --path DIR [--keep DIR] [--targets cortex-m3 cortex-m4 cortex-m7] [--json]

Trains the recipes cifar10-micro-w3a4, cifar10-micro-w3a2 and digits-tiny-w3a4 (a run that is there in DIR of
--keep is used again), lowers them, and counts what each strategy executes in QEMU on a test image.

The yardstick of the CIFAR-10 network is CMSIS-NN in 8 bits on a network of the same shapes (32 x 32 x 3; convolutions
to 32 channels with stride 2, to 64, to 64 with stride 2; linear to 10; 7.3 million multiplications): 1.9 instructions a
multiplication on a Cortex-M4, 2.8 on a Cortex-M3, 112 KB of flash, 25.7 KB of RAM, measured in QEMU.

Ratios: `w3a4_cortex-m4_fast_ratio`, instructions over the yardstick's; `..._flash_ratio` and `..._ram_ratio`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from maqd.export.c99 import Strategy, Target

NETWORKS = {"w3a4": "cifar10-micro-w3a4", "w3a2": "cifar10-micro-w3a2", "digits": "digits-tiny-w3a4"}
TARGETS = (
    Target.CORTEX_M0PLUS,
    Target.CORTEX_M3,
    Target.CORTEX_M4,
    Target.CORTEX_M7,
    Target.CORTEX_M33,
    Target.CORTEX_M55,
)
INT8_FLASH, INT8_RAM = 112_000, 25_700
"""Bytes."""


def maqd(*arguments: object) -> str:
    """What a command prints."""
    done = subprocess.run(
        [sys.executable, "-m", "maqd.cli", *map(str, arguments)], stdout=subprocess.PIPE, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"maqd {' '.join(map(str, arguments))} failed")
    return done.stdout


def make(name: str, folder: Path, data: list[str]) -> tuple[Path, Path]:
    """A trained run and its graph."""
    run, graph = folder / name, folder / f"{name}.maqd"
    if not graph.exists():
        maqd("train", NETWORKS[name], "--run", run, "--overwrite", "--json", *data)
        maqd("lower", run, "-o", graph, "--json")
    return run, graph


def main() -> None:
    """Measures all networks, targets and strategies."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--path", help="directory of CIFAR-10")
    parser.add_argument("--keep", type=Path, help="directory of trained networks, used again if they are there")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=list(NETWORKS))
    parser.add_argument("--targets", nargs="+", default=[t.value for t in TARGETS], choices=[t.value for t in TARGETS])
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        for network in options.networks:
            data = ["--data.path", options.path] if options.path is not None and network != "digits" else []
            run, graph = make(network, folder, data)
            for target in options.targets:
                for strategy in Strategy:
                    arguments = ("--target", target, "--strategy", strategy.value, "--against", run, "--json")
                    found = json.loads(maqd("bench", graph, *arguments, *data))
                    key = f"{network}_{target}_{strategy.value}"
                    figures[key] = {name: found[name] for name in ("instructions", "flash", "ram", "stack")}
                    figures["tools"] = [found["compiler"], " ".join(found["flags"][:1]), found["emulator"]]
                    line = f"{key:32s} {found['instructions']:10,} instructions, flash {found['flash']:6,}, "
                    line += f"RAM {found['ram']:6,}, stack {found['stack']:4,}"
                    if network != "digits":
                        figures[f"{key}_flash_ratio"] = found["flash"] / INT8_FLASH
                        figures[f"{key}_ram_ratio"] = found["ram"] / INT8_RAM
                        if found["int8_ratio"] is not None:
                            figures[f"{key}_ratio"] = found["int8_ratio"]
                            line += f"; {found['int8_ratio']:.3f} times the instructions of 8 bits"
                        line += (
                            f"; flash {figures[f'{key}_flash_ratio']:.2f}, RAM {figures[f'{key}_ram_ratio']:.2f} times"
                        )
                    if not options.json:
                        print(line, flush=True)
    print(json.dumps(figures) if options.json else "; ".join(figures["tools"]))


if __name__ == "__main__":
    main()
