"""A zoo of pictures: every format, colour mode, depth and size has the value that it means."""

import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from deep_cnn.config import TrainConfig
from deep_cnn.data import decoding
from deep_cnn.data.decoding import decode
from deep_cnn.data.image_cache import find_unreadable
from deep_cnn.data.splits import Examples
from deep_cnn.layout import FORMATS, SUFFIXES
from deep_cnn.resolve import resolve
from deep_cnn.tasks import get_task
from tests.conftest import environment

# From black to white, the value of each pixel between 0 and 1.
RAMP = np.tile(np.linspace(0, 1, 64), (48, 1))


def grey(path: Path) -> np.ndarray:
    image = decode(path)
    assert image.mode == "RGB"
    return np.asarray(image.convert("L")).astype(int)


def assert_ramp(path: Path, most: float = 1.0) -> None:
    found = grey(path)
    assert found.shape == RAMP.shape
    assert np.abs(found - RAMP * 255).max() <= most


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_suffix_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    name = next(name for name, suffixes in FORMATS.items() if suffix in suffixes)
    image = Image.fromarray(np.round(RAMP * 255).astype(np.uint8))
    if suffix == ".pfm":
        Image.fromarray(RAMP.astype(np.float32)).save(path)
    else:
        image = image.convert("1", dither=Image.Dither.NONE) if suffix == ".pbm" else image
        grey_only = name in ("PPM", "JPEG2000", "SGI", "PCX", "TGA", "BMP", "DIB")
        image = image if grey_only else image.convert("RGB")
        image.save(path, format=name)
    found = grey(path)
    if suffix == ".pbm":
        assert set(np.unique(found)) == {0, 255}
    else:
        assert np.abs(found - RAMP * 255).mean() < 4
    for part in "ab":
        folder = tmp_path / "data" / part
        folder.mkdir(parents=True)
        (folder / path.name.upper()).write_bytes(path.read_bytes())
    config = resolve(TrainConfig(data_dir=str(tmp_path / "data"), cache="off"))
    names = get_task("folders").all_examples(config)[0].names
    assert names == (f"a/P{suffix.upper()}", f"b/P{suffix.upper()}")


@pytest.mark.parametrize("suffix", [".ps", ".eps", ".jpg"])
def test_nothing_that_starts_another_program_is_read(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"p{suffix}"
    Image.new("RGB", (20, 20)).save(path, format="EPS")
    with pytest.raises(ValueError, match="cannot identify image file"):
        decode(path)


@pytest.mark.parametrize("white", [1, 255, 65535])
@pytest.mark.parametrize("suffix", ["tif", "pfm"])
def test_floats_in_one_of_three_ranges(tmp_path: Path, white: int, suffix: str) -> None:
    path = tmp_path / f"p.{suffix}"
    Image.fromarray((RAMP * white).astype(np.float32)).save(path)
    assert_ramp(path)
    # Resampling goes a little beyond the range.
    Image.fromarray((RAMP * white * 1.0002 - white * 1e-4).astype(np.float32)).save(path)
    assert_ramp(path)


@pytest.mark.parametrize(
    ("low", "high", "message"),
    [
        (-1, 1, "from -1 to 1"),
        (0, 0, "from 0 to 0; .* the brightest pixel must reach 1/16 of the range"),
        (0, 0.01, "from 0 to 0.01"),
        (0, 0.062, "from 0 to 0.062"),
        (0, 1.7, "from 0 to 1.7"),
        (0, 1023, "from 0 to 1023"),
        (0, 1e6, r"from 0 to 1e\+06"),
        (-50, 50, "from -50 to 50"),
        (np.nan, 1, "no numbers"),
        (0, np.inf, "no numbers"),
    ],
)
def test_floats_in_another_range_are_refused(
    tmp_path: Path, low: float, high: float, message: str
) -> None:
    pixels = np.array([[low, high], [low, high]], np.float32)
    Image.fromarray(pixels).save(tmp_path / "p.tif")
    with pytest.raises(ValueError, match=message):
        decode(tmp_path / "p.tif")


def test_dark_floats_are_dark(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 1 / 16, np.float32)).save(tmp_path / "p.tif")
    assert (grey(tmp_path / "p.tif") == 15).all()


@pytest.mark.parametrize("part", [1.0, 0.1, 0.02])
@pytest.mark.parametrize(
    "kind", ["png", "tif", "big endian", "jp2", "pgm", "signed", "int32", "uint32"]
)
def test_integers_are_scaled_by_their_depth_and_not_by_what_is_in_them(
    tmp_path: Path, kind: str, part: float
) -> None:
    white = {"signed": 32767, "int32": 2**31 - 1, "uint32": 2**32 - 1}.get(kind, 65535)
    values = np.round(RAMP * part * white)
    path = tmp_path / f"p.{kind if kind in ('png', 'tif', 'jp2', 'pgm') else 'tif'}"
    if kind == "pgm":
        path.write_bytes(b"P5 64 48 65535\n" + values.astype(">u2").tobytes())
    elif kind == "signed":
        path.write_bytes(tiff(values.astype("<i2"), bits=16, kind=2))
    elif kind == "uint32":
        path.write_bytes(tiff(values.astype("<u4"), bits=32, kind=1))
    elif kind == "big endian":
        image = Image.frombytes("I;16B", (64, 48), values.astype(">u2").tobytes())
        image.save(path)
    else:
        Image.fromarray(values.astype(np.int32 if kind == "int32" else np.uint16)).save(path)
    found = grey(path)
    assert np.abs(found - RAMP * part * 255).max() <= 1


def tiff(values: np.ndarray, bits: int, kind: int, white: int = 1) -> bytes:
    """An uncompressed grey TIFF of any depth, which Pillow does not write."""
    height, width = values.shape
    data = values.tobytes()
    if bits == 12:
        pairs = values.reshape(-1, 2).astype(int)
        packed = [pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255]
        data = np.stack(packed, 1).astype(np.uint8).tobytes()
    tags = [(256, 4, width), (257, 4, height), (258, 3, bits), (259, 3, 1), (262, 3, white),
            (273, 4, 8), (277, 3, 1), (278, 4, height), (279, 4, len(data)),
            (339, 3, kind)]  # fmt: skip
    entries = b"".join(
        tag.to_bytes(2, "little") + form.to_bytes(2, "little") + (1).to_bytes(4, "little")
        + value.to_bytes(4, "little")
        for tag, form, value in tags
    )  # fmt: skip
    start = (8 + len(data)).to_bytes(4, "little")
    return b"II*\0" + start + data + len(tags).to_bytes(2, "little") + entries + bytes(4)


def test_twelve_bits(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    path.write_bytes(tiff(np.round(RAMP * 4095).astype(np.uint16), bits=12, kind=1))
    assert_ramp(path)


@pytest.mark.parametrize("kind", ["8", "12", "16", "float"])
def test_where_white_is_zero(tmp_path: Path, kind: str) -> None:
    path, bits = tmp_path / "p.tif", 32 if kind == "float" else int(kind)
    white = 1 if kind == "float" else 2**bits - 1
    values = RAMP[:, ::-1] * white
    form = {"8": "u1", "float": "<f4"}.get(kind, "<u2")
    if kind != "float":
        values = np.round(values)
    path.write_bytes(tiff(values.astype(form), bits, kind=3 if kind == "float" else 1, white=0))
    if kind == "12":  # Pillow knows no such file.
        with pytest.raises(ValueError, match="Pillow reads no TIFF"):
            decode(path)
    else:
        assert_ramp(path)


def test_signed_pixels_of_eight_bits(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    path.write_bytes(tiff(np.round(RAMP * 127).astype("i1"), bits=8, kind=2))
    assert_ramp(path, most=2)
    path.write_bytes(tiff(np.array([[-7, 9]], "i1"), bits=8, kind=2))
    with pytest.raises(ValueError, match="integers down to -7; save them as 0 to 127"):
        decode(path)


def png(depth: int, kind: int, row: bytes, key: tuple[int, ...]) -> bytes:
    """A PNG of one row with a colour that is transparent, which Pillow does not write."""

    def chunk(name: bytes, data: bytes) -> bytes:
        crc = zlib.crc32(name + data)
        return len(data).to_bytes(4, "big") + name + data + crc.to_bytes(4, "big")

    header = (2).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes([depth, kind, 0, 0, 0])
    transparent = b"".join(value.to_bytes(2, "big") for value in key)
    parts = [(b"IHDR", header), (b"tRNS", transparent), (b"IDAT", zlib.compress(b"\0" + row))]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in [*parts, (b"IEND", b"")])


@pytest.mark.parametrize(
    ("depth", "kind", "row", "key", "opaque"),
    [
        (1, 0, b"\x40", (1,), 0),
        (2, 0, b"\x60", (2,), 85),
        (4, 0, b"\x37", (7,), 51),
        (8, 0, b"\x33\x64", (100,), 51),
        (16, 0, b"\x33\x33\x03\xe8", (1000,), 51),
        (8, 2, b"\x33\x33\x33\1\2\3", (1, 2, 3), 51),
        (16, 2, b"\x33\x33" * 3 + b"\x03\xe8" * 3, (1000, 1000, 1000), 51),
    ],
)
def test_a_colour_that_is_transparent_is_white(
    tmp_path: Path, depth: int, kind: int, row: bytes, key: tuple[int, ...], opaque: int
) -> None:
    path = tmp_path / "p.png"
    path.write_bytes(png(depth, kind, row, key))
    assert np.asarray(decode(path)).tolist() == [[[opaque] * 3, [255] * 3]]


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_a_picture_that_is_all_transparent_is_left_out(tmp_path: Path, mode: str) -> None:
    image = Image.new(mode, (4, 4))
    image.save(tmp_path / "p.png")
    with pytest.raises(ValueError, match="every pixel is transparent"):
        decode(tmp_path / "p.png")
    image.putpixel((0, 0), (0,) * (len(mode) - 1) + (255,))
    image.save(tmp_path / "p.png")
    assert np.unique(np.asarray(decode(tmp_path / "p.png"))).tolist() == [0, 255]


def test_a_file_that_may_not_be_read_has_a_reason_in_words(tmp_path: Path) -> None:
    (tmp_path / "p.png").mkdir()
    with pytest.raises(ValueError, match=r"^Is a directory$"):
        decode(tmp_path / "p.png")


def test_doubles_are_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "p.tif").write_bytes(tiff(RAMP, bits=64, kind=3))
    with pytest.raises(ValueError, match="Pillow reads no TIFF file of 64-bit numbers"):
        decode(tmp_path / "p.tif")


def test_integers_that_would_be_black_or_negative_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "p.tif"
    Image.fromarray(np.array([[0, 255]], np.int32)).save(path)
    with pytest.raises(ValueError, match="32-bit integers up to 255 are black"):
        decode(path)
    path.write_bytes(tiff(np.array([[-7, 9]], "<i2"), bits=16, kind=2))
    with pytest.raises(ValueError, match="integers down to -7"):
        decode(path)


def test_a_picture_is_what_it_was_before(tmp_path: Path) -> None:
    """The digests of the arrays that earlier versions computed."""
    values = np.arange(48 * 64 * 3, dtype=np.uint32).reshape(48, 64, 3) * 2654435761 >> 24
    image = Image.fromarray(values.astype(np.uint8))
    image.save(tmp_path / "rgb.png")
    assert np.array_equal(np.asarray(decode(tmp_path / "rgb.png")), values)
    deep = (values[..., 0] * 256 + values[..., 1]).astype(np.uint16)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    expected = (deep.astype(np.float64) / 65535 * 255).astype(np.uint8)
    assert np.array_equal(np.asarray(decode(tmp_path / "deep.png"))[..., 1], expected)
    for mode, suffix in (("L", "png"), ("P", "gif"), ("CMYK", "jpg"), ("LA", "png"), ("1", "tif")):
        image.convert(mode).save(tmp_path / f"x.{suffix}")
        with Image.open(tmp_path / f"x.{suffix}") as opened:
            same = opened.convert("RGB") if mode != "LA" else opened.convert("L").convert("RGB")
        assert np.array_equal(np.asarray(decode(tmp_path / f"x.{suffix}")), np.asarray(same))


def large(path: Path, **options: object) -> Path:
    """Save a picture of 200 megapixels that is dark on the left and bright on the right."""
    row = (np.arange(20_000) // 79).astype(np.uint8)
    image = Image.fromarray(np.broadcast_to(row, (10_000, 20_000)).copy())
    image.save(path, **options)  # type: ignore[arg-type]
    return path


def test_a_panorama_is_decoded_at_a_smaller_size(tmp_path: Path) -> None:
    image = decode(large(tmp_path / "p.jpg", quality=30), 100)
    assert image.size == (10_000, 4_950)  # 100 rows of the file are 50 rows now.
    pixels = [image.getpixel((x, 2000)) for x in (0, 5_000, 9_999)]
    assert [p[0] for p in pixels if isinstance(p, tuple)] == pytest.approx([0, 126, 253], abs=3)
    assert Image.MAX_IMAGE_PIXELS is not None, "Pillow still refuses other large pictures"
    other = large(tmp_path / "p.png", compress_level=1)
    with pytest.raises(ValueError, match="PNG do not fit into 1 GiB of memory, and only JPEG"):
        decode(other)


def test_what_needs_too_much_memory_is_left_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_MOST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    image = Image.fromarray(np.round(RAMP * 255).astype(np.uint8)).convert("RGB")
    image.save(tmp_path / "p.jpg", progressive=True, subsampling=0)
    assert decode(tmp_path / "p.jpg").size == (32, 24)
    # All coefficients, of 2 bytes, and at least 1/8 of the size.
    least = 64 * 48 * 3 * 2 + 12 * 8 * 6
    monkeypatch.setattr(decoding, "_MOST_MEMORY", least)
    assert decode(tmp_path / "p.jpg").size == (8, 6)
    monkeypatch.setattr(decoding, "_MOST_MEMORY", least - 1)
    with pytest.raises(ValueError, match="64 x 48 pixels of JPEG do not fit into 1 GiB"):
        decode(tmp_path / "p.jpg")


def test_one_large_picture_is_decoded_at_a_time(tmp_path: Path) -> None:
    """Another process waits, and goes on when the lock is free or its owner is gone."""
    image = Image.fromarray(np.round(RAMP * 255).astype(np.uint8))
    image.save(tmp_path / "p.jpg")
    code = (
        "import sys; from pathlib import Path; from PIL import Image\n"
        "from deep_cnn.data import decoding\n"
        "decoding._MOST_PIXELS = Image.MAX_IMAGE_PIXELS = 1000\n"
        "print('begun', flush=True)\n"
        "print(decoding.decode(Path(sys.argv[1])).size, flush=True)"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "p.jpg")]
    environ = environment(TMPDIR=str(tmp_path))
    subprocess.run(words, env=environ, check=True, capture_output=True)
    (lock,) = tmp_path.glob("deep_cnn-large-picture-*.lock")
    with FileLock(lock):
        process = subprocess.Popen(words, env=environ, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == "begun\n"
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(1.0)
    assert process.communicate(timeout=60)[0] == "(32, 24)\n"


def test_large_pictures_in_threads_are_all_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(decoding, "_MOST_PIXELS", 1000)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    names = tuple(f"{i}.jpg" for i in range(40))
    for i, name in enumerate(names):
        image = Image.fromarray(np.round(RAMP * 255).astype(np.uint8))
        image.resize((20, 20) if i % 2 else (64, 48)).save(tmp_path / name)
    files = [tmp_path / name for name in names]
    assert find_unreadable(Examples(names, files, np.zeros(40), np.ones(40))) == {}
    assert Image.MAX_IMAGE_PIXELS == 500
