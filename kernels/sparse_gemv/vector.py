"""Sixteen float32 at once, from and to raw addresses, for compiled code.

numba vectorises plain loops, but neither converts half floats nor prefetches nor packs the lanes
that a mask keeps; each function here is one or two LLVM instructions that do, on every target
(where a target lacks the width LLVM splits it). The first argument of `wide` and `narrow` says
what lies in memory: the class np.float32, np.uint16 (the bits of bfloat16), np.int16 (the bits of
float16) or np.int8. Functions that end in `_tail` touch the first `n` lanes only, 0 < n < 16.
"""

from typing import no_type_check

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, register_model

LANES = 16
I1, I8, I16, I32, I64 = (ir.IntType(bits) for bits in (1, 8, 16, 32, 64))
F32 = ir.FloatType()
STORED = {"float32": F32, "uint16": I16, "int16": ir.HalfType(), "int8": I8}


class Vector(types.Type):
    """<16 x float>."""


vector = Vector("float32x16")


@register_model(Vector)
class _Model(models.PrimitiveModel):
    def __init__(self, manager, kind):
        super().__init__(manager, kind, _many(F32))


def _many(element):
    return ir.VectorType(element, LANES)


def _repeated(element, number):
    return ir.Constant(_many(element), [number] * LANES)


def _call(builder, name, result, arguments):
    """An LLVM intrinsic, declared where it is first used."""
    kind = ir.FunctionType(result, [a.type for a in arguments])
    function = builder.module.globals.get(name) or ir.Function(builder.module, kind, name)
    return builder.call(function, arguments)


def _splat(builder, scalar):
    one = builder.insert_element(ir.Constant(_many(scalar.type), ir.Undefined), scalar, I32(0))
    return builder.shuffle_vector(one, one, ir.Constant(_many(I32), [0] * LANES))


def _first(builder, n):
    """Lanes below n."""
    lanes = ir.Constant(_many(I64), list(range(LANES)))
    return builder.icmp_signed("<", lanes, _splat(builder, n))


def _load(builder, stored, address, n=None):
    kind = _many(stored)
    pointer = builder.inttoptr(address, kind.as_pointer())
    size = max(1, stored.width // 8) if isinstance(stored, ir.IntType) else 0
    align = size or (4 if stored is F32 else 2)
    if n is None:
        return builder.load(pointer, align=align)
    zero = ir.Constant(kind, None)
    name = f"llvm.masked.load.v{LANES}{_letter(stored)}.p0"
    return _call(builder, name, kind, [pointer, I32(align), _first(builder, n), zero])


def _letter(stored):
    return {"float": "f32", "half": "f16"}.get(str(stored), str(stored))


def _widened(builder, stored, raw):
    if stored is F32:
        return raw
    if stored is I16:
        upper = builder.shl(builder.zext(raw, _many(I32)), _repeated(I32, 16))
        return builder.bitcast(upper, _many(F32))
    if stored is I8:
        return builder.sitofp(builder.sext(raw, _many(I32)), _many(F32))
    return builder.fpext(raw, _many(F32))


def _narrowed(builder, stored, wide):
    if stored is F32:
        return wide
    if stored is not I16:
        return builder.fptrunc(wide, _many(stored))
    # To the nearest, of two to the even one; the carry must not turn a NaN into a number.
    bits = builder.bitcast(wide, _many(I32))
    sixteen = _repeated(I32, 16)
    odd = builder.and_(builder.lshr(bits, sixteen), _repeated(I32, 1))
    near = builder.lshr(builder.add(builder.add(bits, _repeated(I32, 0x7FFF)), odd), sixteen)
    nan = builder.fcmp_unordered("uno", wide, wide)
    near = builder.select(nan, _repeated(I32, 0x7FC0), near)
    return builder.trunc(near, _many(I16))


def _stored(tag):
    return STORED[tag.instance_type.name]


@intrinsic
@no_type_check
def width(context, tag):
    """Bytes of a number in memory."""
    return types.int64(tag), lambda context, builder, signature, arguments: I64(
        signature.args[0].instance_type.bitwidth // 8
    )


@intrinsic
@no_type_check
def pointer(context, address):
    """The address for `carray`."""

    def emit(context, builder, signature, arguments):
        return builder.inttoptr(arguments[0], I8.as_pointer())

    return types.voidptr(types.int64), emit


@intrinsic
@no_type_check
def wide(context, tag, address):
    """Sixteen numbers of memory as float32."""

    def emit(context, builder, signature, arguments):
        stored = _stored(signature.args[0])
        return _widened(builder, stored, _load(builder, stored, arguments[1]))

    return vector(tag, types.int64), emit


@intrinsic
@no_type_check
def wide_tail(context, tag, address, n):
    """The same of n numbers: what lies behind them is not read."""

    def emit(context, builder, signature, arguments):
        stored = _stored(signature.args[0])
        return _widened(builder, stored, _load(builder, stored, *arguments[1:]))

    return vector(tag, types.int64, types.int64), emit


@intrinsic
@no_type_check
def narrow(context, tag, address, x):
    """x rounded to the stored format, to memory."""

    def emit(context, builder, signature, arguments):
        raw = _narrowed(builder, _stored(signature.args[0]), arguments[2])
        pointer = builder.inttoptr(arguments[1], raw.type.as_pointer())
        builder.store(raw, pointer, align=2 if raw.type.element is not F32 else 4)
        return context.get_dummy_value()

    return types.void(tag, types.int64, vector), emit


@intrinsic
@no_type_check
def narrow_tail(context, tag, address, x, n):
    """The same of n numbers: what lies behind them is not written."""

    def emit(context, builder, signature, arguments):
        _, address, x, n = arguments
        raw = _narrowed(builder, _stored(signature.args[0]), x)
        pointer = builder.inttoptr(address, raw.type.as_pointer())
        letter = _letter(raw.type.element)
        align = I32(4 if letter == "f32" else 2)
        name = f"llvm.masked.store.v{LANES}{letter}.p0"
        _call(builder, name, ir.VoidType(), [raw, pointer, align, _first(builder, n)])
        return context.get_dummy_value()

    return types.void(tag, types.int64, vector, types.int64), emit


@intrinsic
@no_type_check
def splat(context, number):
    """The float32 `number` in every lane."""

    def emit(context, builder, signature, arguments):
        return _splat(builder, arguments[0])

    return vector(types.float32), emit


@intrinsic
@no_type_check
def plus(context, a, b):
    """a + b."""

    def emit(context, builder, signature, arguments):
        return builder.fadd(*arguments)

    return vector(vector, vector), emit


@intrinsic
@no_type_check
def lanes_from(context, first):
    """first + 0, …, first + 15 as int32, in the bits of a vector."""

    def emit(context, builder, signature, arguments):
        start = _splat(builder, builder.trunc(arguments[0], I32))
        count = builder.add(start, ir.Constant(_many(I32), list(range(LANES))))
        return builder.bitcast(count, _many(F32))

    return vector(types.int64), emit


@intrinsic
@no_type_check
def above(context, x, threshold):
    """Bits of the lanes where not |x| <= threshold."""

    def emit(context, builder, signature, arguments):
        size = _call(builder, "llvm.fabs.v16f32", _many(F32), [arguments[0]])
        mask = builder.fcmp_unordered(">", size, arguments[1])
        return builder.zext(builder.bitcast(mask, I16), I64)

    return types.int64(vector, vector), emit


def _mask(builder, bits):
    return builder.bitcast(builder.trunc(bits, I16), _many(I1))


@intrinsic
@no_type_check
def chosen(context, bits, x):
    """x where a bit is set, else 0."""

    def emit(context, builder, signature, arguments):
        return builder.select(_mask(builder, arguments[0]), arguments[1], _repeated(F32, 0.0))

    return vector(types.int64, vector), emit


@intrinsic
@no_type_check
def packed(context, bits, x):
    """The lanes whose bit is set, one after the other from the first."""

    def emit(context, builder, signature, arguments):
        zero = _repeated(F32, 0.0)
        name = "llvm.experimental.vector.compress.v16f32"
        parts = [arguments[1], _mask(builder, arguments[0]), zero]
        return _call(builder, name, _many(F32), parts)

    return vector(types.int64, vector), emit


@intrinsic
@no_type_check
def ones(context, bits):
    """How many bits are set."""

    def emit(context, builder, signature, arguments):
        return _call(builder, "llvm.ctpop.i64", I64, list(arguments))

    return types.int64(types.int64), emit


@intrinsic
@no_type_check
def number(context, tag, address):
    """One number of that type in memory."""
    kind = tag.instance_type

    def emit(context, builder, signature, arguments):
        stored = context.get_value_type(kind)
        pointer = builder.inttoptr(arguments[1], stored.as_pointer())
        return builder.load(pointer, align=kind.bitwidth // 8)

    return kind(tag, types.int64), emit


@intrinsic
@no_type_check
def put(context, address, x):
    """One number to memory."""

    def emit(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], arguments[1].type.as_pointer())
        builder.store(arguments[1], pointer, align=signature.args[1].bitwidth // 8)
        return context.get_dummy_value()

    return types.void(types.int64, x), emit


@intrinsic
@no_type_check
def prefetch(context, address):
    """Ask for the cache line of `address`, for the second level."""

    def emit(context, builder, signature, arguments):
        pointer = builder.inttoptr(arguments[0], I8.as_pointer())
        parts = [pointer, I32(0), I32(2), I32(1)]
        _call(builder, "llvm.prefetch.p0", ir.VoidType(), parts)
        return context.get_dummy_value()

    return types.void(types.int64), emit


@intrinsic
@no_type_check
def read_rows(context, tag, rows, offset):
    """Sixteen numbers at rows_k + offset, for every k."""

    def emit(context, builder, signature, arguments):
        return _read_rows(context, builder, signature, *arguments[1:])

    return types.UniTuple(vector, rows.count)(tag, rows, types.int64), emit


@intrinsic
@no_type_check
def read_rows_tail(context, tag, rows, offset, n):
    """The same of n numbers each."""

    def emit(context, builder, signature, arguments):
        return _read_rows(context, builder, signature, *arguments[1:])

    return types.UniTuple(vector, rows.count)(tag, rows, types.int64, types.int64), emit


def _read_rows(context, builder, signature, rows, offset, n=None):
    stored = _stored(signature.args[0])
    parts = [
        _widened(
            builder,
            stored,
            _load(builder, stored, builder.add(builder.extract_value(rows, k), offset), n),
        )
        for k in range(signature.args[1].count)
    ]
    return context.make_tuple(builder, signature.return_type, parts)


@intrinsic
@no_type_check
def chain(context, weights, rows, total):
    """total + Σ_k weights_k rows_k, one after the other."""

    def emit(context, builder, signature, arguments):
        weights, rows, total = arguments
        for k in range(signature.args[0].count):
            parts = [builder.extract_value(weights, k), builder.extract_value(rows, k), total]
            total = _call(builder, "llvm.fma.v16f32", _many(F32), parts)
        return total

    return vector(weights, rows, vector), emit
