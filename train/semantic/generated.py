"""Generated captions of the training captions, as a run of ``sclmkb-gen sdg`` left them."""

from collections.abc import Sequence

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.errors import UserError
from sclmkb.common.tasks.trained import Captions


def load_generated(sdg: Artifact, row_ids: Sequence[str], captions: Captions = "accepted") -> list[list[str]]:
    """Return the generated captions of each source caption, joined by row id.

    ``accepted`` is what the filter kept, best first; ``all`` is everything that the engine wrote, in the order of
    writing, whatever the filter said.

    Raises:
        UserError: if not one of the row ids is known there.
    """
    known = sdg.table("rows", columns=["row_id", "state", "captions"]).to_pylist()
    if known and not {row["row_id"] for row in known} & set(row_ids):
        raise UserError(
            f"the generated captions at {sdg.root} belong to another corpus: no row id is in the training split; make"
            " them again (sclmkb-gen sdg)"
        )
    if captions == "all":
        found = _everything(sdg)
    else:
        found = {row["row_id"]: list(row["captions"]) for row in known if row["state"] == "ok"}
    return [found.get(row_id, []) for row_id in row_ids]


def _everything(sdg: Artifact) -> dict[str, list[str]]:
    columns = ["row_id", "attempt", "sample", "retry", "text", "finish_reason"]
    rows = sdg.table("attempts", columns=columns).to_pylist()
    found: dict[str, list[str]] = {}
    for row in sorted(rows, key=lambda row: (row["attempt"], row["sample"], row["retry"])):
        if row["finish_reason"] != "error" and row["text"]:
            found.setdefault(row["row_id"], []).append(row["text"])
    return found
