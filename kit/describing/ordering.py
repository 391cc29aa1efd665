"""One order and one set of names for a net, however its file lists the nodes.

From the results backwards, the inputs of a node before the node; where the order of inputs means nothing, the one with
the longer way behind it first. Two exports of the same net come out alike, line by line.
"""

from __future__ import annotations

import hashlib
import json

from kit.describing.net import Net, Piece
from kit.describing.vocabulary import words

_Key = tuple[int, str, str]


def settle(net: Net) -> list[Piece]:
    """The pieces in canonical order; inputs of commutative operators are put in order too."""
    makers = {name: piece for piece in net.pieces for name in piece.outputs}
    keys = _keys(net, makers)
    commutative = set(words()["commutative"])
    for piece in net.pieces:
        if piece.operator in commutative:
            piece.inputs.sort(key=lambda name: _key(net, makers, keys, name))
    return _walk(net, makers)


def _keys(net: Net, makers: dict[str, Piece]) -> dict[Piece, _Key]:
    """Of each piece: how long the way behind it is (negative, so that long comes first), its type, a digest of all."""
    keys: dict[Piece, _Key] = {}
    for piece in net.pieces:  # the file is in an order of computation already
        before = [keys[makers[name]] for name in piece.inputs if name in makers and makers[name] in keys]
        about = json.dumps([piece.operator, piece.attributes, sorted(key[2] for key in before)], sort_keys=True)
        depth = 1 + max((-key[0] for key in before), default=0)
        keys[piece] = (-depth, piece.operator, hashlib.blake2b(about.encode(), digest_size=8).hexdigest())
    return keys


def _key(net: Net, makers: dict[str, Piece], keys: dict[Piece, _Key], name: str) -> tuple[int, _Key]:
    if net.is_constant(name):
        return 2, (0, "", "")
    return (0, keys[makers[name]]) if name in makers and makers[name] in keys else (1, (0, "", ""))


def _walk(net: Net, makers: dict[str, Piece]) -> list[Piece]:
    done: dict[Piece, None] = {}
    open_ones: set[Piece] = set()
    ends = [*net.results.values(), *sorted(net.captured)]
    waiting = [(makers[name], False) for name in reversed(ends) if name in makers]
    while waiting:
        piece, is_ready = waiting.pop()
        if is_ready:
            done.setdefault(piece)
        elif piece not in done and piece not in open_ones:
            open_ones.add(piece)
            waiting.append((piece, True))
            waiting += [(makers[name], False) for name in reversed(piece.inputs) if name in makers]
    return list(done)
