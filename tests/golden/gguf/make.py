#!/usr/bin/env python3
"""Makes the reference files of tests/test_gguf.c with the gguf package (0.19.0) and numpy (2.4): run it in this folder.

NAME.gguf holds tensors of random blocks, NAME.safetensors their values by gguf.quants.dequantize under the same names.
A tensor `NAME.TYPE` is gguf.quants.quantize of the F32 tensor `NAME`, if there is one. The metadata of types.gguf has every value type."""

import json
import struct

import numpy as np
from gguf import GGMLQuantizationType as T, GGUFValueType as V, GGUFWriter
from gguf.quants import dequantize, quantize

rng = np.random.default_rng(5)
# For every block type: bytes of a block, and where its 16-bit scales stand.
BLOCKS = {
    T.Q4_0: (32, 18, [0]), T.Q4_1: (32, 20, [0, 2]), T.Q5_0: (32, 22, [0]), T.Q5_1: (32, 24, [0, 2]),
    T.Q8_0: (32, 34, [0]), T.Q2_K: (256, 84, [80, 82]), T.Q3_K: (256, 110, [108]), T.Q4_K: (256, 144, [0, 2]),
    T.Q5_K: (256, 176, [0, 2]), T.Q6_K: (256, 210, [208]),
}


def scales(n):
    """Scales as they occur, and some that are subnormal, zero or huge."""
    usual = rng.normal(0, 0.01, n)
    return np.where(rng.random(n) < 0.2, rng.choice([0, -0.0, 5e-8, -3e-6, 1e-5, 65504, -1000], n), usual).astype("<f2")


def random_blocks(kind, rows, blocks):
    values, size, places = BLOCKS[kind]
    out = rng.integers(0, 256, (rows, blocks, size), dtype=np.uint8)
    for place in places:
        out[..., place : place + 2] = scales(rows * blocks).view(np.uint8).reshape(rows, blocks, 2)
    return out.reshape(rows, blocks * size)


def usual_floats(shape):
    """Values of every magnitude, a block of zeros, and one of ties, which Q8_0 rounds away from zero."""
    x = rng.normal(0, 1, shape) * 10.0 ** rng.integers(-9, 5, (*shape[:-1], 1))
    x[0, :32] = 0
    x[1, :32] = [127, *(np.arange(31) - 15.5)]
    return x.astype(np.float32)


def edges():
    """Where the 16-bit formats round, overflow and underflow."""
    x = [65504, 65519, 65520, -1e9, 2**-14, 2**-24, 2**-25, 1.5 * 2**-25, -(2**-26), 1 + 2**-11, 1 + 3 * 2**-11, 3.3895e38,
         3.4e38, 1 + 2**-8, 1 + 3 * 2**-8, 1e-40, -1e-45, -0.0, np.inf, -np.inf]  # fmt: skip
    return np.concatenate([x, rng.normal(0, 1, 100) * 2.0 ** rng.integers(-30, 20, 100)]).astype(np.float32)


def write_safetensors(path, tensors):
    header, data = {}, b""
    for name, value in sorted(tensors.items()):
        raw = np.ascontiguousarray(value, "<f4").tobytes()
        header[name] = {"dtype": "F32", "shape": value.shape, "data_offsets": [len(data), len(data) + len(raw)]}
        data += raw
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + data)


def add(writer, expected, name, raw, kind):
    """raw: the bytes of the rows for block types, the values for plain ones."""
    writer.add_tensor(name, raw, raw_dtype=kind)
    expected[name] = dequantize(raw, kind) if kind != T.F64 else raw.astype(np.float32)


def write(stem, tensors, metadata=lambda writer: None):
    writer, expected = GGUFWriter(f"{stem}.gguf", "reference"), {}
    metadata(writer)
    for name, raw, kind in tensors:
        add(writer, expected, name, raw, kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    write_safetensors(f"{stem}.safetensors", expected)


def every_value_type(w):
    for add_value, name, value in [
        (w.add_uint8, "u8", 200), (w.add_int8, "i8", -100), (w.add_uint16, "u16", 60000), (w.add_int16, "i16", -30000),
        (w.add_uint32, "u32", 4000000000), (w.add_int32, "i32", -2000000000), (w.add_float32, "f32", 0.1),
        (w.add_uint64, "u64", 2**64 - 1), (w.add_int64, "i64", -(2**63)), (w.add_float64, "f64", 0.1),
        (w.add_bool, "true", True), (w.add_bool, "false", False), (w.add_string, "string", "zwölf Boxkämpfer"),
    ]:  # fmt: skip
        add_value(f"value.{name}", value)
    w.add_array("value.strings", ["a", "", "läßt", "日本"])
    w.add_array("value.ints", [1, -2, 3])
    w.add_array("value.floats", [0.5, -1.25])
    w.add_array("value.bools", [True, False, True])
    w.add_key_value("value.nested", [[1, 2], [3], [4, 5, 6]], V.ARRAY, V.ARRAY)


blocks = [(f"blocks.{k.name}", random_blocks(k, 3, 512 // BLOCKS[k][0]), k) for k in BLOCKS]
source, edge = usual_floats((4, 64)), edges()
halves = rng.integers(0, 1 << 16, (5, 33)).astype("<u2")
halves = np.where((halves & 0x7C00) == 0x7C00, halves & 0xFC00, halves)  # infinities instead of NaN
plain = [
    ("source", source, T.F32),
    ("source.F16", quantize(source, T.F16), T.F16),
    ("source.BF16", quantize(source, T.BF16), T.BF16),
    ("source.Q8_0", quantize(source, T.Q8_0), T.Q8_0),
    ("halves", halves.view("<f2"), T.F16),
    ("doubles", rng.normal(0, 1, (2, 1, 3)), T.F64),
    ("vector", np.arange(7, dtype=np.float32), T.F32),
]
with np.errstate(over="ignore"):
    plain += [("edges", edge, T.F32), ("edges.F16", quantize(edge, T.F16), T.F16), ("edges.BF16", quantize(edge, T.BF16), T.BF16)]
write("types", blocks + plain, every_value_type)
write("aligned64", plain[:2], lambda w: w.add_custom_alignment(64))
