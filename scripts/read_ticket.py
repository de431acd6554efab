#!/usr/bin/env python3
"""Reads a ticket or trained network, in its plain or its compact form, and checks it.

    python scripts/read_ticket.py TICKET                  what it is, and the zeros of every layer
    python scripts/read_ticket.py TICKET --expand OUT     the same weights as a plain safetensors file

OUT has every parameter under its own name, pruned weights as 0: PyTorch, candle and whatever else reads safetensors load
it. Exit code 1 if the file is damaged. `read(path)` gives (header, tensors, masks) to other programs; bfloat16, which
numpy does not have, comes as uint16 bits.

Needs: pip install numpy
"""

import hashlib
import json
import struct
import sys

import numpy as np

# safetensors' name: (numpy's type, the name that goes into the content's SHA-256)
TYPES = {
    "F64": ("<f8", "f64"), "F32": ("<f4", "f32"), "F16": ("<f2", "f16"), "BF16": ("<u2", "bf16"),
    "I64": ("<i8", "i64"), "I32": ("<i4", "i32"), "I16": ("<i2", "i16"), "U32": ("<u4", "u32"), "U8": ("u1", "u8"),
}
SCHEMA = 2
FIELDS = {"stage", "parent", "network", "pruning", "seed", "dataset"}
OF_FILE = {"schema", "form", "masks", "shapes", "content_sha256", "format", "lth_version"}


class Digest:
    """SHA-256 over fields, the length of each before it."""

    def __init__(self):
        self.hash = hashlib.sha256()

    def field(self, data):
        data = data.encode() if isinstance(data, str) else bytes(data)
        self.hash.update(struct.pack("<Q", len(data)) + data)

    def hex(self):
        return self.hash.hexdigest()


def open_safetensors(path):
    """(metadata, {name: (type's name, array)}) of a safetensors file."""
    with open(path, "rb") as file:
        content = file.read()
    length = int.from_bytes(content[:8], "little")
    header = json.loads(content[8:8 + length])
    data = memoryview(content)[8 + length:]
    metadata = header.pop("__metadata__", {})
    tensors = {}
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        array = np.frombuffer(data[start:end], TYPES[entry["dtype"]][0]).reshape(entry["shape"])
        tensors[name] = (entry["dtype"], array)
    return metadata, tensors


def unpack(bits, shape):
    """A mask from its bits, lowest first."""
    return np.unpackbits(bits, bitorder="little")[:int(np.prod(shape, dtype=np.int64))].reshape(shape).astype(bool)


def nonzero(dtype, array):
    return array & 0x7FFF != 0 if dtype == "BF16" else array != 0


def read(path):
    """(metadata, {name: (type's name, array)}, {name: mask}); ValueError if the file is no intact ticket."""
    metadata, stored = open_safetensors(path)
    if "content_sha256" not in metadata:
        raise ValueError("no ticket's header: load it as plain weights")
    if metadata.get("schema") != str(SCHEMA):
        raise ValueError(f"schema {metadata.get('schema', 1)}, expected {SCHEMA}: "
                         "an older one has its masks in a second file, write it again with lth_ticket")
    digest = Digest()
    for name in sorted(FIELDS | OF_FILE):
        if name in metadata:
            digest.field(name)
            digest.field(metadata[name])
    if digest.hex() != metadata.get("header_sha256"):
        raise ValueError("the header does not have the SHA-256 that it says")

    tensors, masks = {}, {}
    if metadata["form"] == "compact":
        for name, shape in json.loads(metadata["shapes"]).items():
            mask = unpack(stored.pop("bits/" + name)[1], shape)
            dtype, kept = stored.pop("kept/" + name)
            full = np.zeros(shape, kept.dtype)
            full[mask] = kept
            tensors[name], masks[name] = (dtype, full), mask
        tensors.update(stored)
    else:
        tensors = stored
        for name, runs in json.loads(metadata.get("masks", "{}")).items():
            mask = nonzero(*tensors[name])
            for start, length in zip(runs[::2], runs[1::2]):
                mask.reshape(-1)[start:start + length] = True  # kept, though it is 0
            masks[name] = mask

    digest = Digest()
    for name in sorted(tensors):
        dtype, array = tensors[name]
        digest.field(name)
        digest.field(TYPES[dtype][1])
        for size in array.shape:
            digest.field(struct.pack("<Q", size))
        digest.field(array.tobytes())
    for name in sorted(masks):
        digest.field(name)
        for size in masks[name].shape:
            digest.field(struct.pack("<Q", size))
        digest.field(np.packbits(masks[name].reshape(-1), bitorder="little").tobytes())
    if digest.hex() != metadata["content_sha256"]:
        raise ValueError("the content does not have the SHA-256 that its header says")
    return metadata, tensors, masks


def write_safetensors(path, tensors, metadata):
    header, offset = {"__metadata__": metadata}, 0
    names = sorted(tensors, key=lambda name: (-tensors[name][1].itemsize, name))
    for name in names:
        dtype, array = tensors[name]
        header[name] = {"dtype": dtype, "shape": list(array.shape), "data_offsets": [offset, offset + array.nbytes]}
        offset += array.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name in names:
            file.write(tensors[name][1].tobytes())


def main():
    arguments = sys.argv[1:]
    if len(arguments) not in (1, 3) or (len(arguments) == 3 and arguments[1] != "--expand"):
        print(__doc__, file=sys.stderr)
        return 2
    try:
        metadata, tensors, masks = read(arguments[0])
    except (ValueError, KeyError, IndexError, TypeError) as error:
        print(f"{arguments[0]}: no intact ticket: {error}", file=sys.stderr)
        return 1
    network = json.loads(metadata["network"])
    print(f"{metadata['stage']} of {network['name']}, {metadata['form']}, content {metadata['content_sha256'][:16]}")
    for name, mask in masks.items():
        print(f"  {name}: {mask.size - mask.sum()} of {mask.size} pruned")
    values = sum(array.size for _, array in tensors.values())
    print(f"{len(tensors)} tensors, {values} values, {len(masks)} of them masked")
    if len(arguments) == 3:
        write_safetensors(arguments[2], tensors, {"format": "pt"})
        print(f"wrote {arguments[2]}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
