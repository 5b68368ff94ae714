"""The figure of ``sclmkb-gen inspect``."""

from pathlib import Path

import torch
from torch import Tensor

from sclmkb.common.artifacts.files import replacing
from sclmkb.generate.csi.inspecting import SNRS_DB, Inspection

_FLOOR_DB = -60.0


def draw_inspection(found: Inspection, path: Path) -> None:
    """Write six panels as a PNG file: power over antennas and beams, delay, Doppler, modes, capacity."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt
    from matplotlib.ticker import MaxNLocator

    figure, axes = plt.subplots(2, 3, figsize=(13, 7.2), layout="constrained")
    (antennas, beams, delay), (doppler, modes, capacity) = axes
    figure.suptitle(f"{found.shard}: {found.facts['scenario']}", fontsize=11)
    panels = ((antennas, found.antenna_power, "antenna", -6), (beams, found.beam_power, "eigen-beam", -40))
    for axis, power, what, floor in panels:
        over = "over the mean" if what == "antenna" else "of the whole"
        image = axis.imshow(_db(power), origin="lower", aspect="auto", vmin=max(floor, float(_db(power).min())))
        figure.colorbar(image, ax=axis, label=f"power {over} [dB]")
        axis.set(title=f"Power over {what}s", xlabel=f"transmit {what}", ylabel=f"receive {what}")
    if len(found.delay_s):
        known = float(found.delay_s[-1]) < 1
        delay.plot(found.delay_s * (1e6 if known else 1), _db(found.delay_power))
        delay.set(
            title="Delay spectrum", xlabel="delay [µs]" if known else "delay [bins]", ylabel="share of power [dB]"
        )
    else:
        delay.text(
            0.5, 0.5, "narrowband:\none subcarrier, no delays", ha="center", va="center", transform=delay.transAxes
        )
        delay.set(title="Delay spectrum", xticks=[], yticks=[])
    doppler.plot(found.doppler_hz, _db(found.doppler_power))
    for sign in (-1, 1):
        doppler.axvline(sign * found.greatest_doppler_hz, color="grey", linestyle=":", linewidth=1)
    doppler.set(title="Doppler spectrum", xlabel="Doppler frequency [Hz] (dotted: ± speed / wavelength)")
    doppler.set_ylabel("share of power [dB]")
    numbers = range(1, len(found.mode_power) + 1)
    modes.bar(numbers, _db(found.mode_power) - _FLOOR_DB, bottom=_FLOOR_DB)
    modes.set(title="Squared singular values", xlabel="mode", ylabel="share of power [dB]", ylim=(_FLOOR_DB, 0))
    modes.set_xlim(0, max(len(found.mode_power), 4) + 1)
    for axis in (antennas.xaxis, antennas.yaxis, beams.xaxis, beams.yaxis, modes.xaxis):
        axis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    for (name, curve), style in zip(found.capacity.items(), ("-", "--", ":"), strict=True):
        capacity.plot(SNRS_DB, curve, style, label=name)
    capacity.legend(frameon=False)
    capacity.set(title="Capacity", xlabel="SNR before array gain [dB]", ylabel="bit / channel use")
    for axis in (delay, doppler, modes, capacity):
        axis.grid(alpha=0.3)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
    plt.close(figure)


def _db(power: Tensor) -> Tensor:
    return (10 * torch.log10(power.clamp(min=1e-30))).clamp(min=_FLOOR_DB)
