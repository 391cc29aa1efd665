"""How a result looks: as text in a terminal, as an accessible HTML table in a notebook.

A result says ``title()``, ``facts()`` and, if it has rows to show, ``tables()``; the card draws both forms.
Everything is escaped: node names come from strangers' models.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Table:
    """Rows with a caption; ``rows`` hold anything printable, one entry a column."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[object, ...], ...]

    def text(self, limit: int = 20) -> str:
        """The table in monospaced columns, at most ``limit`` rows."""
        cells = [[str(value) for value in row] for row in self.rows[:limit]]
        widths = [max(len(line[i]) for line in [list(self.columns), *cells]) for i in range(len(self.columns))]
        lines = ["  ".join(v.ljust(w) for v, w in zip(line, widths, strict=True)).rstrip()
                 for line in [list(self.columns), *cells]]
        return "\n".join([self.caption, *(f"  {line}" for line in lines), *_more(self.rows, limit, "  ")])

    def html(self, limit: int = 50, shown: int = 15) -> str:
        """The table as HTML with caption and column headers: ``shown`` rows, the others up to ``limit`` folded."""
        if len(self.rows) > shown + 3:
            rest = Table(f"{self.caption}, continued", self.columns, self.rows[shown:])
            return (Table(self.caption, self.columns, self.rows[:shown]).html()
                    + f"<details><summary>{len(self.rows) - shown} more rows</summary>"
                    + f"{rest._whole(limit - shown)}</details>")
        return self._whole(limit)

    def _whole(self, limit: int) -> str:
        head = "".join(f'<th scope="col" {_LEFT}>{escape(str(name))}</th>' for name in self.columns)
        body = "".join("<tr>" + "".join(f"<td {_LEFT}>{escape(str(v))}</td>" for v in row) + "</tr>"
                       for row in self.rows[:limit])
        more = "".join(f"<p>{line}</p>" for line in _more(self.rows, limit))
        return (f"<table>{_headed(self.caption)}<thead><tr>{head}</tr></thead>"
                f"<tbody>{body}</tbody></table>{more}")


class Listing(Table):
    """Lines to copy, such as a command or a file: shown as they are, blanks and all."""

    def __init__(self, caption: str, text: str) -> None:
        super().__init__(caption, ("line",), tuple((line,) for line in text.splitlines()))

    def text(self, limit: int = 60) -> str:
        """The lines, indented."""
        lines = [f"  {line}".rstrip() for line, in self.rows[:limit]]
        return "\n".join([self.caption, *lines, *_more(self.rows, limit, "  ")])

    def html(self, limit: int = 500, shown: int = 30) -> str:
        """The lines as preformatted text; more than ``shown`` are folded."""
        lines = escape("\n".join(str(line) for line, in self.rows[:limit]))
        more = "".join(f"<p>{line}</p>" for line in _more(self.rows, limit))
        caption = f"<b>{escape(self.caption)}</b>"
        if len(self.rows) > shown:
            return f"<details><summary>{caption} ({len(self.rows)} lines)</summary><pre>{lines}</pre>{more}</details>"
        return f"<p>{caption}</p><pre>{lines}</pre>{more}"


class Card:
    """Mixin for results. ``title()`` and ``facts()`` are asked for; ``tables()`` is optional."""

    def title(self) -> str:
        """One sentence: what this result says."""
        return type(self).__name__

    def facts(self) -> dict[str, object]:
        """Names and values worth a line each, in order."""
        return {}

    def tables(self) -> Sequence[Table]:
        """Longer tables under the facts."""
        return ()

    def __str__(self) -> str:
        facts = self.facts()
        width = max(map(len, facts), default=0)
        lines = [self.title(), *(f"  {name:<{width}}  {value}" for name, value in facts.items())]
        return "\n".join([*lines, *(table.text() for table in self.tables())])

    def html(self) -> str:
        """The card as HTML that needs no style sheet."""
        rows = "".join(f'<tr><th scope="row" {_LEFT}>{escape(name)}</th><td {_LEFT}>{escape(str(value))}</td></tr>'
                       for name, value in self.facts().items())
        # A caption alone would be squeezed into the width of an empty table.
        table = f"<table>{_headed(self.title())}<tbody>{rows}</tbody></table>"
        facts = table if rows else f"<p>{escape(self.title())}</p>"
        return facts + "".join(table.html() for table in self.tables())

    def _repr_mimebundle_(self, include=None, exclude=None) -> dict[str, str]:
        return {"text/plain": str(self), "text/html": self.html()}


# JupyterLab aligns table cells to the right and captions to the middle, which suits figures and not sentences.
_LEFT = 'style="text-align:left"'
_CAPTION = "text-align:left;font-weight:bold"
_LINE = 72  # characters: about what fits beside a sidebar


def _headed(caption: str) -> str:
    """A caption on one line, or, if it is long, on lines of a width of their own: the table may be a narrow one."""
    if len(caption) <= _LINE:
        return f'<caption style="{_CAPTION};white-space:nowrap">{escape(caption)}</caption>'
    return f'<caption style="{_CAPTION}"><div style="min-width:{_LINE - 12}ch">{escape(caption)}</div></caption>'


def bytes_text(size: float) -> str:
    """``4_812_345`` -> ``4.8 MB`` (powers of 1000, as file managers show)."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError("unreachable")


def _more(rows: Sequence[object], limit: int, indent: str = "") -> list[str]:
    return [f"{indent}... and {len(rows) - limit} more"] if len(rows) > limit else []
