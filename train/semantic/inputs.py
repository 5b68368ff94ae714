"""Where the knowledge base of a training lies."""

from dataclasses import dataclass
from pathlib import Path

from sclmkb.common.artifacts.artifact import Artifact


@dataclass(frozen=True, kw_only=True)
class JsccInputs:
    """Where the knowledge base is; what the system does without is ``None``.

    Attributes:
        media_from: checkpoint of ``sclmkb-train jscc`` whose media encoder is used as it is, instead of training one.
    """

    corpus: Path
    csi: Path | None = None
    sdg: Path | None = None
    predicted: Path | None = None
    media_from: Path | None = None


def open_inputs(inputs: JsccInputs) -> dict[str, Artifact]:
    """Open and verify the artifacts that a run reads.

    Raises:
        UserError: if one is missing, unfinished, corrupt or of another schema version.
    """
    roots = {"corpus": inputs.corpus, "csi": inputs.csi, "sdg": inputs.sdg, "predicted": inputs.predicted}
    return {kind: Artifact.open(root, kind) for kind, root in roots.items() if root is not None}
