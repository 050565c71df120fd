"""The one frame of a DICOM file as stored values: decoder, bits, sign."""

from __future__ import annotations

from importlib import import_module
from typing import Final, NamedTuple

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.pixels import pixel_array

from lightning_rad.modalities.dicom.codestream import check_frame
from lightning_rad.modalities.jpeg import decode_jpeg
from lightning_rad.modalities.stored import UnreadableImageError, check_size

DEFLATED: Final = "1.2.840.10008.1.2.1.99"
BASELINE: Final = "1.2.840.10008.1.2.4.50"
RLE: Final = "1.2.840.10008.1.2.5"

NATIVE: Final = {
    "1.2.840.10008.1.2": "Implicit VR",
    "1.2.840.10008.1.2.1": "Explicit VR",
    "1.2.840.10008.1.2.2": "Explicit VR big endian",
    DEFLATED: "Deflated",
}

IMPLICIT: Final = {
    (True, True): "1.2.840.10008.1.2",
    (False, True): "1.2.840.10008.1.2.1",
    (False, False): "1.2.840.10008.1.2.2",
}
"""(implicit, little endian) -> the transfer syntax of a file that does not name one."""


class Decoder(NamedTuple):
    """What a transfer syntax is called, and the function of imagecodecs for it."""

    name: str
    function: str


DECODERS: Final = {
    "1.2.840.10008.1.2.4.51": Decoder("JPEG extended", "jpeg8_decode"),
    "1.2.840.10008.1.2.4.57": Decoder("JPEG lossless", "jpeg8_decode"),
    "1.2.840.10008.1.2.4.70": Decoder("JPEG lossless SV1", "jpeg8_decode"),
    "1.2.840.10008.1.2.4.80": Decoder("JPEG-LS lossless", "jpegls_decode"),
    "1.2.840.10008.1.2.4.81": Decoder("JPEG-LS near lossless", "jpegls_decode"),
    "1.2.840.10008.1.2.4.90": Decoder("JPEG 2000 lossless", "jpeg2k_decode"),
    "1.2.840.10008.1.2.4.91": Decoder("JPEG 2000", "jpeg2k_decode"),
    "1.2.840.10008.1.2.4.201": Decoder("HTJ2K lossless", "jpeg2k_decode"),
    "1.2.840.10008.1.2.4.202": Decoder("HTJ2K lossless RPCL", "jpeg2k_decode"),
    "1.2.840.10008.1.2.4.203": Decoder("HTJ2K", "jpeg2k_decode"),
}
"""Compressed transfer syntaxes but RLE, which pydicom reads, and JPEG baseline, which is decoded as
every JPEG is here. One decoder each: the same file gives the same pixels wherever it is read.

Not GDCM, which ends the process at a damaged lossless JPEG, nor pylibjpeg-libjpeg, which is GPL.
"""


def stored_values(dataset: Dataset) -> npt.NDArray[np.int32]:
    """[H, W] of the values as they are stored, before any transform.

    Raises UnreadableImageError.
    """
    if not dataset.get("PixelData"):
        raise UnreadableImageError("no pixel data: a header alone")
    height, width = int(dataset.Rows), int(dataset.Columns)
    check_size(height, width)
    syntax = str(dataset.file_meta.TransferSyntaxUID)
    if syntax in NATIVE:
        return _of_bits(_uncompressed(dataset, height, width), dataset)
    if syntax == RLE:
        return _of_bits(pixel_array(dataset, raw=True, decoding_plugin="pydicom"), dataset)
    return _within(_decompress(dataset, syntax, height, width), dataset)


def _uncompressed(dataset: Dataset, height: int, width: int) -> npt.NDArray[np.generic]:
    """The containers, unsigned; in big endian, pairs of bytes in 16-bit words are swapped too."""
    data, octets = dataset.PixelData, int(dataset.BitsAllocated) // 8
    little = dataset.original_encoding[1]
    if len(data) < height * width * octets:
        raise UnreadableImageError("truncated image: fewer bytes than Rows and Columns say")
    if octets == 1 and not little and dataset["PixelData"].VR == "OW":
        data = np.frombuffer(data[: len(data) // 2 * 2], ">u2").astype("<u2").tobytes()
    kind = "u1" if octets == 1 else "<u2" if little else ">u2"
    return np.frombuffer(data, kind, height * width).reshape(height, width)


def stored_range(dataset: Dataset) -> tuple[int, int]:
    """The lowest and highest stored value that the header's bits and sign leave."""
    stored = int(dataset.BitsStored)
    if dataset.get("PixelRepresentation") == 1:
        return -(1 << (stored - 1)), (1 << (stored - 1)) - 1
    return 0, (1 << stored) - 1


def _decompress(dataset: Dataset, syntax: str, height: int, width: int) -> npt.NDArray[np.generic]:
    decoder = DECODERS.get(syntax)
    if decoder is None and syntax != BASELINE:
        raise UnreadableImageError("unknown transfer syntax: no radiograph is stored so")
    frame = get_frame(dataset.PixelData, 0, number_of_frames=1)
    check_frame(frame, height, width)
    if decoder is None:
        return decode_jpeg(frame)
    try:
        decode = getattr(import_module("imagecodecs"), decoder.function)
    except ImportError:
        raise UnreadableImageError(
            f"missing decoder: {decoder.name} ({syntax}) needs pip install 'lightning-rad[dicom]'"
        ) from None
    try:
        return np.asarray(decode(frame))
    except Exception:  # each codec has an error of its own, derived from RuntimeError or not
        raise UnreadableImageError(f"damaged image: {decoder.name} that cannot be read") from None


def _of_bits(raw: npt.NDArray[np.generic], dataset: Dataset) -> npt.NDArray[np.int32]:
    """The bits of a container that are pixel, with their sign (PS3.5, 8.1.1).

    The others may hold an overlay, or the sign once more; where they hold anything else, the
    number of bits is not what the header says.
    """
    container, stored = 8 * raw.itemsize, int(dataset.BitsStored)
    high = int(dataset.get("HighBit", stored - 1))
    signed = dataset.get("PixelRepresentation") == 1
    words = raw.astype(f"u{raw.itemsize}").astype(np.int32)
    values = (words >> (high + 1 - stored)) & ((1 << stored) - 1)
    if signed:
        values = (values ^ (1 << (stored - 1))) - (1 << (stored - 1))
    declared = any(element.tag.element == 0x0102 for element in dataset.group_dataset(0x6000))
    above, spare = words >> (high + 1), container - high - 1
    if spare and not declared:
        sign = (values < 0) * ((1 << spare) - 1)
        if not np.array_equal(above, sign if signed and above.any() else np.zeros_like(above)):
            raise UnreadableImageError(f"damaged header: pixels of more than {stored} bits")
    return values


def _within(decoded: npt.NDArray[np.generic], dataset: Dataset) -> npt.NDArray[np.int32]:
    """Decompressed values, with the sign that the header says.

    Most codecs know none, and give the bits of a negative value. Lossy compression may have
    carried values over the ends, where they are cut off.
    """
    if decoded.ndim != 2:
        raise UnreadableImageError("wrong channels: a colour picture")
    low, high = stored_range(dataset)
    values = decoded.astype(np.int32)
    if low < 0 and decoded.dtype.kind == "u":
        values = ((values & (high - low)) ^ -low) + low
    if values.min() < low or values.max() > high:
        values = np.clip(values, low, high)
    return values
