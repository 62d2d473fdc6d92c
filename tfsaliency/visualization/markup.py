"""Pieces of HTML: escaped text, tables, and pictures inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from html import escape
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from ..arrays import Array

LEFT = "text-align:left"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Return a table with a row of names above and a column of names on the left."""
    head = "".join(f'<th scope="col" style="{LEFT}">{escape(cell)}</th>' for cell in rows[0])
    lines = [f"<thead><tr>{head}</tr></thead><tbody>"]
    for name, *cells in rows[1:]:
        row = "".join(f'<td style="{LEFT}">{escape(cell)}</td>' for cell in cells)
        lines.append(f'<tr><th scope="row" style="{LEFT}">{escape(name)}</th>{row}</tr>')
    return "<table>" + "".join(lines) + "</tbody></table>"


def paragraphs(texts: Sequence[str]) -> str:
    """Return paragraphs of escaped text."""
    return "".join(f"<p>{escape(text)}</p>" for text in texts)


def encode_picture(picture: Array, side: int, quality: int = 80) -> str:
    """Return a picture (h, w, 3) of 0..255 as an address of data, at most `side` pixels wide."""
    image = Image.fromarray(np.ascontiguousarray(picture, np.uint8))
    if max(image.size) > side:
        image.thumbnail((side, side))
    file = io.BytesIO()
    image.save(file, "webp", quality=quality)
    return _address(file, "webp")


def encode_figure(figure: Figure, dpi: int = 100) -> str:
    """Return a figure as an address of data."""
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=dpi, bbox_inches="tight")
    small = io.BytesIO()
    Image.open(file).convert("RGB").save(small, "webp", quality=90)  # with the colors of photos
    return _address(small, "webp")


def _address(file: io.BytesIO, kind: str) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def picture_tag(address: Any, alt: str) -> str:
    """Return a picture that is never wider than the page."""
    return f'<img src="{address}" alt="{escape(alt)}" style="max-width:100%">'
