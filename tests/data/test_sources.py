"""Reading parquet files, image folders, the hub and the embedded digits; and what is said about bad ones."""

import io
import logging
import os
import re
import sys
from dataclasses import replace
from pathlib import Path

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from image_sets import png, random_pixels, write_parquet
from PIL import Image
from sklearn.datasets import load_digits

from maqd.data import AugmentConfig, DataConfig, Source, open_data
from maqd.data import sources as sources_module
from maqd.errors import ConfigError, DataError, MissingDependencyError
from maqd.optional import remedy


def all_images(loader):
    batches = list(loader)
    images = torch.cat([x for x, _ in batches]).permute(0, 2, 3, 1).numpy()
    return images, torch.cat([y for _, y in batches]).numpy()


def write_folder(root, classes, *, size=6, channels=3, seed=0):
    """Writes root/CLASS/NUMBER.png and gives back the pixels in the order of their paths."""
    written = []
    for k, (name, count) in enumerate(classes.items()):
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(random_pixels(count, size, channels, seed=seed + k)):
            (root / name / f"{i}.png").write_bytes(png(pixels))
            written.append(pixels)
    return np.array(written)


# Digits


def test_digits(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    data = open_data(DataConfig(), seed=0)
    assert (data.info.in_channels, data.info.image_size, data.info.num_classes) == (1, 8, 10)
    assert (data.info.train_size, data.info.test_size) == (1437, 360)
    assert data.info.class_names == tuple("0123456789")
    train = all_images(open_data(DataConfig(batch_size=1437), seed=0).train_loader())
    test = all_images(data.test_loader())
    images, labels = (np.concatenate(parts) for parts in zip(train, test, strict=True))
    digits = load_digits()

    def multiset(pixels, targets):
        return sorted((bytes(p.ravel().astype(np.uint8)), int(t)) for p, t in zip(pixels, targets, strict=True))

    assert multiset(images, labels) == multiset(digits.images.astype(int) * 255 // 16, digits.target)
    assert set(np.bincount(test[1])) <= {35, 36, 37}
    assert not list(tmp_path.iterdir())


def test_digits_split_does_not_depend_on_the_seed():
    first, second = (all_images(open_data(DataConfig(), seed=seed).test_loader()) for seed in (0, 1))
    np.testing.assert_array_equal(first[0], second[0])


def test_digits_resized():
    data = open_data(DataConfig(image_size=16), seed=0)
    assert data.info.image_size == 16
    assert next(iter(data.test_loader()))[0].shape == (360, 1, 16, 16)


# Parquet


def test_parquet(parquet_config, parquet_set):
    _, train, test = parquet_set
    data = open_data(parquet_config(batch_size=40), seed=0)
    assert data.info.class_names == ("a", "b", "c")
    assert (data.info.in_channels, data.info.image_size, data.info.num_classes) == (3, 8, 3)
    assert (data.info.train_size, data.info.test_size) == (40, 10)
    images, labels = all_images(data.test_loader())
    np.testing.assert_array_equal(images, test)
    np.testing.assert_array_equal(labels, np.arange(10) % 3)
    images, labels = all_images(data.train_loader())
    order = [next(i for i in range(40) if np.array_equal(train[i], image)) for image in images]
    assert sorted(order) == list(range(40))
    np.testing.assert_array_equal(labels, np.array(order) % 3)


@pytest.mark.parametrize(
    "layout", ["{}-{:05d}-of-00002.parquet", "{}/{:05d}.parquet", "data/{}-{:05d}-of-00002.parquet"]
)
def test_parquet_layouts(tmp_path, layout):
    pixels = random_pixels(12)
    for split in ("train", "validation"):
        for shard in range(2):
            own = range(6 * shard, 6 * shard + 6)
            path = tmp_path / "set" / layout.format(split, shard)
            write_parquet(path, [png(pixels[i]) for i in own], [i % 2 for i in own])
    config = DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path / "set"), cache_dir=str(tmp_path / "cache"))
    images, labels = all_images(open_data(config, seed=0).test_loader())
    np.testing.assert_array_equal(images, pixels)
    np.testing.assert_array_equal(labels, np.arange(12) % 2)


def test_missing_shard(tmp_path):
    write_parquet(tmp_path / "train-00000-of-00002.parquet", [png(random_pixels(1)[0])], [0])
    with pytest.raises(DataError, match="must have 00002 files, got 1"):
        open_data(DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path)), seed=0)


def test_columns_by_name_and_plain_bytes(tmp_path):
    pixels = random_pixels(4)
    table = pa.table({"photo": [png(p) for p in pixels], "thumbnail": [b"x"] * 4, "kind": ["dog", "cat", "dog", "cat"]})
    (tmp_path / "set").mkdir()
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / "set" / f"{split}.parquet")
    options = {"source": Source.HUGGING_FACE, "path": str(tmp_path / "set"), "cache_dir": str(tmp_path / "cache")}
    with pytest.raises(DataError, match=r"image column cannot be found.*'photo' \(binary\).*set image_column"):
        open_data(DataConfig(**options), seed=0)
    with pytest.raises(DataError, match=r"label column cannot be found.*'kind' \(string\).*set label_column"):
        open_data(DataConfig(**options, image_column="photo"), seed=0)
    data = open_data(DataConfig(**options, image_column="photo", label_column="kind"), seed=0)
    assert data.info.class_names == ("cat", "dog")
    images, labels = all_images(data.test_loader())
    np.testing.assert_array_equal(images, pixels)
    np.testing.assert_array_equal(labels, [1, 0, 1, 0])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_column": "image"}, r"train\.parquet: has no image column 'image', only 'img' .*, 'label' \(int64\)"),
        ({"label_column": "y"}, r"train\.parquet: has no label column 'y', only 'img'"),
        ({"image_column": "label"}, "image column 'label' must hold encoded bytes, got int64"),
        ({"label_column": "img"}, "label column 'img' must hold integers or strings, got struct"),
        (
            {"train_split": "training"},
            "must be a file training.parquet.*the folder has 'test.parquet', 'train.parquet'",
        ),
        ({"test_split": "holdout"}, "must be a file holdout.parquet"),
        ({"path": "/no/such/folder"}, "/no/such/folder: source hugging_face needs a folder, which is missing"),
        ({"source": Source.CIFAR10}, "cifar10 has 10 classes, got 3"),
        ({"source": Source.IMAGE_FOLDER}, "must be a folder 'train', the folder has 'test.parquet'"),
    ],
)
def test_wrong_options(parquet_config, options, message):
    with pytest.raises(DataError, match=message):
        open_data(parquet_config(**options), seed=0)


def test_cifar100_takes_the_fine_label(tmp_path):
    pixels = random_pixels(3)
    cells = [{"bytes": png(p), "path": None} for p in pixels]
    table = pa.table({"img": cells, "coarse_label": [1, 2, 3], "fine_label": [99, 0, 5], "label": [7, 7, 7]})
    for split in ("train", "test"):
        pq.write_table(table, tmp_path / f"{split}.parquet")
    config = DataConfig(source=Source.CIFAR100, path=str(tmp_path), cache_dir=str(tmp_path / "cache"), classes=100)
    data = open_data(config, seed=0)
    assert data.info.num_classes == 100
    np.testing.assert_array_equal(all_images(data.test_loader())[1], [99, 0, 5])


@pytest.mark.parametrize(
    ("labels", "names", "message"),
    [
        ([0, 1, 3], ["a", "b", "c"], r"labels must be in 0 \.\. 2, got 3 in row 2"),
        ([0, -1, 2], ["a", "b", "c"], r"labels must be in 0 \.\. 2, got -1 in row 1"),
        ([0, 2**40, 2], None, r"labels must be in 0 \.\. 2, got 1099511627776 in row 1"),
        ([0, None, 2], None, "every row must have a label, got none in row 1"),
        ([0.5, 1.0, 2.0], None, "label column"),
        ([], None, "got none"),
    ],
)
def test_wrong_labels(tmp_path, labels, names, message):
    encoded = [png(p) for p in random_pixels(len(labels))] if labels else []
    for split in ("train", "test"):
        if labels:
            write_parquet(tmp_path / f"{split}.parquet", encoded, labels, names=names)
        else:
            table = pa.table({"img": pa.array([], pa.binary()), "label": pa.array([], pa.int64())})
            pq.write_table(table, tmp_path / f"{split}.parquet")
    with pytest.raises(DataError, match=message):
        open_data(DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path)), seed=0)


def test_test_label_that_training_lacks(tmp_path):
    encoded = [png(p) for p in random_pixels(3)]
    write_parquet(tmp_path / "train.parquet", encoded, ["a", "b", "a"])
    write_parquet(tmp_path / "test.parquet", encoded, ["a", "b", "z"])
    with pytest.raises(DataError, match=r"test\.parquet, column 'label'.*got 'z' in row 2"):
        open_data(DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path)), seed=0)


@pytest.mark.parametrize("keep", [0, 3, 100, -10])
def test_damaged_parquet(parquet_config, parquet_set, keep):
    file = parquet_set[0] / "test.parquet"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"test\.parquet: must be a whole parquet file"):
        open_data(parquet_config(), seed=0)


@pytest.mark.parametrize(
    ("cell", "message"),
    [
        (None, "has no image bytes"),
        (b"", "has no image bytes"),
        (b"GIF no more", "must be a whole image that Pillow can read"),
        (png(random_pixels(1)[0])[:-30], "must be a whole image that Pillow can read"),
        (png(random_pixels(1, size=9)[0]), "must all be 8 x 8 like the first one, got 9 x 9; set image_size"),
    ],
)
def test_bad_image_in_a_table(tmp_path, cell, message):
    good = [png(p) for p in random_pixels(200)]
    for split in ("train", "test"):
        # Row 101 is not among those that are probed for their size, so this is found while decoding.
        encoded = good if split == "test" else [*good[:101], cell, *good[102:]]
        write_parquet(tmp_path / f"{split}.parquet", encoded, [0] * 200)
    config = DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path), cache_dir=str(tmp_path / "cache"))
    with pytest.raises(DataError, match=rf"train\.parquet, row 101, column 'img': .*{message}"):
        open_data(config, seed=0)
    assert not (tmp_path / "cache").exists()


def test_row_is_counted_within_its_file(tmp_path):
    good = [png(p) for p in random_pixels(5)]
    write_parquet(tmp_path / "train-00000-of-00002.parquet", good, [0] * 5)
    write_parquet(tmp_path / "train-00001-of-00002.parquet", [*good[:3], b"?", good[4]], [0] * 5)
    write_parquet(tmp_path / "test.parquet", good, [0] * 5)
    with pytest.raises(DataError, match=r"train-00001-of-00002\.parquet, row 3"):
        open_data(DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path)), seed=0)


def test_large_parquet_is_mapped_and_gives_the_same(parquet_config, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    read = open_data(parquet_config(cache_dir=str(tmp_path / "a")), seed=0)
    monkeypatch.setattr(sources_module, "MAPPED_BYTES", 0)
    monkeypatch.setattr(datasets.config, "HF_DATASETS_OFFLINE", True)
    mapped = open_data(parquet_config(cache_dir=str(tmp_path / "b")), seed=0)
    assert mapped.info == read.info
    for a, b in zip(read.test_loader(), mapped.test_loader(), strict=True):
        assert torch.equal(a[0], b[0])
        assert torch.equal(a[1], b[1])
    assert not (tmp_path / "home").exists()


# The hub, without a network: what `load_dataset` gives is stood in for.


def test_hub_data_set(tmp_path, monkeypatch):
    pixels = random_pixels(6)
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["x", "y"])})
    rows = {"image": [{"bytes": png(p), "path": None} for p in pixels], "label": [0, 1] * 3}
    calls = []

    def load_dataset(path, *, cache_dir):
        calls.append((path, cache_dir))
        split = datasets.Dataset.from_dict(rows, features=features)
        return datasets.DatasetDict({"train": split, "validation": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = DataConfig(source=Source.HUGGING_FACE, path="someone/things", cache_dir=str(tmp_path))
    for _ in range(2):
        data = open_data(config, seed=0)
        assert data.info.class_names == ("x", "y")
        np.testing.assert_array_equal(all_images(data.test_loader())[0], pixels)
    # The second time comes from the cache, without asking the hub.
    assert calls == [("someone/things", str(tmp_path / "hugging_face"))]
    with pytest.raises(DataError, match="there must be a split 'holdout', the set has 'train', 'validation'"):
        open_data(DataConfig(source=Source.HUGGING_FACE, path="someone/things", test_split="holdout"), seed=0)


def test_hub_data_set_whose_images_are_files(tmp_path, monkeypatch):
    pixels = random_pixels(3)
    for i, image in enumerate(pixels):
        (tmp_path / f"{i}.png").write_bytes(png(image))
    features = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    cells = [{"bytes": None, "path": str(tmp_path / f"{i}.png")} for i in range(3)]

    def load_dataset(*_, **__):
        split = datasets.Dataset.from_dict({"image": cells, "label": [0, 1, 2]}, features=features)
        return datasets.DatasetDict({"train": split, "test": split})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    config = DataConfig(source=Source.HUGGING_FACE, path="someone/files", cache_dir=str(tmp_path / "cache"))
    np.testing.assert_array_equal(all_images(open_data(config, seed=0).test_loader())[0], pixels)
    (tmp_path / "1.png").unlink()
    with pytest.raises(DataError, match=r"row 1, column 'image': has no image bytes, and its file cannot be read"):
        open_data(DataConfig(source=Source.HUGGING_FACE, path="someone/files", image_size=4), seed=0)


def test_hub_that_cannot_be_reached(tmp_path, monkeypatch):
    def load_dataset(*_, **__):
        raise ConnectionError("no route to host")

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    with pytest.raises(DataError, match=r"uoft-cs/cifar10: .*ConnectionError: no route to host.*set path to a local"):
        open_data(DataConfig(source=Source.CIFAR10, cache_dir=str(tmp_path)), seed=0)


# Folders


def folder_config(tmp_path, **options):
    options = {"source": Source.IMAGE_FOLDER, "path": str(tmp_path / "set"), "batch_size": 4, **options}
    return DataConfig(cache_dir=str(tmp_path / "cache"), **options)


@pytest.mark.parametrize("test_name", ["test", "val"])
@pytest.mark.parametrize("channels", [1, 3])
def test_folder(tmp_path, test_name, channels):
    write_folder(tmp_path / "set" / "train", {"b": 3, "a": 4, "c": 1}, channels=channels)
    pixels = write_folder(tmp_path / "set" / test_name, {"a": 2, "c": 3}, channels=channels, seed=9)
    (tmp_path / "set" / "train" / "a" / ".hidden").write_text("not an image")
    data = open_data(folder_config(tmp_path), seed=0)
    assert data.info.class_names == ("a", "b", "c")
    assert (data.info.in_channels, data.info.image_size) == (channels, 6)
    assert (data.info.train_size, data.info.test_size) == (8, 5)
    images, labels = all_images(data.test_loader())
    np.testing.assert_array_equal(images, pixels)
    np.testing.assert_array_equal(labels, [0, 0, 2, 2, 2])


def test_folder_of_mixed_modes_is_colour(tmp_path):
    write_folder(tmp_path / "set" / "test", {"a": 1})
    write_folder(tmp_path / "set" / "train", {"a": 2})
    colour = np.arange(108, dtype=np.uint8).reshape(6, 6, 3)
    folder = tmp_path / "set" / "train" / "a"
    Image.fromarray(colour[..., 0]).save(folder / "0.png")
    Image.fromarray(np.dstack([colour, colour[..., 0]])).save(folder / "1.png")
    palette = Image.fromarray(colour).quantize(64)
    palette.info["transparency"] = bytes(range(64))
    palette.save(folder / "2.png", transparency=bytes(range(64)))
    images, _ = all_images(open_data(folder_config(tmp_path, batch_size=3, classes=2), seed=0).train_loader())
    wanted = {colour.tobytes(), np.repeat(colour[..., :1], 3, axis=2).tobytes()}
    assert wanted <= {image.tobytes() for image in images}


def test_image_size_resizes_the_middle_square(tmp_path):
    pixels = np.zeros((10, 20, 3), np.uint8)
    pixels[:, 3:17] = 200  # Antialiasing looks two pixels beyond the square.
    for split in ("train", "test"):
        (tmp_path / "set" / split / "a").mkdir(parents=True)
        (tmp_path / "set" / split / "a" / "0.png").write_bytes(png(pixels))
    images, _ = all_images(open_data(folder_config(tmp_path, image_size=5, classes=2), seed=0).test_loader())
    np.testing.assert_array_equal(images, np.full((1, 5, 5, 3), 200))


@pytest.mark.parametrize("stream", [False, True])
def test_images_need_not_be_square(tmp_path, stream: bool):
    pixels = random_pixels(4, 6)[:, :4]  # 4 rows of 6
    for split in ("train", "test"):
        (tmp_path / "set" / split / "a").mkdir(parents=True)
        for number, one in enumerate(pixels):
            (tmp_path / "set" / split / "a" / f"{number}.png").write_bytes(png(one))
    options = {"classes": 2, "stream": stream}
    data = open_data(folder_config(tmp_path, **options), seed=0)
    assert data.info.shape == (3, 4, 6)
    images, _ = all_images(data.test_loader())
    np.testing.assert_array_equal(images, pixels)
    with pytest.raises(DataError, match=r"takes square uint8 images, and the data has image uint8\[3,4,6\]"):
        _ = data.info.image_size
    changes = AugmentConfig(crop_padding=2, flip=True, cutout=3)
    train = open_data(folder_config(tmp_path, augment=changes, **options), seed=0).train_loader()
    assert all_images(train)[0].shape == (4, 4, 6, 3)
    resized = open_data(folder_config(tmp_path, image_size=2, image_width=3, **options), seed=0)
    assert resized.info.shape == (3, 2, 3)
    images, _ = all_images(resized.test_loader())
    wanted = [np.asarray(Image.fromarray(one).resize((3, 2), Image.Resampling.BILINEAR)) for one in pixels]
    np.testing.assert_array_equal(images, wanted)


def test_exif_orientation_is_obeyed(tmp_path):
    pixels = random_pixels(1, 6)[0]
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down
    for split in ("train", "test"):
        (tmp_path / "set" / split / "a").mkdir(parents=True)
        Image.fromarray(pixels).save(tmp_path / "set" / split / "a" / "0.png", exif=exif)
    images, _ = all_images(open_data(folder_config(tmp_path, classes=2), seed=0).test_loader())
    np.testing.assert_array_equal(images[0], pixels[::-1, ::-1])


def test_sixteen_bit_images_are_refused(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "set" / split / "a").mkdir(parents=True)
        Image.fromarray(np.full((4, 4), 40000, np.uint16)).save(tmp_path / "set" / split / "a" / "0.png")
    with pytest.raises(DataError, match="8 bits per channel, got mode I;16"):
        open_data(folder_config(tmp_path), seed=0)


def test_a_file_that_is_no_image(tmp_path):
    write_folder(tmp_path / "set" / "train", {"a": 2})
    write_folder(tmp_path / "set" / "test", {"a": 1})
    (tmp_path / "set" / "test" / "a" / "notes.txt").write_text("remember the milk")
    with pytest.raises(
        DataError, match=r"notes\.txt: must be a whole image .*starts with b'remember'.*replace or remove"
    ):
        open_data(folder_config(tmp_path), seed=0)


def test_wrong_folders(tmp_path):
    with pytest.raises(DataError, match="set: source image_folder needs a folder, which is missing"):
        open_data(folder_config(tmp_path), seed=0)
    (tmp_path / "set").write_text("")
    with pytest.raises(DataError, match="which is a file"):
        open_data(folder_config(tmp_path), seed=0)
    (tmp_path / "set").unlink()
    write_folder(tmp_path / "set" / "train", {"a": 2, "b": 1})
    with pytest.raises(DataError, match=r"must be a folder 'test' or 'val'.*the folder has 'train/'"):
        open_data(folder_config(tmp_path), seed=0)
    (tmp_path / "set" / "test").mkdir()
    with pytest.raises(DataError, match="test: there must be a folder per class, got nothing"):
        open_data(folder_config(tmp_path), seed=0)
    (tmp_path / "set" / "test" / "a").mkdir()
    with pytest.raises(DataError, match="test/a: a class folder must have images, got none"):
        open_data(folder_config(tmp_path), seed=0)
    write_folder(tmp_path / "set" / "test", {"z": 1})
    (tmp_path / "set" / "test" / "a" / "0.png").write_bytes(png(random_pixels(1, 6)[0]))
    with pytest.raises(DataError, match="got 'z'; training has 'a', 'b'"):
        open_data(folder_config(tmp_path), seed=0)


def test_link_to_nowhere(tmp_path):
    write_folder(tmp_path / "set" / "train", {"a": 2})
    write_folder(tmp_path / "set" / "test", {"a": 1})
    (tmp_path / "set" / "train" / "a" / "9.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(DataError, match=r"9\.png: cannot be read"):
        open_data(folder_config(tmp_path), seed=0)


# Cache use


def test_cache_is_used_and_rebuilt(parquet_config, parquet_set, tmp_path, caplog):
    caplog.set_level(logging.INFO, "maqd.data")
    first = all_images(open_data(parquet_config(), seed=0).test_loader())[0]
    assert "no cache yet" in caplog.text
    caplog.clear()
    np.testing.assert_array_equal(all_images(open_data(parquet_config(), seed=0).test_loader())[0], first)
    assert not caplog.records

    (file,) = (tmp_path / "cache").iterdir()
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    np.testing.assert_array_equal(all_images(open_data(parquet_config(), seed=0).test_loader())[0], first)
    assert "damaged" in caplog.text
    caplog.clear()

    changed = random_pixels(10, seed=5)
    write_parquet(parquet_set[0] / "test.parquet", [png(p) for p in changed], [0] * 10, names=["a", "b", "c"])
    np.testing.assert_array_equal(all_images(open_data(parquet_config(), seed=0).test_loader())[0], changed)
    assert "stale" in caplog.text
    assert [f.name for f in (tmp_path / "cache").iterdir()] == [file.name]


def test_source_touched_within_its_size_is_stale(parquet_config, parquet_set, caplog):
    open_data(parquet_config(), seed=0)
    caplog.set_level(logging.INFO, "maqd.data")
    file = parquet_set[0] / "train.parquet"
    os.utime(file, ns=(0, file.stat().st_mtime_ns + 1))
    open_data(parquet_config(), seed=0)
    assert "stale" in caplog.text


def test_decode_options_have_caches_of_their_own(parquet_config, tmp_path):
    open_data(parquet_config(), seed=0)
    assert open_data(parquet_config(image_size=4), seed=0).info.image_size == 4
    assert open_data(parquet_config(), seed=0).info.image_size == 8
    assert len(list((tmp_path / "cache").iterdir())) == 2


def test_cache_goes_where_xdg_says(parquet_config, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    open_data(parquet_config(cache_dir=None), seed=0)
    assert list((tmp_path / "xdg" / "maqd").glob("hugging_face-*.maqdset"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", lambda: tmp_path / "home")
    open_data(parquet_config(cache_dir=None), seed=0)
    assert list((tmp_path / "home" / ".cache" / "maqd").glob("*.maqdset"))


# Dependencies and options


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("sklearn", Source.DIGITS),
        ("PIL", Source.HUGGING_FACE),
        ("pyarrow", Source.HUGGING_FACE),
        ("datasets", Source.CIFAR10),
    ],
)
def test_missing_dependency(parquet_config, tmp_path, monkeypatch, module, source):
    for name in [name for name in sys.modules if name.partition(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)

    class Absent:
        def find_spec(self, name, *_):
            if name.partition(".")[0] == module:
                raise ModuleNotFoundError(f"No module named {module!r}", name=module)

    monkeypatch.setattr(sys, "meta_path", [Absent(), *sys.meta_path])
    with pytest.raises(MissingDependencyError, match=rf"needs {module}, .*; {re.escape(remedy(module))}"):
        open_data(
            parquet_config(source=source, path=parquet_config().path if source is Source.HUGGING_FACE else None), seed=0
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be an integer of at least 1, got 0"),
        ({"eval_batch_size": 2.0}, "eval_batch_size"),
        ({"image_size": 0}, "image_size"),
        ({"samples_per_epoch": 0}, "samples_per_epoch"),
        ({"workers": -1}, "workers"),
        ({"path": "x"}, "digits is embedded and takes no path"),
        ({"stream": True}, "cannot be streamed"),
        ({"source": Source.IMAGE_FOLDER}, "image_folder needs a path"),
        ({"test_split": "train"}, "must differ"),
    ],
)
def test_wrong_configuration(options, message):
    with pytest.raises(ConfigError, match=message):
        DataConfig(**options)


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({"samples_per_epoch": 1438}, {}, "at most the 1437 training samples, got 1438"),
        ({"augment": AugmentConfig(cutout=9)}, {}, "augment.cutout must be at most the image size of 8 pixels, got 9"),
        ({}, {"seed": -1}, "seed"),
        ({}, {"rank": 2, "world_size": 2}, "rank"),
        ({"samples_per_epoch": 3}, {"world_size": 4}, "cannot be shared by 4 processes"),
    ],
)
def test_options_that_do_not_fit_the_set(options, arguments, message):
    with pytest.raises(ConfigError, match=message):
        open_data(DataConfig(**options), **{"seed": 0, **arguments})


def test_decoding_jpeg_equals_pillow(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(random_pixels(1)[0]).save(buffer, "JPEG")
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [buffer.getvalue()], [0])
    config = DataConfig(source=Source.HUGGING_FACE, path=str(tmp_path), cache_dir=str(tmp_path / "cache"), classes=2)
    images, _ = all_images(open_data(config, seed=0).test_loader())
    np.testing.assert_array_equal(images[0], np.asarray(Image.open(buffer)))


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([0, 5, 0, 5, 0, 5], r"label 1 \(1\) has no training sample, and 4 of 6 labels have none; number the labels"),
        ([0, 0, 0, 0, 0, 0], "a classifier needs two classes, got 0"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_classes_without_images_are_not_trained_in_silence(tmp_path, labels, message, stream):
    for split in ("train", "test"):
        write_parquet(tmp_path / f"{split}.parquet", [png(p) for p in random_pixels(6)], labels)
    config = DataConfig(
        source=Source.HUGGING_FACE, path=str(tmp_path), cache_dir=str(tmp_path / "cache"), stream=stream
    )
    with pytest.raises(DataError, match=message):
        open_data(config, seed=0)
    info = open_data(replace(config, classes=7), seed=0).info
    assert (info.num_classes, info.class_names) == (7, tuple("0123456"))
    with pytest.raises(ConfigError, match=r"data\.classes must be at least 2"):
        open_data(replace(config, classes=1), seed=0)


def test_what_decoding_leaves_out_is_said_once(tmp_path, caplog):
    colour = random_pixels(3, 6)
    for split in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / "set" / split / name).mkdir(parents=True)
            Image.fromarray(np.dstack([colour[0], colour[1][..., 0]])).save(tmp_path / "set" / split / name / "0.png")
    open_data(folder_config(tmp_path), seed=0)
    assert [record.getMessage().partition(": ")[2] for record in caplog.records] == [
        "its transparency is ignored (said of the first such image only)"
    ]
