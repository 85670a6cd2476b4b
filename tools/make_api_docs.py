"""Write docs/api.md from the docstrings of what `import asr` gives; --check says if it is stale."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from typing import Any

import asr

API = Path(__file__).parents[1] / "docs" / "api.md"
HEAD = """\
# Python interface

All of it comes with `import asr`, which is quick: what needs PyTorch is imported when it is first
used. It is typed (`py.typed`). Every mistake in files or settings raises `asr.InputError`, whose
text is one line to show to a user. [`example.ipynb`](example.ipynb) shows it at work.

*Made from the docstrings by `tools/make_api_docs.py`; change them, not this page.*
"""
#: Sections, and of each class the methods that are meant for users.
SECTIONS: dict[str, dict[str, list[str]]] = {
    "Recognise": {
        "Recognizer": ["load", "transcribe", "transcribe_files", "stream", "emissions"],
        "DecodingOptions": [],
        "Transcript": [],
        "Segment": [],
    },
    "Recognise live": {
        "Stream": ["accept", "result", "finals", "finish", "latency_s", "duration_s"],
        "advance": [],
        "Result": [],
        "Part": [],
        "EndpointConfig": [],
    },
    "Score": {
        "score": [],
        "Scores": ["errors", "reference_length", "error_rate", "utterance_error_rate"],
    },
    "Align": {"align": [], "Utterance": []},
    "Audio and features": {
        "load_audio": [],
        "FeatureConfig": ["size"],
        "LogMel": ["__call__", "n_frames"],
    },
    "Decode": {
        "Decoder": ["__call__", "batch"],
        "DecoderConfig": [],
        "beam_search": [],
        "BeamOptions": [],
        "greedy": [],
        "Hypothesis": [],
        "Labels": ["load", "encode", "decode", "join"],
        "Lexicon": ["read", "spell", "cmudict", "bind", "bind_hotwords"],
    },
    "Language models": {
        "load_lm": [],
        "NGram": ["estimate", "read_arpa", "write_arpa", "score", "scores", "bind"],
    },
    "Errors": {"InputError": []},
}


def page() -> str:
    """The whole page as Markdown."""
    parts = [HEAD]
    for title, members in SECTIONS.items():
        parts.append(f"## {title}\n")
        for name, methods in members.items():
            thing = getattr(asr, name)
            parts.append(f"### {name}\n\n{described(name, thing)}")
            for method in methods:
                shown = f"{name}.{method}".removesuffix(".__call__")
                parts.append(f"#### {shown}\n\n{described(shown, vars(thing)[method])}")
    return "\n".join(parts)


def described(name: str, thing: Any) -> str:
    """Signature and docstring of a function, class, method or property."""
    text = markdown(inspect.cleandoc(inspect.getdoc(thing) or ""))
    if isinstance(thing, property) or (isinstance(thing, type) and issubclass(thing, Exception)):
        return text
    function = thing.__func__ if isinstance(thing, classmethod) else thing
    for parameter in inspect.signature(function).parameters:
        text = re.sub(rf"(?<![`\w]){parameter}(?=:| and \w+:)", f"`{parameter}`", text)
    settings = dataclasses.fields(thing) if dataclasses.is_dataclass(thing) else ()
    meanings = [f"- `{f.name}`: {f.metadata['meaning']}\n" for f in settings if f.metadata]
    text += "\n" * bool(meanings) + "".join(meanings)
    return f"```python\n{signature(name, function)}\n```\n\n{text}"


def signature(name: str, thing: Any) -> str:
    """The call as it is written, one parameter a line where it is long."""
    found = inspect.signature(thing)
    shown = []
    for parameter in found.parameters.values():
        if parameter.name in ("self", "cls"):
            continue
        if parameter.kind is parameter.KEYWORD_ONLY and "*" not in shown:
            shown.append("*")
        stars = "**" if parameter.kind is parameter.VAR_KEYWORD else ""
        text = stars + parameter.name
        if parameter.annotation is not parameter.empty:
            text += f": {parameter.annotation}"
        if parameter.default is not parameter.empty:
            text += f" = {default(parameter.default)}"
        shown.append(text)
    result = found.return_annotation
    end = ")" if result in (found.empty, None, "None") else f") -> {result}"
    line = f"{name}({', '.join(shown)}{end}"
    if len(line) <= 88:
        return line
    return f"{name}(\n" + "".join(f"    {text},\n" for text in shown) + end


def default(value: Any) -> str:
    """A default as code."""
    if repr(value) == "<factory>" or callable(value):
        return "..."
    if dataclasses.is_dataclass(value):
        return f"{type(value).__name__}()"
    return repr(value)


def markdown(text: str) -> str:
    """A docstring as Markdown: sections in bold, their entries as a list, examples as code."""
    lines: list[str] = []
    for block in re.split(r"\n\s*\n", text.replace("``", "`")):
        head, _, rest = block.partition("\n")
        if re.fullmatch(r"(Args|Returns|Raises):", head):
            lines += [f"**{head[:-1]}**", "", *entries(inspect.cleandoc(" \n" + rest)), ""]
        elif block.lstrip().startswith(">>>"):
            code = re.sub(r" +# doctest: .*", "", inspect.cleandoc(block))
            lines += ["```python", code, "```", ""]
        else:
            lines += [block, ""]
    return "\n".join(lines)


def entries(text: str) -> list[str]:
    """``name: what it is`` with continuation lines -> list items; plain text stays."""
    items: list[str] = []
    for line in text.strip().splitlines():
        named = re.match(r"(\w+): ?(.*)", line)
        if named:
            items.append(f"- `{named[1]}`: {named[2]}".rstrip())
        else:
            items.append(("  " if items and items[0].startswith("- ") else "") + line.strip())
    return items


def main() -> None:
    """Write the page, or with --check compare."""
    if sys.argv[1:] == ["--check"]:
        if API.read_text(encoding="utf-8") != page():
            sys.exit("docs/api.md is stale: run python tools/make_api_docs.py")
        return
    API.write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
