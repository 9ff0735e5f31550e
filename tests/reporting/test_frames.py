"""Results and records as files of tables."""

import pandas as pd
import pytest
import yaml
from helpers.commands import ended
from helpers.made_sweep import write_sweep

from amscale import Sweep
from amscale.export import export
from amscale.files import packaged


@pytest.mark.parametrize(("form", "read"), [("csv", pd.read_csv), ("parquet", pd.read_parquet)])
def test_exported_tables_are_those_of_the_sweep(tmp_path, capsys, form, read):
    folder = write_sweep(tmp_path / "made", (6000, 24000), (8000,), steps=20, layers=0)
    tree = yaml.safe_load((packaged("configs") / "grammar.yaml").read_text(encoding="utf-8"))
    (folder / "sweep.yaml").write_text(yaml.safe_dump({"format": 1, **tree}))
    assert ended(export, str(folder), f"--format={form}", f"--output={tmp_path}/tables") == 0
    written = capsys.readouterr().out.split()
    assert written == [str(tmp_path / "tables" / f"{name}.{form}") for name in ("results", "train", "validation")]
    sweep = Sweep(folder)
    results, train = read(written[0]), read(written[1])
    assert list(results["trial"]) == list(sweep.results()["trial"])
    assert list(results["validation_loss_least"]) == list(sweep.results()["validation_loss_least"])
    assert list(train["loss"]) == list(sweep.metrics("train")["loss"])
    assert set(sweep.export()) == {"results", "train", "validation"}
    assert (folder / "exports" / "results.csv").is_file()
    assert ended(export, str(folder), "--output=/proc/tables") == 2
    assert capsys.readouterr().err.startswith("export: output='/proc/tables': no folder can be made there")
    assert ended(export, str(folder), "--format=xlsx") == 2
    assert capsys.readouterr().err == "export: --format=xlsx: allowed are csv, parquet, archive\n"
