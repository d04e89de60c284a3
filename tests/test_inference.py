import itertools

import nibabel as nib
import numpy as np
import pytest
import torch
import torchio as tio
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import map_coordinates
from torch import nn

from lightning_dice.data.volumes import Preparation, from_ras, prepare_image, prepared_step, to_ras
from lightning_dice.ensemble import Mirrored
from lightning_dice.errors import InputError
from lightning_dice.inference import segment, sliding_window, sliding_window_slabs, to_native, window_starts
from lightning_dice.network import UNet3D

PATCH = (16, 16, 16)


class Pointwise(nn.Module):
    """Logits that depend on the voxel alone, so that tiling cannot show."""

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv3d(1, 3, 1)

    def forward(self, image):
        assert image.shape[2:] == PATCH
        return self.convolution(image)


class TellsWindowsApart(nn.Module):
    """Logits that depend on the place in the window and on what else is in it."""

    def __init__(self):
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(2.0))

    def forward(self, image):
        place = torch.arange(image[0].numel()).view(image.shape[1:]) / image[0].numel()
        return torch.cat([image * self.factor, place + image.mean((1, 2, 3, 4), keepdim=True)], dim=1).detach()


@pytest.mark.parametrize("overlap", [0.0, 0.5])
@pytest.mark.parametrize("shape", [(40, 17, 9), (16, 16, 16), (33, 20, 50)])
@pytest.mark.parametrize("batch_size", [1, 4])
def test_tiling_a_pointwise_network_is_applying_it(shape, overlap, batch_size):
    network, image = Pointwise(), torch.randn(1, *shape)
    logits = sliding_window(network, image, PATCH, overlap, batch_size)
    with torch.no_grad():
        expected = network.convolution(image[None])[0]
    assert logits.dtype == torch.float32
    assert torch.allclose(logits, expected, atol=1e-5)
    labels = segment(network, image, PATCH, overlap, batch_size)
    assert (labels.shape, labels.dtype) == (shape, torch.uint8)
    assert torch.equal(labels, logits.argmax(0).to(torch.uint8))


def test_one_window_is_the_network_itself():
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=2, levels=3).eval(), torch.randn(1, *PATCH)
    with torch.no_grad():
        expected = network(image[None])[0]
    assert torch.allclose(sliding_window(network, image, PATCH), expected, atol=1e-6)


def test_windows_without_overlap_are_segmented_one_by_one():
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=2, levels=3).eval(), torch.randn(1, 32, 16, 16)
    with torch.no_grad():
        halves = [network(image[None, :, :16])[0], network(image[None, :, 16:])[0]]
    assert torch.allclose(sliding_window(network, image, PATCH), torch.cat(halves, dim=1), atol=1e-5)


@pytest.mark.parametrize("shape", [(24, 20, 28), (16, 12, 20), (40, 12, 21), (17, 13, 50)])
@pytest.mark.parametrize(("overlap", "mode"), [(0.0, "average"), (0.5, "hann"), (0.3, "hann")])
def test_the_windows_are_laid_and_blended_as_torchio_does(shape, overlap, mode):
    patch, image = (16, 12, 20), torch.rand(1, *shape)
    network = TellsWindowsApart()
    voxels = tuple(2 * int(overlap * size / 2) for size in patch)
    sampler = tio.GridSampler(tio.Subject(image=tio.ScalarImage(tensor=image)), patch, voxels)
    aggregator = tio.GridAggregator(sampler, overlap_mode=mode)
    for window in sampler:
        aggregator.add_batch(network(window["image"].data[None]), window[tio.LOCATION][None])
    logits = sliding_window(network, image, patch, overlap)
    assert torch.allclose(logits, aggregator.get_output_tensor(), atol=1e-5)


def test_no_overlap_means_as_few_windows_as_cover_the_volume():
    assert window_starts(32, 16, 0.0) == [0, 16]
    assert window_starts(33, 16, 0.0) == [0, 16, 17]
    assert window_starts(9, 16, 0.0) == [0]
    assert window_starts(40, 16, 0.5) == [0, 8, 16, 24]
    assert window_starts(40, 12, 0.3) == [0, 10, 20, 28]  # 3.6 voxels, rounded down to 2


@pytest.mark.parametrize("overlap", [-0.1, 1.0, 1.5])
def test_an_overlap_out_of_range_is_refused(overlap):
    with pytest.raises(InputError, match=f"overlap={overlap}"):
        segment(Pointwise(), torch.zeros(1, *PATCH), PATCH, overlap)


@pytest.mark.parametrize("overlap", [0.0, 0.5, 0.75])
@pytest.mark.parametrize("depth", [9, 53])
@pytest.mark.parametrize("rows", [1, 2, None])
def test_slabs_together_are_the_whole(rows, depth, overlap):
    torch.manual_seed(0)
    network, image = UNet3D(base_channels=2, levels=3).eval(), torch.randn(1, 18, 16, depth)
    whole = sliding_window(network, image, PATCH, overlap, batch_size=1)
    slabs = list(sliding_window_slabs(network, image, PATCH, overlap, batch_size=1, rows=rows))
    assert torch.equal(torch.cat(slabs, dim=-1), whole)
    in_batches = torch.cat(list(sliding_window_slabs(network, image, PATCH, overlap, batch_size=3, rows=rows)), dim=-1)
    assert torch.allclose(in_batches, whole, atol=1e-4)
    if rows == 1 and depth > 40:
        assert max(slab.shape[-1] for slab in slabs) <= PATCH[2]


def native_by_scipy(logits, shape, step):
    """The class of the highest linearly interpolated probability, and by how much it is the highest."""
    p = logits.double().softmax(dim=0).numpy()
    places = np.meshgrid(*(np.arange(n) / s for n, s in zip(shape, step, strict=True)), indexing="ij")
    p = np.stack([map_coordinates(one, places, order=1, mode="nearest") for one in p])
    first, second = np.sort(p, axis=0)[[-1, -2]]
    return p.argmax(axis=0), first - second


@settings(max_examples=40, deadline=None)
@given(
    shape=st.tuples(*[st.integers(1, 13)] * 3),
    step=st.tuples(*[st.sampled_from([1.0, 1.7, 2.0, 4.0, 0.6])] * 3),
    cuts=st.sets(st.integers(1, 20)),
    seed=st.integers(0, 99),
)
def test_the_way_back_interpolates_probabilities_whatever_the_slabs(shape, step, cuts, seed):
    prepared = [int(np.ceil(n / s - 1e-3)) for n, s in zip(shape, step, strict=True)]
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(3, *prepared)).astype(np.float32))
    edges = [0, *sorted(cut for cut in cuts if cut < prepared[2]), prepared[2]]
    slabs = [logits[..., a:b] for a, b in itertools.pairwise(edges)]
    labels = to_native(slabs, prepared[2], shape, step)
    expected, margin = native_by_scipy(logits, shape, step)
    assert labels.shape == shape
    assert (labels == expected)[margin > 1e-5].all()


def test_at_the_networks_own_voxel_size_the_way_back_is_the_label_map():
    logits = torch.randn(4, 5, 6, 7)
    assert np.array_equal(to_native([logits], 7, (5, 6, 7), (1.0, 1.0, 1.0)), logits.argmax(0).numpy())


def test_mirroring_averages_over_all_mirror_images():
    network = UNet3D(base_channels=2, levels=2).eval()
    image = torch.randn(1, 1, 8, 8, 8)
    with torch.no_grad():
        once, flipped = Mirrored(network)(image), Mirrored(network)(image.flip((2, 4)))
        views = [network(image.flip(a)).flip(a) for a in ((), (2,), (3,), (4,), (2, 3), (2, 4), (3, 4), (2, 3, 4))]
    assert torch.allclose(once, torch.stack(views).mean(0), atol=1e-6)
    assert torch.allclose(flipped.flip((2, 4)), once, atol=1e-6)


@pytest.mark.parametrize("codes", ["RAS", "LPS", "SPL", "oblique"])
def test_a_ball_survives_the_way_to_the_prepared_grid_and_back(codes):
    """A factor of 4, a network that knows: the ball's Dice is above 0.9 on the scan's own grid."""
    shape, affine = (72, 64, 60), np.diag([0.8, 0.9, 1.0, 1.0])
    if codes == "oblique":
        affine = nib.affines.from_matvec(nib.eulerangles.euler2mat(0.2, -0.15, 0.1) @ affine[:3, :3], [5, -7, 9])
    else:
        turn = nib.orientations.ornt_transform(*map(nib.orientations.axcodes2ornt, ("RAS", codes)))
        affine = affine @ nib.orientations.inv_ornt_aff(turn, shape)
        shape = tuple(np.array(shape)[np.argsort(turn[:, 0])])
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    mm = nib.affines.apply_affine(affine, places)
    centre = nib.affines.apply_affine(affine, np.array(shape) / 2 + [3, -2, 1])
    ball = (np.linalg.norm(mm - centre, axis=-1) < 16).astype(np.uint8)

    preparation = Preparation(factor=4, window_hu=(0, 1))
    image, grid = prepare_image(ball, affine, preparation)
    certain = torch.from_numpy(np.stack([1 - image, image]).astype(np.float32)) * 20
    ras, ras_affine = to_ras(ball, affine)
    back = from_ras(to_native([certain], image.shape[2], ras.shape, prepared_step(ras_affine, preparation)), affine)
    assert back.shape == shape
    assert np.allclose(grid @ np.array([0, 0, 0, 1]), ras_affine @ np.array([0, 0, 0, 1]), atol=1e-6)
    dice = 2 * (back & ball).sum() / (back.sum() + ball.sum())
    enlarged = np.repeat(np.repeat(np.repeat(image > 0.5, 4, 0), 4, 1), 4, 2)[tuple(map(slice, ras.shape))]
    nearest = 2 * (enlarged & (ras == 1)).sum() / (enlarged.sum() + ras.sum())
    assert dice > 0.9
    assert dice > nearest
