"""Writes types.parquet: every kind of column that tests/test_arrow.c reads. Made with pyarrow 26.0.1."""
import pyarrow as pa
import pyarrow.parquet as pq

N = 10
word = [["red", "green", None][i % 3] for i in range(N)]
pair = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
pairs = [[{"bytes": bytes([i, k]), "path": None if k == 1 else f"p{i}{k}"} for k in range(i % 3)] for i in range(N)]
pairs = [None if i == 4 else p for i, p in enumerate(pairs)]
columns = {
    "dictionary": pa.array(word).dictionary_encode(),
    "dictionaries": pa.array([[w, w] for w in word], pa.list_(pa.dictionary(pa.int32(), pa.string()))),
    "large_string": pa.array([f"text {i}" for i in range(N)], pa.large_string()),
    "string_view": pa.array([f"a text long enough to lie outside of the view {i}" for i in range(N)], pa.string_view()),
    "fixed_binary": pa.array([bytes([i] * 3) for i in range(N)], pa.binary(3)),
    "fixed_list": pa.array([[i, -i] for i in range(N)], pa.list_(pa.int64(), 2)),
    "large_list": pa.array([list(range(i)) for i in range(N)], pa.large_list(pa.int32())),
    "struct": pa.array([None if i % 4 == 3 else {"bytes": b"%d" % i, "path": "x"} for i in range(N)], pair),
    "images": pa.array(pairs, pa.list_(pair)),
    "nothing": pa.nulls(N),
    "float": pa.array([0.5 * i for i in range(N)], pa.float32()),
}
for name in ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"):
    sign = 1 if name[0] == "u" else -1
    columns[name] = pa.array([None if i == 5 else sign * i for i in range(N)], getattr(pa, name)())
pq.write_table(pa.table(columns), "types.parquet", row_group_size=6, compression="none")
