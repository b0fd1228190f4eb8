"""AEDAT4, written by iniVation's DV: compressed flatbuffers, decoded by the package `aedat` (extra `events`)."""

import struct
from collections.abc import Iterator
from typing import Any

import numpy as np

from eisnn.libraries import library

from .recording import Decoded, File

MAGIC = b"#!AER-DAT4.0"
_NONE = np.empty(0, [("t", "<u8"), ("x", "<u2"), ("y", "<u2"), ("on", "?")])


def decode(file: File) -> Decoded:
    """Raises: ImportError without the package `aedat`."""
    packets, places, size = [], [], None
    for place, stream, content in _packets(file):
        if stream["type"] != "events":
            file.passed_over(f"{stream['type']} packets", 1)
            continue
        this = stream["height"], stream["width"]
        if size not in (None, this):
            raise file.error(f"it has events of several cameras, of sizes {size} and {this}", place)
        size = this
        packets.append(content["events"])
        places.append(place)
    first = np.cumsum([0, *map(len, packets)])
    t, x, y, p = (np.concatenate([packet[name] for packet in packets or [_NONE]]) for name in _NONE.dtype.names or ())
    if t.size and t.max() >> 63:
        raise file.error("it has a time of more than 63 bits", places[0])
    return Decoded(
        t.view(np.int64),
        x,
        y,
        p.view(np.uint8),
        "AEDAT4",
        lambda k: places[int(np.searchsorted(first, k, "right")) - 1],
        size,
    )


def _packets(file: File) -> Iterator[tuple[int, dict[str, Any], dict[str, Any]]]:
    """Place, stream and content of each packet."""
    aedat = library("aedat", "events")
    if not file.path.is_file():
        raise file.error("AEDAT4 is not read from archives: extract it", 0)
    place = len(MAGIC) + 2  # the end of the line
    try:
        decoder = aedat.Decoder(str(file.path))
        streams = decoder.id_to_stream()
        place += 4 + struct.unpack_from("<I", file.data.data, place)[0]
        for packet in decoder:
            yield place, streams[packet["stream_id"]], packet
            place += 8 + struct.unpack_from("<I", file.data.data, place + 4)[0]
    except (KeyboardInterrupt, MemoryError, GeneratorExit):
        raise
    except BaseException as error:  # a panic of its Rust is no Exception
        problem = f"its packets cannot be decoded from there on ({error})"
        file.drop("truncated bytes", max(len(file.data) - place, 1), problem, place)
