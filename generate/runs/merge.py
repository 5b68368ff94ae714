"""``sclmkb-gen merge``: puts shards of one plan that were made in several folders into one artifact."""

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sclmkb.common.artifacts.artifact import Artifact, read_plan
from sclmkb.common.artifacts.files import create_json, read_json, replacing, sha256_file
from sclmkb.common.artifacts.plan import ROWS_PREFIX, format_ranges, plan_differences, rows_name
from sclmkb.common.console import progress
from sclmkb.common.errors import UserError
from sclmkb.generate.captions.card import DESCRIPTION, TITLE, card_details


def merge(folders: Sequence[Path], out: Path) -> Artifact:
    """Write one whole artifact from the committed shards of runs with the same plan.

    Of a shard that several folders have, that of the folder named first counts.

    Args:
        folders: runs of ``sclmkb-gen sdg``, finished or not.
        out: folder of the artifact to write; a merge that was interrupted goes on.

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
    _start(folders[0], out, plans[0])
    with progress("merge", total=len(manifests)) as bar:
        for name, (folder, manifest) in manifests.items():
            if not (out / "manifests" / f"{name}.json").exists():
                for file, entry in manifest["files"].items():
                    _copy(folder / file, out / file, entry["sha256"])
                create_json(out / "manifests" / f"{name}.json", manifest)
            bar.advance()
    for folder in folders:
        for log in (folder / "logs").glob("*.jsonl"):
            with replacing(out / "logs" / log.name) as temporary:
                shutil.copyfile(log, temporary)
    artifact = Artifact.open(out, "sdg")
    artifact.write_card(TITLE, DESCRIPTION, card_details(artifact))
    return artifact


def _start(folder: Path, out: Path, plan: dict[str, Any]) -> None:
    if not (out / "plan.json").exists():
        if out.exists() and any(not p.name.startswith((".", ROWS_PREFIX)) for p in out.iterdir()):
            raise UserError(f"{out} is not empty and holds no plan.json: choose another --out")
        rows = rows_name(plan["row_ids"])
        with replacing(out / rows) as temporary:
            shutil.copyfile(folder / rows, temporary)
        create_json(out / "plan.json", plan)
    if differences := plan_differences(read_json(out / "plan.json"), plan):
        raise UserError(f"{out} holds a run of another plan: {'; '.join(differences)}; choose another --out")


def _copy(source: Path, target: Path, sha256: str) -> None:
    with replacing(target) as temporary:
        try:
            shutil.copyfile(source, temporary)
        except FileNotFoundError:
            raise UserError(f"missing shard file {source}: run the command that makes it again") from None
        if sha256_file(temporary) != sha256:
            raise UserError(f"corrupt shard file {source}: its sha256 is not that of its manifest")
