import numpy as np
import pytest

from sclmkb.common.errors import UserError
from sclmkb.common.link.uses import UsesChannelSettings
from sclmkb.evaluate.separate.media import texts as module
from sclmkb.evaluate.separate.media.blocks import DigitalChannelSettings
from sclmkb.evaluate.separate.media.texts import TextRow, digital_texts

WORDS = ["red", "blue", "green", "circle", "square", "yes", "no"]


def answers(num: int, seed: int) -> list[str]:
    draw = np.random.default_rng(seed)
    return [" ".join(draw.choice(WORDS, draw.integers(1, 3))) for _ in range(num)]


def measured(uses: int, snrs_db: list[float], **fields: object) -> list[TextRow]:
    pytest.importorskip("sionna.phy")
    settings = DigitalChannelSettings.model_validate({"schemes": [[4, 0.5], [16, 0.75]], **fields})
    given = answers(60, 0)
    return digital_texts(given, uses, snrs_db, fit_on=answers(200, 1), choose_on=answers(40, 2), settings=settings)


def delivered(rows: list[TextRow], snr_db: float) -> float:
    arrived = [row.text for row in rows if row.snr_db == snr_db]
    return float(np.mean([text == sent for text, sent in zip(arrived, answers(60, 0), strict=True)]))


def test_texts_arrive_in_a_good_channel_and_fail_in_a_bad_one() -> None:
    rows = measured(24, [-12.0, 3.0, 20.0])
    assert len(rows) == 180
    assert {row.uses for row in rows} == {24}
    assert delivered(rows, -12.0) < 0.05
    assert 0.3 < delivered(rows, 3.0) < 1
    assert delivered(rows, 20.0) == 1
    assert {row.scheme for row in rows if row.snr_db == 20} == {"sscc-16qam-ldpc0.75"}
    assert all(row.text == "" for row in rows if row.failed)
    assert not any(row.failed for row in rows if row.snr_db == 20)


def test_fading_costs_texts() -> None:
    fading = UsesChannelSettings(kind="rician", k_factor=1)
    assert delivered(measured(24, [8.0], channel=fading), 8.0) < delivered(measured(24, [8.0]), 8.0)


def test_what_does_not_fit_is_a_failure() -> None:
    pytest.importorskip("sionna.phy")
    settings = DigitalChannelSettings.model_validate({"schemes": [[4, 0.5]]})
    rows = digital_texts(["red", "zebra" * 9], 24, [30.0], fit_on=answers(200, 1), choose_on=["red"], settings=settings)
    assert [row.text for row in rows] == ["red", ""]
    assert [row.failed for row in rows] == [False, True]


def test_bad_input_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="too few for any 5G LDPC code"):
        measured(4, [0.0], schemes=[[4, 0.5]])
    monkeypatch.setattr(module, "has_sionna", lambda: False)
    with pytest.raises(UserError, match="pip install sionna-no-rt"):
        digital_texts(["a"], 24, [0.0], fit_on=["a"], choose_on=["a"])
