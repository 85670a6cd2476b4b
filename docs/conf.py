"""Sphinx: the documentation as a site, `make docs`. Pages are Markdown; some are made here.

What is made goes into ``docs/generated``: commands and settings from the code, and the project's
other Markdown (benchmarks, recipes' results, how to contribute) as it stands.
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import typer
import typer.cli
from sphinx.application import Sphinx

import asr
from asr.cli import app as commands
from asr.cli import register
from asr.system.settings import expected
from asr.train.config import RunConfig, written

project = "Carousel"
author = "the Carousel authors"
release = asr.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["service", "_build"]
html_theme = "furo"
html_title = f"Carousel {release}"
html_theme_options = {"source_edit_link": "", "top_of_page_buttons": []}
html_show_copyright = False
myst_heading_anchors = 4
# Docstrings write names in single backticks.
default_role = "code"
# Options begin with two hyphens.
smartquotes = False
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints_format = "short"
python_maximum_signature_line_length = 88

DOCS = Path(__file__).parent
ROOT = DOCS.parent
#: Markdown of the project outside docs/, and the page that shows it.
ELSEWHERE = {
    "BENCHMARKS.md": "benchmarks",
    "CHANGELOG.md": "changelog",
    "CONTRIBUTING.md": "contributing",
    **{
        page.relative_to(ROOT).as_posix(): f"recipe-{page.parent.name}"
        for page in sorted((ROOT / "recipes").glob("*/README.md"))
    },
}


def setup(app: Sphinx) -> None:
    """Make the pages before Sphinx looks for them; mend what leads out of docs/."""
    app.connect("builder-inited", lambda _: make_pages())
    app.connect("source-read", mend_links)
    app.connect("autodoc-process-docstring", add_settings)


def make_pages() -> None:
    """Write docs/generated."""
    made = DOCS / "generated"
    made.mkdir(exist_ok=True)
    pages = {name: (ROOT / path).read_text("utf-8") for path, name in ELSEWHERE.items()}
    pages |= {"commands": command_page(), "configuration": configuration_page()}
    for name, text in pages.items():
        page = made / f"{name}.md"
        if not page.exists() or page.read_text("utf-8") != text:
            page.write_text(text, "utf-8")


def mend_links(app: Sphinx, page: str, source: list[str]) -> None:
    """Links to the project's files lead to their page, or where there is none, are plain text."""
    name = page.removeprefix("generated/")
    origins = {n: p for p, n in ELSEWHERE.items()}
    folder = posixpath.dirname(origins[name]) if page != name and name in origins else "docs"

    def mended(link: re.Match[str]) -> str:
        text, target, anchor = link["text"], link["target"], link["anchor"] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        if path.startswith("docs/"):
            return f"{text}(/{path.removeprefix('docs/')}{anchor})"
        for file in (path, f"{path}/README.md"):
            if file in ELSEWHERE:
                return f"{text}(/generated/{ELSEWHERE[file]}.md{anchor})"
        return text.removeprefix("[").removesuffix("]")

    pattern = r"(?P<text>(?<!!)\[[^\]]*\]|!\[[^\]]*\])\((?P<target>[^)#:\s]+)(?P<anchor>#[^)]*)?\)"
    source[0] = re.sub(pattern, mended, source[0])


def command_page() -> str:
    """Every command with its arguments and options."""
    register()
    command = typer.main.get_command(commands)
    context = command.context_class(command, info_name="asr")
    text = typer.cli.get_docs_for_click(obj=command, ctx=context, name="asr")
    text = re.sub(r"^\* `--help`: Show this message and exit\.\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"\*\*Options\*\*:\n\n(?=#|$)", "", text)
    # Cut short there, and whole below.
    text = re.sub(r"\*\*Commands\*\*:\n\n(\* .*\n)+", "", text)
    return "# Commands\n\n" + re.sub(r"^#+ `asr`\n", "", text, count=1)


def configuration_page() -> str:
    """Every setting of a recipe with type, default and meaning."""
    parts = [
        "# Configuration\n",
        "What a recipe can say, and the command line: `asr train RECIPE section.name=value`.",
        "`asr train RECIPE --show` prints the values of a recipe. The groups of settings that a",
        "recipe's `defaults` choose from are the files in `conf/`.\n",
    ]
    return "\n".join([*parts, *sections(RunConfig(), "")])


def sections(config: Any, prefix: str) -> list[str]:
    """A table for the settings themselves, and a section for each that has settings of its own."""
    hints = get_type_hints(type(config))
    rows, inner = [], []
    for known in fields(config):
        value = getattr(config, known.name)
        if is_dataclass(value):
            doc = (type(value).__doc__ or "").split("\n")[0]
            name = f"{prefix}{known.name}"
            inner += [f"\n## {name}\n\n{doc}\n", *sections(value, f"{name}.")]
            continue
        may_be, meaning = expected(known, hints[known.name]), known.metadata["meaning"]
        cells = (f"`{known.name}`", f"`{written(value)}`", may_be, meaning)
        rows.append("| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |")
    head = ["| setting | default | may be | meaning |", "|---|---|---|---|"]
    return [*head, *rows, *inner]


def add_settings(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """A class of settings says what each means."""
    if isinstance(thing, type) and is_dataclass(thing):
        told = [f for f in fields(thing) if "meaning" in f.metadata]
        lines += ["", *(f"- ``{f.name}``: {f.metadata['meaning']}" for f in told), ""]
