"""Texts that come from data or settings, shown as they stand: none is markup, whatever a case or a loss is called."""

import html
import re
import textwrap

# For matplotlib's texts, in which a dollar would begin a formula, and an odd one of which raises.
LITERAL = {"parse_math": False, "usetex": False}
MARKDOWN = re.compile(r"[\\`*_{}\[\]<>|#!&~$]")


def one_line(text: str) -> str:
    """Without what cannot be printed, such as line ends and control characters."""
    return " ".join("".join(letter if letter.isprintable() else " " for letter in text).split())


def markdown(text: str) -> str:
    """For Markdown, in a table too: any ASCII punctuation behind a backslash is itself (CommonMark 2.4), lines join."""
    return MARKDOWN.sub(r"\\\g<0>", " ".join(text.split()))


def plotly(text: str, width: int | None = None) -> str:
    """For plotly, which takes some HTML in titles, names and hover texts, and knows the entities of < > & only.

    Args:
        width: characters of a line, if it is to be wrapped.
    """
    lines = textwrap.wrap(text, width) if width else [text]
    return "<br>".join(html.escape(line, quote=False) for line in lines)
