"""The kernel of the demo: bands give the bytes of the whole, and its features mean what they say."""

import numpy as np
import pytest

pytest.importorskip("skimage")

from shoal.cli.features import FEATURES, PER_SCALE, SIGMAS, Bytes, bands, collection, features, photographs

REACH = int(3 * max(SIGMAS)) + 2


@pytest.fixture(scope="module")
def cat() -> Bytes:
    """The smallest photograph: 300 rows of 451 pixels."""
    return min(photographs(), key=lambda photo: photo.size)


def whole(photo: Bytes) -> Bytes:
    height, width = photo.shape[:2]
    out = np.empty((height * width, FEATURES), np.uint8)
    features(photo, 0, height, out)
    return out


@pytest.mark.parametrize("rows", [1, 2, REACH - 1, 64, 299, 300, 1000])
def test_bands_of_any_height_give_the_bytes_of_the_whole(cat: Bytes, rows: int) -> None:
    photo = cat[:70] if rows < REACH else cat
    expected = whole(photo)
    out = np.zeros_like(expected)
    for band in bands([photo], rows):
        features(photo, band.first, band.last, out[band.pixels])
    np.testing.assert_array_equal(out, expected)


def test_bands_cover_every_pixel_of_every_photograph_once() -> None:
    photos = photographs()
    covered = np.zeros(sum(photo[:, :, 0].size for photo in photos), np.uint8)
    for band in bands(photos):
        assert band.pixels.stop - band.pixels.start == (band.last - band.first) * photos[band.photo].shape[1]
        covered[band.pixels] += 1
    assert (covered == 1).all()


def test_a_flat_photograph_has_no_edges_and_no_blobs() -> None:
    flat = np.full((40, 40, 3), 77, np.uint8)
    per_scale = whole(flat).reshape(-1, PER_SCALE)
    assert (per_scale == [77, 0, 128, 128]).all()


def test_an_edge_is_found_where_it_is() -> None:
    photo = np.zeros((64, 64, 3), np.uint8)
    photo[:, 32:] = 255
    edges = whole(photo).reshape(64, 64, 3, len(SIGMAS), PER_SCALE)[:, :, :, :, 1]
    assert (edges[:, 31:33] > 80).all()
    assert (edges[:, :4, :, :2] == 0).all()


def test_a_bright_spot_has_two_negative_curvatures() -> None:
    photo = np.zeros((65, 65, 3), np.uint8)
    photo[31:34, 31:34] = 255
    first, second = whole(photo).reshape(65, 65, 3, len(SIGMAS), PER_SCALE)[32, 32, 0, 0, 2:]
    assert first < 128 and second < 128


@pytest.mark.parametrize("size", [1, 48, 10**6, 3 * 10**8])
def test_a_collection_has_the_size_asked_for_and_at_most_a_row_more(size: int) -> None:
    photos = collection(size)
    got = sum(photo[:, :, 0].size for photo in photos) * FEATURES
    assert size <= got < size + photos[-1].shape[1] * FEATURES


@pytest.mark.parametrize("size", [0, -1])
def test_a_collection_of_no_size_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="size must be a positive number of bytes"):
        collection(size)


def test_an_output_that_would_be_copied_is_refused(cat: Bytes) -> None:
    height, width = cat.shape[:2]
    strided = np.empty((height * width, FEATURES * 2), np.uint8)[:, ::2]
    with pytest.raises(ValueError, match="out must be a C-contiguous"):
        features(cat, 0, height, strided)


@pytest.mark.parametrize(("first", "last"), [(-1, 5), (5, 5), (0, 301)])
def test_rows_that_the_photograph_does_not_have_are_refused(cat: Bytes, first: int, last: int) -> None:
    with pytest.raises(ValueError, match="must lie within its 300 rows"):
        features(cat, first, last, np.empty((5 * cat.shape[1], FEATURES), np.uint8))
