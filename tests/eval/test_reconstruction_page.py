"""Borders of a blurred rendering are soft, and the words about the ceiling follow the numbers."""

import numpy as np
import pandas as pd
import pytest
import torch
from scipy.ndimage import gaussian_filter

from eval.reconstruction.page import SLOPE, ceiling_words, scores_at_borders
from medil.volume import Volume


@pytest.fixture
def ball(grid) -> Volume:
    grid = grid.resized((24, 24, 24))
    apart = np.indices(grid.shape) - 11.5
    return Volume(torch.from_numpy(1.0 * (np.sqrt((apart**2).sum(0)) < 8)), grid)


def test_a_blurred_rendering_has_softer_borders_than_the_scan_itself(ball):
    soft = ball.with_data(torch.from_numpy(gaussian_filter(ball.data.numpy(), 1.5)))
    everywhere = np.ones(ball.grid.shape, dtype=bool)
    scores = scores_at_borders({"itself": ball, "blurred": soft}, ball, everywhere)
    assert scores[SLOPE]["itself"] == pytest.approx(1)
    assert scores[SLOPE]["blurred"] < 0.9
    assert scores["Gradient error"]["itself"] == 0 < scores["Gradient error"]["blurred"]


@pytest.mark.parametrize(
    ("slope", "history", "words"),
    [
        (0.7, [4.0, 3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0], ("**No.**", "levelled off")),
        (0.99, [4.0, 3.5, 3.0, 2.5, 2.0, 1.5, 1.0, 0.5], ("Here the decoder can", "still gained")),
    ],
)
def test_words_about_the_ceiling_follow_the_numbers(slope, history, words):
    scores = pd.DataFrame({"PSNR (dB)": [20.0, 25.0, 26.5], SLOPE: [0.4, 0.5, slope]})
    told = ceiling_words(scores, history)
    assert f"{len(history) - 1} steps moved PSNR by +1.50 dB" in told
    assert all(part in told for part in words)
