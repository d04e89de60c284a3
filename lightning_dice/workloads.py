"""What the benchmark times: each function sets a piece of work up and returns it, to be done again and again."""

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
import torchio as tio
from lightning_fabric import Fabric
from monai.data import CacheDataset, DataLoader
from monai.inferers import sliding_window_inference
from monai.losses import DiceLoss as MonaiDiceLoss
from monai.transforms import Compose, EnsureChannelFirstd, EnsureTyped, LoadImaged, RandSpatialCropd, SpatialPadd
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.patches import Batch, PatchQueue, collate, pad_to
from lightning_dice.data.store import PreparedCase
from lightning_dice.inference import sliding_window, window_starts
from lightning_dice.module import SegmentationModule
from lightning_dice.network import compiled

Work = Callable[[], object]
KEYS = ("image", "label")
MATRIX = {"cpu": 2048, "cuda": 8192}  # rows and columns of the product that the peak is measured by


def training_in_memory(module: SegmentationModule, data: CTDataModule, fabric: Fabric) -> Work:
    """A bare loop of network, loss and optimiser over batches that are there already."""
    network = copy.deepcopy(module.network)
    network, optimizer = fabric.setup(network, module.optimizer(network.parameters()))
    call = compiled(network) if module.compiles else network
    batches = _batches_in_memory(module, data, fabric)

    def work() -> None:
        batch = next(batches)
        loss = module.loss(module.taught_logits(call(batch.image)), batch.label)
        optimizer.zero_grad()
        fabric.backward(loss)
        optimizer.step()

    return work


def network_alone(module: SegmentationModule, data: CTDataModule, fabric: Fabric) -> Work:
    """Forward and backward pass, without loss and optimiser."""
    network = fabric.setup_module(copy.deepcopy(module.network))
    call = compiled(network) if module.compiles else network
    batches = _batches_in_memory(module, data, fabric)

    def work() -> None:
        network.zero_grad()
        fabric.backward(call(next(batches).image).float().mean())

    return work


def monai_training(module: SegmentationModule, data: CTDataModule, fabric: Fabric) -> Work:
    """MONAI's usual loop with the same network: CacheDataset, as many workers as ours, DiceLoss, float32, no memory
    format of its own."""
    fabric = Fabric(accelerator=fabric.accelerator, devices=1, precision="32-true")
    plain = copy.deepcopy(module.network).to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]  # torch names it not
    network, optimizer = fabric.setup(plain, module.optimizer(plain.parameters()))
    loss = MonaiDiceLoss(softmax=True, to_onehot_y=True, batch=True)
    batches = _forever(_monai_loader(data, data.num_workers))

    def work() -> None:
        batch = next(batches)
        image, label = batch["image"].as_tensor().to(fabric.device), module.target(batch["label"].as_tensor())
        optimizer.zero_grad()
        fabric.backward(loss(module.taught_logits(network(image)), label.to(fabric.device)))
        optimizer.step()

    return work


def store_patches(data: CTDataModule) -> Callable[[], Batch]:
    """A batch from the prepared store, in this process."""
    queue = _queue(data)
    batch = itertools.count()

    def work() -> Batch:
        first = next(batch) * data.batch_size
        return collate([queue[i] for i in range(first, first + data.batch_size)])

    return work


def monai_patches(data: CTDataModule) -> Work:
    """A batch from MONAI's CacheDataset, in this process."""
    batches = _forever(_monai_loader(data, workers=0))
    return lambda: next(batches)


def stock_queue_patches(data: CTDataModule) -> Work:
    """A batch from TorchIO's own queue on the data set's files, in this process; one patch of each volume it reads."""
    subjects = [
        tio.Subject(image=tio.ScalarImage(case.image), label=tio.LabelMap([file.path for file in case.labels]))
        for case in (data.sources[i] for i in data.split.train)
    ]
    padded = tio.SubjectsDataset(subjects, partial(pad_to, size=data.patch_size))
    queue = tio.Queue(padded, data.batch_size, 1, tio.UniformSampler(data.patch_size), start_background=False)
    batches = _forever(tio.SubjectsLoader(queue, batch_size=data.batch_size))
    return lambda: next(batches)


def our_inference(module: SegmentationModule, data: CTDataModule, fabric: Fabric, overlap: float) -> Work:
    """A whole volume by the package's sliding window."""
    network = fabric.setup_module(copy.deepcopy(module.network).eval())
    image = _volume(data).to(fabric.device)
    return lambda: sliding_window(network, image, data.patch_size, overlap, data.batch_size)


def network_on_windows(module: SegmentationModule, data: CTDataModule, fabric: Fabric, overlap: float) -> Work:
    """The network on as many windows as that volume has, and nothing else."""
    network = fabric.setup_module(copy.deepcopy(module.network).eval())
    sizes = zip(_largest(data).shape, data.patch_size, strict=True)
    windows = math.prod(len(window_starts(size, patch, overlap)) for size, patch in sizes)
    patches = torch.rand(windows, 1, *data.patch_size).to(fabric.device)

    @torch.no_grad()
    def work() -> None:
        for some in patches.split(data.batch_size):
            network(some)

    return work


def monai_inference(module: SegmentationModule, data: CTDataModule, fabric: Fabric, overlap: float) -> Work:
    """The same volume by MONAI's, with the same network, precision, overlap and batch."""
    network = fabric.setup_module(copy.deepcopy(module.network).eval())
    image = _volume(data)[None].to(fabric.device)
    mode = "gaussian" if overlap else "constant"

    @torch.no_grad()
    def work() -> object:
        return sliding_window_inference(image, data.patch_size, data.batch_size, network, overlap, mode)

    return work


def matrix_product(fabric: Fabric) -> tuple[Work, float]:
    """A product in the precision of the training, and the FLOP that it takes: what the hardware reaches at best."""
    size = MATRIX[fabric.device.type]
    dtype = torch.float32 if fabric.strategy.precision.precision.startswith("32") else torch.bfloat16
    a, b = (torch.randn(size, size, device=fabric.device, dtype=dtype) for _ in range(2))

    def work() -> None:
        a @ b

    return work, 2.0 * size**3


def flop_per_iteration(network: nn.Module, data: CTDataModule) -> float:
    """Of forward and backward pass, counted on tensors without content."""
    empty = copy.deepcopy(network).to("meta")
    with FlopCounterMode(display=False) as counter:
        empty(torch.empty(data.batch_size, 1, *data.patch_size, device="meta")).sum().backward()
    return float(counter.get_total_flops())


def volume_voxels(data: CTDataModule) -> int:
    """Of the volume that inference is timed on."""
    return int(np.prod(_largest(data).shape))


def _queue(data: CTDataModule) -> PatchQueue:
    cases, sampler = [data.cases[i] for i in data.split.train], tio.UniformSampler(data.patch_size)
    return PatchQueue(cases, sampler, data.batch_size, data.seed, data.samples_per_volume, data.transform)


def _batches_in_memory(module: SegmentationModule, data: CTDataModule, fabric: Fabric) -> Iterator[Batch]:
    work = store_patches(data)
    held = [work() for _ in range(4)]
    on_device = (Batch(b.image.to(fabric.device), module.target(b.label).to(fabric.device), b.ids) for b in held)
    return itertools.cycle(on_device)


def _monai_loader(data: CTDataModule, workers: int) -> DataLoader:
    cases = [data.cases[i] for i in data.split.train]
    transforms = Compose(
        [
            LoadImaged(KEYS, reader="NumpyReader"),
            EnsureChannelFirstd(KEYS, channel_dim="no_channel"),
            EnsureTyped(KEYS, dtype=(torch.float32, torch.uint8)),
            SpatialPadd(KEYS, data.patch_size),
            RandSpatialCropd(KEYS, data.patch_size, random_size=False),
        ]
    )
    files = [{"image": str(case.image), "label": str(case.label)} for case in cases]
    dataset = CacheDataset(files, transforms, num_workers=None, progress=False)
    return DataLoader(
        dataset,
        batch_size=data.batch_size,
        shuffle=True,
        drop_last=True,
        num_workers=workers,
        persistent_workers=workers > 0,
    )


def _forever(loader: Iterable[Any]) -> Iterator[Any]:
    while True:
        yield from loader


def _largest(data: CTDataModule) -> PreparedCase:
    return max(data.cases.values(), key=lambda case: np.prod(case.shape))


def _volume(data: CTDataModule) -> Tensor:
    return torch.from_numpy(np.load(_largest(data).image).astype(np.float32))[None]  # (1, X, Y, Z)
