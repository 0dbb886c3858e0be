"""The cache file: what is written is read, and whatever is wrong with it is noticed."""

import json
import logging
import struct
import threading
import zlib

import numpy as np
import pytest
from children import in_child

from maqd.data import ImageArrays
from maqd.data import cache as cache_module
from maqd.data.cache import CacheMissError, find, keep, read, write

PREFIX = struct.Struct("<8sIIII")


def make_splits(count=5, size=4, channels=3, seed=0):
    rng = np.random.default_rng(seed)

    def split(n):
        return ImageArrays(
            images=rng.integers(0, 256, (n, size, size, channels), dtype=np.uint8),
            labels=rng.integers(0, 2, n),
            class_names=("cat", "d\u00f6g"),
        )

    return split(count), split(count - 2)


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.maqdset"
    write(path, "print", make_splits())
    return path


def resealed(header: bytes, payload: bytes, *, schema=1, length=None, magic=b"MAQDDATA", zero=0) -> bytes:
    """A file whose checksum is right, so that only the named part is wrong."""
    checksum = zlib.crc32(header + payload)
    return PREFIX.pack(magic, schema, len(header) if length is None else length, checksum, zero) + header + payload


def parts(path):
    content = path.read_bytes()
    length = PREFIX.unpack(content[: PREFIX.size])[2]
    return content[PREFIX.size : PREFIX.size + length], content[PREFIX.size + length :]


@pytest.mark.parametrize("channels", [1, 3])
def test_round_trip(tmp_path, channels):
    splits = make_splits(channels=channels)
    path = tmp_path / "new" / "folder" / "x.maqdset"
    write(path, "print", splits)
    for wanted, got in zip(splits, read(path, "print"), strict=True):
        np.testing.assert_array_equal(got.images, wanted.images)
        np.testing.assert_array_equal(got.labels, wanted.labels)
        assert got.class_names == wanted.class_names
        assert got.images.dtype == np.uint8
        assert got.labels.dtype == np.int64
        assert type(got.images) is np.ndarray
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_every_flipped_bit_is_noticed(path):
    content = path.read_bytes()
    for byte in range(len(content)):
        damaged = bytearray(content)
        damaged[byte] ^= 1 << (byte % 8)
        path.write_bytes(damaged)
        with pytest.raises(CacheMissError):
            read(path, "print")
    path.write_bytes(content)
    read(path, "print")


def test_every_truncation_is_noticed(path):
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        with pytest.raises(CacheMissError):
            read(path, "print")


def test_trailing_bytes_are_noticed(path):
    header, payload = parts(path)
    path.write_bytes(resealed(header, payload + b"\0"))
    with pytest.raises(CacheMissError, match="bytes"):
        read(path, "print")


def test_absent_file(tmp_path):
    with pytest.raises(CacheMissError, match="no cache yet"):
        read(tmp_path / "x", "print")


def test_stale_fingerprint(path):
    with pytest.raises(CacheMissError, match="stale"):
        read(path, "another")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"schema": 2}, "schema version 1, got 2"),
        ({"magic": b"NOTADATA"}, "not a cache"),
        ({"zero": 1}, "not a cache"),
        ({"length": 2**32 - 1}, "does not fit"),
        ({"length": 0}, "no JSON"),
    ],
)
def test_wrong_prefix(path, options, message):
    path.write_bytes(resealed(*parts(path), **options))
    with pytest.raises(CacheMissError, match=message):
        read(path, "print")


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [2**40, 2**40, 3]},
        {"shape": [4, 4, 0]},
        {"shape": [4, 4, -3]},
        {"shape": [4, 4]},
        {"shape": [4, 2, 6]},
        {"shape": [2, 2, 12]},
        {"shape": [4.0, 4, 3]},
        {"shape": [True, 4, 12]},
        {"shape": None},
        {"counts": [2**62, 3]},
        {"counts": [8, 0]},
        {"counts": [9, -1]},
        {"counts": [8]},
        {"counts": "53"},
        {"class_names": []},
        {"class_names": ["cat"]},
        {"class_names": "cat"},
        {"class_names": [1, 2]},
        {"fingerprint": 1},
        {"extra": 1},
    ],
)
def test_hostile_header(path, change):
    header, payload = parts(path)
    payload = payload[-(PREFIX.size + len(header)) % 64 :]

    def rewrite(fields):
        changed = json.dumps(fields).encode()
        path.write_bytes(resealed(changed, bytes(-(PREFIX.size + len(changed)) % 64) + payload))

    rewrite({**json.loads(header), "class_names": ["cat", "a name of another length"]})
    read(path, "print")
    rewrite({**json.loads(header), **change})
    with pytest.raises(CacheMissError):
        read(path, "print")


@pytest.mark.parametrize("header", [b"", b"[]", b"{", b"null", b"\xff", b"[" * 100_000])
def test_header_that_is_no_object(path, header):
    path.write_bytes(resealed(header, parts(path)[1]))
    with pytest.raises(CacheMissError):
        read(path, "print")


def test_label_out_of_range(path):
    header, payload = parts(path)
    at = len(payload) - 8 * 4 * 4 * 3 - 8 * 8
    path.write_bytes(resealed(header, payload[:at] + struct.pack("<q", 2) + payload[at + 8 :]))
    with pytest.raises(CacheMissError, match=r"0 \.\. 1, got 2 at sample 0"):
        read(path, "print")


def test_find_says_in_the_log_why_there_is_nothing(path, caplog):
    with caplog.at_level(logging.INFO, cache_module.__name__):
        assert find(path.with_name("absent"), "print") is None
        assert caplog.records[-1].levelno == logging.INFO
        path.write_bytes(path.read_bytes()[:-1])
        assert find(path, "print") is None
        assert caplog.records[-1].levelno == logging.WARNING
        assert "building it from the source" in caplog.text


def test_keep_goes_on_when_nothing_can_be_written(tmp_path, caplog):
    (tmp_path / "file").write_text("a folder is wanted here")
    splits = make_splits()
    assert keep(tmp_path / "file" / "x.maqdset", "print", splits) is splits
    assert "cache_dir" in caplog.text


def test_failed_write_keeps_the_old_file_and_leaves_nothing(path, monkeypatch):
    before = path.read_bytes()

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space"):
        write(path, "new", make_splits(seed=1))
    assert path.read_bytes() == before
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_writers_and_readers_at_once_never_see_half_a_file(path):
    failures = []
    sets = [make_splits(count=200, seed=seed) for seed in range(2)]

    def write_often(splits):
        for _ in range(20):
            write(path, "print", splits)

    def read_often():
        try:
            for _ in range(100):
                read(path, "print")
        except CacheMissError as error:
            failures.append(error)

    threads = [threading.Thread(target=write_often, args=(splits,)) for splits in sets]
    threads.append(threading.Thread(target=read_often))
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_a_cache_written_over_truncated_or_replaced_in_use_changes_nothing(path):
    old = read(path, "print")[0]
    wanted = old.images.copy()
    size = path.stat().st_size
    with path.open("r+b") as file:  # in place: a mapping would show it, and end the process at the next step
        file.write(bytes(size))
        file.flush()
        np.testing.assert_array_equal(old.images, wanted)
        file.truncate(0)
    np.testing.assert_array_equal(old.images, wanted)
    write(path, "print", make_splits(seed=3))
    np.testing.assert_array_equal(old.images, wanted)


def test_processes_that_build_one_cache_at_once_all_get_it(tmp_path):
    path, splits = tmp_path / "x.maqdset", make_splits(count=200)

    def build() -> int:
        kept = find(path, "print") or keep(path, "print", splits)
        return int(not np.array_equal(kept[0].images, splits[0].images))

    children = [
        threading.Thread(target=lambda n=n: found.append(in_child(build, tmp_path / f"said{n}"))) for n in range(4)
    ]
    found: list[int] = []
    for child in children:
        child.start()
    for child in children:
        child.join()
    assert found == [0] * 4
    read(path, "print")
    assert {file.name for file in tmp_path.iterdir()} == {path.name, *(f"said{n}" for n in range(4))}
