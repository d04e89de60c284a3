"""Files that hold less than they declare: told in one line, before memory is taken for what is not there."""

import gzip
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from lightning_dice.data import headers, scans
from lightning_dice.data.scans import read_scan
from lightning_dice.errors import InputError
from tests.ct_series import voxels_hu

SMALL = (9, 7, 5)
BYTES = 9 * 7 * 5 * 2


def nifti(sizes, data: bytes, version=nib.Nifti1Header) -> bytes:
    header = version()
    header.set_data_dtype(np.int16)
    header["dim"][:4] = 3, *sizes
    header["sform_code"], header["srow_x"], header["srow_y"], header["srow_z"] = 1, *np.eye(3, 4)
    offset = header.single_vox_offset
    header["vox_offset"], header["magic"] = offset, header.single_magic
    return header.binaryblock.ljust(offset, b"\0") + data


def nifti_2(sizes, data: bytes) -> bytes:
    return nifti(sizes, data, nib.Nifti2Header)


def nrrd(sizes, data: bytes, encoding: str = "raw", more: str = "") -> bytes:
    sizes = " ".join(map(str, sizes))
    return (
        "NRRD0004\n# made by hand\ntype: short\ndimension: 3\nspace: left-posterior-superior\n"
        f"sizes: {sizes}\nspace directions: (1,0,0) (0,1,0) (0,0,1)\nendian: little\nencoding: {encoding}\n"
        f"space origin: (0,0,0)\nkey:=value\n{more}\n"
    ).encode() + data


def packed_mha(sizes, data: bytes) -> bytes:
    packed = zlib.compress(data)
    return mha(sizes, packed, f"CompressedData = True\nCompressedDataSize = {len(packed)}")


def mha(sizes, data: bytes, more: str = "CompressedData = False", place: str = "LOCAL") -> bytes:
    sizes = " ".join(map(str, sizes))
    return (
        "ObjectType = Image\nNDims = 3\nBinaryData = True\nTransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
        f"{more}\nElementSpacing = 1 1 1\nDimSize = {sizes}\nElementType = MET_SHORT\nElementDataFile = {place}\n"
    ).encode() + data


# A file's ending, and its content for the sizes that it declares and the bytes that it holds.
FORMATS = {
    "NIfTI": (".nii", nifti),
    "NIfTI-2": (".nii", nifti_2),
    "NIfTI, gzip": (".nii.gz", lambda sizes, data: gzip.compress(nifti(sizes, data))),
    "NIfTI, two gzips": (
        ".nii.gz",
        lambda sizes, data: gzip.compress(nifti(sizes, data[:100])) + gzip.compress(data[100:]),
    ),
    "NRRD": (".nrrd", nrrd),
    "NRRD, gzip": (".nrrd", lambda sizes, data: nrrd(sizes, gzip.compress(data), "gzip")),
    "MetaImage": (".mha", mha),
    "MetaImage, zlib": (".mha", packed_mha),
}


@pytest.fixture(params=FORMATS)
def write(request, tmp_path):
    ending, content = FORMATS[request.param]

    def write(sizes, data: bytes):
        path = tmp_path / f"ct{ending}"
        path.write_bytes(content(sizes, data))
        return path

    return write


def refusal(path, capfd) -> str:
    with pytest.raises(InputError) as caught:
        read_scan(path)
    told = capfd.readouterr()
    assert (told.out, told.err) == ("", "")
    line = str(caught.value)
    assert "\n" not in line
    assert line.startswith(f"{path}: ")
    return line


def test_what_is_whole_is_read(write, monkeypatch):
    hu = voxels_hu(shape=SMALL)
    for count_from in (10**9, 0):  # whether it is counted before or not
        monkeypatch.setattr(headers, "COUNT_FROM", count_from)
        for surplus in (b"", b"more than declared"):
            assert np.array_equal(read_scan(write(SMALL, hu.tobytes(order="F") + surplus)).voxels, hu)


@pytest.mark.parametrize("held", [0, 2, BYTES // 2, BYTES - 2])
def test_what_is_short_is_refused(write, capfd, held):
    """Also where the rest would be whatever lay in memory before, as with ITK's compressed MetaImage."""
    data = voxels_hu(shape=SMALL).tobytes(order="F")
    line = refusal(write(SMALL, data[:held]), capfd)
    assert ": cannot be read (" in line
    assert line.endswith("; replace the file")


@pytest.mark.parametrize("sizes", [(2000, 2000, 2000), (32767, 32767, 32767)])
def test_absurd_sizes_are_refused_before_memory_is_taken(write, capfd, monkeypatch, sizes):
    path = write(sizes, bytes(3000))
    monkeypatch.setattr(nib.arrayproxy.ArrayProxy, "get_unscaled", lambda self: pytest.fail("16 GB are taken"))
    monkeypatch.setattr(scans.sitk.ImageFileReader, "Execute", lambda self: pytest.fail("16 GB are taken"))
    tracemalloc.start()
    line = refusal(path, capfd)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25
    size = sizes[0]
    declared = f"declares {size} × {size} × {size} voxels of 2 bytes, {2 * size**3} bytes, and holds 3000"
    assert f"cannot be read ({declared}); replace the file" in line


@pytest.mark.parametrize("sizes", [(-5, 4, 4), (0, 4, 4), (-5, -4, 4)])
def test_sizes_that_are_none_are_refused(write, capfd, sizes):
    line = refusal(write(sizes, bytes(3000)), capfd)
    assert "has the shape" in line or "cannot be read (" in line


def test_a_stream_that_unpacks_without_end_is_left_when_there_is_enough(tmp_path):
    """3 MB that come to 3 GB, of which 630 bytes are voxels."""
    engine = zlib.compressobj(wbits=31)
    hu = voxels_hu(shape=SMALL)
    packed = engine.compress(nifti(SMALL, hu.tobytes(order="F")))
    packed += b"".join(engine.compress(bytes(10**8)) for _ in range(3)) + engine.flush()
    (tmp_path / "ct.nii.gz").write_bytes(packed)
    tracemalloc.start()
    assert np.array_equal(read_scan(tmp_path / "ct.nii.gz").voxels, hu)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2**25


def test_metaimages_own_size_of_the_stream_counts(tmp_path, capfd):
    """ITK reads as many bytes as the header says, and makes up the rest."""
    packed = zlib.compress(voxels_hu(shape=SMALL).tobytes(order="F"))
    for size in ("", "CompressedDataSize = 0", f"CompressedDataSize = {len(packed) // 2}"):
        (tmp_path / "ct.mha").write_bytes(mha(SMALL, packed, f"CompressedData = True\n{size}"))
        assert f"{BYTES} bytes, and holds " in refusal(tmp_path / "ct.mha", capfd)


@pytest.mark.parametrize("encoding", ["ascii", "hex"])
def test_numbers_in_letters_are_read(tmp_path, capfd, encoding):
    hu = voxels_hu(shape=SMALL)
    data = hu.tobytes(order="F").hex() if encoding == "hex" else " ".join(map(str, hu.ravel(order="F")))
    (tmp_path / "ct.nrrd").write_bytes(nrrd(SMALL, data.encode(), encoding))
    assert np.array_equal(read_scan(tmp_path / "ct.nrrd").voxels, hu)
    (tmp_path / "ct.nrrd").write_bytes(nrrd(SMALL, data[:-10].encode(), encoding))
    assert "cannot be read" in refusal(tmp_path / "ct.nrrd", capfd)


@pytest.mark.parametrize("name", ["ct.nrrd", "ct.mha"])
def test_voxels_in_another_file_are_refused(tmp_path, capfd, name):
    (tmp_path / "ct.raw").write_bytes(bytes(BYTES))
    header = nrrd(SMALL, b"", more="data file: ct.raw\n") if name == "ct.nrrd" else mha(SMALL, b"", place="ct.raw")
    (tmp_path / name).write_bytes(header)
    assert "its voxels are in another file, ct.raw; expected all in one" in refusal(tmp_path / name, capfd)


@pytest.mark.parametrize("pixel", [sitk.sitkUInt8, sitk.sitkInt16, sitk.sitkFloat32, sitk.sitkFloat64])
@pytest.mark.parametrize("ending", [".mha", ".nrrd"])
def test_the_size_of_a_voxel_is_its_types(tmp_path, pixel, ending):
    image = sitk.Cast(sitk.GetImageFromArray(np.arange(60).reshape(3, 4, 5)), pixel)
    for is_packed in (False, True):
        sitk.WriteImage(image, tmp_path / f"ct{ending}", useCompression=is_packed)
        assert np.array_equal(read_scan(tmp_path / f"ct{ending}").voxels.T.ravel(), np.arange(60))
