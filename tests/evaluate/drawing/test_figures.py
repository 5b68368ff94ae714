import xml.etree.ElementTree as ET

import pytest

from sclmkb.evaluate.drawing.figures import Curve, bars, curves, histogram

LABELS = {"title": "a title & more", "x_label": "SNR [dB]", "y_label": "mAP"}
LINES = [Curve(label=name, x=[0, 5], y=[0.1, 0.2], error=[0.01, 0.02]) for name in ("first", "second")]


@pytest.mark.parametrize(
    ("svg", "expected"),
    [
        (curves(LINES, **LABELS), ["first", "second", "SNR [dB]", "mAP", "a title & more"]),
        (histogram({"kept": [0.9, 0.95], "rejected": [0.1]}, threshold=0.8, **LABELS), ["kept", "threshold 0.8"]),
        (histogram({"kept": [], "rejected": []}, threshold=0.8, **LABELS), ["kept"]),
        (bars(["10 dB", "20 dB"], {"CDG": [-16.0, -21.0], "AR(8)": [-12.5, -18.0]}, **LABELS), ["-16.0", "AR(8)"]),
    ],
)
def test_figures_are_svg_with_readable_text(svg: str, expected: list[str]) -> None:
    root = ET.fromstring(svg)
    assert root.tag.endswith("svg")
    text = " ".join("".join(node.itertext()) for node in root.iter() if node.tag.endswith("text"))
    for part in expected:
        assert part in text.replace("\N{MINUS SIGN}", "-")


def test_the_same_data_gives_the_same_bytes() -> None:
    assert curves(LINES, **LABELS) == curves(LINES, **LABELS)
