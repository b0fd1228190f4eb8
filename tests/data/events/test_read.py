"""Every format is read exactly, event by event; every fault is an error that says where, or a counted repair."""

import struct
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import event_loops as naive
import event_samples
import numpy as np
import pytest
from damaged_events import FAULTS, read_like_the_slow_reader
from event_files import FORMATS, Format, aedat4_header, aedat4_packets, in_order, table
from gesture_clips import isolated_on
from hypothesis import given
from hypothesis import strategies as st
from mutants import mutations

from eisnn.data import DataError
from eisnn.data.events import Events, read, write
from eisnn.data.events.recording import MAX_DISORDER

EVERY = pytest.mark.parametrize("format", FORMATS.values(), ids=FORMATS)


def save(folder: Path, content: bytes, name: str = "recording") -> Path:
    file = folder / name
    file.write_bytes(content)
    return file


def example(format: Format, seed: int = 0) -> bytes:
    return format.body(np.random.default_rng(seed))


@EVERY
def test_reads_what_the_format_says(format: Format, tmp_path: Path) -> None:
    body = example(format)
    events = read(save(tmp_path, format.header + body))
    expected = format.naive(body)
    assert len(expected) > 250
    assert table(events) == in_order(expected)
    assert expected != in_order(expected) or format.name in ("Event Stream", "EVT3")  # or sorting is not tested
    assert events.format == format.name
    assert [array.dtype for array in (events.t, events.x, events.y, events.p)] == ["i8", "u2", "u2", "u1"]
    assert events.size_known == (format.size is not None)
    largest = (max(e[2] for e in expected) + 1, max(e[1] for e in expected) + 1)
    assert events.size == (format.size or largest)


@EVERY
def test_truncated_files_are_errors_that_say_where(format: Format, tmp_path: Path) -> None:
    body = example(format)
    if format.name == "Event Stream":
        body = body + b"\x02"  # the first byte of an event
    file = save(tmp_path, (format.header + body)[:-1] if format.name != "Event Stream" else format.header + body)
    with pytest.raises(DataError, match=r"recording: it ends inside|the file ends after") as caught:
        read(file)
    assert f"of {file.stat().st_size:,}" in str(caught.value)
    mended = read(file, repair=True)
    assert mended.repairs["truncated bytes"] > 0
    whole = in_order(format.naive(example(format)))
    assert set(table(mended)) <= set(whole)
    assert len(mended) >= len(whole) - 1 - 20 * (format.name in ("EVT3", "AEDAT4"))  # a vector, a packet


@EVERY
def test_a_header_alone_is_an_error(format: Format, tmp_path: Path) -> None:
    content = format.header + (b"\x0c\x08" if format.name == "DAT" else b"")
    with pytest.raises(DataError, match=r"without any event|it is empty"):
        read(save(tmp_path, content))


@EVERY
def test_mutants_are_read_as_the_slow_reader_does_or_refused(format: Format, tmp_path: Path) -> None:
    counts = read_like_the_slow_reader(format, tmp_path, count=60, seed=1)
    assert not any(counts[fault] for fault in FAULTS)
    assert counts["refused"] > 0
    assert counts["right"] > 0


@EVERY
def test_repaired_mutants_are_sane(format: Format, tmp_path: Path) -> None:
    mutants = mutations(format.header + example(format), seed=1, count=60, start=len(format.header))
    fates = {fate_of(save(tmp_path, content), repair=True) for _, content in mutants}
    assert {"sane"} <= fates <= {"sane", "refused"}


def fate_of(file: Path, repair: bool = False) -> str:
    """A damaged file is refused by its name, or gives events in order, on the sensor."""
    try:
        events = read(file, repair=repair)
    except DataError as error:
        return "refused" if str(file) in str(error) else f"refused without its name: {error}"
    ordered = len(events) > 0 and bool((np.diff(events.t) >= 0).all())
    placed = ordered and events.y.max() < events.size[0] and events.x.max() < events.size[1]
    return "sane" if placed else f"{len(events)} events, out of order or off the sensor"


@EVERY
def test_headers_that_are_damaged_never_crash(format: Format, tmp_path: Path) -> None:
    if not format.header:
        pytest.skip("a format without a header")
    body = example(format)
    fates = {fate_of(save(tmp_path, content + body)) for _, content in mutations(format.header, seed=2)}
    assert fates <= {"sane", "refused"}


@given(st.lists(st.integers(0, 0xFFFF), max_size=60), st.booleans())
def test_any_words_of_evt3(words: list[int], known: bool) -> None:
    """The state machine without a loop, on words that no sensor sends."""
    kinds = [0x0, 0x2, 0x3, 0x4, 0x5, 0x6, 0x8, 0x7, 0xA, 0xE, 0xF]
    words = [kinds[(word >> 12) % len(kinds)] << 12 | word & (0xFFF if known else 0x3F) for word in words]
    body = struct.pack(f"<{len(words)}H", *words)
    check_words("3.0", body, naive.evt3)


@given(st.lists(st.integers(0, 0xFFFFFFFF), max_size=60))
def test_any_words_of_evt2(words: list[int]) -> None:
    kinds = [0x0, 0x1, 0x8, 0xA]
    words = [kinds[(word >> 28) % len(kinds)] << 28 | word & 0x0FFFFFFF for word in words]
    check_words("2.0", struct.pack(f"<{len(words)}I", *words), naive.evt2)


def check_words(version: str, body: bytes, reader) -> None:
    from tempfile import TemporaryDirectory

    format = Format(version, f"% evt {version}\n".encode(), lambda _: b"", reader, (2048, 2048))
    with TemporaryDirectory() as folder:
        file = save(Path(folder), format.header + body)
        try:
            expected = format.expected(body)
        except naive.Damaged:
            with pytest.raises(DataError):
                read(file)
        else:
            assert table(read(file)) == expected


@given(st.binary(max_size=300))
def test_any_bytes_of_an_event_stream(body: bytes) -> None:
    from tempfile import TemporaryDirectory

    format = FORMATS["Event Stream"]
    header = format.header[:16] + b"\xff\xff\xff\xff"
    with TemporaryDirectory() as folder:
        file = save(Path(folder), header + body)
        try:
            expected = [event for event in format.naive(body) if event[1] < 0xFFFF and event[2] < 0xFFFF]
            if len(expected) < len(format.naive(body)) or not expected:
                raise naive.Damaged
        except naive.Damaged:
            with pytest.raises(DataError):
                read(file)
        else:
            assert table(read(file)) == expected


def test_an_event_stream_longer_than_a_piece(tmp_path: Path) -> None:
    """Pieces hand over where the chain of events goes on."""
    rng = np.random.default_rng(0)
    body = b"".join(example(FORMATS["Event Stream"], seed) for seed in range(33)) + rng.bytes(4)
    body += b"\xff" * (-len(body) % 3)
    assert len(body) > 3 << 14
    events = naive.event_stream(body + b"\xfe" * 4)  # whatever those four bytes begin is completed
    file = save(tmp_path, FORMATS["Event Stream"].header[:16] + b"\xff\xff\xff\xff" + body + b"\xfe" * 4)
    assert table(read(file)) == events


def test_what_is_passed_over_is_counted(tmp_path: Path) -> None:
    repairs = {name: read(save(tmp_path, f.header + example(f))).repairs for name, f in FORMATS.items()}
    three = repairs["AEDAT 3.1"]
    assert three["special events"] == 1
    for kind in ("frame", "IMU6", "IMU9", "sample", "ear", "configuration", "point1D", "point2D", "point3D", "point4D"):
        assert three[f"{kind} events"] == 4, kind
    assert three["spike events"] == three["matrix4x4 events"] == 2
    assert three["events marked as not valid"] == 7
    assert repairs["AEDAT 2.0"]["records that are no polarity events"] == 1
    for name in ("AEDAT 2.0", "N-MNIST", "EVT2", "EVT3"):
        assert repairs[name]["times that had run over"] == 1, name
    assert repairs["EVT2"]["events before the first time"] == 1
    assert repairs["EVT3"]["events before the first time, row or column"] == 13
    assert repairs["Event Stream"]["resets"] == 1
    assert repairs["DAT"] == {"events out of order, sorted": 3}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "it is empty, at byte 0"),
        (b"hello, world", "no known format begins with b'hello, world'"),
        (bytes(500), "no known format begins"),
        (b"#!AER-DAT3.0\r\n", "AEDAT in a version that is not read"),
        (b"\x89HDF\r\n\x1a\n", "it is HDF5"),
        (b"Event Stream\x02\x00\x00\x00", "holds generic events, bytes without a pixel"),
        (b"Event Stream\x01\x00\x00\x00", r"it is Event Stream 1\.0\.0"),
        (b"% evt 2.1\n", "it is EVT 2.1; read are EVT 2.0 and EVT 3.0"),
        (b"% Version 1\n\x00\x08", "names version 1; read is DAT version 2"),
        (b"#!AER-DAT2.0\r\n# AEChip: a.b.Cochlea\r\n", "recorded by a chip 'Cochlea'; read are DVS128"),
        (b"#!AER-DAT3.1\r\n#Format: PNG\r\n#!END-HEADER\r\n", "its packets are PNG, read are RAW"),
        (b"#!AER-DAT3.1\r\n", "its header has no end"),
        (b"#!AER-DAT4.0\r\n", "cannot be decoded"),
        (b"MATLAB 5.0 MAT-file" + bytes(200), "it is damaged|no matrix"),
        (b"PK\x03\x04 and so on", "it is damaged, or no archive of t, x, y, p and size"),
    ],
)
def test_other_files_are_refused_by_name(content: bytes, message: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=message):
        read(save(tmp_path, content))


def test_files_that_are_not_there(tmp_path: Path) -> None:
    for path, what in ((tmp_path / "nothing", "is missing: there is no such file"), (tmp_path, "is a folder")):
        with pytest.raises(DataError, match=f"^{path} {what}"):
            read(path)


def dat(events: list[tuple[int, int, int, int]], header: bytes = FORMATS["DAT"].header) -> bytes:
    return header + b"\x0c\x08" + b"".join(struct.pack("<II", t, x | y << 14 | p << 28) for t, x, y, p in events)


def test_events_off_the_sensor(tmp_path: Path) -> None:
    file = save(tmp_path, dat([(1, 5, 5, 0), (2, 120, 5, 1), (3, 0, 0, 1)]))
    with pytest.raises(DataError, match=r"event 1 lies at x 120, y 5, off the sensor of 120 x 100.*at byte 47"):
        read(file)
    mended = read(file, repair=True)
    assert table(mended) == [(1, 5, 5, 0), (3, 0, 0, 1)]
    assert mended.repairs == {"events off the sensor": 1}


def test_the_size_of_the_sensor_may_be_given(tmp_path: Path) -> None:
    file = save(tmp_path, dat([(1, 5, 7, 0)], b"% Version 2\n"))
    assert (read(file).size, read(file).size_known) == ((8, 6), False)
    assert (read(file, size=(34, 40)).size, read(file, size=(34, 40)).size_known) == ((34, 40), True)
    with pytest.raises(DataError, match=r"height and width \(0, 40\), expected numbers above 0"):
        read(file, size=(0, 40))
    with pytest.raises(DataError, match="off the sensor of 40 x 7"):
        read(file, size=(7, 40))
    with pytest.raises(DataError, match=r"has height and width \(100, 120\), not \(34, 34\) as given"):
        read(save(tmp_path, dat([(1, 5, 7, 0)])), size=(34, 34))


def test_events_a_little_late_are_sorted_and_others_refused(tmp_path: Path) -> None:
    events = [(10, 1, 0, 0), (5, 2, 0, 0), (10, 3, 0, 0), (10, 4, 0, 0)]
    sorted_ = read(save(tmp_path, dat(events)))
    assert sorted_.x.tolist() == [2, 1, 3, 4]  # equal times keep their order
    assert sorted_.repairs == {"events out of order, sorted": 1}
    late = [(MAX_DISORDER + 11, 1, 0, 0), (10, 2, 0, 0)]
    with pytest.raises(DataError, match=r"jumps back by 1\.000 s at event 1.*at byte 47"):
        read(save(tmp_path, dat(late)))


def test_a_damaged_time_is_no_overflow(tmp_path: Path) -> None:
    """One flipped bit throws a time forward by half the counter; what follows must not be shifted for it."""
    with pytest.raises(DataError, match="jumps back"):
        read(save(tmp_path, dat([(10, 1, 0, 0), (1 << 31, 1, 0, 0), (20, 1, 0, 0)])))


@pytest.mark.parametrize("name", ["recording.aedat", "recording.bin", "recording.dat", "recording.npz"])
def test_what_is_written_is_read_again(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    n, size = 1000, (128, 128)
    columns = (rng.integers(0, high, n) for high in (size[1], size[0], 2))
    x, y, p = (column.astype(dtype) for column, dtype in zip(columns, ("u2", "u2", "u1"), strict=True))
    events = Events(np.sort(rng.integers(0, 8_000_000, n)), x, y, p, size)
    write(events, tmp_path / name)
    again = read((tmp_path / name).rename(tmp_path / "renamed"), size=size)  # the name does not matter
    assert table(again) == table(events)
    assert again.size == size
    assert again.repairs == {}


def test_what_a_format_cannot_hold_is_not_written(tmp_path: Path) -> None:
    arrays = [np.array([0, 1]), np.zeros(2, "u2"), np.zeros(2, "u2"), np.zeros(2, "u1")]
    with pytest.raises(DataError, match=r"128 x 128 pixels; the recording has size \(34, 34\)"):
        write(Events(*arrays, (34, 34)), tmp_path / "a.aedat")
    arrays[0] = np.array([0, 1 << 23])
    with pytest.raises(DataError, match=r"8\.3 s"):
        write(Events(*arrays, (34, 34)), tmp_path / "a.bin")
    arrays[0] = np.array([0, 1 << 32])
    with pytest.raises(DataError, match=r"32 bits.*\.npz holds any recording"):
        write(Events(*arrays, (34, 34)), tmp_path / "a.dat")
    with pytest.raises(DataError, match=r"to '\.txt'; known are \.aedat, \.bin"):
        write(Events(*arrays, (34, 34)), tmp_path / "a.txt")
    assert not list(tmp_path.iterdir())


def test_addresses_of_a_davis(tmp_path: Path) -> None:
    """y in bits 22-30, x in 12-21, polarity bit 11; bit 31 marks samples of images, bit 10 external signals."""
    records = [(5 << 22 | 7 << 12 | 1 << 11, 100), (1 << 31, 101), (1 << 10, 102), (6 << 22 | 8 << 12, 103)]
    header = b"#!AER-DAT2.0\r\n# AEChip: eu.seebetter.ini.chips.davis.Davis346red\r\n#End Of ASCII Header\r\n"
    events = read(save(tmp_path, header + b"".join(struct.pack(">II", *record) for record in records)))
    assert table(events) == [(100, 345 - 7, 259 - 5, 1), (103, 345 - 8, 259 - 6, 0)]
    assert events.size == (260, 346)
    assert events.repairs == {"records that are no polarity events": 2}


@pytest.mark.parametrize(("kind", "module"), [(1, "lz4.frame"), (2, "lz4.frame"), (3, "zstandard"), (4, "zstandard")])
def test_compressions_of_aedat4(kind: int, module: str, tmp_path: Path) -> None:
    events = FORMATS["AEDAT4"].naive(example(FORMATS["AEDAT4"]))
    packets = aedat4_packets(events, pytest.importorskip(module).compress)
    content = aedat4_header(kind, len(aedat4_header()) + len(packets)) + packets + b"a table of the packets"
    assert table(read(save(tmp_path, content))) == in_order(events)
    with pytest.raises(DataError, match=r"it ends inside the packets, 10 bytes early"):
        read(save(tmp_path, content[:-32]))


def test_a_damaged_packet_of_aedat4_is_dropped_alone(tmp_path: Path) -> None:
    lz4 = pytest.importorskip("lz4.frame")
    events = FORMATS["AEDAT4"].naive(example(FORMATS["AEDAT4"]))
    packets = bytearray(aedat4_packets(events, lz4.compress))
    second = packets.index(lz4.compress(b"")[:4], 100)
    packets[second : second + 4] = bytes(4)
    file = save(tmp_path, aedat4_header(1) + packets)
    with pytest.raises(DataError, match=r"a packet cannot be decoded .*at byte"):
        read(file)
    mended = read(file, repair=True)
    assert table(mended) == in_order(events[:20] + events[40:])
    assert mended.repairs["bytes of damaged packets"] > 0


def test_packets_of_aedat4_that_grow_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("eisnn.data.events.aedat4.MOST", 100)
    packets = aedat4_packets([(1, 2, 3, 1)] * 20, pytest.importorskip("zstandard").compress)
    with pytest.raises(DataError, match="it would grow to more than 100 bytes"):
        read(save(tmp_path, aedat4_header(3) + packets))


@pytest.mark.parametrize("event", [(1, 2, 3, 2), (-1, 2, 3, 1)])
def test_impossible_events_of_aedat4(event: tuple[int, int, int, int], tmp_path: Path) -> None:
    file = save(tmp_path, aedat4_header() + aedat4_packets([(1, 2, 3, 1)] * 25 + [event]))
    with pytest.raises(DataError, match=f"event 25 has time {event[0]} and polarity {event[3]}, at byte"):
        read(file)


def test_headers_of_aedat4_that_make_no_sense(tmp_path: Path) -> None:
    packets = example(FORMATS["AEDAT4"])
    for header, message in (
        (aedat4_header(5), "compression is 5; known are none, LZ4 and Zstandard"),
        (aedat4_header(0, 10), "the packets end at byte 10"),
        (aedat4_header().replace(b"typeId", b"typeIt"), "its header cannot be decoded"),
        (aedat4_header().replace(b'name="0"', b'name="7"'), r"it is of stream 0, and the header names \[7, 1\]"),
    ):
        with pytest.raises(DataError, match=message):
            read(save(tmp_path, header + packets))


# --- Files of other programs


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if not event_samples.SAMPLES.exists():
        pytest.skip(f"needs {event_samples.SAMPLES}")
    folder = tmp_path_factory.mktemp("samples")
    with zipfile.ZipFile(event_samples.SAMPLES) as archive:
        archive.extractall(folder)
    return folder


@pytest.mark.parametrize(
    ("name", "format", "count", "first", "last", "size"),
    [
        ("faery_dvs.es", "Event Stream", 473_225, 0, 999_000, (240, 320)),
        ("faery_evt2.raw", "EVT2", 521_252, 913_716_224, 913_812_095, (480, 640)),
        ("hummus_nmnist_00002.es", "Event Stream", 5_028, 937, 305_341, (34, 34)),
        ("mnistdvs_mnist_0_scale04_0001.aedat", "AEDAT 2.0", 15_744, 0, 2_210_588, (128, 128)),
        ("slayer_dvsgesture_hand_clapping.bs2", "N-MNIST", 63_471, 28, 1_449_996, (128, 128)),
        ("slayer_nmnist_00001.bs2", "N-MNIST", 4_681, 893, 305_924, (34, 34)),
        ("tonic_sample.aedat4", "AEDAT4", 111_954, 1605537493718345, 1605537494308262, (240, 320)),
        ("tonic_sample_ncars.dat", "DAT", 2_009, 0, 99_952, (42, 78)),
        ("tonic_sample_nmnist.bin", "N-MNIST", 4_325, 654, 311_175, (34, 34)),
        ("tonic_sample_stmnist.mat", "ST-MNIST", 2_346, 196_626, 895_745, (10, 10)),
    ],
)
def test_sample(samples: Path, name: str, format: str, count: int, first: int, last: int, size: tuple) -> None:
    events = read(samples / name)
    assert (events.format, len(events), events.t[0], events.t[-1], events.size) == (format, count, first, last, size)
    assert set(events.repairs) <= {"IMU packets"}


def test_samples_without_events_of_a_camera(samples: Path) -> None:
    with pytest.raises(DataError, match=r"AEDAT 2\.0 without any event, at byte 599 of 599"):
        read(samples / "tonic_sample_aedat_header.aedat")
    with pytest.raises(DataError, match="generic events, bytes without a pixel"):
        read(samples / "faery_generic.es")


@pytest.mark.parametrize(
    ("name", "oracle"), [(name, oracle) for name, oracles in event_samples.ORACLES.items() for oracle in oracles]
)
def test_other_readers_agree(samples: Path, name: str, oracle: Callable) -> None:
    try:
        theirs = oracle(samples / name)
    except ImportError as missing:
        pytest.skip(str(missing))
    assert event_samples.same(read(samples / name), theirs)


def test_the_leading_edge_of_a_bright_digit_is_on(samples: Path) -> None:
    """Which polarity bit is ON, seen in a recording: where a bright digit on black moves to, it becomes brighter."""
    events = read(samples / "mnistdvs_mnist_0_scale04_0001.aedat")
    events = events[(abs(events.x.astype(int) - 64) < 34) & (abs(events.y.astype(int) - 64) < 34)]  # without noise
    leading = []
    step = 40_000
    for start in range(0, events.duration - 2 * step, step // 2):
        before, after, between = (
            events[(events.t >= begin) & (events.t < begin + step)]
            for begin in (start, start + step, start + step // 2)
        )
        motion = centre(after) - centre(before)
        if not motion.any():
            continue
        along = np.stack((between.x, between.y), 1) @ (motion / np.linalg.norm(motion))
        leading.append(between.p[along > np.percentile(along, 85)].mean())
    assert np.mean(leading) > 0.8


def test_events_that_come_alone_are_on(samples: Path) -> None:
    """The leak of a DVS128's pixels makes ON events without motion: a second sign of which bit is which."""
    assert isolated_on(read(samples / "mnistdvs_mnist_0_scale04_0001.aedat")) > 0.8


def centre(events: Events) -> np.ndarray:
    return np.percentile(np.stack((events.x, events.y), 1), (5, 95), axis=0).mean(0)


def test_what_an_extra_brings_is_named(samples: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, module in (("tonic_sample.aedat4", "lz4.frame"), ("tonic_sample_stmnist.mat", "scipy.io")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(ImportError, match=r"pip install 'eisnn\[events\]'"):
            read(samples / name)


def test_small_files_that_grow_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {name: np.zeros(1_000_000, np.int64) for name in "txyp"}
    np.savez_compressed(tmp_path / "bomb.npz", **arrays, size=np.array([1, 1]))
    monkeypatch.setattr("eisnn.data.events.npz.fits", lambda size: size < 10_000_000)
    with pytest.raises(DataError, match=r"bomb\.npz: it grows to 32,000,\d{3} bytes, more than there is room for"):
        read(tmp_path / "bomb.npz")
    with pytest.raises(DataError, match="more bytes than any recording of ST-MNIST"):
        read(save(tmp_path, b"MATLAB 5.0 MAT-file" + bytes(1 << 22)))
