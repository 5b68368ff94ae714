import pyarrow as pa
import pyarrow.parquet as pq
import torch

from sclmkb.common.artifacts.schemas import SCHEMA_VERSION, csi_schema, pack_complex, unpack_complex


def test_complex_tensors_survive_parquet(tmp_path) -> None:  # type: ignore[no-untyped-def]
    h = torch.randn(5, 3, 2, 4, dtype=torch.complex64, generator=torch.Generator().manual_seed(0))
    pq.write_table(pa.table(pack_complex("history", h)), tmp_path / "h.parquet", row_group_size=2)
    table = pa.concat_tables([pq.read_table(tmp_path / "h.parquet")] * 2)
    torch.testing.assert_close(unpack_complex(table, "history"), torch.cat([h, h]), rtol=0, atol=0)


def test_schemas_carry_their_version() -> None:
    metadata = csi_schema(16, 4, 16, 16).metadata
    assert metadata[b"sclmkb.schema_version"] == SCHEMA_VERSION.encode()
    assert metadata[b"sclmkb.table"] == b"csi"
