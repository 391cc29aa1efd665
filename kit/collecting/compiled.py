"""The loops of ``kit.collecting.counting``, to be compiled by numba: ``load`` puts the compiled ones in place of these.

Each loop is so small that it vectorises: whole slices, integer reductions, no branch inside. ``count`` strings them
together block by block, so that a value is fetched from memory once.
"""

import numpy as np

from kit.collecting.counting import BLOCK, DIGIT, DONE, NOT_FINITE, OUTSIDE, SLOTS

_ROOM = 50  # 2**12 values below 2**50 add up in int64
_FIRST, _LAST = np.int32(0x7FFFFFFF), np.int32(-0x80000000)
_LOWEST, _HIGHEST = np.int32(-0x7F800000), np.int32(0x7F7FFFFF)
_CARRY = 1 << 13  # each block adds less than 2**48 to a slot: carried in time
_FILL = 60  # blocks: each adds at most 1027 to a cell of 16 bits
_FACTORS = 2.0 ** (149 - np.arange(256.0))


def extremes(bits):
    """Smallest and largest key of floats given as int32 [n]."""
    low, high = _FIRST, _LAST
    for i in range(bits.size):
        key = bits[i] ^ ((bits[i] >> np.int32(31)) & _FIRST)
        low = min(low, key)
        high = max(high, key)
    return low, high


def carry(slots):
    """Bring every digit but the last into 0 to 65535."""
    for line in range(slots.shape[0]):
        for at in range(SLOTS - 1):
            over = slots[line, at] >> DIGIT
            slots[line, at] -= over << DIGIT
            slots[line, at + 1] += over


def _whole_sum(values, factor):
    """Sum of ``value * factor`` in int64, and whether a value was not a whole number then."""
    total, lost = np.int64(0), np.int64(0)
    for i in range(values.size):
        scaled = np.float64(values[i]) * factor
        whole = np.int64(scaled)
        total += whole
        lost |= np.int64(np.float64(whole) != scaled)
    return total, lost


def _digit_sum(bits, slots):
    """Add floats to a line of slots one at a time."""
    for i in range(bits.size):
        exponent = (bits[i] >> 23) & 0xFF
        mantissa = np.int64(bits[i] & 0x7FFFFF)
        if exponent > 0:
            mantissa |= 0x800000
            exponent -= 1
        if bits[i] < 0:
            mantissa = -mantissa
        slots[exponent >> 4] += mantissa << (exponent & 15)


def _add_sum(values, bits, low, high, slots):
    """Add a block to a line of slots."""
    if low >= -1 and high <= 0:
        return  # zeros
    widest = np.int64(max(high, np.int32(-1) - low)) >> 23  # exponent field of the largest magnitude
    shift = max(widest - 126 - _ROOM + 149, 0)
    total, lost = _whole_sum(values, _FACTORS[shift])
    if lost:  # a value so small beside the largest that its last bits lie outside 50: seldom
        _digit_sum(bits, slots[0])
        carry(slots)  # up to 2**51
        return
    slots[0, shift >> 4] += (total & 0xFFFFFFFF) << (shift & 15)
    slots[0, (shift >> 4) + 2] += (total >> 32) << (shift & 15)


def _bins(values, scale, first, index):
    for i in range(values.size):
        index[i] = np.uint16(np.int32(np.floor(values[i] * scale)) - first)


def _careful_bins(values, scale, first, index):
    """The same where a small negative value may vanish when scaled; it still lies below zero."""
    for i in range(values.size):
        scaled = values[i] * scale
        vanished = np.int32(values[i] < 0) & np.int32(scaled == 0)
        index[i] = np.uint16(np.int32(np.floor(scaled)) - first - vanished)


def _tally(index, table):
    """Count on four cells a bin in turn: an increment of the same bin (ReLU's zeros) need not wait for the one before.

    The cells of a bin lie side by side in uint16, so that all that is in use stays in the innermost cache.
    """
    four, one, two, three, step = np.uint64(4), np.uint64(1), np.uint64(2), np.uint64(3), np.uint16(1)
    for i in range(index.size // 4):
        table[np.uint64(index[4 * i]) * four] += step
        table[np.uint64(index[4 * i + 1]) * four + one] += step
        table[np.uint64(index[4 * i + 2]) * four + two] += step
        table[np.uint64(index[4 * i + 3]) * four + three] += step
    for i in range(index.size - index.size % 4, index.size):
        table[np.uint64(index[i]) * four] += step


def _empty(table, counts):
    """Move what the cells hold to the counts."""
    for i in range(counts.size):
        counts[i] += np.int64(table[4 * i]) + np.int64(table[4 * i + 1]) + np.int64(table[4 * i + 2]) + np.int64(
            table[4 * i + 3])
    table[:] = 0


def count(values, bits, inner, where, low_key, high_key, scale, first, counts, channel_low, channel_high, slots,
          with_counts, with_sums, careful):
    """Work through rows from ``where`` on, until the end or a block that must not be counted yet.

    Args:
        values: float32 [n], rows of ``inner`` values.
        bits: the same memory as int32.
        inner: length of a row.
        where: int64 [4], changed: row and place in it to go on from; smallest and largest key seen.
        low_key: smallest key that the histogram covers.
        high_key: largest.
        scale: value x lies in bin ``floor(x * scale) - first``; float32 power of two.
        first: index of the first bin, int32.
        counts: int64 [bins], added to.
        channel_low: int32 [channels] keys, changed.
        channel_high: likewise.
        slots: int64 [channels, SLOTS], added to and carried.
        with_counts: fill the histogram.
        with_sums: fill the slots.
        careful: small negative values may vanish when scaled.

    Returns:
        DONE, or OUTSIDE or NOT_FINITE for the block that ``where`` points at.
    """
    table = np.zeros(4 * counts.size if with_counts else 1, np.uint16)
    index = np.empty(BLOCK if with_counts else 1, np.uint16)
    channels, rows = channel_low.size, bits.size // inner
    together = max(1, BLOCK // inner)  # short rows are worked on several at a time
    row, begin, state, blocks = where[0], where[1], DONE, 0
    while row < rows:
        taken = min(together, rows - row)
        size = min(BLOCK, inner - begin) if taken == 1 else taken * inner
        at = row * inner + begin
        block, floats = bits[at : at + size], values[at : at + size]
        low, high = extremes(block)
        if low < _LOWEST or high > _HIGHEST:
            state = NOT_FINITE
            break
        if with_counts and (low < low_key or high > high_key):
            state = OUTSIDE
            break
        where[2] = min(where[2], low)
        where[3] = max(where[3], high)
        length = size // taken
        for line in range(taken):
            channel, begins, ends = (row + line) % channels, line * length, (line + 1) * length
            if taken > 1:
                low, high = extremes(block[begins:ends])
            channel_low[channel] = min(channel_low[channel], low)
            channel_high[channel] = max(channel_high[channel], high)
            if with_sums:
                _add_sum(floats[begins:ends], block[begins:ends], low, high, slots[channel : channel + 1])
        if with_counts:
            if careful:
                _careful_bins(floats, scale, first, index)
            else:
                _bins(floats, scale, first, index)
            _tally(index[:size], table)
        blocks += 1
        if with_counts and blocks % _FILL == 0:
            _empty(table, counts)
        if with_sums and blocks % _CARRY == 0:
            carry(slots)
        begin += size
        if taken > 1 or begin >= inner:
            row += taken
            begin = 0
    if with_sums:
        carry(slots)
    where[0], where[1] = row, begin
    if with_counts:
        _empty(table, counts)
    return state


_LOOPS = ("carry", "_whole_sum", "_digit_sum", "_add_sum", "_bins", "_careful_bins", "_tally", "_empty")


def load():
    """Compile the loops, once; what is compiled stays on the disk for the next process.

    Raises:
        ImportError: numba is absent, or does not fit this numpy.
    """
    from numba import njit, types

    def read(kind):  # arrays that may be written to fit too, so that one form serves both
        return types.Array(kind, 1, "C", readonly=True)

    one, two, whole, integer, flag = types.int64[::1], types.int32[::1], types.int64, types.int32, types.boolean
    forms = {
        "extremes": types.UniTuple(integer, 2)(read(integer)),
        "count": whole(read(types.float32), read(integer), whole, one, whole, whole, types.float32, integer, one, two,
                       two, types.int64[:, ::1], flag, flag, flag),
    }
    for name in (*_LOOPS, *forms):
        loop, form = globals()[name], [forms[name]] if name in forms else []
        try:
            globals()[name] = njit(*form, nogil=True, cache=True)(loop)
        except RuntimeError:  # no folder for the cache can be written to: compiled for this process alone
            globals()[name] = njit(*form, nogil=True)(loop)
