"""Σ_j d_j c_jo over integer codes, 64 bytes of four rows of W at a time (AVX-512 VNNI).

`vpdpbusd` adds four products of unsigned and signed bytes to an int32: sixteen outputs, four
channels. Four rows are interleaved in registers so that the bytes of one output lie side by side;
sixteen sums in one register are then outputs 16 l + 4 k + i, l the lane and k the register, and
that order, [k, l, i], is the one in which totals and grids of a tile of 64 are kept (`arranged`).
"""

from typing import NamedTuple, no_type_check

from llvmlite import binding, ir
from numba import config
from numba.core import cgutils, types
from numba.extending import intrinsic

from ctr_kernels.sparse_gemv.digits import DIGITS, PANEL
from ctr_kernels.sparse_gemv.vector import F32, I1, I8, I16, I32, I64

TILE = 64
"""Bytes of a row: a cache line, a register."""
START, FACTOR, SHIFT = ((PANEL.fields or {})[name][1] for name in ("start", "factor", "shift"))
BYTES, WORDS, DWORDS, FLOATS = (
    ir.VectorType(kind, 512 // bits) for kind, bits in ((I8, 8), (I16, 16), (I32, 32), (F32, 32))
)


def native() -> bool:
    """Whether code is compiled for a processor that has the instruction."""
    if getattr(config, "CPU_NAME", None) or getattr(config, "CPU_FEATURES", None):
        return False  # somebody chose another target
    features = binding.get_host_cpu_features()
    return all(features.get(name, False) for name in ("avx512bw", "avx512vnni"))


NATIVE = native()


def _call(builder, name, result, arguments):
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _all(kind, number):
    return ir.Constant(kind, [number] * kind.count)


def _splat(builder, scalar, kind):
    one = builder.insert_element(ir.Constant(kind, ir.Undefined), scalar, I32(0))
    lanes = ir.Constant(ir.VectorType(I32, kind.count), [0] * kind.count)
    return builder.shuffle_vector(one, one, lanes)


def _load(builder, kind, address, offset=0):
    pointer = builder.inttoptr(builder.add(address, I64(offset)), kind.as_pointer())
    return builder.load(pointer, align=4)


def _bytes(builder, address, mask):
    """64 bytes of a row, zeros behind its end, which is not read."""
    pointer = builder.inttoptr(address, BYTES.as_pointer())
    zero = ir.Constant(BYTES, None)
    return _call(builder, "llvm.masked.load.v64i8.p0", BYTES, [pointer, I32(1), mask, zero])


def _mixed(builder, a, b, kind, upper):
    """In every 16 bytes: elements of the lower (upper) half of a and b, in turns."""
    each = kind.count // 4
    a, b = builder.bitcast(a, kind), builder.bitcast(b, kind)
    picks = []
    for lane in range(4):
        for i in range(each // 2):
            one = lane * each + i + upper * each // 2
            picks += [one, one + kind.count]
    which = ir.Constant(ir.VectorType(I32, kind.count), picks)
    return builder.bitcast(builder.shuffle_vector(a, b, which), BYTES)


def _side_by_side(builder, rows):
    """Four rows of 64 bytes as four registers of sixteen times four: register k, lane l."""
    pairs = [[_mixed(builder, rows[n], rows[n + 1], BYTES, u) for u in (0, 1)] for n in (0, 2)]
    return [_mixed(builder, pairs[0][u], pairs[1][u], WORDS, v) for u in (0, 1) for v in (0, 1)]


def _codes(builder, signed, raw, blocks):
    """Unsigned bytes: w + 128 of int8; of four-bit codes block 0 is the low half, 1 the high."""
    if signed:
        return [[builder.xor(r, _all(BYTES, -128)) for r in raw]]
    found = []
    for block in blocks:
        words = [builder.bitcast(r, WORDS) for r in raw]
        half = [builder.lshr(w, _all(WORDS, 4 * block)) for w in words]
        found.append([builder.and_(builder.bitcast(h, BYTES), _all(BYTES, 15)) for h in half])
    return found


def _prefetch(builder, address):
    pointer = builder.inttoptr(address, I8.as_pointer())
    _call(builder, "llvm.prefetch.p0", ir.VoidType(), [pointer, I32(0), I32(2), I32(1)])


@intrinsic
@no_type_check
def dots(
    context, inputs, weights, rows, count, column, left, next_rows, next_column,
    digits, panel, total, scales, zeros,
):  # fmt: skip
    """total += s (f Σ_j d_j c_jo - z X), o the outputs of 64 bytes of the rows, j of one panel.

    All but the two formats are addresses or offsets in bytes: the list of row addresses, `count`
    of them (a multiple of 4), the bytes of a row to read and how many are `left`; the same of what
    to prefetch; the digits, `count` bytes a place; a record of `panels.PANEL`, whose `start` the
    integer sums begin with. int8: s = 1, z = 0; four-bit codes: s and z in the order of `arranged`.
    """
    places, signed = DIGITS[inputs.instance_type.name], weights.instance_type.name == "int8"

    def emit(context, builder, signature, arguments):
        if not NATIVE:  # never called, and not to be compiled either
            return context.get_dummy_value()
        given = _Given(*arguments[2:])
        blocks = 1 if signed else 2
        together = blocks if blocks * places <= 4 else 1  # sums stay in registers
        for block in range(0, blocks, together):
            sums = _summed(builder, given, signed, places, range(block, block + together))
            for b in range(together):
                for k in range(4):
                    each = [builder.load(sums[b][d][k]) for d in range(places)]
                    _added(builder, given, signed, each, 256 * (block + b) + 64 * k)
        return context.get_dummy_value()

    return types.void(inputs, weights, *(types.int64,) * 11), emit


class _Given(NamedTuple):
    """Arguments of `dots`, as LLVM values."""

    rows: ir.Value
    size: ir.Value
    column: ir.Value
    left: ir.Value
    next_rows: ir.Value
    next_column: ir.Value
    digits: ir.Value
    panel: ir.Value
    total: ir.Value
    scales: ir.Value
    zeros: ir.Value


def _summed(builder, given, signed, places, blocks):
    """Integer sums [block][place][k] of the panel, in variables."""
    sums = []
    for _ in blocks:
        sums.append([])
        for d in range(places):
            start = _splat(builder, _load(builder, I32, given.panel, START + 4 * d), DWORDS)
            sums[-1].append([cgutils.alloca_once_value(builder, start) for _ in range(4)])
    # A mask of 64 bits: a comparison of 64 numbers would be made again for every load.
    short = builder.sub(builder.shl(I64(1), given.left), I64(1))
    bits = builder.select(builder.icmp_signed("<", given.left, I64(TILE)), short, I64(-1))
    mask = builder.bitcast(bits, ir.VectorType(I1, TILE))
    with cgutils.for_range_slice(builder, I64(0), given.size, I64(4), I64) as (j, _):
        raw = []
        for i in range(4):
            at = builder.mul(builder.add(j, I64(i)), I64(8))
            row = _load(builder, I64, builder.add(given.rows, at))
            raw.append(_bytes(builder, builder.add(row, given.column), mask))
            if blocks[0] == 0:
                row = _load(builder, I64, builder.add(given.next_rows, at))
                _prefetch(builder, builder.add(row, given.next_column))
        codes = [_side_by_side(builder, c) for c in _codes(builder, signed, raw, blocks)]
        for d in range(places):
            at = builder.add(given.digits, builder.add(j, builder.mul(given.size, I64(d))))
            four = builder.bitcast(_splat(builder, _load(builder, I32, at), DWORDS), BYTES)
            for code, total in zip(codes, sums, strict=True):
                for k in range(4):
                    parts = [builder.load(total[d][k]), code[k], four]
                    name = "llvm.x86.avx512.vpdpbusd.512"
                    builder.store(_call(builder, name, DWORDS, parts), total[d][k])
    return sums


def _added(builder, given, signed, sums, offset):
    """total += s (f Σ_d 256^d sum_d - z X), sixteen outputs."""
    wide = [builder.sitofp(part, FLOATS) for part in sums]
    value = wide.pop()
    while wide:
        value = _fma(builder, value, _all(FLOATS, 256.0), wide.pop())
    factor = _splat(builder, _load(builder, F32, given.panel, FACTOR), FLOATS)
    old = _load(builder, FLOATS, given.total, offset)
    if signed:
        value = _fma(builder, value, factor, old)
    else:
        shift = _splat(builder, _load(builder, F32, given.panel, SHIFT), FLOATS)
        value = builder.fmul(value, factor)
        value = _fma(builder, _load(builder, FLOATS, given.zeros, offset), shift, value)
        value = _fma(builder, _load(builder, FLOATS, given.scales, offset), value, old)
    at = builder.inttoptr(builder.add(given.total, I64(offset)), FLOATS.as_pointer())
    builder.store(value, at, align=4)


def _fma(builder, a, b, c):
    return _call(builder, "llvm.fma.v16f32", FLOATS, [a, b, c])
