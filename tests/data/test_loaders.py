"""Batches: their layout, what determines them, sharing among processes, and going on in the middle of an epoch."""

import pickle

import numpy as np
import pytest
import torch

from maqd.data import AugmentConfig, DataConfig, open_data
from maqd.data.loaders import test_indices as share_of_test
from maqd.data.sampling import Plan
from maqd.errors import CheckpointError, ConfigError

AUGMENT = AugmentConfig(crop_padding=2, flip=True, cutout=3)


@pytest.fixture(params=[False, True], ids=["cached", "streamed"])
def config(request, parquet_config):
    """40 training images in batches of 6: six batches, four images are dropped."""
    return parquet_config(augment=AUGMENT, stream=request.param)


def equal(a, b):
    return len(a) == len(b) and all(
        torch.equal(p, q) for x, y in zip(a, b, strict=True) for p, q in zip(x, y, strict=True)
    )


def epoch_of(loader, epoch):
    loader.set_epoch(epoch)
    return list(loader)


def test_layout(config):
    data = open_data(config, seed=0)
    for loader, sizes in ((data.train_loader(), [6] * 6), (data.test_loader(), [4, 4, 2])):
        batches = list(loader)
        assert len(loader) == len(sizes)
        assert [len(labels) for _, labels in batches] == sizes
        for images, labels in batches:
            assert images.dtype == torch.uint8
            assert labels.dtype == torch.int64
            assert images.shape == (len(labels), 3, 8, 8)
            assert images.is_contiguous(memory_format=torch.channels_last)
            images.add_(1)  # Neither shared nor read-only.


def test_determined_by_seed_and_epoch(config):
    loader = open_data(config, seed=3).train_loader()
    first = epoch_of(loader, 0)
    assert equal(first, epoch_of(open_data(config, seed=3).train_loader(), 0))
    assert not equal(first, epoch_of(open_data(config, seed=4).train_loader(), 0))
    assert not equal(first, epoch_of(loader, 1))
    assert equal(first, epoch_of(loader, 0))


def test_global_generators_are_left_alone(config):
    data = open_data(config, seed=0)
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()  # type: ignore[index]
    list(data.train_loader())
    list(data.test_loader())
    assert torch.equal(before[0], torch.get_rng_state())
    np.testing.assert_array_equal(before[1], np.random.get_state()[1])  # type: ignore[index]


def test_without_augmentation_an_epoch_has_each_image_once(parquet_config, parquet_set):
    loader = open_data(parquet_config(batch_size=5), seed=0).train_loader()
    images = torch.cat([x for x, _ in epoch_of(loader, 7)]).permute(0, 2, 3, 1).numpy()
    assert sorted(i.tobytes() for i in images) == sorted(i.tobytes() for i in parquet_set[1])


@pytest.mark.parametrize("stop", range(7))
def test_goes_on_anywhere(config, stop):
    data = open_data(config, seed=0)
    whole = epoch_of(data.train_loader(), 2)
    following = epoch_of(data.train_loader(), 3)
    loader = data.train_loader()
    loader.set_epoch(2)
    passed = iter(loader)
    head = [next(passed) for _ in range(stop)]
    state = loader.state_dict()
    assert state == {"epoch": 2, "batch": stop}

    resumed = open_data(config, seed=0).train_loader()
    resumed.load_state_dict(pickle.loads(pickle.dumps(state)))
    assert len(resumed) == 6
    assert resumed.state_dict() == state
    iter(resumed)  # Lightning makes one that it does not use.
    passed = iter(resumed)
    resumed.set_epoch(2)
    tail = []
    for batch in passed:
        tail.append(batch)
        assert resumed.state_dict() == {"epoch": 2, "batch": stop + len(tail)}
    assert equal(head + tail, whole)
    # Only that one pass is shortened.
    assert equal(list(resumed), whole)
    assert equal(epoch_of(resumed, 3), following)


def test_state_of_a_finished_epoch_goes_on_with_the_next(config):
    data = open_data(config, seed=0)
    loader = data.train_loader()
    list(loader)
    state = loader.state_dict()
    assert state == {"epoch": 0, "batch": 6}
    resumed = data.train_loader()
    resumed.load_state_dict(state)
    assert equal(epoch_of(resumed, 1), epoch_of(loader, 1))


def test_epoch_may_be_set_after_iter(config):
    loader = open_data(config, seed=0).train_loader()
    passed = iter(loader)
    loader.sampler.set_epoch(5)
    assert equal(list(passed), epoch_of(open_data(config, seed=0).train_loader(), 5))


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"epoch": 0},
        {"epoch": 0, "batch": 7},
        {"epoch": 0, "batch": -1},
        {"epoch": -1, "batch": 0},
        {"epoch": 0.0, "batch": 1},
        {"epoch": True, "batch": 1},
    ],
)
def test_bad_states_are_refused(parquet_config, state):
    loader = open_data(parquet_config(), seed=0).train_loader()
    with pytest.raises(CheckpointError, match=r"0 \.\. 6"):
        loader.load_state_dict(state)
    assert loader.state_dict() == {"epoch": 0, "batch": 0}


def test_processes_share_an_epoch(parquet_config, parquet_set):
    _, train, test = parquet_set
    # 38 of 40 samples, 3 processes: 12 samples each, 2 batches of 6.
    config = parquet_config(samples_per_epoch=38)
    shares = [open_data(config, seed=0, rank=rank, world_size=3) for rank in range(3)]
    one = Plan(count=40, samples=38, batch_size=40, seed=0)
    order = one.epoch(4)[0]
    seen = []
    for rank, data in enumerate(shares):
        loader = data.train_loader()
        assert len(loader) == 2
        images = torch.cat([x for x, _ in epoch_of(loader, 4)]).permute(0, 2, 3, 1).numpy()
        np.testing.assert_array_equal(images, train[order[:36][rank::3]])
        seen += [x for images, _ in data.test_loader() for x in images.permute(0, 2, 3, 1).numpy()]
    assert sorted(x.tobytes() for x in seen) == sorted(x.tobytes() for x in test)


def test_processes_augment_differently(parquet_config):
    plans = [Plan(count=40, samples=40, batch_size=5, seed=0, rank=rank, world_size=2) for rank in range(2)]
    drawn = [plan.augmentation(1, 2).integers(0, 1000, 20) for plan in plans]
    assert not np.array_equal(*drawn)


@pytest.mark.parametrize(
    ("samples", "batch_size", "world_size", "batches", "last"),
    [(40, 6, 1, 6, 6), (40, 64, 1, 1, 40), (7, 4, 1, 1, 4), (41, 41, 1, 1, 41), (41, 10, 2, 2, 10)],
)
def test_incomplete_batch_is_dropped_unless_it_is_the_only_one(samples, batch_size, world_size, batches, last):
    for rank in range(world_size):
        plan = Plan(count=41, samples=samples, batch_size=batch_size, seed=0, rank=rank, world_size=world_size)
        epoch = plan.epoch(0)
        assert plan.batches == len(epoch) == batches
        assert len(epoch[-1]) == last


def test_samples_per_epoch_takes_the_first_of_the_shuffle():
    whole = np.concatenate(Plan(count=40, samples=40, batch_size=4, seed=0).epoch(1))
    part = np.concatenate(Plan(count=40, samples=12, batch_size=4, seed=0).epoch(1))
    np.testing.assert_array_equal(part, whole[:12])


def test_epochs_are_permutations_that_differ():
    plan = Plan(count=50, samples=50, batch_size=50, seed=0)
    orders = [plan.epoch(epoch)[0] for epoch in range(5)]
    assert all(sorted(order) == list(range(50)) for order in orders)
    assert len({order.tobytes() for order in orders}) == 5


@pytest.mark.parametrize("world_size", [1, 3, 7, 20])
def test_test_split_is_shared_without_repeats(world_size):
    shares = [share_of_test(13, 2, rank, world_size) for rank in range(world_size)]
    assert sorted(int(i) for share in shares for batch in share for i in batch) == list(range(13))


@pytest.mark.parametrize("seed", [-1, 1.0, True, None])
def test_bad_seeds_are_refused(seed):
    with pytest.raises(ConfigError, match="seed"):
        open_data(DataConfig(), seed=seed)
