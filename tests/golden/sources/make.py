"""Writes the files that tests/test_sources.c reads, into the folder it lies in. Made with pyarrow 26.0.1.

types/    the columns of ../parquet/make.py in Arrow's formats: stream and file, plain and compressed
codecs/   rows in each of Parquet's codecs
pictures/ list_* (row i has i % 3 pictures) and one_* (one, or null where i % 3 is 0): each way to hold pictures.
          Picture k of row i holds "picture i.k"; where there are paths only, in the file files/i.k
ratings/  relevance_ratings [1, 4] in numbers of each kind
wrong/    columns of the wrong type; the name up to the - is the column to blame
empty/    no rows at all
indexed/  a folder as early versions of datasets saved one that had been shuffled: indices of the rows of two files
"""
import json
import os

import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

os.chdir(os.path.dirname(os.path.abspath(__file__)))


def folder(name):
    os.makedirs(name, exist_ok=True)
    return name + "/"


def stream(path, batches, codec=None, new=ipc.new_stream):
    with pa.OSFile(path, "wb") as sink:
        with new(sink, batches[0].schema, options=ipc.IpcWriteOptions(compression=codec)) as writer:
            for batch in batches:
                writer.write_batch(batch)


def types():
    out, batches = folder("types"), pq.read_table("../parquet/types.parquet").to_batches(max_chunksize=6)
    schema = batches[0].schema
    extra = {
        "half": lambda n: pa.array([0.5] * n, pa.float16()),
        "bool": lambda n: pa.array([True] * n),
        "views": lambda n: pa.array([[b"a", b"long enough to lie outside of the view"]] * n, pa.list_view(pa.binary_view())),
    }
    rows = []
    for batch in batches:
        for name, make in extra.items():
            batch = batch.append_column(name, make(batch.num_rows))
        rows.append(batch)
    stream(out + "stream.arrow", rows)
    stream(out + "stream_lz4.arrow", rows, "lz4")
    stream(out + "stream_zstd.arrow", rows, "zstd")
    stream(out + "file.arrow", rows, new=ipc.new_file)
    stream(out + "file_zstd.arrow", rows, "zstd", new=ipc.new_file)
    assert schema.field("dictionary").type == pa.dictionary(pa.int32(), pa.string())


def codecs():
    turn = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))
    texts = pa.array([[{"user": f"{i}?", "assistant": f"{i}"}] for i in range(20)], turn)
    table = pa.table({"images": pa.nulls(20), "texts": texts})
    for codec in ("none", "snappy", "gzip", "zstd", "lz4", "brotli"):
        pq.write_table(table, folder("codecs") + codec + ".parquet", compression=codec, row_group_size=8)


def pictures():
    out, n = folder("pictures"), 7
    texts = pa.array([[{"user": "q", "assistant": "a"}]] * n)
    content = [[f"picture {i}.{k}".encode() for k in range(i % 3)] for i in range(n)]
    paths = [[f"files/{i}.{k}" for k in range(i % 3)] for i in range(n)]
    for row, names in zip(content, paths):
        for bytes_, name in zip(row, names):
            folder(out + "files")
            open(out + name, "wb").write(bytes_)
    structs = [[{"bytes": b, "path": None} for b in row] for row in content]
    by_path = [[{"bytes": None, "path": p} for p in row] for row in paths]

    def pair(binary=pa.binary(), text=pa.string()):
        return pa.struct([("bytes", binary), ("path", text)])

    def first(rows):
        return [row[0] if row else None for row in rows]

    lists = {
        "struct": pa.array(structs, pa.list_(pair())),
        "struct_large": pa.array(structs, pa.large_list(pair(pa.large_binary(), pa.large_string()))),
        "struct_view": pa.array(structs, pa.list_view(pair(pa.binary_view(), pa.string_view()))),
        "binary": pa.array(content, pa.list_(pa.binary())),
        "binary_view": pa.array(content, pa.large_list(pa.binary_view())),
        "struct_path": pa.array(by_path, pa.list_(pair())),
        "path": pa.array(paths, pa.list_(pa.string())),
        "path_dictionary": pa.array(paths, pa.list_(pa.dictionary(pa.int8(), pa.string()))),
        "path_field": pa.array([[{"path": p} for p in row] for row in paths]),
    }
    single = {
        "struct": pa.array(first(structs), pair()),
        "binary": pa.array(first(content), pa.binary()),
        "binary_large": pa.array(first(content), pa.large_binary()),
        "binary_view": pa.array(first(content), pa.binary_view()),
        "struct_path": pa.array(first(by_path), pair()),
        "path": pa.array(first(paths), pa.string()),
    }
    for kind, arrays in (("list", lists), ("one", single)):
        for name, array in arrays.items():
            column = "image" if kind == "one" and name == "binary" else "images"
            batch = pa.record_batch({column: array, "texts": texts})
            stream(f"{out}{kind}_{name}.arrow", [batch.slice(0, 3), batch.slice(3)])
            if not any("view" in str(f.type) for f in batch.schema):
                pq.write_table(pa.Table.from_batches([batch]), f"{out}{kind}_{name}.parquet", row_group_size=3)


def ratings():
    texts = pa.array([[{"user": "q", "assistant": "a"}] * 2])
    kinds = {"int8": pa.int8(), "uint16": pa.uint16(), "int64": pa.int64(), "float16": pa.float16(),
             "float32": pa.float32(), "float64": pa.float64()}
    for name, kind in kinds.items():
        values = pa.array([[1, 4]], pa.list_(pa.int64())).cast(pa.list_(kind))
        batch = pa.record_batch({"images": pa.nulls(1), "texts": texts, "relevance_ratings": values})
        stream(folder("ratings") + name + ".arrow", [batch])


def wrong():
    texts, nothing = pa.array([[{"user": "q", "assistant": "a"}]]), pa.nulls(1)
    columns = {
        "images-int": {"images": pa.array([1]), "texts": texts},
        "images-list": {"images": pa.array([[1.5]]), "texts": texts},
        "images-bytes": {"images": pa.array([[{"bytes": 1, "path": "x"}]]), "texts": texts},
        "images-fields": {"images": pa.array([{"data": b"x"}]), "texts": texts},
        "images-absent": {"texts": texts},
        "texts-absent": {"images": nothing},
        "texts-string": {"images": nothing, "texts": pa.array(["q"])},
        "texts-list": {"images": nothing, "texts": pa.array([["q"]])},
        "texts-fields": {"images": nothing, "texts": pa.array([[{"user": "q"}]])},
        "texts-columns": {"images": nothing, "texts": pa.array([{"user": ["q"], "assistant": ["a"]}])},
        "formatting_ratings-int": {"images": nothing, "texts": texts, "formatting_ratings": pa.array([1])},
        "relevance_ratings-text": {"images": nothing, "texts": texts, "relevance_ratings": pa.array([["1"]])},
    }
    for name, table in columns.items():
        batch = pa.record_batch(table)
        stream(folder("wrong") + name + ".arrow", [batch])
        pq.write_table(pa.Table.from_batches([batch]), folder("wrong") + name + ".parquet")
    batch = pa.record_batch({"images": nothing, "texts": texts}).slice(0, 0)
    stream(folder("empty") + "no_batch.arrow", [batch])
    with pa.OSFile("empty/no_message.arrow", "wb") as sink:
        ipc.new_stream(sink, batch.schema).close()
    pq.write_table(pa.Table.from_batches([batch]), "empty/no_row.parquet")


def indexed():
    out = folder("indexed")
    turn = pa.list_(pa.struct([("user", pa.string()), ("assistant", pa.string())]))

    def rows(first, n):
        texts = pa.array([[{"user": f"{i}?", "assistant": f"{i}"}] for i in range(first, first + n)], turn)
        return pa.record_batch({"images": pa.nulls(n), "texts": texts})

    stream(out + "data0.arrow", [rows(0, 70), rows(70, 80)])
    stream(out + "data1.arrow", [rows(150, 100)])
    order = [i * 77 % 250 for i in range(240)]  # 77 and 250 have no common factor: no row twice, ten are left out
    stream(out + "indices.arrow", [pa.record_batch({"indices": pa.array(order, pa.uint64())})])
    state = {"_data_files": [{"filename": "data0.arrow"}, {"filename": "data1.arrow"}],
             "_indices_data_files": [{"filename": "indices.arrow"}], "_fingerprint": "", "_split": "train"}
    json.dump(state, open(out + "state.json", "w"), indent=1)


for make in (types, codecs, pictures, ratings, wrong, indexed):
    make()
