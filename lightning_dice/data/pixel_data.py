"""A DICOM file's pixel data beside what its header declares.

Where they end early, GDCM leaves the rest of its buffer as it was: voxels of the slice before, or fills it. So they are
measured here. Encoding: DICOM PS3.5, 7.1 (elements), 7.5 (sequences), A.4 (fragments), G.3 (RLE); sizes of compressed
pictures: ITU-T T.81, B.2.2 (JPEG, and JPEG-LS as in T.87) and T.800, A.5.1 (JPEG 2000).
"""

import io
import os
import struct
import tempfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from lightning_dice.errors import InputError

UNCOMPRESSED = IMPLICIT, EXPLICIT, DEFLATED, BIG_ENDIAN = tuple(
    f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".1.99", ".2")
)
RLE = "1.2.840.10008.1.2.5"
PIXEL_DATA, ITEM, ITEM_END, SEQUENCE_END = (0x7FE0, 0x0010), (0xFFFE, 0xE000), (0xFFFE, 0xE00D), (0xFFFE, 0xE0DD)
LONG = (b"OB", b"OD", b"OF", b"OL", b"OV", b"OW", b"SQ", b"SV", b"UC", b"UN", b"UR", b"UT", b"UV")  # 4 bytes of length
UNDEFINED = 0xFFFFFFFF  # length of what a delimiter ends
MOST_HEADER = 2**26  # bytes of a deflated file before its pixel data
# In rows and columns: scanners make 512 to 2048. A picture of one colour compresses without end, so that nothing but a
# limit keeps a wrong size from taking gigabytes.
MOST_COMPRESSED = 8192
JPEG_BEGIN, JPEG_END, JPEG_2000 = b"\xff\xd8", b"\xff\xd9", b"\xff\x4f\xff\x51"
FRAMES = (*(marker for marker in range(0xC0, 0xD0) if marker not in (0xC4, 0xC8, 0xCC)), 0xF7)  # SOF, and JPEG-LS's
EXPORT = "it is damaged or was cut short, export the series anew"


@dataclass(frozen=True)
class Declared:
    """What a header says of its picture; bits are those allocated, per sample."""

    columns: int
    rows: int
    samples: int
    bits: int

    @property
    def size(self) -> int:
        """Bytes without compression."""
        return -(-self.columns * self.rows * self.samples * self.bits // 8)

    def __str__(self) -> str:
        return f"{self.columns} × {self.rows} pixels of {self.samples * self.bits} bits"


def check_pixels(path: Path, syntax: str, declared: Declared) -> None:
    """See that a file holds the picture that it declares, from the header and the lengths of RLE's runs alone.

    What is missing within a JPEG picture that has its end is only found by decoding it, see `refusing_corrupt`.

    Args:
        syntax: UID of the transfer syntax.

    Raises:
        InputError: it holds less or another size, or a compressed picture larger than that of any scanner.
    """
    with path.open("rb") as file:
        data = _data_set(file, syntax, declared.size + MOST_HEADER)
        length = _find_pixels(data, ">" if syntax == BIG_ENDIAN else "<")
        if length is None:
            raise InputError(f"{path}: declares {declared}, and no pixel data are found in it; {EXPORT}")
        if length != UNDEFINED:
            begin = data.tell()
            held = min(length, data.seek(0, os.SEEK_END) - begin)
            if held < declared.size:
                raise InputError(f"{path}: declares {declared}, {declared.size} bytes, and holds {held}; {EXPORT}")
            return
        picture = b"".join([*_fragments(data)][1:])  # behind the table of offsets
    size = declared.columns, declared.rows
    if max(size) > MOST_COMPRESSED:
        most = f"expected {MOST_COMPRESSED} × {MOST_COMPRESSED} at most"
        raise InputError(f"{path}: declares {declared}, compressed to {len(picture)} bytes; {most}, {EXPORT}")
    if syntax == RLE:
        is_whole = _is_whole_rle(picture, declared)
    else:
        found = _jpeg_size(picture)
        if found and found != size:
            sides = " × ".join(map(str, found))
            raise InputError(f"{path}: declares {declared}, and its compressed picture has {sides}; {EXPORT}")
        is_whole = found is not None and picture.rstrip(b"\0").endswith(JPEG_END)
    if not is_whole:
        raise InputError(f"{path}: declares {declared}, and its compressed picture ends before; {EXPORT}")


@contextmanager
def refusing_corrupt(path: Path, syntax: str) -> Iterator[None]:
    """While GDCM reads a compressed picture, listen whether its libjpeg finds too few data, and fills in the rest.

    It says so on the process's standard error and nowhere else, so for this time that goes to a file. What the codecs
    have to say besides is lost: either the picture is refused, or it does not matter.

    Raises:
        InputError: it says so.
    """
    if syntax in UNCOMPRESSED:
        yield
        return
    with tempfile.TemporaryFile() as told:
        kept = os.dup(2)
        os.dup2(told.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        told.seek(0)
        corrupt = [line.strip() for line in told.read().decode(errors="replace").splitlines() if "Corrupt JPEG" in line]
    if corrupt:
        raise InputError(f"{path}: its compressed picture is not whole ({corrupt[0]}); {EXPORT}")


def _data_set(file: BinaryIO, syntax: str, most: int) -> BinaryIO:
    """The file behind its meta information, which is always little endian with explicit types; inflated, up to `most`
    bytes."""
    file.seek(132)
    while (start := file.read(8))[:2] == b"\x02\x00":
        file.seek(_length(file, start, "<", is_explicit=True), os.SEEK_CUR)
    file.seek(-len(start), os.SEEK_CUR)
    if syntax != DEFLATED:
        return file
    return io.BytesIO(zlib.decompressobj(-zlib.MAX_WBITS).decompress(file.read(), most))


def _find_pixels(data: BinaryIO, order: str) -> int | None:
    """Bring a data set to the first byte of its pixel data, not those of an icon within; their length, None if none."""
    start = data.read(8)
    data.seek(-len(start), os.SEEK_CUR)
    # By the first element: some files are not what they declare, and GDCM reads them.
    is_explicit = [start[4:6].isalpha() and start[4:6].isupper()]
    while len(start := data.read(8)) == 8:
        tag = struct.unpack(order + "HH", start[:4])
        length = _length(data, start, order, is_explicit[-1] and tag[0] != ITEM[0])
        if tag == PIXEL_DATA and len(is_explicit) == 1:
            return length
        if tag in (ITEM_END, SEQUENCE_END):
            is_explicit.pop()
            if not is_explicit:
                return None
        elif length == UNDEFINED:  # go on within it; of unknown type it is implicit (PS3.5, 6.2.2)
            is_explicit.append(is_explicit[-1] and start[4:6] != b"UN")
        else:
            data.seek(length, os.SEEK_CUR)
    return None


def _length(data: BinaryIO, start: bytes, order: str, is_explicit: bool) -> int:
    """Of an element's value, from the element's first 8 bytes and, for some types, 4 more."""
    if not is_explicit:
        return struct.unpack(order + "I", start[4:])[0]
    if start[4:6] in LONG:
        return int.from_bytes(data.read(4), "big" if order == ">" else "little")
    return struct.unpack(order + "H", start[6:])[0]


def _fragments(data: BinaryIO) -> Iterator[bytes]:
    while len(start := data.read(8)) == 8 and struct.unpack("<HH", start[:4]) == ITEM:
        yield data.read(struct.unpack("<I", start[4:])[0])


def _is_whole_rle(picture: bytes, declared: Declared) -> bool:
    """Whether there is a segment for each byte of a pixel, and in each as many as there are pixels."""
    if len(picture) < 64:
        return False
    count, *begins = struct.unpack("<16I", picture[:64])
    if count != declared.samples * declared.bits // 8:
        return False
    ends = [*begins[1:count], len(picture)]
    pixels = declared.columns * declared.rows
    return all(_holds_runs(picture[begin:end], pixels) for begin, end in zip(begins, ends, strict=False))


def _holds_runs(segment: bytes, pixels: int) -> bool:
    """Whether a segment's runs, of a number of literal bytes or of one that is repeated, make so many bytes."""
    place = made = 0
    while place < len(segment) and made < pixels:
        code = segment[place]
        place += code + 2 if code < 128 else 2 if code > 128 else 1
        made += code + 1 if code < 128 else 257 - code if code > 128 else 0
    return made >= pixels and place <= len(segment)


def _jpeg_size(picture: bytes) -> tuple[int, int] | None:
    """Columns and rows that a JPEG, JPEG-LS or JPEG 2000 picture has by its own header; None if that is cut."""
    if not picture.startswith(JPEG_BEGIN):
        begin = picture.find(JPEG_2000)  # in some files behind the boxes of a .jp2
        if begin < 0 or len(picture) < begin + 24:
            return None
        right, bottom, left, top = struct.unpack(">4I", picture[begin + 8 : begin + 24])
        return right - left, bottom - top
    place = len(JPEG_BEGIN)
    while place + 9 <= len(picture):
        if picture[place + 1] == 0xFF:  # fills
            place += 1
        elif picture[place + 1] in FRAMES:
            rows, columns = struct.unpack(">HH", picture[place + 5 : place + 9])
            return columns, rows
        else:
            place += 2 + struct.unpack(">H", picture[place + 2 : place + 4])[0]
    return None
