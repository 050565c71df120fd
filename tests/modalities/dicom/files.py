"""DICOM files that tests write: any header around any values, in each transfer syntax."""

from functools import partial
from io import BytesIO

import imagecodecs
import numpy as np
import pydicom
import simplejpeg
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import UID

CR = "1.2.840.10008.5.1.4.1.1.1"
IMPLICIT, EXPLICIT, BIG, DEFLATED = (f"1.2.840.10008.1.2{end}" for end in ("", ".1", ".2", ".1.99"))
BASELINE, EXTENDED, LOSSLESS, LOSSLESS_SV1 = (f"1.2.840.10008.1.2.4.{n}" for n in (50, 51, 57, 70))
LS, LS_NEAR, J2K_LOSSLESS, J2K = (f"1.2.840.10008.1.2.4.{n}" for n in (80, 81, 90, 91))
RLE = "1.2.840.10008.1.2.5"


def ramp(height=24, width=40, *, bits=12, signed=False, seed=0):
    """Smooth values over the whole range of their bits, with a little noise."""
    low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
    across = np.linspace(0, 1, width)[None, :] * 0.7 + np.linspace(0, 0.3, height)[:, None]
    noise = np.random.default_rng(seed).integers(0, 3, (height, width))
    values = np.round(low + across * (high - low)).astype(int) + noise
    container = ("i" if signed else "u") + ("1" if bits <= 8 else "2")
    return np.clip(values, low, high).astype(container)


def header(values, *, bits, **tags):
    """A Computed Radiography object around [H, W] values; tags of None are taken out."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = CR, "1.2.3.4.5"
    data.StudyInstanceUID, data.SeriesInstanceUID = "1.2.3", "1.2.3.4"
    data.Modality, data.PatientID, data.PatientName = "CR", "P1", "Doe^Jane"
    data.Rows, data.Columns = values.shape[:2]
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated = 8 * values.itemsize
    data.BitsStored, data.HighBit = bits, bits - 1
    data.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        if value is None:
            delattr(data, name)
        else:
            setattr(data, name, value)
    return data


def written(data, values, syntax=EXPLICIT, *, meta=True):
    """The bytes of a file."""
    file = FileDataset("", {}, file_meta=FileMetaDataset(), preamble=b"\0" * 128)
    file.update(data)
    file.file_meta.TransferSyntaxUID = UID(EXPLICIT if syntax in (RLE,) else syntax)
    file.file_meta.MediaStorageSOPClassUID = data.SOPClassUID
    file.file_meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    big = syntax == BIG
    raw = values.astype(values.dtype.newbyteorder(">" if big else "<")).tobytes()
    raw += b"\0" * (len(raw) % 2)
    if big and values.itemsize == 1:  # bytes lie in words of 16 bits
        raw = np.frombuffer(raw, "<u2").astype(">u2").tobytes()
    file.add_new("PixelData", "OW", raw)
    if syntax == RLE:
        file.compress(UID(RLE), generate_instance_uid=False, encoding_plugin="pydicom")
    elif syntax in FRAMES:
        file.PixelData = encapsulate([FRAMES[syntax](values, data.BitsStored)])
        file["PixelData"].VR = "OB"
        file["PixelData"].is_undefined_length = True
    out = BytesIO()
    if meta:
        pydicom.dcmwrite(out, file, enforce_file_format=True)
        return out.getvalue()
    bare = Dataset(file)
    pydicom.dcmwrite(out, bare, implicit_vr=syntax == IMPLICIT, little_endian=not big)
    return out.getvalue()


def dicom(values, *, bits=12, syntax=EXPLICIT, meta=True, **tags):
    """The bytes of a Computed Radiography file."""
    return written(header(values, bits=bits, **tags), values, syntax, meta=meta)


def lut(first, bits, entries):
    """An item of a Modality or VOI LUT Sequence."""
    item = Dataset()
    item.LUTDescriptor = [len(entries) % 65536, first, bits]
    item.LUTData = [int(e) for e in entries]
    item["LUTData"].VR = "US"
    item["LUTDescriptor"].VR = "SS" if first < 0 else "US"
    return item


def baseline(values, _):
    return simplejpeg.encode_jpeg(values[:, :, None], 95, "GRAY", "Gray")


def lossless(values, bits):
    """JPEG lossless, selection value 1 (T.81, Annex H), every category with a code of 5 bits."""
    size = np.array(values.shape, ">u2").tobytes()
    table = bytes([0, 0, 0, 0, 0, 17] + [0] * 11) + bytes(range(17))
    head = b"\xff\xd8"
    head += b"\xff\xc3\x00\x0b" + bytes([bits]) + size + b"\x01\x01\x11\x00"
    head += b"\xff\xc4" + (2 + len(table)).to_bytes(2, "big") + table
    head += b"\xff\xda\x00\x08\x01\x01\x00\x01\x00\x00"
    out = []
    for row in range(values.shape[0]):
        for column in range(values.shape[1]):
            if row == column == 0:
                expected = 1 << bits - 1
            else:
                near = (row - 1, 0) if column == 0 else (row, column - 1)
                expected = int(values[near])
            step = (int(values[row, column]) - expected + 32768) % 65536 - 32768
            category = abs(step).bit_length()
            out.append(f"{category:05b}")
            if 0 < category < 16:
                out.append(f"{step if step > 0 else step + (1 << category) - 1:0{category}b}")
    text = "".join(out)
    text += "1" * (-len(text) % 8)
    body = int(text, 2).to_bytes(len(text) // 8, "big").replace(b"\xff", b"\xff\x00")
    return head + body + b"\xff\xd9"


def extended(values, bits):
    return imagecodecs.jpeg8_encode(values, 98, bitspersample=bits)


def jpeg_ls(values, bits, level=0):
    return imagecodecs.jpegls_encode(unsigned(values, bits), level)


def jpeg_2000(values, bits, level=None):
    return imagecodecs.jpeg2k_encode(
        values, level, bitspersample=bits, reversible=level is None, codecformat="J2K"
    )


def unsigned(values, bits):
    return values.view(values.dtype.str.replace("i", "u")) & ((1 << bits) - 1)


FRAMES = {
    BASELINE: baseline,
    EXTENDED: extended,
    LOSSLESS: lossless,
    LOSSLESS_SV1: lossless,
    LS: jpeg_ls,
    LS_NEAR: partial(jpeg_ls, level=2),
    J2K_LOSSLESS: jpeg_2000,
    J2K: partial(jpeg_2000, level=70),
}
"""Transfer syntax -> its encoder of one frame; those of lossless JPEG are written here."""
