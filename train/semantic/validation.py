"""Validation of the semantic transceiver: its task on the validation split, over the link."""

from typing import Any

import torch
from torch import Tensor

from sclmkb.common.link.link import RECEIVERS
from sclmkb.common.link.sources import LinkCsi
from sclmkb.common.modalities.store import MediaStore
from sclmkb.common.models.transceiver import GALLERY_BATCH, Transceiver, embed_captions
from sclmkb.common.tasks.base import chosen_scores
from sclmkb.common.tasks.over_link import sweep_queries
from sclmkb.common.tasks.retrieval_corpus import RetrievalSplit
from sclmkb.common.tasks.trained import JsccSettings


class Validation:
    """Measures a transceiver on the validation split and its channels; the processes share the work on the media."""

    def __init__(self, settings: JsccSettings, split: RetrievalSplit, csi: LinkCsi, accelerator: Any) -> None:
        self.settings, self.split, self.csi, self.accelerator = settings, split, csi, accelerator

    @torch.no_grad()
    def measure(self, model: Transceiver) -> dict[str, float]:
        """Return the main measure, mean over SNRs, receivers, and wordings same and changed; all processes alike."""
        model.eval()
        settings, split, task = self.settings, self.split, self.settings.task_object
        target = task.target(model, split, self._embed)
        wordings = {name: split.with_wording(name) for name in ("same", "changed")}
        found: dict[str, list[float]] = {name: [] for name, chosen in wordings.items() if len(chosen)}
        for sent in sweep_queries(
            model,
            embed_captions(model, split.texts, settings.text),
            self.csi,
            snrs_db=settings.validation_snrs_db,
            receivers=RECEIVERS if settings.receiver == "both" else (settings.receiver,),
            steps=range(self.csi.num_steps),
            seed=0,
        ):
            scores = task.score(sent.embeddings, target)
            for name, values in found.items():
                values.append(task.summarise(chosen_scores(scores, wordings[name]))[task.main])
        measured = {f"{task.selects}_{name}": sum(values) / len(values) for name, values in found.items()}
        measured[task.selects] = sum(measured.values()) / len(measured)
        own = torch.tensor(list(measured.values()), dtype=torch.float64, device=self.accelerator.device)
        return dict(zip(measured, self.accelerator.reduce(own, "mean").tolist(), strict=True))

    def _embed(self, model: Transceiver, store: MediaStore) -> Tensor:
        """Return the embeddings of all media, on the CPU; each process makes some of them."""
        accelerator = self.accelerator
        gallery = torch.zeros(len(store), model.settings.embedding_width, device=accelerator.device)
        parts = torch.split(torch.arange(len(store)), GALLERY_BATCH)
        for index in parts[accelerator.process_index :: accelerator.num_processes]:
            batch = store.take(index).to(accelerator.device)
            gallery[index.to(accelerator.device)] = model.media(batch).float()
        joined: Tensor = accelerator.reduce(gallery, "sum")
        return joined.cpu()
