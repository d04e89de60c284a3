"""What an exported MONAI bundle names beside MONAI's own parts: `lightning_dice.predict`'s way to the grid and back.

MONAI's own differ where it shows. `Spacingd` rounds the number of voxels otherwise and keeps more digits than the
store's float16, `SlidingWindowInferer` blends by a constant or a Gaussian, and `Invertd` resamples on another grid.
"""

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.inferers import Inferer
from monai.transforms import MapTransform
from torch import Tensor, nn

from lightning_dice.data.volumes import Preparation, from_ras, prepare_image, prepared_step, to_ras
from lightning_dice.inference import sliding_window, to_native


class Preparedd(MapTransform):
    """A scan (1, X, Y, Z) in HU → what the network sees of it, float32 (1, X', Y', Z') in [0, 1], RAS+.

    Args:
        keys: of the scans.
        spacing_mm, window_hu, smooth: as of `Preparation`.
    """

    def __init__(
        self, keys: str, spacing_mm: Sequence[float], window_hu: tuple[float, float], smooth: bool = False
    ) -> None:
        super().__init__(keys)
        self.preparation = Preparation(None, spacing_mm, window_hu, smooth)

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        made = dict(data)
        for key in self.key_iterator(made):
            scan: MetaTensor = made[key]
            image, grid = prepare_image(scan.numpy()[0], scan.affine.numpy(), self.preparation)
            made[key] = MetaTensor(torch.from_numpy(image).float()[None], meta=scan.meta | {"affine": grid})
        return made


class HannWindowInferer(Inferer):
    """Logits (B, L, X, Y, Z) of whole volumes (B, 1, X, Y, Z), by `lightning_dice.inference.sliding_window`.

    Args:
        patch_size: of the windows, in voxels.
        overlap: share of the window by which neighbours overlap.
    """

    def __init__(self, patch_size: Sequence[int], overlap: float) -> None:
        super().__init__()
        self.patch_size, self.overlap = patch_size, overlap

    def __call__(self, inputs: Tensor, network: Callable[..., Any], *args: Any, **kwargs: Any) -> Tensor:
        assert isinstance(network, nn.Module)  # as the bundle's evaluator hands over
        volumes = torch.Tensor(inputs.cpu())  # without what MONAI has attached; blended in main memory, as predict does
        return torch.stack([sliding_window(network, image, self.patch_size, self.overlap, 1) for image in volumes])


class OnScanGridd(MapTransform):
    """Logits (L, X', Y', Z') → class indices uint8 (1, X, Y, Z) on the scan's own grid.

    Args:
        keys: of the logits.
        image_key: of the scan that they are of, as `Preparedd` made it from what MONAI's `LoadImaged` read.
        preparation: the same.
    """

    def __init__(self, keys: str, image_key: str, preparation: Preparedd) -> None:
        super().__init__(keys)
        self.image_key, self.preparation = image_key, preparation.preparation

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        made = dict(data)
        meta = made[self.image_key].meta
        affine = np.asarray(meta["original_affine"])
        blank, ras = to_ras(np.broadcast_to(np.uint8(0), [int(size) for size in meta["spatial_shape"]]), affine)
        for key in self.key_iterator(made):
            logits = torch.Tensor(made[key].cpu())
            found = to_native([logits], logits.shape[3], blank.shape, prepared_step(ras, self.preparation))
            label = np.ascontiguousarray(from_ras(found, affine))
            made[key] = MetaTensor(torch.from_numpy(label)[None], meta=meta | {"affine": affine})
        return made
