"""Validation of the semantic transceiver: retrieval on the validation split, over the link."""

from typing import Any

import torch
from torch import Tensor

from sclmkb.common.channel.link import LinkCsi
from sclmkb.common.corpora.media_store import MediaBatch
from sclmkb.common.corpora.retrieval import RetrievalSplit
from sclmkb.common.metrics import retrieval
from sclmkb.common.models.transceiver import RECEIVERS, Transceiver, embed_captions, transmit_queries
from sclmkb.train.jscc_settings import JsccSettings

_BATCH = 256


class Validation:
    """Measures a transceiver on the validation split.

    Args:
        settings: SNRs, receivers and the text encoder.
        split: the validation split.
        csi: its channels, on the device.
        accelerator: the processes share the work on the media.
    """

    def __init__(self, settings: JsccSettings, split: RetrievalSplit, csi: LinkCsi, accelerator: Any) -> None:
        self.settings, self.split, self.csi, self.accelerator = settings, split, csi, accelerator

    @torch.no_grad()
    def measure(self, model: Transceiver) -> dict[str, float]:
        """Return mAP, mean over SNRs, receivers, and same and changed wording: in all processes the same."""
        model.eval()
        settings, device = self.settings, self.accelerator.device
        gallery = self._gallery(model)
        text = embed_captions(model, self.split.texts, settings.text).to(device)
        receivers = RECEIVERS if settings.receiver == "both" else (settings.receiver,)
        measured: dict[str, float] = {}
        for wording in ("same", "changed"):
            chosen = self.split.with_wording(wording)
            if not len(chosen):
                continue
            relevant = self.split.relevant(chosen)
            values = []
            for snr_db in settings.validation_snrs_db:
                for receiver in receivers:
                    found, _ = transmit_queries(
                        model,
                        text[chosen.to(device)],
                        self.csi,
                        snr_db=snr_db,
                        receiver=receiver,
                        steps=range(self.csi.num_steps),
                        seed=0,
                    )
                    values.append(retrieval(found.cpu() @ gallery.T, relevant).mean_ap)
            measured[f"val_map_{wording}"] = sum(values) / len(values)
        measured["val_map"] = sum(measured.values()) / len(measured)
        agreed = self.accelerator.reduce(torch.tensor(list(measured.values()), dtype=torch.float64, device=device))
        return dict(zip(measured, (agreed / self.accelerator.num_processes).tolist(), strict=True))

    def _gallery(self, model: Transceiver) -> Tensor:
        """Return the embeddings of all media, on the CPU; each process makes some of them."""
        accelerator, store = self.accelerator, self.split.media
        gallery = torch.zeros(len(store), model.settings.embedding_width, device=accelerator.device)
        parts = torch.split(torch.arange(len(store)), _BATCH)
        for index in parts[accelerator.process_index :: accelerator.num_processes]:
            batch = MediaBatch(*(x.to(accelerator.device) for x in store.take(index)))
            gallery[index.to(accelerator.device)] = model.embed_media(batch).float()
        joined: Tensor = accelerator.reduce(gallery, "sum")
        return joined.cpu()
