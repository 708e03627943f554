"""Pictures at rest: exact PNG, and nothing but a picture or a sentence when read back."""

import io
from contextlib import suppress

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from gazetteer.data.core.errors import InputError
from gazetteer.data.tables.images import decode_image, encode_image, to_uint8

PIXELS = np.arange(24 * 16 * 3, dtype=np.uint32).astype(np.uint8).reshape(24, 16, 3)


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 12), st.integers(1, 12), st.just(3))))
def test_png_is_exact_and_deterministic(pixels):
    content = encode_image(pixels)
    assert content == encode_image(pixels.copy(order="F"))
    assert np.array_equal(decode_image(content), pixels)


def test_others_read_it():
    picture = Image.open(io.BytesIO(encode_image(PIXELS)))
    assert (picture.format, picture.size, picture.mode) == ("PNG", (16, 24), "RGB")


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_jpeg_and_webp_are_accepted(kind):
    stream = io.BytesIO()
    Image.fromarray(PIXELS).save(stream, format=kind)
    assert decode_image(stream.getvalue()).shape == (24, 16, 3)


def test_grey_and_palette_become_rgb():
    stream = io.BytesIO()
    Image.fromarray(PIXELS[:, :, 0]).save(stream, format="PNG")
    assert np.array_equal(decode_image(stream.getvalue()), np.repeat(PIXELS[:, :, :1], 3, axis=2))


def test_a_grey_picture_of_16_bits_keeps_its_greys() -> None:
    grey = (np.arange(64, dtype=np.uint16) * 1040).reshape(8, 8)  # from black to white, by far more than 255
    stream = io.BytesIO()
    Image.fromarray(grey).save(stream, "PNG")
    assert np.array_equal(decode_image(stream.getvalue())[..., 1], grey // 257)


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_is_noticed(data):
    """Any changed or missing byte of a PNG gives a sentence or, in a byte that says nothing, the same picture."""
    content = bytearray(encode_image(PIXELS))
    place = data.draw(st.integers(0, len(content) - 1))
    if data.draw(st.booleans()):
        content = content[:place]
    else:
        content[place] ^= data.draw(st.integers(1, 255))
    with suppress(InputError):
        assert np.array_equal(decode_image(bytes(content)), PIXELS)


@given(st.binary(max_size=200))
def test_noise_is_an_input_error(content):
    with pytest.raises(InputError):
        decode_image(content)


def test_a_picture_of_too_many_pixels_is_refused_before_it_is_unpacked():
    stream = io.BytesIO()
    Image.new("1", (9000, 9000)).save(stream, format="PNG")  # a few kilobytes that claim 81 Mpx
    with pytest.raises(InputError, match="9000"):
        decode_image(stream.getvalue())


@pytest.mark.parametrize("pixels", [PIXELS.astype(np.float32), PIXELS[:, :, 0], PIXELS[:, :, :2], PIXELS[:0]], ids=str)
def test_only_rgb_bytes_are_encoded(pixels):
    with pytest.raises(InputError, match="uint8"):
        encode_image(pixels)


def test_floats_become_the_nearest_of_256_levels_and_nothing_wraps_round():
    levels = np.arange(256, dtype=np.float32) / 255
    assert to_uint8(levels).tolist() == list(range(256))
    assert to_uint8(np.array([0.1 / 255, 0.9 / 255, 254.6 / 255])).tolist() == [0, 1, 255]
    for wrong in (np.nan, np.inf, -0.01, 1.01):
        with pytest.raises(ValueError, match="not finite or outside"):
            to_uint8(np.array([0.5, wrong]))
