"""A small run that works as SDG does, by one process or by several: chunk after chunk of every shard."""

from contextlib import suppress
from pathlib import Path

import pyarrow as pa
from tiny import caption_table

from sclmkb.common.artifacts.artifact import Artifact
from sclmkb.common.artifacts.chunks import ShardCommittedError
from sclmkb.common.artifacts.plan import Plan, make_shards
from sclmkb.common.artifacts.run_folder import Run
from sclmkb.common.artifacts.schemas import CAPTIONS
from sclmkb.generate.runs.verify import find_problems

NUM_CHUNKS, CHUNK_ROWS = 2, 2
"""Chunks of a shard, and rows of a chunk."""
ROW_IDS = [f"row-{i}" for i in range(2 * NUM_CHUNKS * CHUNK_ROWS)]


def make_plan(**settings: object) -> Plan:
    """Return a plan of two shards."""
    shards = make_shards("train", ROW_IDS, NUM_CHUNKS * CHUNK_ROWS)
    return Plan(
        kind="corpus", tables={"captions": CAPTIONS}, settings={"seed": 0, **settings}, shards=shards, inputs={}
    )


def work(root: Path, text: str = "text") -> Artifact:
    """Make every shard, going on from whatever counts, then the card."""
    run = Run.open(root, make_plan())
    for shard in run.plan.shards:
        if run.is_committed(shard):
            continue
        with suppress(ShardCommittedError):
            indices = run.chunks(shard).indices()
            table = run.chunks(shard).read_all("captions", indices)
            if table.num_rows < len(shard.row_ids):
                for index in range(len(indices), NUM_CHUNKS):
                    part = caption_table(shard.row_ids[index * CHUNK_ROWS : (index + 1) * CHUNK_ROWS], text)
                    if not run.chunks(shard).commit(index, {"captions": part}):
                        part = run.chunks(shard).read(index, "captions")
                    table = pa.concat_tables([table, part])
            run.commit_shard(shard, {"captions": table}, counts={"ok": table.num_rows})
    return run.finish("Test", "A test.")


def check_whole(root: Path) -> None:
    """See that the artifact has every row once, and each chunk from one process."""
    # Who dies may leave a file of his own, but nothing reads it.
    assert [p for p in find_problems(root) if "belongs to no manifest" not in p] == []
    rows = Artifact.open(root, "corpus").table("captions").to_pylist()
    assert [row["row_id"] for row in rows] == ROW_IDS
    for start in range(0, len(rows), CHUNK_ROWS):
        assert len({row["text"] for row in rows[start : start + CHUNK_ROWS]}) == 1, "a chunk is of one process"
