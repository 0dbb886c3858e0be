"""Text that turns the sums of a pixel into codes."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from maqd.errors import ExportError
from maqd.export.c99.operations import Codes
from maqd.export.c99.text import Writer, brackets
from maqd.plan import Quantization


@dataclass(frozen=True, kw_only=True)
class PixelActivation:
    """How sums become codes.

    Args:
        quantization: As the plan has it.
        thresholds: int64, channels x levels, on the sums as they are; None if the fixed-point map is used.
        signs: int8, channels, what sums are multiplied by before, or None.
        reach: No |sum| is larger.
    """

    quantization: Quantization
    thresholds: NDArray[np.int64] | None
    signs: NDArray[np.int8] | None
    reach: int


def pixel_activation(w: Writer, index: int, how: PixelActivation, codes: Codes, to: str) -> list[str]:
    """Codes of the sums of a pixel."""
    quantization = how.quantization
    form = (codes.bits, quantization.spacing, quantization.base)
    if quantization.affine is not None:
        affine = quantization.affine
        a, a_bits = w.tables.narrowest(f"multipliers{index}", affine.multiplier, (16, 32, 64))
        b, b_bits = w.tables.narrowest(f"offsets{index}", affine.offset, (32, 64))
        if a_bits == 64:
            raise ExportError(
                f"layer {index}: a fixed-point multiplier does not fit 32 bits; lower with --affine thresholds"
            )
        reach = int(np.abs(affine.multiplier).max()) * how.reach + int(np.abs(affine.offset).max())
        settings = (affine.shift, len(quantization.thresholds), a_bits, b_bits, int(reach >= 2**31), *form)
        return [
            f"{{ static const maqd_affine f = {brackets(settings)};",
            f"  maqd_affine_pixel(&f, sums, {codes.channels}, {a}, {b}, {to}); }}",
        ]
    if how.thresholds is None:
        raise ExportError(f"layer {index}: an activation needs thresholds or a fixed-point map")
    name, width = w.tables.narrowest(f"thresholds{index}", how.thresholds, (16, 32))
    signs = "NULL" if how.signs is None else w.tables.add(f"signs{index}", "int8_t", how.signs)
    settings = (how.thresholds.shape[1], int(width == 32), *form)
    if w.sharing:
        shared = f"steps_{'_'.join(str(value).replace('-', 'm') for value in settings)}"
        shared = w.share(
            shared,
            f"MAQD_SHARED void {shared}(const int32_t *x, int32_t channels, const MAQD_FLASH void *thresholds,\n"
            f"        const MAQD_FLASH int8_t *signs, void *y) {{\n"
            f"    static const maqd_steps s = {brackets(settings)};\n"
            "    maqd_quantize_pixel(&s, x, channels, thresholds, signs, y);\n}",
        )
        return [f"{shared}(sums, {codes.channels}, {name}, {signs}, {to});"]
    return [
        f"{{ static const maqd_steps s = {brackets(settings)};",
        f"  maqd_quantize_pixel(&s, sums, {codes.channels}, {name}, {signs}, {to}); }}",
    ]
