"""What is measured: ranks in a gallery, spectral efficiency, and the error of CSI."""

import math

import torch
from jaxtyping import Bool, Complex, Float, Int
from torch import Tensor


def ranks_of_relevant(
    similarity: Float[Tensor, "Q N"], relevant: Bool[Tensor, "Q N"]
) -> tuple[Int[Tensor, "Q R"], Bool[Tensor, "Q R"]]:
    """Return the 1-based ranks of every query's relevant items, ascending, and which entries are real.

    An irrelevant item with the same similarity as a relevant one counts as ranked before it. So the order of the
    gallery never matters, and a constant similarity gains nothing.

    Raises:
        ValueError: if a query has no relevant item, or a similarity is NaN.
    """
    if bool(similarity.isnan().any()):
        raise ValueError("a similarity is NaN")
    counts = relevant.sum(dim=1)
    if not bool((counts > 0).all()):
        raise ValueError("every query needs at least one relevant item in the gallery")
    most = int(counts.max())
    scores = similarity.masked_fill(~relevant, -torch.inf).topk(most, dim=1).values
    present = torch.arange(most, device=counts.device) < counts[:, None]
    others = similarity.masked_fill(relevant, -torch.inf)
    above = torch.stack([(others >= score[:, None]).sum(1, dtype=torch.int32) for score in scores.unbind(dim=1)], dim=1)
    return above + torch.arange(1, most + 1, device=counts.device), present


def ranks_in_gallery(
    queries: Float[Tensor, "Q d"],
    gallery: Float[Tensor, "N d"],
    query_identity: Int[Tensor, "Q"],
    item_identity: Int[Tensor, "N"],
    max_entries: int = 250_000,
) -> tuple[Int[Tensor, "Q R"], Bool[Tensor, "Q R"]]:
    """Return what :func:`ranks_of_relevant` returns of all queries, some at a time: memory does not grow with Q · N.

    Similarity is the product of embeddings, of which there are ``max_entries`` at a time. An item is relevant to the
    queries about the identity that it shows.

    Raises:
        ValueError: if a query has no relevant item, or a similarity is NaN.
    """
    size = max(1, max_entries // len(gallery))
    counts = torch.bincount(item_identity, minlength=int(query_identity.max()) + 1)[query_identity]
    # Filled in place: small results kept between the large temporaries would leave holes in the heap.
    ranks = torch.ones(len(queries), int(counts.max()), dtype=torch.long, device=queries.device)
    for rows in torch.split(torch.arange(len(queries), device=queries.device), size):
        relevant = query_identity[rows, None] == item_identity
        own, _ = ranks_of_relevant(queries[rows] @ gallery.T, relevant)
        ranks[rows, : own.shape[1]] = own
    present = torch.arange(ranks.shape[1], device=queries.device) < counts[:, None]
    return ranks, present


def spectral_efficiency(
    h: Complex[Tensor, "B Nr Nt"], v: Complex[Tensor, "B Nt k"], snr_db: Float[Tensor, "B"]
) -> Float[Tensor, "B"]:
    """Return log2 det(I + ρ/k V^H H^H H V) in bit per channel use, with ρ the SNR and equal power on k streams."""
    effective = h @ v
    num_streams = v.shape[-1]
    gram = effective.mH @ effective * (torch.pow(10.0, snr_db / 10) / num_streams)[:, None, None]
    eye = torch.eye(num_streams, dtype=gram.dtype, device=gram.device)
    nats: Tensor = torch.linalg.slogdet(eye + gram).logabsdet
    return nats / math.log(2)


def precision_of_ranks(ranks: Int[Tensor, "Q R"], present: Bool[Tensor, "Q R"]) -> Float[Tensor, "Q"]:
    """Return each query's average precision from what :func:`ranks_of_relevant` returned.

    It is the mean over a query's relevant items of the precision at each.

    Example:
        >>> ranks, present = torch.tensor([[1, 3]]), torch.tensor([[True, True]])
        >>> round(precision_of_ranks(ranks, present).item(), 4)  # (1/1 + 2/3) / 2
        0.8333
    """
    found = torch.arange(1, ranks.shape[1] + 1, device=ranks.device)
    return (present * found / ranks).sum(dim=1) / present.sum(dim=1)


def nmse(truth: Complex[Tensor, "B *shape"], predicted: Complex[Tensor, "B *shape"]) -> Float[Tensor, "B"]:
    """Return each sample's ‖H - H^‖²_F / ‖H‖²_F over all of its steps and antennas, eq. (31) before its mean.

    Example:
        >>> h = torch.ones(1, 2, 2, dtype=torch.complex64)
        >>> nmse(h, 0.9 * h).item() < 0.011
        True
    """
    error = (truth - predicted).abs().square().flatten(1).sum(1)
    return error / truth.abs().square().flatten(1).sum(1)


def mean_nmse_db(ratios: Float[Tensor, "B"]) -> float:
    """Return the mean of per-sample NMSE ratios in dB: a mean of decibels is no mean error."""
    return float(10 * torch.log10(ratios.double().mean()))


def nmse_by_snr_db(ratios: Float[Tensor, "B"], pilot_snr_db: Float[Tensor, "B"]) -> dict[str, tuple[int, float]]:
    """Return {pilot SNR: (samples, mean NMSE in dB)}.

    A bin is one value where the SNRs take few values, and otherwise an interval of 5 dB.
    """
    values = sorted(set(pilot_snr_db.tolist()))
    if 2 * len(values) <= min(len(ratios), 16):
        chosen = {f"{value:g} dB": pilot_snr_db == value for value in values}
    else:
        lower = (pilot_snr_db / 5).floor() * 5
        chosen = {f"{low:g} to {low + 5:g} dB": lower == low for low in sorted(set(lower.tolist()))}
    return {name: (int(mask.sum()), mean_nmse_db(ratios[mask])) for name, mask in chosen.items()}
