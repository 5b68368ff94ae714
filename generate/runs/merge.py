"""``sclmkb-gen merge``: puts shards of one plan that were made in several folders into one artifact."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.artifact import Artifact, read_plan
from sclmkb.common.artifacts.files import checked_file, create_json, read_json, replacing
from sclmkb.common.artifacts.plan import format_ranges, plan_differences, rows_name
from sclmkb.common.artifacts.run_folder import holds_run
from sclmkb.common.console import progress
from sclmkb.common.errors import UserError
from sclmkb.generate.captions.card import DESCRIPTION, TITLE, card_details


def merge(folders: Sequence[Path], out: Path, *, new_run: bool = False) -> Artifact:
    """Write one whole artifact from the committed shards of runs with the same plan.

    Of a shard that several folders have, that of the folder named first counts.

    Args:
        folders: runs of ``sclmkb-gen sdg``, finished or not.
        out: folder of the artifact to write; a merge that was interrupted goes on.
        new_run: set a run of another plan that is there aside.

    Raises:
        UserError: if the plans differ, shards are missing, or a file is corrupt.
    """
    saved = [read_plan(folder, "sdg") for folder in folders]
    plans = [read_json(folder / "plan.json") for folder in folders]
    for folder, plan in zip(folders[1:], plans[1:], strict=True):
        if differences := plan_differences(plans[0], plan):
            raise UserError(f"{folders[0]} and {folder} are runs of other plans: {'; '.join(differences)}")
    manifests: dict[str, tuple[Path, dict[str, Any]]] = {}
    for folder in folders:
        for shard in saved[0].shards:
            path = folder / "manifests" / f"{shard.name}.json"
            if shard.name not in manifests and path.exists():
                manifests[shard.name] = folder, read_json(path)
    if missing := [i for i, shard in enumerate(saved[0].shards) if shard.name not in manifests]:
        raise UserError(f"no folder has the shards {format_ranges(missing)}: make them with --shards")
    if not holds_run(out, "plan.json", plans[0], new_run=new_run):
        rows = rows_name(plans[0]["row_ids"])
        _copy(folders[0] / rows, out / rows)
        create_json(out / "plan.json", plans[0])
    with progress("merge", total=len(manifests)) as bar:
        for name, (folder, manifest) in manifests.items():
            if not (out / "manifests" / f"{name}.json").exists():
                for file, entry in manifest["files"].items():
                    mend = "run the command that makes it again"
                    _copy(checked_file(folder / file, entry["sha256"], mend), out / file)
                create_json(out / "manifests" / f"{name}.json", manifest)
            bar.advance()
    for folder in folders:
        for log in (folder / "logs").glob("*.jsonl"):
            _copy(log, out / "logs" / log.name)
    artifact = Artifact.open(out, "sdg")
    artifact.write_card(TITLE, DESCRIPTION, card_details(artifact))
    return artifact


def _copy(source: Path, target: Path) -> None:
    with replacing(target) as temporary:
        shutil.copyfile(source, temporary)
