"""A report as one HTML page that needs no network: text, tables, pictures, views to turn.

Every function takes plain text and escapes it; only `html` parts made here go into a page as they
are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from string import Template
from typing import TYPE_CHECKING, Any

from mgsym.rendering.figures import svg_source
from mgsym.rendering.tables import Cell

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MISSING = "–"
NUMBER = re.compile(r"[-+−]?\d[\d.,]*(e[-+]?\d+)?( ± [\d.e-]+)?( ?%)?")


@dataclass(frozen=True)
class Html:
    """A piece of a page whose text is escaped already.

    Attributes:
        text: HTML.
        turns: whether it is a view to turn, so that the page needs plotly's script.
    """

    text: str
    turns: bool = False


@dataclass(frozen=True)
class Section:
    """A part of the page with a heading and a line in the table of contents."""

    key: str
    title: str
    parts: tuple[Html, ...]


def paragraph(text: str) -> Html:
    """Running text."""
    return Html(f"<p>{escape(text)}</p>")


def heading(text: str) -> Html:
    """A heading within a section."""
    return Html(f"<h3>{escape(text)}</h3>")


def facts(items: Mapping[str, Cell]) -> Html:
    """Names and values; those without a value are left out."""
    shown = {name: cell_text(value) for name, value in items.items() if value not in (None, "")}
    rows = "".join(f"<dt>{escape(n)}</dt><dd>{escape(v)}</dd>" for n, v in shown.items())
    return Html(f"<dl>{rows}</dl>")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]], caption: str = "") -> Html:
    """A table; columns in which every value is a number (or missing) are aligned to the right."""
    right = [bool(rows) and all(_is_number(row[i]) for row in rows) for i in range(len(columns))]

    def line(tag: str, cells: Sequence[str]) -> str:
        marks = [' class="n"' if r else "" for r in right]
        inner = (f"<{tag}{m}>{escape(c)}</{tag}>" for m, c in zip(marks, cells, strict=True))
        return f"<tr>{''.join(inner)}</tr>"

    body = "".join(line("td", [cell_text(cell) for cell in row]) for row in rows)
    told = f"<figcaption>{escape(caption)}</figcaption>" if caption else ""
    return Html(
        f'<figure class="table"><div class="scroll"><table><thead>{line("th", columns)}</thead>'
        f"<tbody>{body}</tbody></table></div>{told}</figure>"
    )


def folded(summary: str, inside: Html) -> Html:
    """What is shown when its line is opened."""
    return Html(
        f"<details><summary>{escape(summary)}</summary>{inside.text}</details>", inside.turns
    )


def picture(figure: Figure, caption: str, alt: str) -> Html:
    """A matplotlib figure, and below it what one sees."""
    return Html(
        f'<figure><img alt="{escape(alt)}" src="{svg_source(figure)}">'
        f"<figcaption>{escape(caption)}</figcaption></figure>"
    )


def view(figure: Any, caption: str, key: str) -> Html:
    """A plotly figure to turn, and below it what one sees.

    Args:
        figure: of plotly.
        caption: plain text.
        key: an id that no other view has.
    """
    figure.update_layout(height=560)
    drawn = figure.to_html(
        include_plotlyjs=False,
        full_html=False,
        div_id=key,
        config={"displaylogo": False, "responsive": True},
    )
    return Html(
        f'<figure class="view">{drawn}<figcaption>{escape(caption)}</figcaption></figure>', True
    )


def page(title: str, lead: str, sections: Sequence[Section], foot: str) -> str:
    """The whole page.

    Args:
        title: of the page.
        lead: the sentence below it.
        sections: their keys are distinct.
        foot: the last line.
    """
    turns = any(part.turns for section in sections for part in section.parts)
    contents = "".join(
        f'<li><a href="#{escape(s.key)}">{escape(s.title)}</a></li>' for s in sections
    )
    body = "".join(
        f'<section id="{escape(s.key)}"><h2>{number}. {escape(s.title)}</h2>'
        f"{''.join(part.text for part in s.parts)}</section>"
        for number, s in enumerate(sections, start=1)
    )
    return PAGE.substitute(
        title=escape(title),
        lead=escape(lead),
        style=STYLE,
        contents=contents,
        body=body,
        foot=escape(foot),
        script=f"<script>{_plotly_script()}</script>" if turns else "",
    )


def cell_text(cell: Cell) -> str:
    """As it is shown: floats with four significant digits, what is missing as a dash."""
    if cell is None or cell == "" or (isinstance(cell, float) and cell != cell):
        return MISSING
    return f"{cell:.4g}" if isinstance(cell, float) else str(cell)


def _is_number(cell: Cell) -> bool:
    text = cell_text(cell)
    return text == MISSING or NUMBER.fullmatch(text) is not None


def _plotly_script() -> str:
    from plotly.offline import get_plotlyjs

    return str(get_plotlyjs())


PAGE = Template("""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>$style</style>
$script
</head>
<body>
<header><h1>$title</h1><p>$lead</p></header>
<nav aria-label="Contents"><ol>$contents</ol></nav>
<main>$body</main>
<footer>$foot</footer>
</body>
</html>
""")

STYLE = """
:root { color-scheme: light dark; --ink: #1c2126; --paper: #ffffff; --soft: #5b6670;
  --line: #d9dee3; --tint: #f4f6f8; --link: #0b5fa5; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e4e8ec; --paper: #15191d; --soft: #9ba7b2; --line: #343c44; --tint: #1e242a;
    --link: #7fbdf0; }
}
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1.5rem; background: var(--paper);
  color: var(--ink); font: 16px/1.5 system-ui, "Segoe UI", Helvetica, Arial, sans-serif; }
h1 { font-size: 1.7rem; margin: 0 0 .3rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .8rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
h3 { font-size: 1.02rem; margin: 1.6rem 0 .4rem; }
p { max-width: 46rem; margin: .6rem 0; }
header p, footer, figcaption { color: var(--soft); }
a { color: var(--link); }
nav ol { columns: 3 14rem; padding: .8rem 1rem .8rem 2.2rem; margin: 1rem 0;
  background: var(--tint); border-radius: 8px; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .15rem 1.2rem; margin: .8rem 0; }
dt { color: var(--soft); }
dd { margin: 0; overflow-wrap: anywhere; }
figure { margin: 1.1rem 0; }
figure img { display: block; max-width: 100%; height: auto; background: #fff; border-radius: 8px;
  padding: .4rem; border: 1px solid var(--line); }
figure.view > div { background: #fff; border-radius: 8px; border: 1px solid var(--line);
  overflow: hidden; }
figcaption { font-size: .9rem; max-width: 50rem; margin-top: .45rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .22rem .7rem .22rem 0; text-align: left; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
th { color: var(--soft); font-weight: 600; }
td.n, th.n { text-align: right; }
details { margin: .5rem 0; }
summary { cursor: pointer; color: var(--link); }
footer { margin-top: 3rem; font-size: .85rem; border-top: 1px solid var(--line);
  padding-top: .8rem; }
@media print {
  :root { --ink: #000; --paper: #fff; --soft: #444; --line: #ccc; --tint: #fff; --link: #000; }
  body { max-width: none; font-size: 11pt; }
  figure, tr { break-inside: avoid; }
  h2, h3 { break-after: avoid; }
}
"""
