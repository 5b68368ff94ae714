import re
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest

from sclmkb.evaluate.drawing.figures import Curve, bars, curves, histogram
from sclmkb.evaluate.drawing.panels import Panel, panels
from sclmkb.evaluate.drawing.styles import STYLES, label_of, styles_of
from sclmkb.evaluate.predictors.sectors import Sector, sector_maps

BITS = [16, 32, 64, 128, 256, 512]
LABELS = {"title": "a title & more", "x_label": "SNR [dB]", "y_label": "mAP"}


def curve(system: str, x: list[int] = BITS, level: float = 0.2) -> Curve:
    y = [level + 0.05 * i for i in range(len(x))]
    return Curve(label=label_of(system), system=system, x=x, y=y, error=[0.02] * len(x))


def panel(title: str, *systems: str, y_label: str = "mAP") -> Panel:
    lines = [curve(system, level=0.1 * (1 + i)) for i, system in enumerate(systems)]
    return Panel(title=title, curves=lines, y_label=y_label)


def texts(svg: str) -> list[str]:
    return ["".join(node.itertext()) for node in ET.fromstring(svg).iter() if node.tag.endswith("text")]


def sector(name: str, radius: float, *columns: str) -> Sector:
    return Sector(
        name=name, x_m=[radius, radius, 0.5 * radius], y_m=[-5.0, 5.0, 0.0],
        values={column: [-10.0 - i, -9.0, -3.0] for i, column in enumerate(columns)},
    )  # fmt: skip


@pytest.mark.parametrize(
    ("svg", "expected"),
    [
        (curves([curve("first"), curve("second")], **LABELS), ["first", "second", "SNR [dB]", "mAP", "a title & more"]),
        (histogram({"kept": [0.9, 0.95], "rejected": [0.1]}, threshold=0.8, **LABELS), ["kept", "threshold 0.8"]),
        (histogram({"kept": [], "rejected": []}, threshold=0.8, **LABELS), ["kept"]),
        (bars(["10 dB", "20 dB"], {"CDG": [-16.0, -21.0], "AR(8)": [-12.5, -18.0]}, **LABELS), ["-16.0", "AR(8)"]),
    ],
)
def test_figures_are_svg_with_readable_text(svg: str, expected: list[str]) -> None:
    assert ET.fromstring(svg).tag.endswith("svg")
    assert set(expected) <= {text.replace("\N{MINUS SIGN}", "-") for text in texts(svg)}


def test_panels_have_letters_one_legend_in_one_order_and_shared_labels() -> None:
    svg = panels(
        [panel("people", "perfect-csi", "llm4cp", "sc-lmkb"), panel("motion", "deepsc-mimo", "sc-lmkb")],
        x_label="SNR [dB]",
        title="a title & more",
    )
    written = texts(svg)
    assert {"(a) people", "(b) motion", "a title & more"} <= set(written)
    assert written.count("mAP") == 1, "panels of a row share it"
    assert written.count("SNR [dB]") == 2, "once a column"
    names = [text for text in written if text in {style.label for style in STYLES.values()}]
    assert names == ["SC-LMKB", "DeepSC-MIMO", "LLM4CP + SDG", "perfect CSI"]


def test_ticks_of_feedback_bits_are_the_bits() -> None:
    svg = panels([panel("people", "sc-lmkb", "llm4cp", "csi-llm")], x_label="feedback bits", x_scale="log2")
    assert [text for text in texts(svg) if text.isdigit()][: len(BITS)] == [str(bits) for bits in BITS]


@pytest.mark.parametrize(("count", "columns", "rows"), [(1, 3, 1), (3, 3, 1), (4, 3, 2), (6, 2, 3), (7, 5, 3)])
def test_panels_fill_rows_evenly(count: int, columns: int, rows: int) -> None:
    svg = panels([panel(f"p{i}", "sc-lmkb") for i in range(count)], x_label="the x label", columns=columns)
    assert texts(svg).count("the x label") == -(-count // rows)
    assert texts(svg).count("mAP") == rows
    assert ("p0" if count == 1 else "(a) p0") in texts(svg)  # a single panel has no letter


def strokes(svg: str) -> dict[str, str]:
    """Return the dashes of each colour of lines with a width, as they are drawn."""
    found = {}
    for style in re.findall(r'style="fill: none; ([^"]*)"', svg):
        if (colour := re.search(r"stroke: (#\w+)", style)) and (
            dashes := re.search(r"stroke-dasharray: ([^;]*)", style)
        ):
            found[colour[1]] = dashes[1]
    return found


def test_the_style_follows_the_name_not_the_position() -> None:
    systems = ("deepsc-mimo", "llm4cp", "csi-llm", "sscc-best")
    forward = strokes(panels([panel("a", *systems)], x_label="x"))
    backward = strokes(panels([panel("a", "sc-lmkb", *reversed(systems[1:]))], x_label="x"))
    assert len(forward) == 4
    assert backward == {colour: dashes for colour, dashes in forward.items() if colour in backward}
    assert STYLES["llm4cp"].color.lower() in curves([curve("llm4cp")], **LABELS)


def test_every_known_system_differs_in_dashes_and_marker_together_with_grey() -> None:
    looks = {(style.dashes, style.marker) for style in STYLES.values()}
    assert len(looks) == len(STYLES)
    main = [name for name, style in STYLES.items() if style.role == "main"]
    assert main == ["sc-lmkb", "mtsc"]
    for of_line in ("linewidth", "zorder"):
        drawn = {name: style.line()[of_line] for name, style in STYLES.items()}
        assert all(drawn["sc-lmkb"] > other for name, other in drawn.items() if name not in main)


def test_unknown_systems_stand_between_the_known_and_the_bounds() -> None:
    styles = styles_of(["no-link", "qam-16", "sc-lmkb", "qam-64", "sc-lmkb"])
    assert list(styles) == ["sc-lmkb", "qam-16", "qam-64", "no-link"]
    assert (styles["qam-16"].dashes, styles["qam-16"].marker) != (styles["qam-64"].dashes, styles["qam-64"].marker)
    assert label_of("qam-16") == "qam-16"


def test_figures_without_curves_and_maps_of_other_columns_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one curve"):
        panels([Panel(title="t", curves=[], y_label="y")], x_label="x")
    with pytest.raises(ValueError, match="same columns"):
        sector_maps([sector("a", 100, "CDG"), sector("b", 100, "LLM4CP")], title="", label="NMSE")


def test_the_same_data_gives_the_same_files(tmp_path: Path) -> None:
    for name in ("one", "two"):
        panels([panel("people", "sc-lmkb", "no-link")], x_label="x", files=tmp_path / name / "fig-1.5dB")
        curves([curve("first"), curve("second")], files=tmp_path / name / "curves", **LABELS)
        sector_maps([sector("", 100, "CDG")], title="t", label="NMSE [dB]", files=tmp_path / name / "map")
    written = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert written == [
        f"{name}.{suffix}" for name in ("curves", "fig-1.5dB", "map") for suffix in ("pdf", "png", "svg")
    ]
    for name in written:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_map_of_two_scenarios_has_one_colour_scale() -> None:
    columns = ("Csi-LLM", "LLM4CP", "CDG")
    svg = sector_maps(
        [sector("UMi-LOS", 100, *columns), sector("UMa-NLOS", 300, *columns)], title="", label="NMSE [dB]"
    )
    written = texts(svg)
    assert [written.count(name) for name in (*columns, "NMSE [dB]", "UMi-LOS", "UMa-NLOS")] == [1] * 6
    assert "300" in written
