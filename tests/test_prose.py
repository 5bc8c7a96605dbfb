"""The prose of the project is plain English: it contains no idiom that a pattern can find.

Each row of a table below has a pattern, what to write instead, and an example that it rejects.
In the examples a `~` breaks the idiom, so that this file passes its own test.
"""

import ast
import io
import re
import tokenize
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PYTHON = [
    path
    for part in ("minires", "tests", "data_scripts", "lessons")
    for path in sorted((ROOT / part).rglob("*.py"))
    if ".ipynb_checkpoints" not in path.parts
]
TOML = [ROOT / "pyproject.toml", *sorted((ROOT / "minires").rglob("*.toml"))]
MARKDOWN = [
    *sorted(ROOT.glob("*.md")),
    *sorted((ROOT / "lessons").rglob("*.md")),
    *sorted((ROOT / ".github").rglob("*.md")),
]

START = r"(?:^|(?<=[.!?:;] ))"  # of a sentence
WHERE = "about|across|after|along|at|back|before|by|close|down|earlier|first|from|home|in|into|last"
WHERE += "|later|long|near|never|next|off|on|out|over|second|there|through|to|together|true|up|with"

# pattern, what to write instead, an example that it rejects
IDIOMS = [
    # the column "instead of" of the style guide, in its order
    (
        r"\bso many\b",
        "the number, or its name",
        "Which of so~ many training images serve batch norm's statistics, "
        "and which the training error",
    ),
    (
        r"\b(it|that|this|these|which|what) (is|are) no "
        r"(?!longer|more|less|fewer|worse|better|larger|smaller|higher|lower)",
        "it is not a ...",
        "expected a run, got a folder that is~ no run",
    ),
    (
        r"\bno image both\b",
        "disjoint",
        "Which of so~ many training images serve batch norm's statistics, "
        "and which the training error: no~ image both",
    ),
    (
        r"\b[Ll]eaves? [^.]*, which [^.,]*, to\b",
        "send complex input (complex-step gradient checks) to the NumPy op",
        "Leave complex numbers, which only a numerical check of gradients sends,~ to the NumPy op",
    ),
    (
        r"\b[Ll]et (?:no|other|another) (?:\w+ )?(?:one|process|processes|threads?|files?|runs?)\b",
        "the effect: make names unique per process",
        "Let no~ other process choose the same name for a file of~ machine code",
    ),
    (r"\bfiles? of machine code\b", "cache file", "the same name for a file of~ machine code"),
    (r"\b[Tt]ak(?:es?|ing) over what\b", "load, in place", "Take over~ what `state` returned"),
    (r"\b[Ss]urprise at\b", "mean cross-entropy of", "Surprise~ at the true labels"),
    (rf"\bcame\b(?! (?:{WHERE})\b)", "got", "expected a folder, ca~me a file"),
    (
        r"\berr(?:s|ed)\b|\berr on\b",
        "its training error is ..., has a higher error than ...",
        "it err~s on 29.9 % of its images",
    ),
    (
        r"\b(?:go(?:es)?|went) on where\b|\bwhere (?:it|they) (?:was|were) stopped\b",
        "run it again to resume",
        "the same command goes~ on where it was~ stopped",
    ),
    (START + r"Who\b[^?.]*(?:\.|$)", "if you ...", "W~ho has only one session takes lesson 2"),
    (
        r"(?:%|percent|half|most|share|fraction) of times\b",
        "of the time",
        "caught 41 % of~ times",
    ),
    # what the style guide says to avoid
    (r"\banew\b", "again", "the mean is computed a~new"),
    (
        r"\bof which (?:one|two|each|only|no|none)\b",
        "one of them",
        "two nets, of~ which one waits",
    ),
    (
        r"\b(?:is|are|was|were|being) told\b(?! (?:apart|from)\b)",
        "give, pass, get, learn",
        "the layer is~ told the rate",
    ),
    (r"\bput(?:s|ting)? out\b", "return, print, write", "a batch norm puts~ out the result"),
    (START + r"Of (?!course\b|\()", "the subject first", "O~f two sums, the larger"),
    (r"\b[Rr]espectively\b", "which belongs to which", "3 and 4 layers, respec~tively"),
    (r"\b[Ss]imply\b", "nothing", "the layer simp~ly adds x"),
    (r"\b[Oo]bviously\b", "nothing, or the reason", "this is obvi~ously zero"),
    (
        r"(?<!has )(?<!have )(?<!had )\b[Jj]ust\b(?! (?:above|after|as|before|below)\b)",
        "nothing, or only",
        "the gradient is ju~st dy",
    ),
    (
        r"\b(?:a|an|the|each|every|this|that|its|one|own|other|machine) room\b(?! (?:for|to)\b)"
        r"|\brooms\b",
        "package, folder, module",
        "the kernels are in the machine~ room",
    ),
    (r"\b(?:an?|the|each|every|front|back|one) doors?\b", "entry point", "the front~ door"),
    (
        r"\b(?:of|in) the house\b|\bhouse(?:'s)? (?:rule|page)",
        "project, package",
        "the page of the~ house",
    ),
    # other translated idioms of version 1
    (r"\bmelts? into\b", "is inlined into", "a part of kernels: it melts~ into each place"),
    (r"\buses up (?:one|its|the cache)\b", "consumes", "every backward uses~ up one forward"),
    (r"\bby heart\b", "memorise", "flips, which are against learning by~ heart"),
    (r"\bround(?:s|ed)? otherwise\b", "rounds differently", "as fast, and rounds~ otherwise"),
    (r"\b(?:is|are) to be said\b", "must be named", "then it is to be~ said which"),
    (r"\b[Ff]or then\b", "because then", "all of them if none has, for~ then it fails"),
    (r"\bchance alone goes\b", "exceeded by chance", "chance~ alone goes beyond two"),
    (
        r"\bcan do with less work\b|\bof \S+ with less work\b",
        "faster, fused",
        "Ops that training can do with~ less work",
    ),
    (r"\bwhat there is to\b", "its name: the exercises", "what there is~ to write"),
    (r"\b(?:has|have) no use for\b", "does not need", "what training has no~ use for"),
    (r"\bneither those nor\b", "do not modify ... or ...", "neither~ those nor the result"),
    (r"\bimage alone is enough\b", "a single image", "an image~ alone is enough"),
    (r"\band lose nothing\b", "nothing is lost", "faults are noticed, and lose~ nothing"),
    (r"\bas (?:many|few) as before\b", "unchanged", "so that 0 gives as~ many as before"),
]

# the names of code that stood for standard terms
NAMES = {
    "keep": "select, or what is kept",
    "expect": "prefetch",
    "apart": "stride",
    "inner": "inline",
    "smooth": "complex fallback, moving average",
    "butterfly": "sensitivity",
    "settled": "all_done",
    "begun": "started",
    "corner": "offset",
    "quarry": "the file with the bug",
    "weighing": "weights",
    "descent": "the optimizer",
}

# Sentences of textbook English that a pattern might reject by mistake
PLAIN = [
    "The gradient came from the loss, and this came first.",
    "The check cannot be told from a failure; the two cannot be told apart.",
    "Of course the mean is zero.",
    "The backward stands just below its forward, just as in the paper.",
    "A run that has just started has no error.",
    "There is no room for another layer; make room for it.",
    "It was repeated hundreds of times. The number of times is n.",
    "Who reads this page?",
    "Leave the cache alone.",
    "A bomb uses up memory.",
    "So much for many images.",
    "The outputs are put outside the folder.",
    "Adjust the rate; it is justified.",
    "What does a backward return?",
]


def whole(example):
    """An example without its breaks."""
    return example.replace("~", "")


# --------------------------------------------------------------------------- prose of a file


def paragraphs(text):
    """Paragraphs of a text, each on one line: an idiom may be broken over two lines."""
    for part in re.split(r"\n\s*\n", text):
        line = " ".join(part.split())
        if line:
            yield line


def joined(node):
    """The text of an f-string, with `{}` for its values."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(v.value) if isinstance(v, ast.Constant) else "{}" for v in node.values)


@cache
def nodes(text):
    """All nodes of a program."""
    return list(ast.walk(ast.parse(text)))


def strings_of(text):
    """Docstrings and other strings: those that stand in a row are one."""
    inside = {id(v) for node in nodes(text) if isinstance(node, ast.JoinedStr) for v in node.values}
    for node in nodes(text):
        is_string = isinstance(node, ast.Constant) and isinstance(node.value, str)
        if (is_string and id(node) not in inside) or isinstance(node, ast.JoinedStr):
            yield joined(node)


def comments_of(text):
    """Comments: lines that follow each other are one comment."""
    block, last = [], None
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type != tokenize.COMMENT:
            continue
        words = re.sub(r"^#[:!]? ?|^#$|-{4,}", "", token.string)
        if block and token.start[0] != last + 1:
            yield "\n".join(block)
            block = []
        block.append(words)
        last = token.start[0]
    if block:
        yield "\n".join(block)


def python_prose(text):
    """Docstrings, comments and strings, by paragraph."""
    for block in (*strings_of(text), *comments_of(text)):
        yield from markdown_prose(block)


def markdown_prose(text):
    """Paragraphs, list items, headings and cells of tables; no code."""
    text = re.sub(r"^```.*?^```", "\n\n", text, flags=re.S | re.M)
    text = re.sub(r"`[^`\n]*`", "`code`", text)
    text = re.sub(r"^(\s*(?:[-*+]|\d+\.|#+)\s+)", r"\n\n", text, flags=re.M)
    text = re.sub(r"^\|.*\|$", lambda row: row[0].replace("|", "\n\n"), text, flags=re.M)
    return paragraphs(text.replace("*", ""))


def toml_prose(text):
    """Strings and comments."""

    def walk(value):
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list):
            for item in value:
                yield from walk(item)
        elif isinstance(value, str):
            yield value

    for string in walk(tomllib.loads(text)):
        yield from markdown_prose(string)
    for comment in re.findall(r"(?:^|\s)#\s+(.*)$", text, re.M):
        yield from markdown_prose(comment)


READERS = {".py": python_prose, ".md": markdown_prose, ".toml": toml_prose}


def faults(passages):
    """The idioms in some passages, and what to write instead."""
    for passage in passages:
        if " " not in passage:  # a name, not prose
            continue
        for pattern, instead, _ in IDIOMS:
            found = re.search(pattern, passage)
            if found:
                near = passage[max(0, found.start() - 40) : found.end() + 40]
                yield f"{found[0]!r} in {near!r}: write {instead!r}"


def read(path):
    return READERS[path.suffix](path.read_text(encoding="utf-8"))


def relative(path):
    return path.relative_to(ROOT).as_posix()


@pytest.mark.parametrize("path", [*PYTHON, *MARKDOWN, *TOML], ids=relative)
def test_prose_has_no_idiom_of_the_list(path):
    assert list(faults(read(path))) == []


# -------------------------------------------------------------------------------- titles and names

NOUN_CLAUSE = r"(?:What|Which)\b[^?]*$"


def titles(path):
    """Headings of a document; first sentences of a program's docstrings."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".md":
        text = re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)
        yield from re.findall(r"^#+ +(.*)$", text, re.M)
        return
    for node in nodes(text):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            yield " ".join((ast.get_docstring(node) or "").split("\n\n")[0].split())


@pytest.mark.parametrize("path", [*PYTHON, *MARKDOWN], ids=relative)
def test_titles_are_no_noun_clauses(path):
    assert [title for title in titles(path) if re.match(NOUN_CLAUSE, title)] == []


def names(text):
    """Names that a program defines or uses."""
    for node in nodes(text):
        for field in ("name", "arg", "id", "attr"):
            name = getattr(node, field, None)
            if isinstance(name, str):
                yield name


@pytest.mark.parametrize("path", PYTHON, ids=relative)
def test_code_uses_the_terms_of_the_field(path):
    used = set(names(path.read_text(encoding="utf-8")))
    assert {name: NAMES[name] for name in sorted(used & NAMES.keys())} == {}


# ------------------------------------------------------------------------ what the patterns find


@pytest.mark.parametrize(("pattern", "example"), [(p, e) for p, _, e in IDIOMS])
def test_a_pattern_finds_its_example_and_not_the_broken_one(pattern, example):
    assert re.search(pattern, whole(example))
    assert not re.search(pattern, example)


@pytest.mark.parametrize("sentence", PLAIN)
def test_plain_sentences_pass(sentence):
    assert list(faults([sentence])) == []


def test_titles_and_names_are_found(tmp_path):
    program = tmp_path / "program.py"
    program.write_text('def keep(expect):\n    """What the other one keeps.\n\n    Why.\n    """\n')
    assert [t for t in titles(program) if re.match(NOUN_CLAUSE, t)] == ["What the other one keeps."]
    assert set(names(program.read_text())) == {"keep", "expect"}
    page = tmp_path / "page.md"
    page.write_text("# What you can do\n\n## What is a gradient?\n\n```\n# Which\n```\n")
    assert [t for t in titles(page) if re.match(NOUN_CLAUSE, t)] == ["What you can do"]


IDIOM = whole("so~ many")
PLACES = {
    "docstring.py": f'def f():\n    """Add {IDIOM} terms."""\n',
    "broken_docstring.py": f'"""Add {IDIOM} terms."""\n'.replace("so ", "so\n"),
    "comment.py": f"x = 1  # add {IDIOM} terms\n",
    "broken_comment.py": f"# add {IDIOM} terms\n".replace("so ", "so\n# "),
    "string.py": f"print('add {IDIOM} terms')\n",
    "two_strings.py": f"print('add {IDIOM} terms')\n".replace("so ", "so ' 'm").replace("mm", "m"),
    "f_string.py": f"print(f'{{1}} add {IDIOM} terms')\n",
    "lesson.py": f"# %% [markdown]\n# # Title\n#\n# add {IDIOM} terms\n",
    "item.md": f"# Title\n\n- add {IDIOM} terms\n",
    "broken_line.md": f"add {IDIOM} terms\n".replace("so ", "so\n"),
    "cell.md": f"| a | b |\n|---|---|\n| 1 | {IDIOM} terms |\n",
    "emphasis.md": f"add *{IDIOM}* terms\n",
    "value.toml": f'a = [{{ hint = "add {IDIOM} terms" }}]\n',
    "comment.toml": f"a = 1  # add {IDIOM} terms\n",
}


@pytest.mark.parametrize("name", PLACES)
def test_an_idiom_is_found_wherever_it_stands(name, tmp_path):
    path = tmp_path / name
    path.write_text(PLACES[name], encoding="utf-8")
    assert len(list(faults(read(path)))) == 1


def test_code_in_a_document_is_not_prose(tmp_path):
    path = tmp_path / "page.md"
    path.write_text(f"```\n{IDIOM} terms\n```\n\nCall `{IDIOM} terms`.\n", encoding="utf-8")
    assert list(faults(read(path))) == []
