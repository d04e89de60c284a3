"""Volume → patches. The only file that knows TorchIO's queue and samplers."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
import torchio as tio
from torch import Tensor

from lightning_dice.data.store import IMAGE, LABEL, PreparedCase, npy_header
from lightning_dice.errors import InputError

Transform = Callable[[tio.Subject], tio.Subject]

TORCH = {IMAGE: torch.float16, LABEL: torch.uint8}


class Batch(NamedTuple):
    """Patches or whole volumes: image float32 (B, 1, X, Y, Z), in [0, 1] unless a transform leaves that, label uint8
    (B, X, Y, Z), one id each."""

    image: Tensor
    label: Tensor
    ids: list[str]


class PreparedSubjects(tio.SubjectsDataset):
    """Prepared cases as TorchIO subjects. Their images are views of the files: nothing is read before it is used.

    Args:
        transform: TorchIO's, applied to each whole volume.

    Raises:
        InputError: by index: the transform fails, or gives what is no such case any more.
    """

    def __init__(self, cases: Sequence[PreparedCase], transform: Transform | None = None):
        self.cases = cases  # TorchIO's list holds subjects, and copies them whenever one is drawn
        self.set_transform(transform)

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, index: int) -> tio.Subject:
        case = self.cases[index]
        return subject_of(case) if self._transform is None else _transformed(case, self._transform)

    def dry_iter(self) -> list[tio.Subject]:
        """Without the transform."""
        return [subject_of(case) for case in self.cases]


def subject_of(case: PreparedCase, corner: Sequence[int] = (0, 0, 0), size: Sequence[int] | None = None) -> tio.Subject:
    """A case, or a window of it, as a TorchIO subject."""
    end = [c + s for c, s in zip(corner, size or case.shape, strict=True)]
    window = (slice(None), *map(slice, corner, end))
    affine = np.array(case.affine)
    affine[:3, 3] += affine[:3, :3] @ corner
    return tio.Subject(
        image=tio.ScalarImage(tensor=_mapped(case.image, case.shape, IMAGE)[window], affine=affine),
        label=tio.LabelMap(tensor=_mapped(case.label, case.shape, LABEL)[window], affine=affine),
        id=case.id,
        **{tio.LOCATION: torch.tensor([*corner, *end])},
    )


def _mapped(path: Path, shape: tuple[int, ...], dtype: np.dtype) -> Tensor:
    """The array in a .npy file as (1, X, Y, Z), read as far as it is used. Writing to it does not reach the file."""
    # numpy's memory maps parse the header and hold the file open, which takes as long as cutting the patch.
    header = len(npy_header(shape, dtype)) // dtype.itemsize
    values = torch.from_file(str(path), size=header + math.prod(shape), dtype=TORCH[dtype])  # an error if it is shorter
    return values[header:].view(1, *shape)


def _transformed(case: PreparedCase, transform: Transform) -> tio.Subject:
    """The whole case, transformed, with the shape that it had: image float32, label uint8."""
    subject = subject_of(case)
    subject.image.set_data(subject.image.data.float())  # many of TorchIO's do not take float16
    try:
        subject = transform(subject)
        image, label = subject.image.data, subject.label.data
    except Exception as error:  # whatever a transform of the user's raises
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"data.transform: fails on {case.id} ({reason}); change it, or leave it out") from error
    indices = label.to(torch.uint8)  # interpolating ones of TorchIO's make float32 of it
    if image.shape != (1, *case.shape) or label.shape != image.shape:
        found, expected = (" × ".join(map(str, shape)) for shape in (image.shape[1:], case.shape))
        problem = f"makes {found} voxels of {expected}; expected the same, in one channel, of image and label"
    elif not image.isfinite().all():
        problem = "makes voxels of the image that are not finite; expected finite ones"
    elif not torch.equal(indices.to(label.dtype), label) or int(indices.max()) >= len(case.voxels):
        problem = f"makes a label that is none of the classes; expected whole numbers from 0 to {len(case.voxels) - 1}"
    else:
        subject.label.set_data(indices)
        return subject
    raise InputError(f"data.transform: {problem} ({case.id}); change it, or leave it out")


def collate(subjects: Sequence[tio.Subject]) -> Batch:
    """Stack subjects of one shape."""
    images = [subject.image.data for subject in subjects]
    batch = torch.empty(len(images), *images[0].shape)
    for place, image in zip(batch, images, strict=True):
        place.copy_(image)  # to float32, straight from the file
    return Batch(
        batch,
        torch.stack([subject.label.data[0] for subject in subjects]),  # (1, X, Y, Z) each -> (B, X, Y, Z)
        [subject.id for subject in subjects],
    )


def pad_to(subject: tio.Subject, size: Sequence[int]) -> tio.Subject:
    """Centre the subject in at least this size: air around the image, background around the label."""
    missing = np.maximum(np.array(size, int) - subject.spatial_shape, 0)
    if not missing.any():
        return subject
    sides = np.stack([missing // 2, missing - missing // 2], axis=1)  # (3, 2)
    return tio.Pad(sides.ravel().tolist(), padding_mode=0)(subject)


def padding_share(case: PreparedCase, patch_size: Sequence[int]) -> float:
    """The part of a patch of this case that lies outside of its volume, wherever it is drawn."""
    return 1 - math.prod(min(size / patch, 1) for size, patch in zip(case.shape, patch_size, strict=True))


class PatchQueue(tio.Queue):
    """A `tio.Queue` in which patch i is a function of the seed and i alone.

    TorchIO's queue fills and pops a list, so that a batch depends on all that came before, two of its patches can come
    from one patient, and the device waits for each refill. This one is addressed by index instead: it suits loaders
    with several workers, and neither workers nor restarts change what is drawn. Samplers and transforms are TorchIO's.

    Index i is place `i % batch_size` in batch `i // batch_size`. Patients come in rounds, in each of which everyone is
    drawn once in a fresh order, in groups of a batch's size; a round's remainder that fills no batch sits it out. Each
    group serves `samples_per_volume` batches, so a batch never holds two patches of one patient.

    Without a transform, patches of `tio.UniformSampler` are cut from the files at the places that it would draw: its
    own way through a subject takes longer than reading the patch. All other samplers get the subject.

    Args:
        cases: one per patient.
        sampler: draws the position, `tio.UniformSampler(64)` in the paper.
        batch_size: patches in a batch.
        seed: of patients, positions and random transforms.
        samples_per_volume: patches that one loaded, transformed volume gives; they are the same patient's turn in
            successive batches.
        transform: applied to the whole volume, once for its `samples_per_volume` patches.

    Raises:
        InputError: fewer patients than patches in a batch.
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        sampler: tio.data.PatchSampler,
        batch_size: int,
        seed: int = 0,
        samples_per_volume: int = 1,
        transform: Transform | None = None,
    ):
        if len(cases) < batch_size:
            raise InputError(
                f"{len(cases)} training patients for data.batch_size={batch_size}: a batch takes its patches from "
                "different patients, so add cases or lower data.batch_size"
            )
        super().__init__(
            PreparedSubjects(cases, transform),
            max_length=batch_size * samples_per_volume,
            samples_per_volume=samples_per_volume,
            sampler=sampler,
            shuffle_subjects=False,
            start_background=False,
        )
        self.batch_size = batch_size
        self.seed = seed
        self._cases = cases
        self._cuts_files = transform is None and type(sampler) is tio.UniformSampler
        self._volumes: dict[int, tio.Subject] = {}

    def __getitem__(self, index: int) -> tio.Subject:
        batch, place = divmod(index, self.batch_size)
        group, sample = divmod(batch, self.samples_per_volume)
        draw = group * self.batch_size + place
        case = self._cases[self._patient(draw)]
        room = [size - patch for size, patch in zip(case.shape, self.sampler.patch_size.tolist(), strict=True)]
        if self._cuts_files and min(room) >= 0:
            with _seeded(self.seed, draw, sample):
                corner = [int(torch.randint(places + 1, (1,))) for places in room]
            return subject_of(case, corner, self.sampler.patch_size.tolist())
        volume = self._volume(draw)
        with _seeded(self.seed, draw, sample):
            return next(iter(self.sampler(volume, 1)))

    def _volume(self, draw: int) -> tio.Subject:
        """The transformed volume of a draw, kept while its group is in turn."""
        if draw not in self._volumes:
            while len(self._volumes) >= self.batch_size:
                del self._volumes[next(iter(self._volumes))]
            with _seeded(self.seed, draw):
                volume = self.subjects_dataset[self._patient(draw)]
            self._volumes[draw] = pad_to(volume, self.sampler.patch_size.tolist())
        return self._volumes[draw]

    def _patient(self, draw: int) -> int:
        patients = len(self.subjects_dataset)
        round_, turn = divmod(draw, patients - patients % self.batch_size)
        return int(_order(self.seed, round_, patients)[turn])


@lru_cache(maxsize=2)  # this round's and, across its end, the next one's
def _order(seed: int, round_: int, patients: int) -> np.ndarray:
    return np.random.default_rng((seed, round_)).permutation(patients)


@contextmanager
def _seeded(*key: int) -> Iterator[None]:
    """Draw from torch's CPU generator as the key says, and leave it as it was."""
    state = torch.get_rng_state()
    # Not torch.manual_seed, which would seed the devices' generators too.
    torch.default_generator.manual_seed(int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> 1))
    try:
        yield
    finally:
        torch.set_rng_state(state)
