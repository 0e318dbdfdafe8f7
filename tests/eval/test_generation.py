"""The evaluation of sampled heads: rulers on phantoms, copies, blur, control, whole rows."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eval.generation import (
    arms,
    measure,
    novelty,
    opinion,
    parts,
    rulers,
    samplers,
    scans,
    sets,
    sizes,
    volumes,
)
from eval.generation.report import agreement
from eval.rows import Provenance
from medil.anatomy.classes import NUMBER, LabelMap
from medil.anatomy.packed import packed_maps
from medil.config import preset
from medil.diffusion.appearance import AppearanceFlow, AppearanceStatistics
from medil.diffusion.config import APPEARANCE_PRESETS, AppearanceConfig
from medil.errors import InputError
from medil.grid import Grid, centres_mm
from medil.model.autoencoder import MedIL
from medil.synth.attributes import Spread
from medil.synth.box import box_grid
from medil.volume import Volume

SMALL = (40, 48, 40)


def phantom(half_mm=(9.0, 30.0, 11.0), scale=1.0, seed=None, shape=(80, 96, 80)):
    """An ellipsoid brain (CSF, grey, white) with two ellipsoid ventricles, at 2 mm."""
    origin = [1.0 - n for n in shape]
    points = centres_mm(Grid.from_spacing(shape, 2.0, origin)).numpy() / scale

    def within(half, centre=(0.0, 0.0, 0.0)):
        return (((points - centre) / half) ** 2).sum(-1) < 1

    rim = np.array([65.0, 83.0, 65.0])
    volume = 0.15 * within(rim) + 0.35 * within(rim - 5) + 0.3 * within(rim - 12)
    for side in (-1, 1):
        volume[within(np.array(half_mm), (14.0 * side, 5.0, 14.0))] = 0.15
    if seed is not None:
        noise = np.random.default_rng(seed).normal(size=shape)
        volume = volume + 0.3 * (volume > 0.1) * sets.blurred([noise], 2.0)[0]
    return volume.astype(np.float32)


def ellipsoid_ml(*half_mm):
    return 4 / 3 * np.pi * np.prod(half_mm) / 1000


@pytest.fixture(scope="module")
def brains():
    """Six heads that differ in size, ventricles and texture."""
    rng = np.random.default_rng(5)
    return np.stack(
        [phantom(rng.uniform(5, 12, 3) * (1, 3, 1), rng.uniform(0.44, 0.5), k, SMALL)
         for k in range(6)]
    )  # fmt: skip


# Rulers


@pytest.mark.parametrize("half_mm", [(6.0, 25.0, 8.0), (9.0, 30.0, 11.0), (11.0, 38.0, 14.0)])
def test_ventricles_of_known_volume_are_found_within_a_tenth(half_mm):
    volume = phantom(half_mm)
    found = rulers.ventricles_ml(volume, rulers.brain_mask(volume))
    assert found == pytest.approx(2 * ellipsoid_ml(*half_mm), rel=0.1)


def test_brain_and_contrast_of_a_phantom_are_its_own():
    volume = phantom()
    mask = rulers.brain_mask(volume)
    assert rulers.brain_ml(volume, mask) == pytest.approx(ellipsoid_ml(60, 78, 60), rel=0.02)
    assert rulers.contrast(volume, mask) == pytest.approx(0.8 / 0.5, rel=1e-5)


def test_each_ruler_follows_its_line():
    volume = phantom()
    mask = rulers.brain_mask(volume)
    rules = (rulers.ventricles_ml, rulers.brain_ml, rulers.contrast)
    measured = rulers.measure_attributes(volume)
    assert list(measured) == list(rulers.LINES)
    for rule, (name, (slope, offset)) in zip(rules, rulers.LINES.items(), strict=True):
        assert measured[name] == pytest.approx(slope * rule(volume, mask) + offset)
    assert rulers.contrast(np.ones((9, 9, 9)), np.ones((9, 9, 9), bool)) == 1


def test_a_brain_without_ventricles_has_none_and_an_empty_box_no_brain():
    volume = phantom((0.1, 0.1, 0.1))
    assert rulers.ventricles_ml(volume, rulers.brain_mask(volume)) == 0
    with pytest.raises(InputError, match="no brain"):
        rulers.brain_mask(np.zeros((4, 4, 4)))


# Copies


def test_a_copy_is_flagged_and_a_fresh_head_is_not():
    rng = np.random.default_rng(0)
    maps, own, fresh = rng.random((15, 8, 8, 8)), rng.random((30, 8, 8, 8)), rng.random((8, 8, 8))
    learned = np.repeat(maps, 2, axis=0) + 0.5 * own  # two heads on every label map
    near = learned[3] + 1e-3 * rng.random((8, 8, 8))
    for volume, percent in ((learned[7], 100), (near, 100), (fresh, 0)):
        assert sets.memorisation([volume], learned)["copies_percent"] == percent
    values = sets.memorisation(np.stack([learned[7], near, fresh]), learned)
    assert values["copies_percent"] == values["flagged_percent"] == pytest.approx(200 / 3)
    assert set(values) == set(sets.COPIES)


def test_a_dull_head_is_near_to_everybody_and_yet_no_copy():
    learned = np.random.default_rng(0).random((30, 8, 8, 8))
    values = sets.memorisation([learned.mean(0)], learned)
    assert values["flagged_percent"] == 100 and values["copies_percent"] == 0


def test_distances_are_rms_differences_of_blocks():
    a, b = np.zeros((1, 4, 4, 4)), np.full((2, 4, 4, 4), 0.5)
    b[1, ::2] = -0.5  # blocks of 4 mm average it away
    assert sets.distances(a, b) == pytest.approx(np.array([[0.5, 0.0]]))


# Blur, and sets


def test_blur_makes_heads_alike_for_ms_ssim_and_leaves_their_shapes_apart(brains):
    reference, mask = sets.describe(brains), sets.common_mask(brains)
    soft = sets.blurred(brains, 1.0)
    plain = sets.compare(reference, reference, brains, mask)
    blurred = sets.compare(reference, sets.describe(soft), soft, mask)
    assert blurred["ms_ssim"] > plain["ms_ssim"] + 0.01
    assert blurred["power_4_8_db"] < -2 < plain["power_4_8_db"]
    assert plain["shape_spread"] == pytest.approx(1)
    assert blurred["shape_spread"] == pytest.approx(1, abs=0.1)


def test_a_set_compared_with_itself_has_no_distance(brains):
    found = sets.describe(brains)
    values = sets.compare(found, found, brains, sets.common_mask(brains))
    assert tuple(values) == tuple(sets.UNITS)
    for name in ("frechet", "power_16_32_db", "power_4_8_db", "tissue_distance"):
        assert values[name] == pytest.approx(0, abs=1e-6)
    assert [values[n] for n in ("precision", "recall", "coverage")] == [1, 1, 1]


def test_a_gaussian_lowers_a_wave_by_its_transfer_function():
    x = np.arange(64) * 2.0
    wave = np.broadcast_to(np.cos(2 * np.pi * x / 8)[:, None, None], (64, 4, 4))
    soft = sets.blurred([wave], 1.5)[0]
    assert soft == pytest.approx(wave * np.exp(-0.5 * (2 * np.pi * 1.5 / 8) ** 2), abs=1e-5)


def test_the_blur_that_matches_sharpness_is_the_one_that_was_made(brains):
    aim = sets.describe(sets.blurred(brains[:2], 1.2)).power[:, sets.SHARP_BAND].mean()
    assert sets.blur_to_match(brains[:2], aim) == pytest.approx(1.2, abs=0.1)
    assert sets.blur_to_match(brains[:2], 1e9) == 0


def test_averages_over_coarser_voxels_keep_the_mean_and_a_ramp():
    ramp = np.broadcast_to(np.arange(9.0)[:, None, None], (9, 6, 6))
    coarse = volumes.averaged(ramp, (6, 3, 2))
    assert coarse.shape == (6, 3, 2) and coarse.mean() == pytest.approx(ramp.mean())
    thirds = np.array([1, 5, 10, 14, 19, 23]) / 3  # a voxel and a half in each
    assert coarse[:, 0, 0] == pytest.approx(thirds)
    assert volumes.averaged(ramp, (3, 3, 3))[:, 0, 0] == pytest.approx([1, 4, 7])


def test_two_renderings_are_compared_in_units_of_two_samples():
    coarse = [np.zeros((2, 2, 2)), np.full((2, 2, 2), 0.5)]
    found = parts.renderings(coarse, [c + 0.05 for c in coarse])
    assert found["renderings_ratio"] == pytest.approx(10)
    assert parts.renderings(coarse, coarse)["renderings_ratio"] == np.inf


# Control


def test_agreement_of_known_pairs():
    asked = np.array([1.0, 2, 3, 4])
    exact = agreement(asked, 2 * asked + 1)
    assert exact["r2"] == pytest.approx(1) and exact["slope"] == pytest.approx(2)
    assert exact["bias"] == pytest.approx(3.5)
    assert exact["rms"] == pytest.approx(np.sqrt(np.mean((asked + 1) ** 2)))
    noisy = agreement(asked, np.array([1.0, -1, -1, 1]))
    assert noisy["r2"] == pytest.approx(0) and noisy["slope"] == pytest.approx(0)
    assert np.isnan(agreement(np.ones(3), asked[:3])["r2"])


# Rendering, and whole rows with a flow that is made up


def test_slabs_and_the_whole_are_the_same_rendering(monkeypatch):
    torch.manual_seed(0)
    model = MedIL(preset("test").model).eval()
    cells = Grid.from_spacing((6, 6, 6), 4.0)
    target = cells.with_spacing(2.0)
    z = torch.randn(8, 6, 6, 6)
    whole = samplers.render(model, z, cells, target)
    monkeypatch.setattr(samplers, "MOST_VOXELS", 5 * 12 * 12)
    assert whole.shape == (12, 12, 12)
    assert samplers.render(model, z, cells, target) == pytest.approx(whole, abs=0.02)


def test_a_set_is_made_once_and_read_back(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = []

    def make():
        made.append(1)
        return volumes.Heads(np.full((1, 2, 2, 2), 0.25, np.float32), [{"brain": 1.5}])

    first, again = (volumes._kept(["x", 1], make) for _ in range(2))
    assert len(made) == 1 and again.known == first.known == [{"brain": 1.5}]
    assert (again.volumes == 0.25).all() and again.latents is None


@pytest.fixture
def made_up(monkeypatch, brains):
    """Every set is the phantoms; autoencoder and flow are names alone."""
    known = [{"ventricles": 10.0 + k, "brain": 100.0, "contrast": 1.4} for k in range(6)]
    latents = np.zeros((4, 8, 2, 2, 2), np.float32)
    heads = volumes.Heads(brains, known, latents)
    for name in ("held_out", "training", "rebuilt", "sampled", "of_one_map"):
        for module in (parts, opinion):
            monkeypatch.setattr(module, name, lambda *_: heads, raising=False)
    monkeypatch.setattr(opinion, "network_or_none", lambda: "a network")
    monkeypatch.setattr(opinion, "trunk_features", lambda volume, *_: volume.mean((0, 1)))
    monkeypatch.setattr(parts, "held_out_brains", lambda: [SimpleNamespace(name="sub-01")])
    monkeypatch.setattr(parts, "name_of", lambda entry: entry.name)
    pair = {"asked": 20.0, "measured": 21.0}
    monkeypatch.setattr(parts, "_real_ruler", lambda entry: [pair] * len(parts.MEASURED))
    monkeypatch.setattr(parts, "render", lambda *_: np.full((80, 96, 80), 0.5))
    monkeypatch.setattr(parts, "grid", lambda: SimpleNamespace(shape=SMALL))
    monkeypatch.setattr(parts, "spread_values", lambda *_: [20.0, 40.0, 60.0])
    model = SimpleNamespace(weights_id="abc")
    model.config = SimpleNamespace(latent_spacing_mm=4.0, latent_channels=8)
    flow = SimpleNamespace(weights_id="abc", facts={"step": 9, "cpu_s": 30.0})
    for module in (parts, measure):
        monkeypatch.setattr(module, "autoencoder", lambda *_: model)
        monkeypatch.setattr(module, "sampler", lambda *_: flow)
    found = dict.fromkeys(scans.UNITS, 0.5)
    nearest = dict.fromkeys(scans.NEAREST, 0.5)
    monkeypatch.setattr(scans, "_floor", lambda index: [found])
    monkeypatch.setattr(scans, "_shown", lambda seed: [found | nearest])
    monkeypatch.setattr(scans, "_asked", lambda seed, ml: [{"asked": ml, "measured": ml}])
    new = dict.fromkeys(novelty.UNITS, 0.5)
    monkeypatch.setattr(novelty, "_judged", lambda maps, size: new)
    monkeypatch.setattr(novelty, "_of_heads", lambda split, n: [])
    monkeypatch.setattr(novelty, "draw_anatomy", lambda seed, bends: SimpleNamespace(tissues=None))
    monkeypatch.setattr(novelty, "drawn_map", lambda seed: None)
    monkeypatch.setattr(measure, "label_map_paths", lambda split: [SimpleNamespace(name=split)])
    names = ("anatomy", "image-only", "image-only-alike", "integrated", "conv-1mm")
    few_sizes = sizes.Sizes(names, 6, 6, 6, 2, 1, 3, 2, (1.0, 2.0), ("brain",), 1, 1, 2)
    monkeypatch.setitem(sizes.SIZES, "quick", few_sizes)
    parts._reference.cache_clear()
    yield
    parts._reference.cache_clear()


def asked(**changes) -> SimpleNamespace:
    usual = {"profile": "quick", "release": "tiny", "arms": (), "parts": tuple(measure.PARTS)}
    return SimpleNamespace(**usual | changes)


@pytest.mark.parametrize("part", measure.PARTS)
def test_every_task_gives_the_rows_that_it_promised(made_up, part):
    promised = measure.tasks(asked(parts=[part]), Provenance.now("quick"))
    assert promised
    assert len({i for t in promised for i in t.wanted}) == sum(len(t.wanted) for t in promised)
    for task in promised:
        found = task.measure()
        assert {r.identity for r in found} == task.wanted
        assert all(r.to_record() for r in found)


def test_maps_are_painted_in_the_greys_of_their_tissues():
    labels = torch.zeros(160, 192, 160, dtype=torch.uint8)
    labels[:, :, 80:] = NUMBER["white matter"]
    labels[:, 96:, 80:] = NUMBER["cortex"]
    labels[40:, :, 80:] = NUMBER["csf"]
    seen = novelty.painted(LabelMap(labels, box_grid(1.0)))
    assert seen.shape == (80, 96, 80) and (seen[..., :40] == 0).all()
    greys = [float(seen[at]) for at in ((0, 0, 50), (0, 60, 50), (30, 0, 50))]
    assert greys == pytest.approx([novelty.GREYS[t] for t in ("white", "grey", "csf")])


def test_unknown_arms_parts_profiles_and_releases_are_refused(made_up):
    for arguments in (
        {"profile": "huge"}, {"release": "base"}, {"arms": ["gan"]},
    ):  # fmt: skip
        (says,) = (v if isinstance(v, str) else v[0] for v in arguments.values())
        with pytest.raises(InputError, match=says):
            measure.tasks(asked(**arguments), Provenance.now("quick"))


def test_without_the_trunk_there_is_no_second_opinion(made_up, monkeypatch):
    monkeypatch.setattr(opinion, "network_or_none", lambda: None)
    assert measure.tasks(asked(parts=["opinion"]), Provenance.now("quick")) == []


def test_the_ruler_is_held_against_the_segmentation_of_a_real_brain(monkeypatch):
    box, brain = box_grid(1.0), phantom(shape=(160, 192, 160), scale=0.5)
    volume = Volume(torch.from_numpy(brain), box)
    monkeypatch.setattr(parts, "fetch", lambda entry: entry)
    monkeypatch.setattr(parts, "load", lambda path: volume)
    labels = torch.from_numpy((brain > 0.1) * NUMBER["white matter"] + 0 * brain).to(torch.uint8)
    labels[:80][labels[:80] > 0] = NUMBER["cortex"]
    monkeypatch.setattr(parts, "segment", lambda scan: LabelMap(labels, scan.grid))
    found = dict(zip(parts.MEASURED, parts._real_ruler("a brain"), strict=True))
    assert found["ventricles"]["asked"] == 0 and found["ventricles"]["measured"] > 0
    assert found["brain"]["asked"] == pytest.approx(labels.count_nonzero() / 1000)
    assert found["brain"]["measured"] > 0.5 * found["brain"]["asked"]


# Arms


def test_a_profile_that_trains_nothing_says_so():
    for arm in arms.ALIKE:
        with pytest.raises(InputError, match="trains no flow"):
            samplers.run_of(arm, "quick")


def test_arms_of_equal_compute_differ_by_the_map_alone():
    own, without = (samplers.run_of(arm, "gpu") for arm in arms.ALIKE)
    assert own.heads == without.heads == sizes.SIZES["gpu"].training
    assert own.real_share == without.real_share == 0
    assert own.train.steps == sizes.SIZES["gpu"].anatomy_steps
    assert without.train.steps == sizes.SIZES["gpu"].image_steps
    released = APPEARANCE_PRESETS["tiny"].model
    assert own.model == replace(released, covariates=("contrast",))
    assert {arms.ARMS[arm].autoencoder for arm in arms.ALIKE} == {arms.TINY}


def test_each_set_of_equal_compute_has_a_flow_of_its_own_seed():
    assert [arms.flow_seed("anatomy-alike", k) for k in range(3)] == [0, 1, 2]
    assert [arms.flow_seed("conv-1mm", k) for k in range(3)] == [0, 0, 0]


def test_heads_are_rebuilt_once_for_each_autoencoder():
    assert arms.autoencoders(list(arms.ARMS)) == ["anatomy", *arms.CODECS]
    assert arms.stands_for("image-only-alike") == "anatomy"


def test_the_minutes_of_a_flow_are_those_of_its_processor():
    flow = SimpleNamespace(facts={"step": 9, "cpu_s": 30.0, "elapsed_s": 90.0})
    assert samplers.training_cost(flow) == {"training_steps": 9.0, "training_min": 0.5}
    flow.facts.pop("cpu_s")
    assert samplers.training_cost(flow)["training_min"] == 1.5


def test_a_sampler_is_asked_for_synthetic_heads_and_for_what_it_knows():
    known = SimpleNamespace(spreads={"contrast": None, "real": None})
    request = {"contrast": 1.4, "brain": 1200.0}
    assert samplers.as_synthetic(SimpleNamespace(known=known), request) == {
        "contrast": 1.4, "real": 0.0
    }  # fmt: skip


def appearance_flow():
    """A small flow that knows contrast and whether a scan is real, of latents of two channels."""
    spreads = dict.fromkeys(("contrast", "real"), Spread(1.0, 0.5, 0.0, 2.0))
    flat = torch.zeros(2)
    known = AppearanceStatistics(flat, flat + 1, flat, 4.0, spreads, "abc")
    return AppearanceFlow(AppearanceConfig(width=8, blocks=1), known).eval()


def test_samples_of_one_map_differ_by_noise_alone(monkeypatch):
    asked = []
    monkeypatch.setattr(volumes, "pair", lambda *_: (None, appearance_flow()))
    monkeypatch.setattr(volumes, "random_requests", lambda *_: [{"contrast": 1.5}])
    monkeypatch.setattr(volumes, "of_maps", lambda model, flow, *about: asked.append(about))
    volumes.of_one_map("anatomy", "gpu", 3)
    assert asked == [([0, 0, 0], [0, 1, 2], [{"contrast": 1.5, "real": 0.0}] * 3)]


def test_a_sample_of_a_map_is_air_where_the_map_is(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    labels = torch.zeros(160, 192, 160, dtype=torch.uint8)
    labels[60:100, 60:100, 60:100] = NUMBER["white matter"]
    drawn = []

    def draw(seed):
        drawn.append(seed)
        return SimpleNamespace(tissues=LabelMap(labels, box_grid(1.0)))

    monkeypatch.setattr(volumes, "drawn_anatomy", draw)
    monkeypatch.setattr(volumes, "render", lambda *_: np.full((80, 96, 80), 0.5, np.float32))
    model = SimpleNamespace(weights_id="abc", config=SimpleNamespace(latent_spacing_mm=4.0))
    told = [{"contrast": 1.5, "real": 0.0}]
    found = volumes.of_maps(model, appearance_flow(), [7], [7], told)
    assert found.volumes.shape == (1, 80, 96, 80) and found.known == told
    assert (found.volumes[0, 30:50, 30:50, 30:50] == 0.5).all()
    assert found.volumes.sum() == pytest.approx(0.5 * 20**3)
    volumes.drawn_map(7)
    assert drawn == [7]  # once, then read back


# Scans of maps


def layers(thick_vox=4, tunnel=False):
    """White matter under a flat layer of cortex, in air; with a tunnel through the white matter."""
    labels = torch.zeros(20, 20, 20, dtype=torch.uint8)
    labels[2:-2, 2:-2, 2:10] = NUMBER["white matter"]
    labels[2:-2, 2:-2, 10 : 10 + thick_vox] = NUMBER["cortex"]
    if tunnel:
        labels[8:10, 2:-2, 5:7] = NUMBER["csf"]
    return LabelMap(labels, Grid.from_spacing((20, 20, 20), 1.0))


@pytest.mark.parametrize("thick_vox", [2, 3, 6])
def test_the_thickness_of_a_flat_cortex_is_its_own(thick_vox):
    assert scans.cortex_mm(layers(thick_vox)) == pytest.approx(thick_vox)


def test_a_tunnel_is_one_handle_in_the_volume_of_the_brain():
    assert scans.handles(layers()) == 0
    brain_cm3 = 16 * 16 * 12 / 1000 - 2 * 16 * 2 / 1000
    assert scans.handles(layers(tunnel=True)) == pytest.approx(1 / brain_cm3)


def test_a_scan_is_air_where_its_map_is_and_nowhere_else():
    given = layers()
    scan = scans.stripped(np.full((20, 20, 20), -0.1, np.float32), given)
    assert ((scan.data > 0) == (given.labels > 0)).all()


def test_a_scan_that_shows_its_map_has_its_numbers(monkeypatch):
    given = layers(tunnel=True)
    exact = scans.labels_of(given)
    found = {
        scans.SEGMENTER: (exact, 0.0),
        scans.INTENSITY: ({scans.TISSUE: exact[scans.TISSUE]}, 0.0),
    }
    monkeypatch.setattr(scans, "_segmenter", lambda: None)
    monkeypatch.setattr(scans, "segmented", lambda volume, network: found)
    values = scans.judged(scans.stripped(np.ones((20, 20, 20), np.float32), given), given)
    assert tuple(values) == tuple(scans.UNITS)
    for name in ("dice_white_matter", "dice_cortex", "dice_by_intensity_white"):
        assert values[name] == 1
    assert values["handles_per_cm3"] == values["handles_of_map_per_cm3"] > 0
    assert values["cortex_mm"] == values["cortex_of_map_mm"]


def test_a_mirrored_copy_of_a_packed_map_is_found():
    packed = packed_maps()[2].tissues
    mirrored = LabelMap(packed.labels.flip(0).contiguous(), packed.grid)
    found = scans.nearest_maps(mirrored)
    assert found["nearest_map"] == pytest.approx(1, abs=0.02)
    assert found["next_map"] < 0.8


# Sets of heads


@pytest.fixture
def drawn_heads(monkeypatch, tmp_path):
    """Heads of even brightness, one hundredth a number; a flow and a model that give numbers."""
    monkeypatch.chdir(tmp_path)
    asked = []

    def draw(split, numbers, folder, voxel_mm=None):
        asked.append((split, voxel_mm))
        return list(numbers)

    def read(number):
        shape = (80, 96, 80) if asked[-1][1] else (16, 24, 16)
        known = {"contrast": float(number), "brain": 1000.0 + number}
        return SimpleNamespace(data=torch.full(shape, number / 128), known=known)

    def encode(model, paths, folder):
        return SimpleNamespace(latents=torch.tensor(paths).float()[:, None] / 128, grid="cells")

    def render(model, z, cells, grid):
        return np.full(grid.shape, float(z.ravel()[0]), np.float32)

    monkeypatch.setattr(volumes, "draw_heads", draw)
    monkeypatch.setattr(volumes, "read_head", read)
    monkeypatch.setattr(volumes, "encode_heads", encode)
    monkeypatch.setattr(volumes, "render", render)
    monkeypatch.setattr(volumes, "grid", lambda: box_grid(16.0))
    monkeypatch.setattr(volumes, "autoencoder", lambda *_: SimpleNamespace(weights_id="abc"))
    return asked


def test_held_out_training_and_rebuilt_heads_are_those_of_their_numbers(drawn_heads):
    held = volumes.held_out(2, first=5)
    assert [v.mean() for v in held.volumes] == pytest.approx([5 / 128, 6 / 128])
    trained = volumes.training(3)
    assert trained.volumes.shape == (3, *box_grid(16.0).shape)  # averaged from voxels of its own
    assert trained.volumes[2] == pytest.approx(2 / 128)
    rebuilt, copies = (volumes.rebuilt("image-only", "quick", 2, s) for s in ("test", "train"))
    assert rebuilt.volumes[1] == pytest.approx(1 / 128) and rebuilt.known[1]["contrast"] == 1
    assert copies.known == rebuilt.known
    assert drawn_heads == [("test", 2.0), ("train", None), ("test", 2.0), ("train", None)]
    calls = len(drawn_heads)
    assert volumes.training(3).known == trained.known and len(drawn_heads) == calls  # from a file


def test_samples_of_a_seed_have_noise_and_requests_of_their_own(drawn_heads, monkeypatch):
    flow = SimpleNamespace(
        weights_id="def", known=SimpleNamespace(spreads={"contrast": 1, "real": 1}, grid="cells")
    )
    monkeypatch.setattr(volumes, "pair", lambda *_: (SimpleNamespace(weights_id="abc"), flow))
    seen = []

    def sample(flow, seeds, wanted, guidance, steps):
        seen.append((seeds[0], wanted[0], guidance, steps))
        return torch.full((1, 2, 1, 1, 1), (seeds[0] % 1000) / 128)

    monkeypatch.setattr(volumes, "sample_means", sample)
    requests = [{"contrast": 1.5, "brain": 7.0}] * 6
    made = volumes.sampled("image-only", "quick", 2, 6, 3.0, requests)
    assert [s for s, *_ in seen] == [2 * volumes.NOISE_SEEDS + k for k in range(6)]
    assert {tuple(w.items()) for _, w, *_ in seen} == {(("contrast", 1.5), ("real", 0.0))}
    assert {g for *_, g, _ in seen} == {3.0} and seen[0][3] == sizes.sizes("quick").steps
    assert len(made.latents) == volumes.KEPT_LATENTS and made.known[0] == seen[0][1]
    assert made.volumes[3] == pytest.approx(3 / 128)
    drawn = volumes.sampled("image-only", "quick", 0, 2)
    requested = volumes.random_requests("quick", 0, 2)
    assert [k["contrast"] for k in drawn.known] == [k["contrast"] for k in requested]


def test_values_to_request_lie_evenly_between_percentiles_of_training(drawn_heads):
    size = sizes.sizes("quick")
    values = volumes.spread_values("quick", "contrast")
    low, high = 0.05 * (size.training - 1), 0.95 * (size.training - 1)
    assert values[0] == pytest.approx(low) and values[-1] == pytest.approx(high)
    assert len(values) == size.values and np.ptp(np.diff(values)) == pytest.approx(0, abs=1e-9)
