import pytest
import torch

from sclmkb.common.channel.link import LinkCsi, LinkState
from sclmkb.common.channel.mimo import symbol_mse
from sclmkb.common.models.transceiver import RECEIVERS, Receiver, Transceiver, TransceiverSettings
from sclmkb.common.seeds import make_generator

SETTINGS = TransceiverSettings(
    num_streams=2,
    num_uses=4,
    text_width=24,
    hidden_width=32,
    embedding_width=16,
    picture_size=16,
    picture_widths=(8, 8),
)
B = 40


def link(snr_db: float, source: str = "perfect") -> LinkState:
    def draw(steps: int, seed: int) -> torch.Tensor:
        return torch.randn(B, steps, 8, 8, dtype=torch.complex64, generator=make_generator("link", seed))

    csi = LinkCsi.build(source, 2, draw(3, 0), draw(2, 1))
    return csi.state(torch.arange(B), torch.ones(B, dtype=torch.long), torch.full((B,), float(snr_db)))


@pytest.fixture
def transceiver() -> Transceiver:
    torch.manual_seed(0)
    return Transceiver(SETTINGS).eval()


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_same_generator_same_result_and_more_snr_less_error(transceiver: Transceiver, receiver: Receiver) -> None:
    text = torch.randn(B, 24)
    torch.testing.assert_close(
        transceiver(text, link(5), receiver, make_generator(1)),
        transceiver(text, link(5), receiver, make_generator(1)),
        rtol=0,
        atol=0,
    )
    errors = []
    for snr_db in (-10, 5, 20):
        f = transceiver.encode(text, link(snr_db))
        detected = transceiver.convey(f, link(snr_db), receiver, make_generator(1))
        errors.append(symbol_mse(f, detected.symbols).mean())
    assert errors[0] > errors[1] > errors[2]


def test_stale_csi_ruins_the_literal_receiver_more_than_dmrs(transceiver: Transceiver) -> None:
    state = link(20, "stale")
    f = transceiver.encode(torch.randn(B, 24), state)
    errors = {r: symbol_mse(f, transceiver.convey(f, state, r, make_generator(1)).symbols).mean() for r in RECEIVERS}
    assert errors["dmrs"] < 0.2 < errors["literal"]


def test_every_part_gets_a_gradient(transceiver: Transceiver) -> None:
    transceiver.train()
    t = transceiver(torch.randn(B, 24), link(5), "literal", make_generator(1))
    v = transceiver.embed_pictures(torch.randint(0, 256, (B, 3, 16, 16), dtype=torch.uint8))
    (t @ v.T).square().sum().backward()
    for name, parameter in transceiver.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
