"""The adapter: every arm keeps what it says, renders where it is asked, and travels."""

from __future__ import annotations

from dataclasses import replace

import cloudpickle
import numpy as np
import pytest
import torch

from eval.coders import base as coders
from eval.coders.base import CodecCoder, Interpolation, Kept
from eval.coders.neighbours import NAME as NEIGHBOURS
from medil.config import preset
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.codecs import CODECS
from medil.model.rivals import build
from medil.model.weights import save_weights
from medil.volume import Volume


@pytest.fixture
def weights(tmp_path, spline_model) -> str:
    """The silenced model in a file, as a user's weights would be."""
    path = save_weights(spline_model, preset("test"), tmp_path / "m.safetensors", {}, half=False)
    return str(path)


@pytest.fixture
def ball(rng) -> Volume:
    """A smooth ball in an uneven box of 1 mm voxels, in scanner units."""
    grid = Grid.from_spacing((25, 22, 23), 1.0, origin_mm=(-9, 5, 30))
    far = np.linalg.norm(centres_mm(grid).numpy() - grid.centre_mm, axis=-1)
    return Volume(torch.from_numpy(900 / (1 + np.exp(far - 8))).float(), grid)


def test_weights_of_a_rival_are_refused(tmp_path):
    config = preset("test")
    config = replace(config, model=replace(config.model, architecture="resizing"))
    path = save_weights(build(config.model), config, tmp_path / "rival.safetensors", {})
    with pytest.raises(InputError, match="the rival 'resizing'"):
        coders.release_coders(str(path))


def test_every_codec_keeps_at_least_as_many_numbers_as_the_latent(weights, ball):
    arms = {a.name: a for a in coders.all_coders(weights)}
    assert set(arms) == {"medil_m", "medil_m_splines", *CODECS, NEIGHBOURS, "interpolation", "scan"}
    kept = {name: arm.encode(ball).numbers for name, arm in arms.items()}
    assert kept["medil_m"] == 8 * 7 * 6 * 6  # ceil of 25, 22, 23 mm over 4 mm, 8 channels
    assert kept["interpolation"] == ball.grid.n_voxels
    for name in CODECS:
        assert kept["medil_m"] <= kept[name] <= 1.1 * kept["medil_m"]
    assert kept["dct_ball"] == kept["dct_cube"] == kept[NEIGHBOURS] == kept["medil_m"]
    assert all(arm.kind in coders.KINDS and arm.title for arm in arms.values())


def test_a_code_that_is_fitted_for_one_size_is_left_out_at_others():
    own, other = ({c.name for c in coders.codec_coders(mm, 8)} for mm in (4.0, 3.0))
    assert own == {*CODECS, NEIGHBOURS} and other == {*CODECS}


@pytest.mark.parametrize("spacing_mm", [0.8, 1.0, 2.0])
def test_every_arm_renders_the_ball_where_it_lies(weights, ball, spacing_mm):
    target = ball.grid.with_spacing(spacing_mm)
    place = centres_mm(target).numpy()
    for arm in coders.all_coders(weights):
        data = arm.decode(arm.encode(ball), target)
        assert data.shape == target.shape and data.dtype == np.float64
        inside = np.clip(data, 0, None)
        centre = (inside[..., None] * place).sum((0, 1, 2)) / inside.sum()
        np.testing.assert_allclose(centre, ball.grid.centre_mm, atol=0.3, err_msg=arm.name)
        volume_mm3 = (data > 450).sum() * np.prod(target.spacing_mm)
        assert volume_mm3 == pytest.approx(4 / 3 * np.pi * 8**3, rel=0.12), arm.name


def test_network_and_splines_share_one_latent_and_a_silent_network_adds_nothing(weights, ball):
    network, splines = coders.release_coders(weights)
    assert network.encoding == splines.encoding
    kept = network.encode(ball)
    same = splines.decode(kept, ball.grid)
    np.testing.assert_allclose(network.decode(kept, ball.grid), same, atol=1e-2)


def test_coders_travel_to_another_process_and_keep_their_hash(weights, ball):
    for arm in coders.all_coders(weights):
        again = cloudpickle.loads(cloudpickle.dumps(arm))
        assert again.config_hash("v") == arm.config_hash("v") != arm.config_hash("w")
        kept = again.encode(ball)
        np.testing.assert_array_equal(
            again.decode(kept, ball.grid), arm.decode(arm.encode(ball), ball.grid)
        )


MINE = """
from __future__ import annotations
from dataclasses import dataclass
from eval.coders.base import Coder, Kept

@dataclass
class Mean(Coder):
    name: str = "mean"
    title: str = "The mean alone"
    conditions: tuple[str, ...] | None = None

    def encode(self, volume):
        return Kept(float(volume.data.mean()), 1)

    def decode(self, kept, grid):
        import numpy as np
        return np.full(grid.shape, kept.what)

def make():
    return Mean()
"""


def test_a_user_s_coder_comes_from_a_file_and_travels(tmp_path, ball):
    (tmp_path / "mine.py").write_text(MINE)
    (found,) = coders.coders_from(f"{tmp_path / 'mine.py'}:make")
    again = cloudpickle.loads(cloudpickle.dumps(found))
    kept = again.encode(ball)
    assert kept.numbers == 1
    assert again.decode(kept, ball.grid).mean() == pytest.approx(float(ball.data.mean()))


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("mine.py:make", "a file that exists"),
        ("{folder}/mine.py:none", "has no attribute 'none'"),
        ("{folder}/mine.py:MINE", "not callable"),
        ("{folder}/broken.py:make", "ModuleNotFoundError"),
        ("{folder}/mine.py:number", "must give eval.coders.base.Coder"),
    ],
)
def test_a_file_that_gives_no_coder_is_refused_in_a_sentence(tmp_path, text, told):
    (tmp_path / "mine.py").write_text("MINE = 1\ndef number():\n    return 1\n")
    (tmp_path / "broken.py").write_text("import no_such_module\n")
    with pytest.raises(InputError, match=told):
        coders.coders_from(text.format(folder=tmp_path))


def test_unknown_codecs_and_missing_closed_forms_are_refused():
    with pytest.raises(InputError, match="there is no codec"):
        CodecCoder("jpeg", 4.0, 8)
    assert Interpolation().conditions and isinstance(Kept(None, 1).numbers, int)


@pytest.mark.parametrize("spacing_mm", [1.0, (0.7, 0.9, 1.6)])
def test_monai_s_autoencoder_meets_any_grid_through_its_own(tmp_path, spacing_mm):
    """With one convolution each way set to averaging, what comes back is known."""
    nets = pytest.importorskip("monai.networks.nets")
    from safetensors.torch import save_file

    from eval.coders.monai import MonaiCoder

    shape = dict(
        spatial_dims=3, in_channels=1, out_channels=1, channels=(8, 8), num_res_blocks=(1, 1),
        latent_channels=2, attention_levels=(False, False), norm_num_groups=4,
        with_encoder_nonlocal_attn=False, with_decoder_nonlocal_attn=False,
    )  # fmt: skip
    torch.manual_seed(0)
    net = nets.AutoencoderKL(**shape).eval()
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    coder = MonaiCoder("kl", shape, tmp_path / "net.safetensors", working_mm=1.0)
    grid = Grid.from_spacing((13, 14, 11), spacing_mm, origin_mm=(3, -4, 5))
    volume = Volume(torch.rand(grid.shape) * 500, grid)
    kept = coder.encode(volume)
    mean, working, intensity = kept.what
    assert kept.numbers == 2 * np.prod([n // 2 for n in working.shape])
    assert all(n % 2 == 0 for n in working.shape)
    assert working.spacing_mm == pytest.approx(tuple(grid.covering(1.0).spacing_mm))
    with torch.inference_mode():
        by_hand = intensity.inverse(net.decode(mean)[0, 0]).double().numpy()
    np.testing.assert_allclose(coder.decode(kept, working), by_hand, atol=1e-3)
    assert coder.decode(kept, grid).shape == grid.shape
    with pytest.raises(InputError, match="no weights"):
        MonaiCoder("kl", shape, tmp_path / "none.safetensors", 1.0)
    wrong = MonaiCoder("kl", shape | {"latent_channels": 3}, tmp_path / "net.safetensors", 1.0)
    with pytest.raises(InputError, match="does not fit"):
        wrong.encode(volume)


def test_weights_in_a_file_have_an_arm_of_their_own():
    paths = ("runs/a.safetensors", "runs/My run/weights.safetensors", "base.safetensors")
    names = [coders.release_arm(name) for name in ("tiny", "base", *paths, "x_splines.safetensors")]
    own = ["medil_a", "medil_my_run", "medil_base_weights", "medil_x_splines_weights"]
    assert names == ["medil", "medil_base", *own]
    assert coders.models([*names, "medil_splines", "dct_ball", "copy"]) == sorted(names)
    titles = [coders.title_of(arm) for arm in ("medil_my_run", "medil_base_splines", "copy")]
    assert titles == ["MedIL my_run", "MedIL base, splines alone", "copy"]
    kinds = [coders.kind_of(arm) for arm in ("medil_a", "medil_a_splines", "dct_best", "copy")]
    assert kinds == ["learned", "network left out", "oracle, not a rival", "other"]
