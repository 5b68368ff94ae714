"""What ``sclmkb-eval csi`` writes from its samples: results, tables, figures."""

from pathlib import Path

from sclmkb.common.artifacts.files import replacing, write_csv, write_parquet
from sclmkb.evaluate.predictors.benchmark import csi_4cast_table
from sclmkb.evaluate.predictors.figures import draw
from sclmkb.evaluate.predictors.samples import Measured
from sclmkb.evaluate.predictors.tables import ablation_tables, csv_table, detail_tables, nmse_tables, results_table
from sclmkb.evaluate.tables import Table


def write_output(root: Path) -> str:
    """Write results, tables and figures of the samples in a folder, and return the tables as Markdown.

    Raises:
        UserError: if the folder holds no samples, or a setting names a system that is not there.
    """
    measured = Measured(root)
    results = results_table(measured)
    write_parquet(root / "results.parquet", results)
    write_csv(root / "results.csv", csv_table(results))
    text = "\n".join(table.to_markdown() for table in all_tables(measured))
    with replacing(root / "tables.md") as temporary:
        temporary.write_text(text, "utf-8")
    draw(measured, root / "figures")
    return text


def all_tables(measured: Measured) -> list[Table]:
    """Return every table that there is something for."""
    tables = [*nmse_tables(measured), *detail_tables(measured), *ablation_tables(measured)]
    if measured.settings.benchmark == "csi-4cast":
        tables.append(csi_4cast_table(measured))
    return tables
