"""A training step of a narrow VGG at M_w=3, M_a=4 against the same float network with BatchNorm2d and ReLU.

    python benchmarks/train_step.py [--device cuda] [--compile] [--converted] [--repeats 15] [--json]

Both networks take the same uint8 batch through convolutions of the same shape; a step is forward, backward and
optimizer. Prints seconds, the ratio of alternating steps, and the ratio of the peaks of memory in use. With --converted
ours is what `maqd.convert` makes of that float network, on normalized float images.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from harness import alternate, machine, options_parser, print_json, print_machine
from maqd.convert import convert
from maqd.models import Architecture, ModelConfig, VGGPlan, build_model
from maqd.nn import IntegerInput, Override, QuantConfig

BATCH = 128


def float_vgg() -> nn.Sequential:
    """The peer, from PyTorch's own layers."""
    layers: list[nn.Module] = [IntegerInput()]
    channels = 3
    for stage in VGGPlan.NARROW.value:
        for width in stage:
            layers += [nn.Conv2d(channels, width, 3, padding=1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
            channels = width
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(channels * 16, 10))


def quantized_vgg() -> nn.Module:
    """Ours: ternary weights, four-state activations, LBN."""
    quant = QuantConfig(weight_states=3, act_states=4, overrides=[Override(pattern="stem.*", weight_states=15)])
    config = ModelConfig(architecture=Architecture.VGG_NARROW, quant=quant)
    return build_model(config, in_channels=3, num_classes=10, image_size=32)


def converted_pair(images: Tensor) -> tuple[nn.Module, nn.Module]:
    """What `maqd.convert` makes of the float network, and that network, both on float images."""
    peer = float_vgg()[1:]
    return convert(peer.eval(), images[:32], weights=3, activations=4).model.train(), peer.train()


def make_step(model: nn.Module, images: Tensor, labels: Tensor, *, bf16: bool, compiled: bool) -> Callable[[], None]:
    """Forward, backward, optimizer."""
    model.to(device=images.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.0)
    forward = torch.compile(model, fullgraph=True) if compiled else model

    def step() -> None:
        with torch.autocast(images.device.type, torch.bfloat16, enabled=bf16):
            logits = forward(images)
        loss = F.cross_entropy(logits.float(), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()

    return step


def peak_bytes(step: Callable[[], None], device: torch.device) -> int:
    """Most memory in use during a step beyond what was there before it: activations, gradients, scratch."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return torch.cuda.max_memory_allocated(device) - before
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        step()
    results = profile.profiler.kineto_results if profile.profiler is not None else None
    if results is None:
        raise RuntimeError("the profiler returned no events")
    events = sorted((e for e in results.events() if e.name() == "[memory]"), key=lambda e: e.start_ns())
    used = peak = 0
    for event in events:
        used += event.nbytes()  # pyright: ignore[reportAttributeAccessIssue]
        peak = max(peak, used)
    return peak


def main() -> None:
    """Runs the comparison for fp32 and bf16."""
    parser = options_parser(__doc__, threads=True)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--compile", action="store_true", help="both networks through torch.compile")
    parser.add_argument("--converted", action="store_true", help="the float network, converted, against itself")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (BATCH, 3, 32, 32), dtype=torch.uint8, generator=generator).to(device)
    images = images.contiguous(memory_format=torch.channels_last)
    labels = torch.randint(0, 10, (BATCH,), generator=generator).to(device)
    if options.converted:
        images = (images.float() - 128) / 64

    where = machine(device)
    figures: dict[str, object] = {"batch": BATCH, "compiled": options.compile, "converted": options.converted}
    for name, bf16 in (("fp32", False), ("bf16", True)):
        torch.manual_seed(0)
        steps = [
            make_step(model, images, labels, bf16=bf16, compiled=options.compile)
            for model in (converted_pair(images.cpu()) if options.converted else (quantized_vgg(), float_vgg()))
        ]
        ours, peer, ratio = alternate(*steps, repeats=options.repeats, device=device)
        memory = [peak_bytes(step, device) for step in steps]
        figures |= {
            f"{name}_maqd_seconds": ours,
            f"{name}_float_seconds": peer,
            f"{name}_time_ratio": ratio.median,
            f"{name}_time_spread": ratio,
            f"{name}_maqd_peak_bytes": memory[0],
            f"{name}_float_peak_bytes": memory[1],
            f"{name}_memory_ratio": memory[0] / memory[1],
        }
        if not options.json:
            print(f"{name}: maqd {ours} s, float {peer} s, ratio {ratio}")
            print(
                f"{name}: peak memory maqd {memory[0] / 2**20:.1f} MiB, float {memory[1] / 2**20:.1f} MiB, ratio "
                f"{memory[0] / memory[1]:.3f}"
            )
    if options.json:
        print_json(where, figures)
    else:
        print_machine(where)


if __name__ == "__main__":
    main()
