import pytest
import torch

from sclmkb.common.channel.link import LinkCsi, LinkState
from sclmkb.common.channel.mimo import symbol_mse
from sclmkb.common.corpora.media_store import MediaBatch
from sclmkb.common.models.media_encoders import CnnSettings
from sclmkb.common.models.transceiver import (
    RECEIVERS,
    Receiver,
    Transceiver,
    TransceiverSettings,
    transmit_queries,
)
from sclmkb.common.seeds import make_generator

SETTINGS = TransceiverSettings(
    num_streams=2,
    num_uses=4,
    text_width=24,
    hidden_width=32,
    embedding_width=16,
    media=CnnSettings(size=16, widths=(8, 8)),
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
    pictures = torch.randint(0, 256, (B, 3, 16, 16), dtype=torch.uint8)
    v = transceiver.embed_media(MediaBatch(pictures, torch.ones(B, dtype=torch.long)))
    (t @ v.T).square().sum().backward()
    for name, parameter in transceiver.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_batches_that_share_a_link_are_encoded_and_decoded_as_if_alone(transceiver: Transceiver) -> None:
    state, text = link(5), torch.randn(2 * B, 24)
    alone = [transceiver.encode(part, state) for part in (text[:B], text[B:])]
    torch.testing.assert_close(transceiver.encode(text, state), torch.cat(alone))
    side_by_side = transceiver.convey(torch.cat(alone, dim=2), state, "literal", make_generator(1))
    m = SETTINGS.num_uses
    parts = [side_by_side._replace(symbols=side_by_side.symbols[:, :, i * m : (i + 1) * m]) for i in (0, 1)]
    apart = torch.cat([transceiver.decode(part, state) for part in parts])
    torch.testing.assert_close(transceiver.decode(side_by_side, state), apart)


@pytest.mark.parametrize("receiver", RECEIVERS)
def test_queries_meet_the_same_channels_and_noise_whatever_the_system(
    transceiver: Transceiver, receiver: Receiver
) -> None:
    def measure(source: str, seed: int, snr_db: float = 20.0) -> tuple[torch.Tensor, torch.Tensor]:
        def draw(steps: int, number: int) -> torch.Tensor:
            return torch.randn(6, steps, 8, 8, dtype=torch.complex64, generator=make_generator("csi", number))

        csi = LinkCsi.build(source, 2, draw(3, 0), draw(2, 1), draw(2, 1))
        text = torch.ones(B, 24)
        return transmit_queries(transceiver, text, csi, snr_db=snr_db, receiver=receiver, steps=(0, 1), seed=seed)

    perfect, error = measure("perfect", 0)
    torch.testing.assert_close(measure("predicted", 0)[0], perfect)  # predictions that are the truth
    assert not torch.allclose(measure("perfect", 1)[0], perfect)
    assert error.mean() < measure("stale", 0)[1].mean()
    assert error.mean() < measure("perfect", 0, -5.0)[1].mean()
