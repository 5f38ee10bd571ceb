"""Frames, boxes and pyramid cells: the numbers that every half-pixel bug is made of."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fvlrp.fisher.geometry import Geometry, axis_cell, box


def test_a_photograph_of_the_preset_has_73866_descriptors():
    geometry = Geometry(375, 500)
    assert [scale.count for scale in geometry.scales] == [18880, 18603, 18328, 18055]
    assert geometry.n == 73866 and geometry.frames.shape == (73866, 3)


def test_all_scales_share_their_first_bin_centre():
    for scale in Geometry(200, 300).scales:
        assert scale.centres(0)[0] == scale.centres(1)[0] == 15
    assert [scale.first for scale in Geometry(200, 300).scales] == [9, 6, 3, 0]


def test_rows_follow_bin_sizes_then_y_then_x():
    frames = Geometry(40, 50, (4, 6), 5).frames
    np.testing.assert_array_equal(np.lexsort((frames[:, 1], frames[:, 0], frames[:, 2])), np.arange(len(frames)))
    first, second = Geometry(40, 50, (4, 6), 5).scales
    np.testing.assert_array_equal(frames[second.slice][0], [9, 9, 6])
    np.testing.assert_array_equal(frames[first.slice][1] - frames[first.slice][0], [0, 5, 0])


sizes = st.lists(st.integers(1, 12), min_size=1, max_size=4).map(tuple)


@given(st.integers(1, 90), st.integers(1, 90), sizes, st.integers(1, 9))
def test_every_bin_centre_lies_inside_and_one_more_frame_would_not(height, width, bin_sizes, step):
    for scale in Geometry(height, width, bin_sizes, step).scales:
        if scale.count == 0:
            assert scale.first + 3 * scale.bin_size > min(height, width) - 1
            continue
        for axis, length in ((0, height), (1, width)):
            last = scale.corners(axis) + 3 * scale.bin_size
            assert scale.corners(axis)[0] >= 0 and last[-1] <= length - 1 < last[-1] + step


@given(st.integers(1, 60), sizes)
def test_smallest_side_is_the_smallest_that_fits(side, bin_sizes):
    assert (Geometry(side, side, bin_sizes).n > 0) == (side >= Geometry.smallest_side(bin_sizes))


@pytest.mark.parametrize("bin_size", (3, 4, 6, 7, 10))
def test_boxes_of_neighbouring_bins_tile(bin_size):
    low, high = box(bin_size)
    covered = np.concatenate([np.arange(bin_size * i + low, bin_size * i + high) for i in range(4)])
    np.testing.assert_array_equal(covered, np.arange(covered[0], covered[0] + 4 * bin_size))
    assert low <= 0 < high


def test_cells_count_from_one_as_enceval_does():
    # length 10, halves: the centre 4 is pixel 5 of 10, in the first half; 4.5 is already in the second
    np.testing.assert_array_equal(axis_cell(np.array([0, 4, 4.5, 5, 9]), 2, 10), [0, 0, 1, 1, 1])
    # length 9, thirds: 2 is pixel 3 of 9; floor(c n / length) would put 3 pixels elsewhere
    np.testing.assert_array_equal(axis_cell(np.arange(9.0), 3, 9), [0, 0, 0, 1, 1, 1, 2, 2, 2])
    np.testing.assert_array_equal(axis_cell(np.array([9.4]), 2, 10), [1])  # never beyond the last cell


def test_cells_are_x_major_and_levels_follow_one_another():
    geometry = Geometry(60, 60)
    cells = geometry.cells(((2, 2), (3, 1), (1, 1)))
    y, x = geometry.frames[:, 0], geometry.frames[:, 1]
    assert set(cells[:, 0]) == {0, 1, 2, 3} and set(cells[:, 1]) == {4, 5, 6} and set(cells[:, 2]) == {7}
    np.testing.assert_array_equal(cells[:, 0], 2 * (x + 1 > 30) + (y + 1 > 30))
    np.testing.assert_array_equal(cells[:, 1], 4 + (y + 1 > 20).astype(int) + (y + 1 > 40))


def test_no_frames_means_empty_arrays():
    geometry = Geometry(10, 500)
    assert geometry.n == 0 and geometry.frames.shape == (0, 3) and len(geometry.cell_of(2, 2)) == 0
