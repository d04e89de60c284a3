"""Whether a NIfTI, NRRD or MetaImage file holds the voxels that its header declares, before memory is taken for them.

ITK's reader of MetaImage leaves what a compressed file lacks as it was in memory, and does not tell. Its reader of
NRRD, as nibabel's of NIfTI, stops before the checksum that tells of damage within a compressed file.
"""

import gzip
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from io import BufferedIOBase
from pathlib import Path
from typing import BinaryIO

from lightning_dice.errors import InputError

COUNT_FROM = 10**9  # bytes: so many are counted before they are read, fewer do no harm if they turn out to be missing
MOST_SURPLUS = 2**28  # bytes: what unpacks to so many more than declared is left unread, and unchecked
TEXT = ("ascii", "text", "txt", "hex")  # of NRRD's encodings
PIECE = 2**20  # bytes at a time, packed or not


@dataclass(frozen=True)
class Stored:
    """Where a file's voxels are.

    Attributes:
        begin: first byte of them, or of the stream that they are packed in.
        size: bytes from there to the end.
        is_packed: whether that is a zlib or gzip stream.
        is_text: whether they are numbers to read, of one letter at least.
        is_told: whether the reader of the voxels tells of too few, and of damage.
        ahead: bytes to unpack before the voxels.
    """

    begin: int
    size: int
    is_packed: bool
    is_text: bool = False
    is_told: bool = True
    ahead: int = 0


def stored_nifti(path: Path, offset: int) -> Stored:
    """Of a NIfTI file, whose voxels begin at `offset` when it is unpacked."""
    size = path.stat().st_size
    if path.name.lower().endswith(".gz"):
        return Stored(0, size, is_packed=True, ahead=offset)
    return Stored(offset, size - offset, is_packed=False)


def stored_nrrd(path: Path) -> Stored:
    """Of an NRRD file.

    Raises:
        InputError: the voxels are in another file.
    """
    with path.open("rb") as file:
        fields = _fields(file, ":", last="")
        begin = file.tell()
    other = fields.get("data file", fields.get("datafile"))
    if other:
        raise _elsewhere(path, other)
    encoding = fields.get("encoding", "raw").lower()
    is_packed = encoding not in ("raw", *TEXT)
    return Stored(begin, path.stat().st_size - begin, is_packed, encoding in TEXT, is_told=False)


def stored_mha(path: Path) -> Stored:
    """Of a MetaImage file.

    Raises:
        InputError: the voxels are in another file.
    """
    with path.open("rb") as file:
        fields = _fields(file, "=", last="elementdatafile")
        begin = file.tell()
    other = fields.get("elementdatafile", "")
    if other.lower() != "local":
        raise _elsewhere(path, other)
    rest = path.stat().st_size - begin
    if fields.get("compresseddata", "").lower() != "true":
        return Stored(begin, rest, is_packed=False)
    given = fields.get("compresseddatasize", "")
    size = min(int(given), rest) if given.isdigit() else 0  # ITK reads as many as the header says, without it none
    return Stored(begin, size, is_packed=True, is_told=False)


def unpacking(path: Path) -> BufferedIOBase:
    """The file, opened to be read as if it were not packed."""
    return gzip.open(path) if path.name.lower().endswith(".gz") else path.open("rb")


def check_end(file: BufferedIOBase) -> None:
    """Read on to the end, where gzip has its checksum.

    Raises:
        OSError: what was read is not what was packed.
    """
    for _ in range(MOST_SURPLUS // PIECE):
        if not file.read(PIECE):
            return


def check_stored(path: Path, shape: Sequence[int], itemsize: int, stored: Stored) -> None:
    """See that the voxels are there: by the file's size, or by unpacking them where that is not known to be harmless.

    Args:
        shape: all axes that the header declares.
        itemsize: bytes per voxel.

    Raises:
        InputError: there are fewer bytes.
        zlib.error: they cannot be unpacked.
    """
    declared = math.prod(shape) * (1 if stored.is_text else itemsize)
    if not stored.is_packed:
        held = stored.size
    elif stored.is_told and declared < COUNT_FROM:
        return
    else:
        held = _unpacked(path, stored, declared + stored.ahead) - stored.ahead
    if held < declared:
        sides = " × ".join(map(str, shape))
        raise InputError(
            f"{path}: cannot be read (declares {sides} voxels of {itemsize} bytes, {declared} bytes, and holds "
            f"{max(held, 0)}); replace the file"
        )


def _fields(file: BinaryIO, separator: str, last: str) -> dict[str, str]:
    """A header's fields up to the last one, names in small letters; the file is then behind it."""
    fields = {}
    for line in file:
        name, _, value = line.decode("latin-1").partition(separator)
        fields[name.strip().lower()] = value.strip()
        if name.strip().lower() == last:
            break
    return fields


def _unpacked(path: Path, stored: Stored, enough: int) -> int:
    """Bytes that the stream comes to, or several one behind the other; with enough of them it ends."""
    made, left = 0, stored.size
    engine = zlib.decompressobj(zlib.MAX_WBITS | 32)  # zlib's head or gzip's
    with path.open("rb") as file:
        file.seek(stored.begin)
        while made < enough + MOST_SURPLUS and (piece := file.read(min(PIECE, left))):
            left -= len(piece)
            while piece:
                made += len(engine.decompress(piece, PIECE))
                piece = engine.unconsumed_tail
                if engine.eof and made >= enough:
                    return made
                if engine.eof:
                    piece, engine = engine.unused_data, zlib.decompressobj(zlib.MAX_WBITS | 32)
    return made


def _elsewhere(path: Path, other: str) -> InputError:
    return InputError(
        f"{path}: its voxels are in another file, {other or 'not named'}; expected all in one, convert it"
    )
