"""A page of history: what articles say about the Ascend toolchain and the released toolchain does not have.

The posts are many and look alike; each name in them was looked for in the sources, the documents and the tools. That
nothing was found is no proof, and the page says what was searched.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from kit.card import Card, Table
from kit.targets.ascend import facts

_GROUPS = (("Flags, values and words of atc", ("flag", "value", "word", "framework")), ("Tools", ("tool",)),
           ("Python", ("python", "place")))


@dataclass(frozen=True)
class Claim:
    """One name that articles use.

    Attributes:
        name: as they write it.
        kind: ``flag``, ``value``, ``word``, ``framework``, ``tool``, ``python`` or ``place``.
        says: what they say it does.
        really: what was found.
        instead: what there is.
        sources: where it was looked for.
        seen: articles that have it.
    """

    name: str
    kind: str
    says: str
    really: str
    instead: str
    sources: tuple[str, ...]
    seen: tuple[str, ...]


@dataclass(frozen=True)
class History(Card):
    """What articles say and what there is instead."""

    claims: tuple[Claim, ...]
    checked: str

    def title(self) -> str:
        return f"{len(self.claims)} names from articles that the released Ascend toolchain does not have"

    def facts(self) -> dict[str, object]:
        return {"checked": self.checked, "a command from an article": "kit.ascend.translate(text) gives the real one"}

    def tables(self) -> Sequence[Table]:
        return tuple(Table(caption, ("name", "articles say", "really", "instead", "looked for in", "seen in"), tuple(
            (one.name, one.says, one.really, one.instead, "; ".join(one.sources), "; ".join(one.seen))
            for one in self.claims if one.kind in kinds)) for caption, kinds in _GROUPS)


def history() -> History:
    """The page, from ``history.json``."""
    table = facts("history")
    return History(tuple(Claim(row["name"], row["kind"], row["articles"], row["really"], row["instead"],
                               tuple(row["source"]), tuple(row["seen"])) for row in table["entries"]), table["checked"])
