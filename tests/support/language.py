"""Find words and docstrings that break the project's rules of language.

`python tests/support/language.py [PATH ...]` prints each finding as ``file:line: found; use``.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]

INSTEAD = {
    r"exchang(?:e|es|ed|ing)": "collective, communication, or distributed form",
    r"meetings?": "collective, or rendezvous",
    r"mend(?:s|ed|ing)?": "hint, or fix",
    r"members?": "rank of a group",
    r"beside": "next to, in addition to",
    r"told": "given, named, reported",
    r"tells? of": "say, name, report",
    r"says? on|said on": "generate, continue",
    r"h[au]ngs? (?:on|together)": "depend on",
    r"(?:lie|lies|lay) so": "name the placement",
    r"of one mind": "equal",
    r"judged": "decided, compared",
    r"doubts?": "error, interval",
    r"for want of": "without",
    r"there (?:are|is|were|was) none": "name the case",
    r"such as (?:it is|they are)": "leave it out",
    r"comes? of (?:it|them)": "result",
    r"stands? still": "stalled",
    r"nurser(?:y|ies)": "fork server",
    r"seats?": "rank context",
    r"stations?": "rank context",
    r"lanes?": "micro-batch, row",
    r"letters": "labels (of a rule), messages (of ranks)",
    r"ways? out": "hint",
    r"no use for": "does not use",
    r"the middle of": "median",
    r"(?:further|later) tokens?": "decode, TPOT",
    r"what (?:binds|is kept|links)": "bound by; KV cache",
    r"sane": "valid",
    r"held": "footprint, stored (held-out is fine)",
}
"""Regular expressions of words that are not used, with what to write in their place."""

ALLOWED = re.compile(r"held[-_ ]out", re.IGNORECASE)
WORD = re.compile("|".join(rf"(?P<w{n}>\b(?:{w})\b)" for n, w in enumerate(INSTEAD)), re.IGNORECASE)
LEAD = re.compile(r"(?:What|Which|Whether|How|Who|Where)\b")

Finding = tuple[Path, int, str]


def words(text: str) -> Iterator[tuple[int, str]]:
    """Yield the line within a text, and the finding, of each word that is not used."""
    uses = list(INSTEAD.values())
    for number, line in enumerate(text.split("\n")):
        clean = ALLOWED.sub("", line).replace("_", " ")
        for match in WORD.finditer(clean):
            yield number, f"{match.group()!r}; use: {uses[int(str(match.lastgroup)[1:])]}"


def python_findings(path: Path) -> Iterator[Finding]:
    """Yield the findings of a Python file: comments, strings, docstrings, names."""
    source = path.read_text(encoding="utf-8")
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        kind = tokenize.tok_name[token.type]
        if kind in ("COMMENT", "STRING", "NAME", "FSTRING_MIDDLE"):
            for line, what in words(token.string):
                yield path, token.start[0] + line, what
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            note = node.value.value
            if isinstance(note, str) and LEAD.match(note):
                yield path, node.lineno, f"docstring begins with {note.split()[0]!r}; use: a noun"


def text_findings(path: Path) -> Iterator[Finding]:
    """Yield the findings of a text file."""
    for line, what in words(path.read_text(encoding="utf-8")):
        yield path, line + 1, what


def files(roots: list[Path]) -> Iterator[Path]:
    """Yield the files that the rules of language hold for."""
    for root in roots:
        found = [root] if root.is_file() else sorted(root.rglob("*"))
        for path in found:
            if path.suffix in {".py", ".md", ".toml"} and "__pycache__" not in path.parts:
                yield path


def findings(roots: list[Path]) -> Iterator[Finding]:
    """Yield all findings under some paths."""
    for path in files(roots):
        yield from python_findings(path) if path.suffix == ".py" else text_findings(path)


PLACES = ("parframe", "plugins", "docs", "specs", "README.md", "CONTRIBUTING.md", "CHANGELOG.md")

if __name__ == "__main__":
    count = 0
    for path, line, what in findings([Path(a) for a in sys.argv[1:]] or [ROOT / p for p in PLACES]):
        print(f"{path}:{line}: {what}")
        count += 1
    print(f"{count} findings", file=sys.stderr)
