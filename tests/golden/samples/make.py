#!/usr/bin/env python3
"""Rows whose texts and ratings are out of the ordinary, as Parquet (pip install pyarrow):

    tests/golden/samples/make.py tests/golden/samples

writes rows.parquet, no_ratings.parquet (the same rows without rating columns), and expected.json, a list of
[what, fate, text, fate without ratings, text without ratings] for each row; the text is that of the sample, without role lines.
"""
import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq

# what, turns, ratings (relevance, image correspondence, visual dependency, formatting), fate, texts kept
TURN = ("q", "a")
NONE = (None, None, None, None)
ROWS = [
    ("plain", [TURN], ([5], [5], [5], [5]), "kept", [TURN]),
    ("texts null", None, NONE, "bad", None),
    ("texts empty", [], NONE, "no_turn", None),
    ("empty strings", [("", "")], ([5], [5], [5], [5]), "kept", [("", "")]),
    ("user null", [(None, "a")], NONE, "bad", None),
    ("assistant null", [("q", None)], NONE, "bad", None),
    ("turn null", [TURN, None], NONE, "bad", None),
    ("ratings null", [TURN, ("r", "b")], NONE, "kept", [TURN, ("r", "b")]),
    ("ratings too short", [TURN, ("r", "b")], ([5], [5], [], [5]), "kept", [TURN, ("r", "b")]),
    ("ratings too long", [TURN], ([5, 0, 0], [5, 5], [5, 0], [5, 5]), "kept", [TURN]),
    ("ratings of nulls", [TURN], ([None], [None], [5], [None]), "kept", [TURN]),
    ("too short ends the checks", [TURN, ("r", "b")], ([5], [5, 5], [5, 5], [5, 0]), "kept", [TURN, ("r", "b")]),
    ("rated low", [TURN, ("r", "b")], ([5, 0], [5, 5], [5, 5], [5, 5]), "kept", [TURN]),
    ("all rated low", [TURN], ([5], [5], [5], [0]), "no_turn", None),
    ("null where it is filtered", [(None, "x"), TURN], ([0, 5], [5, 5], [5, 5], [5, 5]), "kept", [TURN]),
    ("no UTF-8", [(b"a\xffb", b"a")], NONE, "bad", None),
    ("no UTF-8 at the end", [(b"q", b"a\xe4\xb8")], NONE, "bad", None),
    ("a surrogate", [(b"q", b"\xed\xa0\x80")], NONE, "bad", None),
    ("no UTF-8 where it is filtered", [(b"\xff", b"x"), TURN], ([0, 5], [5, 5], [5, 5], [5, 5]), "kept", [TURN]),
    ("image token", [("a<|image|>b", "<|image|>")], NONE, "kept", [("ab", "")]),
    ("image token put together", [("<|im<|image|>age|>", "a")], NONE, "bad", None),
    ("other special tokens", [("<|im_end|><row_1_col_1>", "<|endoftext|>")], NONE, "kept", [("<|im_end|><row_1_col_1>", "<|endoftext|>")]),
    ("U+0000", [("a\0b", "\0")], NONE, "kept", [("a\0b", "\0")]),
]
KINDS = ["relevance", "image_correspondence", "visual_dependency", "formatting"]


def as_bytes(text):
    return text if text is None or isinstance(text, bytes) else text.encode()


def strings(values):
    """A column of any bytes; as strings Arrow would refuse the whole row group for one that is not UTF-8."""
    return pa.array([as_bytes(v) for v in values], pa.binary())


def texts_column():
    flat, offsets, nulls = [], [0], []
    for _, turns, _, _, _ in ROWS:
        flat += turns or []
        offsets.append(len(flat))
        nulls.append(turns is None)
    empty = [turn is None for turn in flat]
    columns = [strings([turn[side] if turn else None for turn in flat]) for side in (0, 1)]
    turns = pa.StructArray.from_arrays(columns, ["user", "assistant"], mask=pa.array(empty))
    return pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), turns, mask=pa.array(nulls))


def without_ratings(turns, fate, kept):
    """What becomes of a row whose turns are not filtered."""
    if fate == "bad" or turns == []:
        return fate, kept
    bad = any(turn is None or None in turn or any(as_bytes(t).decode(errors="replace") != as_bytes(t).decode(errors="ignore") for t in turn)
              for turn in turns)
    return ("bad", None) if bad else ("kept", turns if kept is None or len(turns) > len(kept) else kept)


def main():
    texts = texts_column()
    images = pa.nulls(len(ROWS), pa.list_(pa.struct([("bytes", pa.binary()), ("path", pa.string())])))
    table = pa.table({"images": images, "texts": texts})
    pq.write_table(table, f"{sys.argv[1]}/no_ratings.parquet")
    for i, kind in enumerate(KINDS):
        table = table.append_column(f"{kind}_ratings", pa.array([row[2][i] for row in ROWS], pa.list_(pa.int64())))
    pq.write_table(table, f"{sys.argv[1]}/rows.parquet")
    expected = []
    for what, turns, _, fate, kept in ROWS:
        expected.append([what, fate, kept, *without_ratings(turns, fate, kept)])
    json.dump(expected, open(f"{sys.argv[1]}/expected.json", "w"), indent=1)


main()
