"""A user's own text, in several files, through the real commands; and rows that are no text."""

import gzip
import json

import pandas as pd
import pytest
from helpers.commands import command

CONFIGURATION = """
name: own
grid: {{seed: [0]}}
model: {{family: gpt2, layers: 2, width: 16, heads: 2}}
data: {{corpus: {corpus}, files: {files}, tokenizer: byte, context: 32, validation: 0.1}}
train: {{steps: 5, batch_tokens: 200}}
probes: {{every: 0, sequences: 0}}
"""


def run(name, folder, corpus, files):
    configuration = folder / "own.yaml"
    configuration.write_text(CONFIGURATION.format(corpus=corpus, files=json.dumps([str(file) for file in files])))
    return command(name, str(configuration), f"storage={folder}/results")


def test_several_files_are_one_corpus(tmp_path):
    lines = [json.dumps({"text": f"The {number} sheep went over the hills."}) + "\n" for number in range(100, 300)]
    (tmp_path / "a.jsonl").write_text("".join(lines[:120]))
    with gzip.open(tmp_path / "b.jsonl.gz", "wt") as file:
        file.writelines(lines[120:])
    ran = run("plan", tmp_path, "jsonl", sorted(tmp_path.glob("*.jsonl*")))
    assert ran.returncode == 0, ran.stdout + ran.stderr
    (facts,) = (json.loads(path.read_text()) for path in tmp_path.glob("results/tokens/*/store.json"))
    # A byte a token, and an end token; every line has as many.
    assert (facts["documents"], facts["tokens"]) == (200, 200 * (len("The 100 sheep went over the hills.") + 1))


@pytest.mark.parametrize(
    ("corpus", "name", "content", "words"),
    [
        ("jsonl", "a.jsonl", b'{"text": "a"}\n{"text": 3}\n', "a.jsonl, row 2: int, not text"),
        ("jsonl", "a.jsonl", b'{"text": "a"}\n{"tex', "a.jsonl, row 2"),
        ("text", "a.txt", b"fine\n\xff\xfe\n", "a.txt is not UTF-8 text (line 2"),
        ("parquet", "a.parquet", b"not one", "a.parquet"),
        ("parquet", "a.parquet", None, "a.parquet, row 2: null, not text"),
    ],
)
def test_a_broken_row_is_named(tmp_path, corpus, name, content, words):
    if content is None:
        pd.DataFrame({"text": ["a", None]}).to_parquet(tmp_path / name)
    else:
        (tmp_path / name).write_bytes(content)
    ran = run("plan", tmp_path, corpus, [tmp_path / name])
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert words in ran.stderr
    assert ran.stderr.count("\n") == 1, ran.stderr
