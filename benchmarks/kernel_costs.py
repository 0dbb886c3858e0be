"""The costs by which convolutions choose their kernel (`Costs` in csrc/kernels/table.h), measured on this machine.

    python benchmarks/kernel_costs.py [--isa avx512 avx2] [--repeats 200] [--json]

Times convolutions of three-state weights on random inputs, one image, one thread, each with one kind of kernel, and
fits the terms of csrc/engine/conv_cost.cpp to the times, with all relative errors weighted alike. Prints the constants
as the files in csrc/isa have them, and the median relative error of each fit. The choice needs no precision: change a
constant where it is off by a third or more, then run benchmarks/inference.py before and after.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product

import numpy as np
from numpy.typing import NDArray

from harness import machine, options_parser, print_json, print_machine
from maqd.graph import Conv, Graph, Input, Node, Output, Thresholds
from maqd.numerics.packing import PackedCodes
from maqd.numerics.states import Grid, States
from maqd.runtime.native import Kernel, NativeEngine, isas

NEAR = 0.85
"""As in csrc/engine/conv_cost.cpp: a product of Winograd's filtering over one of the dense kernel."""

VECTOR_BITS = {"amx": 512, "avx512": 512, "avx2": 256, "neon": 128}
"""The widest vectors of each instruction set's event kernels."""

SIZES = (6, 16)
"""Rows and columns of the images."""


TOGETHER = 5
"""Runs whose median is one time. The least time counts: what else the machine does only adds."""


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution with stride 1 that keeps the size of its input.

    Args:
        inputs, outputs: Channels; multiples of 64, so that no kernel fills up.
        kernel: Rows and columns of the kernel.
        density: Share of inputs that are 1; the others are 0.
        size: Rows and columns of its input.
        sums: Whether sums are stored, and not codes of two states.
    """

    inputs: int
    outputs: int
    kernel: int
    density: float
    sums: bool
    size: int

    @property
    def depth(self) -> int:
        return self.inputs * self.kernel**2

    def graph(self) -> Graph:
        """Its graph, with random weights."""
        random = np.random.default_rng(0)
        three = States(count=3, signed=True)
        codes = random.integers(-1, 2, (self.outputs, self.inputs, self.kernel, self.kernel))
        nodes: list[Node] = [
            Input(
                name="x",
                inputs=(),
                shape=(self.inputs, self.size, self.size),
                grid=Grid(low=0, high=1, exponent=0),
                zero=0,
            ),
            Conv(
                name="conv",
                inputs=("x",),
                weight=PackedCodes.pack(codes, three),
                exponent=0,
                stride=(1, 1),
                padding=(self.kernel // 2, self.kernel // 2),
                dilation=(1, 1),
                groups=1,
            ),
        ]
        if not self.sums:
            nodes.append(
                Thresholds(
                    name="codes",
                    inputs=("conv",),
                    axis=0,
                    states=States(count=2, signed=False),
                    step_exponent=0,
                    thresholds=np.full((1, self.outputs), 3, np.int16),
                    signs=np.ones(self.outputs, np.int8),
                )
            )
        return Graph(nodes=(*nodes, Output(name="y", inputs=(nodes[-1].name,))))

    def nanoseconds(self, isa: str, kernel: Kernel, repeats: int) -> float | None:
        """Of the convolution; None where the kernel does not take it."""
        engine = NativeEngine(self.graph(), isa=isa, kernel=kernel)
        images = (np.random.default_rng(1).random((1, self.inputs, self.size, self.size)) < self.density).astype(
            np.uint8
        )
        steps = [
            next(step for step in engine.profile(images, repetitions=TOGETHER) if "conv" in step.nodes)
            for _ in range(-(-repeats // TOGETHER))
        ]
        return 1e9 * min(step.seconds for step in steps) if steps[0].kernel == kernel.value else None


def layers(*, dense: bool) -> Iterator[Layer]:
    """What is measured: for kernels that read all inputs one density, for the others several, codes and sums."""
    for inputs in (64, 128):
        for outputs in (128, 256):
            for kernel in (1, 3):
                if inputs * outputs * kernel**2 > 2**18:  # more weights than stay near
                    continue
                for density, sums, size in product(
                    (0.3,) if dense else (0.02, 0.1, 0.2, 0.4), (False,) if dense else (False, True), SIZES
                ):
                    yield Layer(inputs=inputs, outputs=outputs, kernel=kernel, density=density, sums=sums, size=size)


def event_terms(layer: Layer, isa: str) -> tuple[float, ...]:
    """How often the cost of a row, a chunk, a sum and a look is due."""
    lanes = 64
    while lanes < layer.outputs and lanes * 4 <= VECTOR_BITS[isa]:
        lanes *= 2
    pixels, chunks = layer.size**2, layer.outputs / lanes
    rows = pixels * chunks * layer.depth * layer.density
    looks = pixels * layer.kernel * layer.inputs / 64
    return rows, pixels * chunks, pixels * layer.outputs * layer.sums, looks


def fitted(terms: NDArray[np.float64], times: NDArray[np.float64]) -> tuple[NDArray[np.float64], float]:
    """Costs, none negative, that minimize the squared relative errors; the median relative error."""
    kept = np.ones(terms.shape[1], bool)
    costs = np.zeros(terms.shape[1])
    while True:
        costs[:] = 0
        costs[kept] = np.linalg.lstsq(terms[:, kept] / times[:, None], np.ones(len(times)), rcond=None)[0]
        if not (costs < 0).any():
            return costs, float(np.median(np.abs(terms @ costs / times - 1)))
        kept[np.argmin(costs)] = False


def measured(isa: str, repeats: int) -> tuple[dict[str, float], dict[str, float]]:
    """The costs of an instruction set, and the errors of the fits."""
    dense = [(layer, layer.nanoseconds(isa, Kernel.DENSE, repeats)) for layer in layers(dense=True)]
    terms = np.array(
        [np.multiply(layer.size**2 * layer.outputs, (layer.depth, 1)) for layer, time in dense if time], np.float64
    )
    (one, finish), dense_error = fitted(terms, np.array([time for _, time in dense if time]))
    combines = []
    for layer in layers(dense=True):
        if layer.kernel == 3 and (time := layer.nanoseconds(isa, Kernel.WINOGRAD, repeats)):
            quads = layer.size * -(-layer.size // 4)
            products = 6 * layer.depth / 3 * layer.outputs * one * NEAR
            combines.append((time / quads - products) / layer.outputs)
    events = [(layer, layer.nanoseconds(isa, Kernel.EVENTS, repeats)) for layer in layers(dense=False)]
    terms = np.array([event_terms(layer, isa) for layer, time in events if time])
    (row, chunk, sums, look), events_error = fitted(terms, np.array([time for _, time in events if time]))
    costs = {
        "product": float(one),
        "finish": float(finish),
        "combine": float(np.median(combines)),
        "row": float(row),
        "chunk": float(chunk),
        "sums": float(sums),
        "look": float(look),
    }
    return costs, {"dense": dense_error, "events": events_error}


def main() -> None:
    """Measures and prints."""
    have = [isa for isa in isas() if isa != "scalar"]
    parser = options_parser(__doc__)
    parser.add_argument("--isa", nargs="+", choices=have, default=have, help="instruction sets")
    parser.add_argument("--repeats", type=int, default=200, help="of each layer; times are medians")
    options = parser.parse_args()
    figures: dict[str, object] = {}
    if not options.json:
        print_machine(machine())
    for isa in options.isa:
        costs, errors = measured(isa, options.repeats)
        figures[isa] = {"nanoseconds": costs, "median_relative_error": errors}
        if not options.json:
            print(f"{isa}: median relative error dense {errors['dense']:.2f}, events {errors['events']:.2f}")
            for name, cost in costs.items():
                print(f"    isa.costs.{name} = {cost:.2g};")
    if options.json:
        print_json(machine(), figures)


if __name__ == "__main__":
    main()
