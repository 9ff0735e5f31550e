"""No file is read or written in the encoding of the locale."""

import ast
from pathlib import Path

import amscale

ROOT = Path(amscale.__file__).parent
TEXT = ("open", "fdopen", "read_text", "write_text", "TextIOWrapper")


def in_the_locales_encoding(call: ast.Call) -> bool:
    """Return whether a call opens or runs something as text without naming the encoding."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in call.keywords}
    if "encoding" in keywords:
        return False
    if keywords.get("text") == "True":
        return True
    if name not in TEXT or (name == "read_text" and isinstance(call.func, ast.Name)):  # amscale.files.read_text
        return False
    owner = ast.unparse(call.func.value) if isinstance(call.func, ast.Attribute) else ""
    if name == "open" and (owner == "os" or owner.endswith("store")):
        return False
    modes = [arg.value for arg in call.args if isinstance(arg, ast.Constant) and isinstance(arg.value, str)]
    return name.endswith("_text") or not any("b" in mode for mode in modes if len(mode) < 4)


def test_every_text_file_has_an_encoding():
    found = []
    for path in sorted(ROOT.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and in_the_locales_encoding(node):
                found.append(f"{path.relative_to(ROOT)}:{node.lineno}: {ast.unparse(node)[:60]}")
    assert not found
