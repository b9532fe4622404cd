#!/usr/bin/env python3
"""Writes odd picture files and what Pillow 12 makes of them, for tests/test_image.c (VLM_ODD_PICTURES=DIR).

    python tests/interop/odd_pictures.py --out DIR [--seed N] [--mutants N]

DIR/odd.jsonl has a line a file: {"file", "rgb": SHA-256 of the RGB pixels after the EXIF turn} or {"file", "error"}.
Needs Pillow and numpy. tests/golden/images/odd was written with --every 4 --small 2400.
"""
import argparse
import hashlib
import io
import json
import pathlib
import struct

import numpy as np
from PIL import Image, ImageOps

rng = None


def noise(w, h, channels=3, top=256):
    a = rng.integers(0, top, (h, w, channels), dtype=np.uint8)
    return a if channels > 1 else a[:, :, 0]


def smooth(w, h):
    y, x = np.mgrid[0:h, 0:w]
    return np.stack([(x * 3 + y * c * 2 + 20 * c) % 256 for c in (1, 2, 3)], -1).astype(np.uint8)


def saved(image, format, **options):
    out = io.BytesIO()
    image.save(out, format, **options)
    return out.getvalue()


def bmp(bits, w, h, pixels, palette=b"", compression=0, colours=0, header=40, masks=b"", top_down=False, offset=None):
    if header == 12:
        info = struct.pack("<IHHHH", 12, w, h, 1, bits)
    else:
        info = struct.pack("<IiiHHIIiiII", header, w, -h if top_down else h, 1, bits, compression, len(pixels), 1, 1, colours, 0)
        if header > 40:
            info += (masks + bytes(header))[: header - 40]
            masks = b""
    at = 14 + len(info) + len(masks) + len(palette)
    at = at if offset is None else offset
    return b"BM" + struct.pack("<IHHI", at + len(pixels), 0, 0, at) + info + masks + palette + pixels


def bmps():
    for bits in (1, 4, 8):
        for w in (1, 7, 8, 33):
            n = 1 << bits
            stride = (w * bits + 31) // 32 * 4
            pixels = rng.bytes(stride * 5)
            palette = rng.bytes(4 * n)
            yield f"bmp_{bits}_{w}", bmp(bits, w, 5, pixels, palette)
            yield f"bmp_{bits}_{w}_top", bmp(bits, w, 5, pixels, palette, top_down=True)
            yield f"bmp_{bits}_{w}_os2", bmp(bits, w, 5, pixels, rng.bytes(3 * n), header=12)
            yield f"bmp_{bits}_{w}_few", bmp(bits, w, 5, pixels, palette[: 4 * (n // 2)], colours=n // 2)
            yield f"bmp_{bits}_{w}_short", bmp(bits, w, 5, pixels[: -1], palette)
            yield f"bmp_{bits}_{w}_offset0", bmp(bits, w, 5, pixels, palette, offset=0)
            yield f"bmp_{bits}_{w}_offset_header", bmp(bits, w, 5, pixels, palette, offset=54)
        ramp = b"".join(bytes([i * 255 if n == 2 else i] * 3 + [0]) for i in range(n))
        yield f"bmp_{bits}_ramp", bmp(bits, 9, 5, rng.bytes(64), ramp)
    yield "bmp_8_black_white", bmp(8, 9, 5, rng.bytes(64), bytes(4) + b"\xff" * 4, colours=2)
    yield "bmp_8_too_many", bmp(8, 9, 5, rng.bytes(64), rng.bytes(4 * 300), colours=300)
    for bits, sets in {16: [(0xF800, 0x7E0, 0x1F), (0x7C00, 0x3E0, 0x1F), (0xF00, 0xF0, 0xF)], 24: [(0xFF0000, 0xFF00, 0xFF)],
                       32: [(0xFF0000, 0xFF00, 0xFF, 0), (0xFF000000, 0xFF0000, 0xFF00, 0), (0xFF000000, 0xFF0000, 0xFF00, 0xFF),
                            (0xFF, 0xFF00, 0xFF0000, 0xFF000000), (0xFF0000, 0xFF00, 0xFF, 0xFF000000), (0, 0, 0, 0),
                            (0xFF000000, 0xFF00, 0xFF, 0xFF0000), (0xFF, 0xFF00, 0xFF0000, 0)]}.items():
        stride = (7 * bits + 31) // 32 * 4
        pixels = rng.bytes(stride * 4)
        yield f"bmp_{bits}", bmp(bits, 7, 4, pixels)
        yield f"bmp_{bits}_top", bmp(bits, 7, 4, pixels, top_down=True)
        yield f"bmp_{bits}_os2", bmp(bits, 7, 4, pixels, header=12)
        for k, masks in enumerate(sets):
            packed = struct.pack(f"<{len(masks)}I", *masks)
            yield f"bmp_{bits}_fields_{k}", bmp(bits, 7, 4, pixels, compression=3, masks=packed[:12])
            for header in (52, 56, 64, 108, 124):
                yield f"bmp_{bits}_fields_{k}_{header}", bmp(bits, 7, 4, pixels, compression=3, header=header, masks=packed)
    for bits, kind in ((8, 1), (4, 2), (8, 2), (4, 1)):
        for k in range(12):
            runs = b""
            for _ in range(60):
                what = rng.integers(0, 8)
                if what < 4:
                    runs += bytes([rng.integers(1, 9), rng.integers(0, 256)])
                elif what < 6:
                    n = int(rng.integers(3, 9))
                    data = rng.bytes(n // 2 if kind == 2 else n)
                    runs += bytes([0, n]) + data
                    runs += bytes(len(runs) % 2)
                elif what == 6:
                    runs += b"\0\0"
                else:
                    runs += bytes([0, 2, rng.integers(0, 3), 0, rng.integers(0, 3), 0])
            yield f"bmp_rle_{bits}_{kind}_{k}", bmp(bits, 11, 9, runs + b"\0\1", rng.bytes(4 << bits), compression=kind, top_down=k % 2 == 1)


def gifs():
    for w, h in ((1, 1), (7, 5), (33, 17)):
        p = Image.fromarray(noise(w, h, 1, 50)).convert("P")
        p.putpalette(rng.bytes(150))
        yield f"gif_{w}_plain", saved(p, "GIF", interlace=0)
        yield f"gif_{w}_interlaced", saved(p, "GIF", interlace=1)
        yield f"gif_{w}_transparent", saved(p, "GIF", transparency=3)
        yield f"gif_{w}_gray", saved(Image.fromarray(noise(w, h, 1)), "GIF")
        raw = saved(p, "GIF", transparency=3, comment=b"hello")
        for cut in range(1, 12):
            yield f"gif_{w}_cut_{cut}", raw[:-cut]
        yield f"gif_{w}_trailing", raw + b"more"
        at = raw.index(b",\0\0\0\0")
        for x, y in ((0, 3), (5, 0), (4, 9)):  # the frame lies elsewhere; the canvas grows
            for transparent in (True, False):
                moved = bytearray(raw)
                moved[at + 1], moved[at + 3] = x, y
                control = moved.find(b"!\xf9\x04")
                if not transparent and control > 0:
                    moved[control + 3] &= 0xFE
                yield f"gif_{w}_at_{x}_{y}_{transparent}", bytes(moved)
        frames = [Image.fromarray(noise(w, h)) for _ in range(3)]
        yield f"gif_{w}_animated", saved(frames[0], "GIF", save_all=True, append_images=frames[1:], disposal=2)
        # fewer colours in the palette than the pixels use
        n = 3 << (raw[10] & 7) + 1
        if raw[10] & 128:
            yield f"gif_{w}_small_palette", raw[:10] + bytes([raw[10] & 0xF8]) + raw[11:19] + raw[13 + n :]


TIFF_ALSO = {"1": ("group3", "group4"), "L": ("jpeg",), "RGB": ("jpeg",)}


def tiffs():
    for w, h in ((1, 1), (13, 9), (70, 40)):
        pictures = {"1": Image.fromarray(noise(w, h, 1)).convert("1"), "L": Image.fromarray(noise(w, h, 1)),
                    "LA": Image.fromarray(noise(w, h, 2), "LA"), "RGB": Image.fromarray(smooth(w, h)), "RGBA": Image.fromarray(noise(w, h, 4)),
                    "RGBX": Image.fromarray(noise(w, h, 4), "RGBX"), "CMYK": Image.fromarray(noise(w, h, 4), "CMYK"),
                    "I;16": Image.fromarray(rng.integers(0, 600, (h, w), dtype=np.uint16)),
                    "P": Image.fromarray(noise(w, h, 1)).convert("P")}
        pictures["P"].putpalette(rng.bytes(768))
        for mode, image in pictures.items():
            for compression in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits") + TIFF_ALSO.get(mode, ()):
                yield f"tiff_{w}_{mode}_{compression}".replace(";", ""), saved(image, "TIFF", compression=compression)
            if mode == "RGB":
                for o in range(9):
                    yield f"tiff_{w}_turned_{o}", saved(image, "TIFF", tiffinfo={274: o})
                yield f"tiff_{w}_big", saved(image, "TIFF", big_tiff=True)
        raw = saved(pictures["L"], "TIFF")
        for cut in (1, 20, len(raw) // 2):
            yield f"tiff_{w}_cut_{cut}", raw[:-cut]
        yield f"tiff_{w}_white_zero", saved(pictures["L"], "TIFF", tiffinfo={262: 0})


def pngs():
    image = Image.fromarray(noise(6, 5))
    raw = saved(image, "PNG")
    for cut in (1, 4, 5, 8, 11, 12):
        yield f"png_no_end_{cut}", raw[:-cut]
    end = struct.pack(">I4s", 20, b"tEXt") + b"a\0b"
    yield "png_cut_text", raw[:-12] + end
    yield "png_only_half", raw[: len(raw) // 2]
    for bits in (1, 2, 4, 8):
        p = Image.fromarray(noise(9, 4, 1, 1 << bits)).convert("P")
        p.putpalette(rng.bytes(3 << bits))
        yield f"png_palette_{bits}", saved(p, "PNG", bits=bits)
        data = saved(p, "PNG", bits=bits)
        at = data.index(b"PLTE")
        length = struct.unpack(">I", data[at - 4 : at])[0]
        keep = max(3, length // 6 * 3)
        body = b"PLTE" + data[at + 4 : at + 4 + keep]
        import zlib
        cut = data[: at - 4] + struct.pack(">I", keep) + body + struct.pack(">I", zlib.crc32(body)) + data[at + 8 + length :]
        yield f"png_small_palette_{bits}", cut
    for mode in ("LA", "L", "RGBA", "1"):
        yield f"png_{mode}", saved(Image.fromarray(noise(9, 4, 4)).convert(mode), "PNG")


def jpegs():
    for w, h in ((1, 1), (7, 9), (16, 16), (17, 33), (50, 8)):
        image = Image.fromarray(smooth(w, h))
        for sampling in (0, 1, 2, "4:1:1"):
            for progressive in (False, True):
                yield f"jpeg_{w}_{h}_{sampling}_{progressive}".replace(":", ""), saved(image, "JPEG", subsampling=sampling, progressive=progressive, quality=70)
        yield f"jpeg_{w}_{h}_gray", saved(image.convert("L"), "JPEG")
        cmyk = saved(Image.fromarray(noise(w, h, 4), "CMYK"), "JPEG")
        yield f"jpeg_{w}_{h}_cmyk", cmyk
        at = cmyk.find(b"Adobe")
        if at > 0:
            yield f"jpeg_{w}_{h}_ycck", cmyk[: at + 11] + b"\2" + cmyk[at + 12 :]
        yield f"jpeg_{w}_{h}_rgb", saved(image, "JPEG", keep_rgb=True)
        yield f"jpeg_{w}_{h}_restart", saved(image, "JPEG", restart_marker_blocks=1)


def webps():
    for w, h in ((1, 1), (17, 9)):
        for lossless in (False, True):
            yield f"webp_{w}_{lossless}", saved(Image.fromarray(smooth(w, h)), "WEBP", lossless=lossless)
            yield f"webp_{w}_{lossless}_alpha", saved(Image.fromarray(noise(w, h, 4)), "WEBP", lossless=lossless)
        frames = [Image.fromarray(noise(w, h, 4)) for _ in range(3)]
        yield f"webp_{w}_animated", saved(frames[0], "WEBP", save_all=True, append_images=frames[1:])


def judged(data):
    try:
        image = Image.open(io.BytesIO(data))
        image = ImageOps.exif_transpose(image)
        return {"rgb": hashlib.sha256(np.asarray(image.convert("RGB")).tobytes()).hexdigest()}
    except Exception as e:
        return {"error": type(e).__name__}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=pathlib.Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--mutants", type=int, default=0, help="of each file: so many with a few bytes changed")
    parser.add_argument("--every", type=int, default=1, help="only every so many files")
    parser.add_argument("--small", type=int, default=1 << 30, help="only files of so many bytes at most")
    a = parser.parse_args()
    global rng
    rng = np.random.default_rng(a.seed)
    (a.out / "odd").mkdir(parents=True, exist_ok=True)
    with open(a.out / "odd.jsonl", "w") as index:
        for kind in (bmps, gifs, tiffs, pngs, jpegs, webps):
            for i, (name, data) in enumerate(kind()):
                if i % a.every or len(data) > a.small:
                    continue
                versions = [(name, data)]
                for m in range(a.mutants):
                    changed = bytearray(data)
                    for _ in range(rng.integers(1, 4)):
                        changed[rng.integers(0, len(changed))] = rng.integers(0, 256)
                    versions.append((f"{name}_mutant_{m}", bytes(changed)))
                for name, data in versions:
                    (a.out / "odd" / name).write_bytes(data)
                    index.write(json.dumps({"file": f"odd/{name}", **judged(data)}) + "\n")


if __name__ == "__main__":
    main()
