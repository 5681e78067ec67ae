"""What MkDocs does beside its plugins: lays out the packages, and sets formulas as MathML."""

from __future__ import annotations

import html
import re
import shutil
from pathlib import Path
from typing import Any

from latex2mathml.converter import convert

ROOT = Path(__file__).resolve().parents[2]
FORMULA = re.compile(r'<(span|div) class="arithmatex">\\([(\[])(.*?)\\[)\]]</\1>', re.S)


def on_startup(**_: Any) -> None:
    """Copy the packages to where their installed names lead: ``build/api/mgsym``."""
    target = ROOT / "build" / "api" / "mgsym"
    shutil.rmtree(target, ignore_errors=True)
    ignored = shutil.ignore_patterns("__pycache__", "*.xyz", "*.pt")
    shutil.copytree(ROOT / "mgsym", target, ignore=ignored)
    for part in ("cli", "data_tools"):
        shutil.copytree(ROOT / part, target / part, ignore=ignored)


def on_page_content(content: str, **_: Any) -> str:
    """Set every formula as MathML, which browsers show without a script."""
    return FORMULA.sub(_mathml, content)


def _mathml(found: re.Match[str]) -> str:
    display = "block" if found[2] == "[" else "inline"
    return convert(html.unescape(found[3]), display=display)
