"""A slice that holds less than it declares: GDCM would show voxels of the slice before."""

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from lightning_dice.data import dicom
from lightning_dice.data.pixel_data import Declared, check_pixels
from lightning_dice.data.scans import read_scan
from lightning_dice.errors import InputError
from tests.ct_series import COMPRESSED, UNCOMPRESSED, picture_of, put_picture, voxels_hu, write_series

SHAPE = (64, 48, 4)
BYTES = 64 * 48 * 2
ALL = UNCOMPRESSED | COMPRESSED
END = b"\xff\xd9"


def written(folder, syntax: str, change=lambda one: None, place: int = 2):
    """A series whose slice at `place` is changed after it was written; that slice's file."""
    path = write_series(folder, voxels_hu(shape=SHAPE), change=ALL[syntax])[place]
    one = pydicom.dcmread(path)
    change(one)
    one.save_as(path)
    return path


def refusal(path, capfd) -> str:
    """The line that the slice's series is refused with; it names the slice, and no library says a word beside it."""
    with pytest.raises(InputError) as caught:
        read_scan(path.parent)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    assert line.endswith(("export the series anew", "export it anew without compression"))  # ours, GDCM's
    return line


@pytest.mark.parametrize("held", [0, BYTES // 2, BYTES - 2])
@pytest.mark.parametrize("syntax", UNCOMPRESSED)
def test_a_short_slice_is_refused(tmp_path, capfd, syntax, held):
    def cut(one):
        one.PixelData = one.PixelData[:held]

    line = refusal(written(tmp_path, syntax, cut), capfd)
    assert f": declares 64 × 48 pixels of 16 bits, {BYTES} bytes, and holds {held}; " in line


@pytest.mark.parametrize("place", [0, 3])
def test_the_first_and_the_last_slice_are_looked_at_too(tmp_path, capfd, place):
    def cut(one):
        one.PixelData = one.PixelData[:-10]

    assert f"and holds {BYTES - 10}" in refusal(written(tmp_path, "explicit", cut, place), capfd)


def icon() -> Dataset:
    """A picture of its own in a sequence, larger than the slice's."""
    small = Dataset()
    small.Rows, small.Columns, small.BitsAllocated = 96, 64, 16
    small.PixelData = bytes(96 * 64 * 2)
    small["PixelData"].VR = "OW"
    return small


@pytest.mark.parametrize("is_undefined", [False, True])
@pytest.mark.parametrize("syntax", ALL)
def test_what_lies_around_the_pixel_data_is_not_taken_for_them(tmp_path, capfd, syntax, is_undefined):
    """An icon before, in sequences within sequences, private data of unknown type, and padding behind."""

    def surround(one):
        outer = Dataset()
        outer.IconImageSequence = Sequence([icon(), icon()])
        one.IconImageSequence = Sequence([icon()])
        one.ReferencedImageSequence = Sequence([outer])
        for sequence in (one["IconImageSequence"], one["ReferencedImageSequence"], outer["IconImageSequence"]):
            sequence.is_undefined_length = is_undefined
            for item in sequence.value:
                item.is_undefined_length_sequence_item = is_undefined
        one.add_new(0x00091001, "UN", b"\xe0\x7f\x10\x00" * 50)
        one.add_new(0xFFFCFFFC, "OB", bytes(3 * BYTES))

    def cut(one):
        surround(one)
        if syntax in UNCOMPRESSED:
            one.PixelData = one.PixelData[: BYTES // 2]
        else:
            picture = picture_of(one)
            put_picture(one, picture[: len(picture) // 4 * 2])

    written(tmp_path / "sound", syntax, surround)
    assert np.array_equal(read_scan(tmp_path / "sound").voxels, voxels_hu(shape=SHAPE))
    refusal(written(tmp_path / "short", syntax, cut), capfd)


def test_a_sequence_of_unknown_type_is_walked_through(tmp_path):
    """As an archive writes that did not know it: undefined length, and implicit inside (PS3.5, 6.2.2)."""
    path = written(tmp_path, "explicit")
    inner = b"\x08\x00\x50\x11" + (4).to_bytes(4, "little") + b"1.2\0"
    item = b"\xfe\xff\x00\xe0" + b"\xff" * 4 + inner + b"\xfe\xff\x0d\xe0" + bytes(4)
    private = b"\x09\x00\x01\x10UN\0\0" + b"\xff" * 4 + item + b"\xfe\xff\xdd\xe0" + bytes(4)
    data = path.read_bytes()
    begin = data.index(b"\x10\x00\x10\x00PN")
    path.write_bytes(data[:begin] + private + data[begin:])
    assert np.array_equal(read_scan(tmp_path).voxels, voxels_hu(shape=SHAPE))


def test_a_file_that_is_implicit_against_its_word_is_read_as_gdcm_does(tmp_path, capfd):
    for number, end in enumerate((BYTES, BYTES // 2)):
        folder = tmp_path / str(number)
        path = write_series(folder, voxels_hu(shape=SHAPE))[2]
        one = pydicom.dcmread(path)
        one.PixelData = one.PixelData[:end]
        with path.open("wb") as file:
            file.write(path.with_name("IM0000").read_bytes()[:132])
            pydicom.filewriter.write_file_meta_info(file, one.file_meta)  # which says explicit
            implicit = pydicom.filebase.DicomFileLike(file)
            implicit.is_little_endian = implicit.is_implicit_VR = True
            pydicom.filewriter.write_dataset(implicit, one)
    assert np.array_equal(read_scan(tmp_path / "0").voxels, voxels_hu(shape=SHAPE))
    assert f"{BYTES} bytes, and holds {BYTES // 2}" in refusal(path, capfd)


# How a compressed picture may end too early: without its end, with one, and with zeros that were never filled in.
CUTS = {
    "cut": lambda picture, share: picture[: int(len(picture) * share) // 2 * 2],
    "ended": lambda picture, share: picture[: int(len(picture) * share) // 2 * 2] + END,
    "zeros": lambda picture, share: picture[: int(len(picture) * share) // 2 * 2].ljust(len(picture), b"\0"),
}


@pytest.mark.parametrize("share", [0.01, 0.5, 0.97])
@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("syntax", COMPRESSED)
def test_a_compressed_slice_that_ends_early_is_refused(tmp_path, capfd, syntax, cut, share):
    path = written(tmp_path, syntax, lambda one: put_picture(one, CUTS[cut](picture_of(one), share)))
    refusal(path, capfd)


def test_the_last_run_of_rle_must_be_whole(tmp_path, capfd):
    """GDCM takes it for whole where it ends within a run of literal bytes."""
    hu = voxels_hu(shape=SHAPE)
    hu[:, -1] = (np.arange(64) * 37 % 256 - 1024)[:, None]  # literal bytes at the end of the last segment
    path = write_series(tmp_path, hu, change=COMPRESSED["RLE"])[2]
    one = pydicom.dcmread(path)
    put_picture(one, picture_of(one)[:-20])
    one.save_as(path)
    assert sitk.ReadImage(path, imageIO="GDCMImageIO").GetSize()[:2] == (64, 48)  # GDCM does not mind
    assert "declares 64 × 48 pixels of 16 bits, and its compressed picture ends before; " in refusal(path, capfd)


@pytest.mark.parametrize("syntax", COMPRESSED)
def test_a_compressed_slice_of_another_size_is_refused(tmp_path, capfd, syntax):
    def declare(one):
        one.Rows = 96

    line = refusal(written(tmp_path, syntax, declare), capfd)
    assert "declares 64 × 96 pixels of 16 bits, and its compressed picture " in line
    assert syntax == "RLE" or "has 64 × 48" in line


@pytest.mark.parametrize("syntax", ALL)
def test_an_absurd_size_is_refused_before_anything_is_decoded(tmp_path, capfd, monkeypatch, syntax):
    for file in write_series(tmp_path, voxels_hu(shape=SHAPE), change=ALL[syntax]):
        one = pydicom.dcmread(file)
        one.Rows = one.Columns = 65535
        one.save_as(file)
    monkeypatch.setattr(dicom.sitk, "ReadImage", lambda *_, **__: pytest.fail("8 GB are taken"))
    line = refusal(tmp_path / "IM0000", capfd)
    assert "declares 65535 × 65535 pixels of 16 bits" in line
    assert ("8589672450 bytes" if syntax in UNCOMPRESSED else "expected 8192 × 8192 at most") in line


def test_colour_among_the_slices_is_told(tmp_path):
    def colour(one):
        one.SamplesPerPixel, one.PhotometricInterpretation, one.PlanarConfiguration = 3, "RGB", 0
        one.PixelData = one.PixelData * 3

    path = written(tmp_path, "explicit", colour)
    with pytest.raises(InputError, match=rf"3 samples per pixel\), such as screenshots, the first in {path.name}"):
        read_scan(tmp_path)


def test_a_file_without_pixel_data_is_told(tmp_path):
    path = written(tmp_path, "explicit", lambda one: one.pop("PixelData"))
    with pytest.raises(InputError, match="declares 64 × 48 pixels of 16 bits, and no pixel data are found in it"):
        check_pixels(path, "1.2.840.10008.1.2.1", Declared(64, 48, 1, 16))
