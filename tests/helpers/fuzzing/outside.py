"""The parts of the program that meet what is outside of a sweep; each runs one example.

table         a table of anyone's runs, through what `fit` reads, and through `fit`
text          texts in files of any format, and a tokenizer's file, through what prepares tokens
environment   variables that schedulers, launchers and libraries set, through `plan`, `status` and a node's start
program       what the programs answer that are asked about the machine, through `plan`
"""

import json
import os
import random
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from amscale import config, data
from helpers.fuzzing.checks import Broken, command, inside, passes
from helpers.fuzzing.mutate import change_bytes, change_place, damage_json

_CELLS = (
    "", " ", "nan", "NaN", "inf", "-inf", "0", "-1", "1e400", "6.7B", "10.0 M", "1,000", "1.000,5", "1_000", "12 k",
    "N/A", "-", "null", "#REF!", "=1+1", "true", "2026-11-28", "0x10", "010", '"', "'1'", "1;2", "\t", "\x00", "９",
)  # fmt: skip
_SEPARATORS = (",", ";", "\t", "|", ", ", " ", ",,")
_NAMES = (
    "N",
    "D",
    "loss",
    "flops",
    "seed",
    "tokens",
    "n",
    "Loss",
    " N",
    "N ",
    "\ufeffN",
    "val_loss",
    "",
    "N.1",
    "params",
)
_ENCODINGS = ("utf-8-sig", "utf-16", "utf-32", "latin-1", "cp1252", "utf-7")

_VARIABLES = (
    "ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "ACCELERATE_MIXED_PRECISION", "ACCELERATE_USE_DEEPSPEED", "COLUMNS",
    "CUDA_VISIBLE_DEVICES", "DS_ACCELERATOR", "FORCE_COLOR", "HOME", "HOSTNAME", "LANG", "LC_ALL", "LINES",
    "LOCAL_RANK", "LOGNAME", "MASTER_ADDR", "MASTER_PORT", "NO_COLOR", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE",
    "OMP_NUM_THREADS", "PAGER", "PATH", "PYTHONIOENCODING", "RANK", "RAY_ADDRESS", "SLURM_CPUS_ON_NODE",
    "SLURM_GPUS_ON_NODE", "SLURM_JOB_ID", "SLURM_MEM_PER_CPU", "SLURM_MEM_PER_GPU", "SLURM_MEM_PER_NODE",
    "SLURM_NODEID", "SLURM_PROCID", "TERM", "TMPDIR", "TTY_COMPATIBLE", "TZ", "USER", "WORLD_SIZE", "XDG_CACHE_HOME",
)  # fmt: skip
_VALUES = (
    "",
    "0",
    "-1",
    "1",
    "999999999999999999999",
    "abc",
    "1.5",
    "1e3",
    " 4 ",
    "4(x2)",
    "dumb",
    "/nowhere",
    "/",
    ".",
)
_VALUES += ("/tmp/" + "x" * 77, "\udcff", "β", "all", "NoDevFiles", "true", "None", "auto", "a\nb", "," * 50)

_ANSWERS = (
    b"", b"\n", b"[N/A]\n", b"81559\n", b"81559\n81559\n", b"-1\n", b"0\n", b"81559 MiB\n", b"1e5\n",
    b"9" * 400 + b"\n", b"No devices were found\n", b"Failed to initialize NVML: Driver/library version mismatch\n",
    b"\xff\xfe8\x001\x00",
    b"[Unknown Error]\n[N/A]\n", b"\x00" * 50, "８１５５９\n".encode(), b"81559\n" * 3000, b"NVIDIA GB10, [N/A]\n",
)  # fmt: skip

_TEXTS = (
    "".join(f"a b c d{' a' * (index % 7)}{' b' * (index // 7)}\n" for index in range(40)),
    "β γ δ\n\n" * 30,
    "one line without an end",
    "x" * 3000,
    "\u2028a\x85b\x0cc\n" * 30,
    "\n\n\n",
    "",
)


class Outside:
    """Run examples of what surrounds a sweep.

    Args:
        made: a made sweep, for commands that read one.
    """

    def __init__(self, made: Path) -> None:
        self._made = made

    def check_undamaged(self, place: Path) -> None:
        """Check that undamaged input is accepted, and that the outside program is asked.

        Raises:
            Broken: something undamaged is refused.
        """
        from amscale.cluster.resources import this_machine

        (place / "points.csv").write_text("N,D,loss\n1e5,1e6,3.1\n4e5,1e6,2.9\n1e5,4e6,3.0\n")
        passes(_read_table, [str(place / "points.csv")])
        (place / "text.txt").write_text(_TEXTS[0])
        tokenizer = Path(place / "tokenizer.json")
        _save_tokenizer(tokenizer, ["a", "b", "c", "d", "[UNK]", "<|endoftext|>"], {"unk_token": "[UNK]"})
        for name in ("byte", "word", str(tokenizer)):
            corpus = {"corpus": "text", "files": str(place / "text.txt"), "tokenizer": name}
            tree = _experiment(corpus | {"document": "line", "validation": 0.1})
            passes(lambda tree=tree: _prepare(tree, place / "tokens"), [])
        with _answering(place, b"GPU-0, H100, 81559, 9.0, Disabled\n", "exit 0"):
            if this_machine().hosts[0].gpus != 1:
                raise Broken("nvidia-smi is not asked")

    def table(self, place: Path, rng: random.Random, full: bool) -> None:
        """Run one example of a table."""
        from amscale.fit import fit

        suffix = rng.choice([".csv"] * 4 + [".tsv", ".json", ".jsonl", ".parquet", ".txt", ""])
        file = place / f"points{suffix}"
        _write_table(file, rng)
        if rng.random() < 0.2:
            file.write_bytes(change_bytes(rng, file.read_bytes()))
        elif rng.random() < 0.02:
            change_place(rng, file)
        flags = [f"--{rng.choice(['n', 'd', 'loss', 'flops'])}_column={rng.choice(_NAMES)}"] * (rng.random() < 0.2)
        if full:
            command(fit, [str(file), *flags, "--resamples=100"])
        else:
            command(_read_table, [str(file)])

    def text(self, place: Path, rng: random.Random, full: bool) -> None:
        """Run one example of texts and a tokenizer."""
        suffix = rng.choice([".txt", ".jsonl", ".json", ".parquet"])
        file = place / rng.choice([f"text{suffix}", f"text [v1]{suffix}", f"β{suffix}"])
        text = rng.choice(_TEXTS)
        lines = [json.dumps({rng.choice(["text", "text", "content"]): part}) for part in text.split("\n")]
        content = "\n".join(lines) if suffix.startswith(".json") else text
        encoded = content.encode(rng.choice(_ENCODINGS) if rng.random() < 0.2 else "utf-8", "replace")
        file.write_bytes(change_bytes(rng, encoded) if rng.random() < 0.4 else encoded)
        tokenizer = rng.choice(["byte", "word", "file", "file"])
        if tokenizer == "file":
            tokenizer = str(place / "tokenizer.json")
            _write_tokenizer(Path(tokenizer), rng)
        name = {".txt": "text", ".parquet": "parquet"}.get(suffix, "jsonl")
        corpus = {"corpus": name, "files": str(file), "tokenizer": tokenizer, "validation": rng.choice([1, 0.1, 0.5])}
        if name == "text" and rng.random() < 0.8:
            corpus["document"] = rng.choice(["line", "paragraph", "file"])
        tree = _experiment(corpus)
        with inside(place):
            command(lambda: _prepare(tree, place / "tokens"), [])

    def environment(self, place: Path, rng: random.Random, full: bool) -> None:
        """Run one example of environment variables."""
        from amscale.cluster import run_node
        from amscale.folders import ray_folder
        from amscale.plan import plan
        from amscale.status import status

        def start() -> None:
            folder = ray_folder()
            folder.rmdir()
            run_node.start_command("10.0.0.1:6379", "10.0.0.2", str(folder), 1000)

        chosen = {name: rng.choice(_VALUES) for name in rng.sample(_VARIABLES, rng.choice([1, 2, 5]))}
        with mock.patch.dict(os.environ, chosen), inside(place):
            command(
                *rng.choice([(plan, ["grammar.yaml", f"storage={place}"]), (status, [str(self._made)]), (start, [])])
            )

    def program(self, place: Path, rng: random.Random, full: bool) -> None:
        """Run one example of an outside program's answer."""
        from amscale.plan import plan

        answer = rng.choice(_ANSWERS)
        answer = change_bytes(rng, answer) if rng.random() < 0.5 else answer
        end = rng.choice(["exit 0"] * 4 + ["exit 1", "exit 9", "kill -9 $$", "cat answer >&2"])
        first = rng.choice(["#!/bin/sh\n"] * 8 + ["#!/nowhere\n", "", "\x00"])
        device = rng.choice(["auto", "cpu", "cuda"])
        with _answering(place, answer, end, first, rng.choice([0o755] * 8 + [0o644])), inside(place):
            command(plan, ["grammar.yaml", f"storage={place}", f"launch.device={device}"])


def _read_table(path: str) -> None:
    """Read a table as `fit` does before it fits."""
    from amscale.scaling import table

    table.read_table(path)


def _prepare(tree: dict[str, object], folder: Path) -> None:
    (cell,) = config.expand(config.parse(tree))
    store = data.prepare(cell.data, folder)
    store.training(None, cell.data.packing)


def _experiment(corpus: dict[str, object]) -> dict[str, object]:
    model = {"family": "gpt2", "size": "100k", "layers": 2}
    return {"name": "fuzz", "model": model, "data": corpus, "train": {"steps": 3}}


@contextmanager
def _answering(place: Path, answer: bytes, end: str, first: str = "#!/bin/sh\n", mode: int = 0o755) -> Iterator[None]:
    """Have an nvidia-smi on PATH that gives an answer."""
    (place / "answer").write_bytes(answer)
    program = place / "nvidia-smi"
    program.write_text(f"{first}cat {place}/answer\n{end}\n")
    program.chmod(mode)
    with mock.patch.dict(os.environ, {"PATH": f"{place}:{os.environ['PATH']}"}):
        os.environ.pop("CUDA_VISIBLE_DEVICES", None)  # it may say that there is nothing to ask for
        yield


def _write_table(file: Path, rng: random.Random) -> None:
    """Write a table of runs in the format of the file's name, some of its cells and headings odd."""
    import pandas as pd

    headings = ["N", "D", "loss", *rng.sample(["flops", "seed", "tokens"], rng.randrange(3))]
    rows = []
    for N in (1e5, 4e5, 1.6e6):
        for D in (1e6, 4e6, 1.6e7):
            values = {"N": N, "D": D, "loss": 1.7 + 400 * N**-0.35 + 900 * D**-0.35, "flops": 6 * N * D, "seed": 0}
            rows.append([repr(values.get(name, D)) for name in headings])
    for _ in range(rng.choice([0, 1, 1, 3])):
        row = rng.choice(rows)
        match rng.randrange(6):
            case 0:
                row[rng.randrange(len(row))] = rng.choice(_CELLS)
            case 1:
                row.append(rng.choice(_CELLS))
            case 2:
                row.pop()
            case 3:
                headings[rng.randrange(len(headings))] = rng.choice(_NAMES)
            case 4:
                rows = rng.choice([[], rows[:1], [rows[0]] * 5, [[*one[:2], "2.5", *one[3:]] for one in rows]])
                rows = [list(one) for one in rows] or [[]]
            case _:
                for one in rows:
                    one.append(rng.choice(["", "1"]))
        if not any(rows) or not row:
            break
    if file.suffix == ".parquet":
        width = min([len(headings), *map(len, rows)])
        names = [f"{name}{index}" if headings.index(name) != index else name for index, name in enumerate(headings)]
        pd.DataFrame([row[:width] for row in rows], columns=names[:width]).to_parquet(file)
        return
    if file.suffix in (".json", ".jsonl"):
        records = [json.dumps(dict(zip(headings, row, strict=False))) for row in rows]
        text = "\n".join(records) if file.suffix == ".jsonl" else f"[{', '.join(records)}]"
    else:
        separator = "\t" if file.suffix == ".tsv" else rng.choice(_SEPARATORS if rng.random() < 0.4 else ",")
        comment = rng.choice(["", "", "", "# made by hand\n", "\n", "sep=;\n"])
        text = comment + rng.choice(["\n", "\n", "\r\n", "\r"]).join(separator.join(row) for row in [headings, *rows])
    encoding = rng.choice(_ENCODINGS) if rng.random() < 0.15 else "utf-8"
    file.write_bytes(text.encode(encoding, "replace"))


def _write_tokenizer(file: Path, rng: random.Random) -> None:
    """Write a tokenizer's file, damaged or of too few tokens."""
    words = rng.sample(["a", "b", "c", "d", "β", "γ", "<|endoftext|>", "</s>", "[UNK]", "<unk>", "<s>", "x"], 8)
    unknown = rng.choice([{}, {"unk_token": "[UNK]"}, {"unk_token": words[0]}])
    added = [rng.choice(["<|endoftext|>", "</s>", "<eos>"])] if rng.random() < 0.3 else []
    _save_tokenizer(file, words, unknown, added)
    if rng.random() < 0.5:
        damage_json(rng, file)


def _save_tokenizer(file: Path, words: Sequence[str], unknown: dict[str, str], added: Sequence[str] = ()) -> None:
    from tokenizers import Tokenizer, models, pre_tokenizers

    tokenizer = Tokenizer(models.WordLevel({word: index for index, word in enumerate(words)}, **unknown))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(list(added))
    tokenizer.save(str(file))
