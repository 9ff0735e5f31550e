"""Paths and patterns of files: what exists is taken as it is, and what is nearly there is named."""

import os
import unicodedata
from pathlib import Path

import pytest

from amscale.data.file_patterns import find_files
from amscale.errors import InputError

ACCENTED = "r\u00e9sum\u00e9.txt"


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    for name in (
        "corpus [v1].txt",
        "dir [v1]/a b.txt",
        "dir [v1]/c[2].txt",
        "dir [v1]/sub/ch [1].txt",
        "home/mine.txt",
        "part1/x.txt",
        "part2/x.txt",
        "caf\u00e9/x.jsonl",
        unicodedata.normalize("NFD", ACCENTED),
        "~odd.txt",
    ):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name)
    (tmp_path / "link.txt").symlink_to("corpus [v1].txt")
    (tmp_path / "dangling.txt").symlink_to("gone.txt")
    (tmp_path / "alias").symlink_to("dir [v1]")
    (tmp_path / "dir [v1]" / "loop").symlink_to("../dir [v1]")
    (tmp_path / "empty").mkdir()
    os.mkfifo(tmp_path / "pipe")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    return tmp_path


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        ("corpus [v1].txt", ["corpus [v1].txt"]),
        ("corpus [v1]*.txt", ["corpus [v1].txt"]),
        ("dir [v1]/*.txt", ["dir [v1]/a b.txt", "dir [v1]/c[2].txt"]),
        ("dir [v1]/c[2].txt", ["dir [v1]/c[2].txt"]),
        ("dir [v1]/**/*.txt", ["dir [v1]/a b.txt", "dir [v1]/c[2].txt", "dir [v1]/sub/ch [1].txt"]),
        ("d*/sub/ch [1].txt", ["dir [v1]/sub/ch [1].txt"]),
        ("part[12]/x.txt", ["part1/x.txt", "part2/x.txt"]),
        (["part2/x.txt", "part?/x.txt"], ["part1/x.txt", "part2/x.txt"]),
        (["alias/a b.txt", "dir [v1]/a b.txt", "./alias/../dir [v1]/a b.txt"], ["alias/a b.txt"]),
        ("caf\u00e9/*", ["caf\u00e9/x.jsonl"]),
        ("cafe\u0301/x.jsonl", ["caf\u00e9/x.jsonl"]),
        (ACCENTED, [unicodedata.normalize("NFD", ACCENTED)]),
        ("link.txt", ["link.txt"]),
        ("~odd.txt", ["~odd.txt"]),
    ],
)
def test_what_exists_is_taken_as_it_is(patterns, expected):
    assert [str(path) for path in find_files(patterns)] == expected


def test_home_is_found(folder):
    assert find_files("~/*.txt") == [folder / "home" / "mine.txt"]


@pytest.mark.parametrize(
    ("pattern", "reason"),
    [
        ("corpus [v2].txt", "no 'corpus [v2].txt' in {folder}, where the nearest is 'corpus [v1].txt'"),
        ("Dir [V1]/a b.txt", "no 'Dir [V1]/a b.txt' in {folder}, where the nearest is 'dir [v1]'"),
        ("dir [v1]/d.txt", "no 'd.txt' in {folder}/dir [v1], where the nearest is "),
        ("part1/*.parquet", "no '*.parquet' in {folder}/part1, which holds 'x.txt'"),
        ("dir [v1]", "{folder}/dir [v1] is a folder; 'dir [v1]/*.txt' matches files of it"),
        ("empty", "{folder}/empty is a folder without files"),
        ("empty/*.txt", "{folder}/empty is empty"),
        ("link.txt/x", "{folder}/link.txt is a file, not a folder"),
        ("dangling.txt", "{folder}/dangling.txt is a link to 'gone.txt', which is not there"),
        ("pipe", "{folder}/pipe is a pipe or a device"),
        ("~nobody-of-that-name/x.txt", "no '~nobody-of-that-name/x.txt' in {folder}"),
        ("n" * 300, "no 'nnn"),
        ("nul\0byte", "no 'nul"),
    ],
)
def test_what_is_missing_is_said_with_what_is_nearly_there(folder, pattern, reason):
    with pytest.raises(InputError) as caught:
        find_files([pattern, "part1/x.txt"])
    assert f"matches no file: {reason.format(folder=folder)}" in str(caught.value)
