"""What a table says: every way to write one is read in the one way that it allows, or is an error of one line."""

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile

import numpy as np
import pandas as pd
import pytest

from amscale.errors import InputError
from amscale.scaling.fit import fit_table
from amscale.scaling.floor import references
from amscale.scaling.several_corpora import by_corpus
from amscale.scaling.table import Columns, read_table
from amscale.scaling.tuning import tune_cells

N, D, LOSS = [1e7, 2e7], [2e8, 4e8], [3.25, 3.125]
PLAIN = "N,D,loss\n10000000,200000000,3.25\n20000000,400000000,3.125\n"
BODY = PLAIN.split("\n", 1)[1]


def zipped(*names):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, PLAIN)
    return file.getvalue()


def parquet(frame):
    file = io.BytesIO()
    frame.to_parquet(file)
    return file.getvalue()


def saved_by_numpy():
    file = io.StringIO()
    np.savetxt(file, np.transpose([N, D, LOSS]), header="a sweep by hand\nN D loss", footer="the end")
    return file.getvalue()


WRITTEN = [
    PLAIN,
    PLAIN.replace("\n", ",\n"),
    PLAIN.replace("\n", ",\n").replace("loss,", "loss"),
    PLAIN.replace(",", ", "),
    PLAIN.replace("N,D,loss", " n , D ,Loss"),
    PLAIN.replace(",", "\t"),
    PLAIN.replace(",", "|"),
    PLAIN.replace(",", "  "),
    PLAIN.replace("N,D,loss", '"N","D","loss"').replace(",", " "),
    "sep=;\n" + PLAIN.replace(",", ";"),
    PLAIN.replace("\n", "\r\n"),
    PLAIN.replace("\n", "\r"),
    ",N,D,loss\n0,1e7,2e8,3.25\n1,2e7,4e8,3.125\n",
    "# made by hand\n" + PLAIN.replace("\n2", "\n# a gap\n\n,,\n2"),
    "#" + PLAIN,
    "# made by hand\n\n# in two runs, on one machine, at night\n# N, D, loss\n# a gap\n\n" + BODY + "# the end\n",
    "# N\tD\tloss\n" + BODY.replace(",", "\t"),
    "#,N,D,loss\n0,1e7,2e8,3.25\n1,2e7,4e8,3.125\n",
    "#run,N,D,loss,note\na,1e7,2e8,3.25,\nb,2e7,4e8,3.125,\n",
    '# "N";"D";"loss"\n10000000;200000000;3,25\n20000000;400000000;3,125\n',
    "# one, two, three\n" + PLAIN,
    saved_by_numpy(),
    "N;D;loss\n10000000;200000000;3,25\n20000000;400000000;3,125\n",
    "N;D;loss\n10.000.000;200.000.000;3,250\n20.000.000;400.000.000;3,125\n",
    'N;D;"loss";"a, b"\n10000000;200000000;3,25;c\n20000000;4e8;3,125;d\n',
    'N,D,loss\n"10,000,000",0.2B,3.25\n20.0 M,0.4 billion,3.125\n',
    "N,D,loss\n1_0000_000,200 000 000,3.25\n2e7,400M,3.125\n",
    "N,D,loss,loss\n1e7,2e8,3.25,3.25\n2e7,4e8,3.125,3.125\n",
    "\ufeff" + PLAIN,
    PLAIN.encode("utf-16"),
    gzip.compress(PLAIN.encode()),
    bz2.compress(PLAIN.encode()),
    lzma.compress(PLAIN.encode()),
    zipped("points.csv"),
    json.dumps([{"N": n, "D": d, "loss": loss} for n, d, loss in zip(N, D, LOSS, strict=True)]),
    '{"N": 1e7, "D": 2e8, "loss": 3.25}\n{"N": "20M", "D": 400000000, "loss": 3.125}\n',
    json.dumps({"N": N, "D": D, "loss": LOSS}),
    json.dumps({"runs": [{"N": n, "D": d, "loss": loss} for n, d, loss in zip(N, D, LOSS, strict=True)]}),
    pd.DataFrame({"N": N, "D": D, "loss": LOSS}).to_json(),
    parquet(pd.DataFrame({"N": N, "D": pd.array([200_000_000, 400_000_000], "Int64"), "loss": LOSS})),
    parquet(pd.DataFrame({"N": N, "D": D, "loss": LOSS}).set_index("N")),
]

BAD = [
    ("N,D\n1,2\n", "no column 'loss'"),
    ("N,loss\n1,2\n", "--d_column"),
    ("params,tokens,val_loss\n1,2,3\n", r"no column 'N'.*--n_column \(perhaps 'params'\)"),
    ("N,D,loses\n1,2,3\n", "perhaps 'loses'"),
    (
        "n_params,train_tokens,final_loss\n1,2,3\n",
        r"no column 'N', 'D' or 'loss'; .*name them with --n_column \(perhaps 'n_params'\), --d_column "
        r"\(perhaps 'train_tokens'\), --loss_column \(perhaps 'final_loss'\)$",
    ),
    ("N,tokens,unique_tokens,loss\n1,4,2,3\n", r"--d_column \(perhaps 'unique_tokens'\)$"),
    ("N,C,loss\n1,2,3\n", r"no column 'D'.*name one with --flops_column \(perhaps 'C'\)$"),
    ("N (M),D/1e9,loss\n1,2,3\n", r"--n_column \(perhaps 'N \(M\)'\), --d_column \(perhaps 'D/1e9'\)$"),
    ("N,D,x,nll\n1,2,3,4\n", r"--loss_column \(perhaps 'nll'\)$"),
    ("LOSS,Loss,N,D\n1,1,2,3\n", "may be 'LOSS' or 'Loss'"),
    ("N,D,loss\n0,2,3\n", "row 1, column 'N' holds 0"),
    ("N,D,loss\n1,-2,3\n", "row 1, column 'D' holds -2"),
    ("N,D,loss\ninf,2,3\n", "column 'N' holds inf"),
    ("N,D,loss\n1,2,0\n", "row 1 has loss 0"),
    ("N,D,loss\n1e99,2,3\n", "column 'N' holds 1e.99; it must be a positive number below 1e.40"),
    ("N,D,loss,seed\n1,2,3,inf\n", "column 'seed' holds inf"),
    ('[{"N": 1' + 400 * "0" + ', "D": 2, "loss": 3}]', "column 'N' holds 1000.*is needed"),
    ("N,D,loss\n1,x,3\n", "row 1, column 'D' holds 'x'; a number such as 2e8"),
    ("N,D,loss\n1,2,3M\n", "column 'loss' holds '3M'; a number is needed"),
    ("N,D,loss\n1,2,5%\n", "column 'loss' holds '5%'"),
    ("N,D,loss\nTrue,2,3\n", "holds 'True'"),
    ("N,D,loss\n2024-11-28,2,3\n", "holds '2024-11-28'"),
    ("N,D,loss\n1,2,3\n1,4,3\n", "fewer than two sizes"),
    ("N,D,loss\n1,2,3\n2,,3\n", "fewer than two sizes.*row 2: D missing"),
    ("N,D,loss\n", "no rows"),
    ("N,D,loss", "no rows"),
    ("", "is empty"),
    (" \n\n", "is empty"),
    (BODY, "line 1 holds numbers where the names"),
    ("# N,D\n" + BODY, "line 2 holds numbers.*begin with # are comments"),
    ("# 1,2,3\n" + BODY, "line 2 holds numbers.*begin with # are comments"),
    ("# made by hand\n" + BODY, "line 2 holds numbers.*begin with # are comments"),
    ("#params,#tokens,loss\n" + BODY, r"--n_column \(perhaps '#params'\), --d_column \(perhaps '#tokens'\)"),
    ("N,D,loss\n1,2,3,4\n", "line 2 has 4 cells and the line of names 3"),
    ('"N" "D" "loss"\n"1" 1 2 3\n"2" 2 2 3\n', "line 2 has 4 cells.*row.names = FALSE"),
    ("N,D,loss,note\n1,2,3,a\n\n2,3,4\n", "line 4 has 3 cells and the line of names 4"),
    ("N,D,loss\n1,1e7,2e8,\n2,2e7,2e8,3\n", "line 3 has 4 cells"),
    ("N,D,loss,loss\n1,2,3,9\n", "two columns 'loss'"),
    ("N,D,loss,seed\n1,2,3,0.5\n2,2,3,1\n", "column 'seed' holds 0.5; a whole number is needed"),
    ('N,D,loss\n"1,000","2,000",3\n', "may be 1000 or 1;"),
    ("N;D;loss\n1e7;2e8;3,25\n2e7;2e8;3.125\n", "holds '3.125'.*holds '3,25'"),
    ('N,D,loss\n"1,2,3\n', "line 2 cannot be read"),
    (b"N,D,loss\n\xe9,2,3\n", "line 2 is not UTF-8"),
    (b"N,D,loss\n1\x00,2,3\n", "NUL"),
    (gzip.compress(PLAIN.encode())[:-9], "cannot be decompressed"),
    (zipped("a.csv", "[Content_Types].xml"), "save one table as CSV"),
    ('{"N": 1, "D": 2, "loss": 3}\n{"N": 1, "D": 2, "loss"\n', "line 2"),
    ('{"N": true, "D": 2, "loss": 3}\n', "holds True"),
    ('[{"N": 1, "N": 2, "D": 2, "loss": 3}]\n', "'N' occurs twice"),
    ('{"N": [1, 2], "D": [2], "loss": [3, 4]}', "different lengths"),
    ("[1, 2]", "row 1 is '1'; a row is an object"),
    (parquet(pd.DataFrame({"N": pd.to_datetime(["2024-01-01"]), "D": 1, "loss": 2})), "holds Timestamp"),
    (parquet(pd.DataFrame({"N": N}))[:60], "cannot be read as Parquet"),
]


@pytest.fixture
def read(tmp_path):
    """Read a file of some content."""

    def read(content, columns=None, name="points.csv", **unit):
        path = tmp_path / name
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return read_table(path, columns, **unit)

    return read


@pytest.mark.parametrize("content", WRITTEN, ids=range(len(WRITTEN)))
def test_one_table_written_in_many_ways_is_one_table(read, content):
    table = read(content)
    assert (table.N.tolist(), table.D.tolist(), table.loss.tolist()) == (N, D, LOSS)


def test_objects_in_a_row_are_columns_with_a_point_in_their_names(read):
    rows = [
        json.dumps({"config": {"model": {"N": n}, "D": d}, "summary": {"loss": loss}, "tags": {}})
        for n, d, loss in zip(N, D, LOSS, strict=True)
    ]
    table = read("\n".join(rows), Columns("config.model.N", "config.D", "summary.loss"))
    assert (table.N.tolist(), table.D.tolist(), table.loss.tolist()) == (N, D, LOSS)
    with pytest.raises(InputError, match=r"its columns are config.model.N, config.D, summary.loss, tags: name them"):
        read("\n".join(rows))


def test_a_table_from_a_pipe():
    reader, writer = os.pipe()
    os.write(writer, PLAIN.encode())
    os.close(writer)
    assert read_table(f"/dev/fd/{reader}").loss.tolist() == LOSS  # as <(...) gives it
    os.close(reader)


@pytest.mark.parametrize(("content", "says"), BAD, ids=range(len(BAD)))
def test_what_cannot_be_read_in_one_way_is_one_line(read, content, says):
    with pytest.raises(InputError, match=says) as caught:
        read(content)
    assert "\n" not in str(caught.value)


def test_rows_without_a_number_and_repeats_are_left_out_by_name(read):
    rows = "1,12,3\n2,24,nan\n2,24,2.5\n2,24,2.5\n2,24,2.6\n3,36,NA\n,36,2\n4,48,inf\n5,,2\n"
    table = read("n,C,L\n" + rows, Columns(n="n", loss="L", flops="C"))
    assert table.D.tolist() == [2, 2, 2]
    assert dict(table.left_out) == {
        "row 2": "loss is nan",
        "row 4": "repeats row 3 exactly",
        "row 6": "loss missing",
        "row 7": "N and D missing",
        "row 8": "loss is inf",
        "row 9": "D missing",
    }
    assert any("6 of 9 rows left out" in warning for warning in table.warnings)


def test_units_in_names_are_used_and_said(read):
    table = read("params (M),tokens_B,loss\n10,.2,3.25\n20,.4,3.125\n", Columns(n="params (M)", d="tokens_B"))
    assert (table.N.tolist(), table.D.tolist()) == (N, D)
    assert table.warnings == [
        "the numbers of column 'params (M)' are taken times 1e+06, as its name says",
        "the numbers of column 'tokens_B' are taken times 1e+09, as its name says",
    ]


@pytest.mark.parametrize(
    ("name", "scale"),
    [
        ("N (x1e6)", 1e6),
        ("params (×10^6)", 1e6),
        ("N [1E+06]", 1e6),
        ("N/1e6", 1e6),
        ("N / 1000", 1e3),
        ("params_in_1e6", 1e6),
        ("params × 10⁶", 1e6),
        ("N*10**6", 1e6),
        (r"N ($\times 10^{6}$)", 1e6),
        ("N (in 1,000,000)", 1e6),
        ("params (1e6 parameters)", 1e6),
        ("N_1e6", None),
        ("N (100)", None),
        ("N (x1e-6)", None),
        ("params per 1e6", None),
    ],
)
def test_powers_of_ten_in_names_are_used_and_said(name, scale, read):
    column = f'"{name}",D,loss\n'
    factor = scale or 1.0
    table = read(f"{column}{3e7 / factor:g},2e8,3.25\n{6e7 / factor:g},4e8,3.125\n", Columns(n=name))
    assert table.N.tolist() == [3e7, 6e7]
    said = f"the numbers of column {name!r} are taken times {factor:g}, as its name says"
    assert table.warnings == ([said] if scale else [])


def test_flops_have_their_power_of_ten_too(read):
    table = read("N,FLOPs (x1e15),loss\n1e7,12,3.25\n2e7,48,3.125\n", Columns(flops="FLOPs (x1e15)"))
    assert (table.D.tolist(), table.flops.tolist()) == (D, [1.2e16, 4.8e16])
    assert "the numbers of column 'FLOPs (x1e15)' are taken times 1e+15, as its name says" in table.warnings


def test_a_power_of_ten_that_may_be_two_is_refused(read):
    with pytest.raises(InputError, match=r"'N \(10e6\)' is unclear: 10e6 is 1e7, and often meant as 1e6; rename it$"):
        read("N (10e6),D,loss\n1,2e8,3\n2,4e8,2\n", Columns(n="N (10e6)"))


def test_a_small_letter_is_a_unit_where_the_numbers_are_too_small_for_counts(read):
    columns = Columns(n="params_m", d="tokens_b")
    table = read("params_m,tokens_b,loss\n10,.2,3.25\n20,.4,3.125\n", columns)
    assert (table.N.tolist(), table.D.tolist()) == ([1e7, 2e7], [2e8, 4e8])
    assert "the numbers of column 'params_m' are taken times 1e+06, as its name says" in table.warnings
    counts = read("params_m,tokens_b,loss\n10000000,2e8,3.25\n20000000,4e8,3.125\n", columns)
    assert (counts.N.tolist(), counts.D.tolist(), counts.warnings) == ([1e7, 2e7], [2e8, 4e8], [])


def test_perplexities_are_read_as_their_logarithms_and_never_as_losses(read):
    text = "N,D,val_ppl\n1e7,2e8,20.0855369\n2e7,4e8,inf\n3e7,4e8,7.38905610\n"
    table = read(text, Columns(loss="val_ppl"), loss_unit="perplexity")
    assert table.loss == pytest.approx([3, 2])
    assert table.convention.endswith("nats per token, the logarithm of the file's perplexity")
    with pytest.raises(InputError, match=r"'val_ppl' is named for a perplexity.*--loss_unit perplexity"):
        read(text, Columns(loss="val_ppl"))
    with pytest.raises(InputError, match=r"row 1, column 'val_ppl' holds 0.9; a perplexity is above 1"):
        read(text.replace("20.0855369", "0.9"), Columns(loss="val_ppl"), loss_unit="perplexity")
    assert read(text.replace("val_ppl", "log_ppl"), Columns(loss="log_ppl")).loss[0] > 20


@pytest.mark.parametrize("name", ["acc", "val/Accuracy (%)", "acc_norm", "mmlu_score", "F1", "pass@1", "top-1"])
def test_accuracies_are_no_losses(name, read):
    text = f"N,D,{name},loss,val_loss\n1e7,2e8,.2,3.25,3\n2e7,4e8,.3,3.125,2\n"
    with pytest.raises(InputError, match=r"is named for an accuracy or a score.*--loss_column; rename this one"):
        read(text, Columns(loss=name))
    assert read(text).loss.tolist() == LOSS


@pytest.mark.parametrize("name", ["1-acc", "accuracy_loss", "err", "score_nll", "place", "accumulated"])
def test_what_falls_as_an_accuracy_rises_may_be_fitted(name, read):
    assert read(f"N,D,{name}\n1e7,2e8,.3\n2e7,4e8,.2\n", Columns(loss=name)).warnings == []


def test_losses_that_behave_as_accuracies_do_are_named():
    def warnings(loss):
        n, d = np.meshgrid([1e6, 3e6, 1e7], [1e8, 3e8, 1e9])
        return read_table(pd.DataFrame({"N": n.ravel(), "D": d.ravel(), "loss": loss(n, d).ravel()})).warnings

    def falling(n, d):
        return 0.3 + (1e3 / n) ** 0.3 + (1e3 / d) ** 0.3

    assert falling(1e6, 1e8) < 1
    (said,) = warnings(lambda n, d: 1 - falling(n, d))
    assert said.startswith("'loss' is between 0 and 1, and greater for the larger N or D in 100% of the pairs of runs")
    assert warnings(falling) == []
    assert warnings(lambda n, d: 5 - falling(n, d)) == []  # no accuracy
    assert warnings(lambda n, d: 0.2 + (n / d) ** 0.2 / 2) == []  # over-fitting: it rises with N alone


def test_a_floor_in_a_unit_that_is_in_doubt_is_not_held_against_1_nat(tmp_path):
    N, D = (axis.ravel() for axis in np.meshgrid(np.geomspace(1e7, 1e9, 5), np.geomspace(2e8, 2e10, 5)))
    loss = 1.7 + 1.2 * (N / 1e8) ** -0.34 + 1.2 * (D / 2e9) ** -0.34
    loss *= np.exp(0.003 * np.random.default_rng(0).normal(size=len(N)))
    frame = pd.DataFrame({"N": N, "D": D, "bpb": loss / 3.05})
    found = fit_table(frame, Columns(loss="bpb"), resamples=100)
    assert found["floor_chinchilla"].value == pytest.approx(1.7 / 3.05, rel=0.1)
    assert "rejects" not in str(found.verdict().answers[1])
    assert "Whether a floor is 1 nat per token: 'bpb' is named for bits" in str(found.verdict())
    known = fit_table(frame, Columns(loss="bpb"), resamples=100, loss_unit="bits_per_byte", bytes_per_token=4.4)
    assert known["floor_chinchilla"].rejected == (1,)


def test_rounding_makes_no_new_cells(read):
    """D = C/(6N) differs between sizes in its last digits."""
    noise = np.random.default_rng(0)
    rows = [f"{n},{6 * n * d * (1 + 1e-12 * noise.normal())!r},3" for n in (1e7, 3e7, 7e7) for d in (2e8, 3e8)]
    table = read("\n".join(["N,flops,loss", *rows]))
    assert sorted(set(table.D.tolist())) == pytest.approx([2e8, 3e8])


CORPORA = "corpus,batch,N,D,loss\nweb,2e6,1e7,2e8,3\ncode,2e6,1e7,2e8,3\nweb,2e6,2e7,4e8,2.5\ncode,2e6,2e7,4e8,2\n"
CORPORA += "web,1e6,3e7,4e8,2.1\ncode,1e6,3e7,4e8,1.9\n"


def test_rows_that_differ_in_another_column_are_named_and_selected(read):
    table = read(CORPORA)
    assert len(table.points) == 6, "equal numbers of two corpora are no repeat"
    (warning,) = table.warnings
    assert "rows of one N and D differ in 'corpus' (code, web): --by corpus fits each kind" in warning
    assert "--where 'corpus=web' one" in warning
    table = read(CORPORA, where="Corpus=code, batch=2M")
    assert [point.name for point in table.points] == ["row 2", "row 4"]
    assert not table.warnings
    assert table.convention.endswith("; rows with Corpus=code, batch=2M")
    for where, says in (
        ("corpus=books", "no row is left; corpus is one of code, web"),
        ("corpora=web", "no column 'corpora'"),
        ("web", "column=value"),
    ):
        with pytest.raises(InputError, match=says):
            read(CORPORA, where=where)


def test_text_that_is_no_label_of_n_or_d_is_named_without_a_shared_cell(read):
    rows = [
        f"{corpus},{n},{d * shift},{3 + n / 1e9}"
        for corpus, shift in (("a", 1), ("b", 1.1))
        for n in (1e7, 2e7)
        for d in (1e8, 2e8)
    ]
    assert "rows differ in 'corpus' (a, b)" in read("\n".join(["corpus,N,D,loss", *rows])).warnings[0]
    labelled = [f"{'small' if row.split(',')[1] == '10000000.0' else 'large'},{row.split(',', 1)[1]}" for row in rows]
    assert not read("\n".join(["model,N,D,loss", *labelled])).warnings


@pytest.mark.parametrize(
    ("frame", "says"),
    [
        (pd.DataFrame({"N": [True, False], "D": [2, 3], "loss": [3, 2]}), "row 1, column 'N' holds True"),
        (pd.DataFrame({"N": ["1", "b"], "D": [2, 3], "loss": [3, 2]}), "row 2, column 'N' holds 'b'"),
        (pd.DataFrame({("a", "N"): [1, 2]}), "no column 'N'"),
        ([1, 2], "a path or a DataFrame, not a list"),
    ],
)
def test_bad_frames_are_one_line(frame, says):
    with pytest.raises(InputError, match=says):
        read_table(frame)


def test_passes_that_tell_rows_apart_are_pointed_to_the_tokens_seen(read):
    rows = [f"{N},{D},{epochs},{3 - 0.1 * epochs}" for N in (1e6, 2e6, 4e6) for D in (1e8, 2e8) for epochs in (1, 4)]
    warnings = read("\n".join(["N,D,epochs,loss", *rows])).warnings
    assert any("'epochs'" in line and "--tokens_column" in line for line in warnings)


def test_what_is_made_of_a_table_doubts_its_unit_too(read):
    rows = [f"{N},{D},{rate},{2 + 0.1 * rate}" for N in (1e6, 2e6) for D in (1e8, 2e8) for rate in (1, 2, 4)]
    table = read("\n".join(["N,D,lr,bpb", *rows]), Columns(loss="bpb"))
    assert table.unit_in_doubt
    (of_corpus,) = by_corpus(table).values()
    for made in (of_corpus, tune_cells(table, ["lr"], resamples=0).table):
        assert references(made) == {}
