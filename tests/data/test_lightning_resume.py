"""Lightning's Trainer stops anywhere and goes on with exactly the batches that were left."""

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import ModelCheckpoint

from maqd.data import AugmentConfig, open_data

pytestmark = [
    pytest.mark.filterwarnings("ignore::lightning.fabric.utilities.warnings.PossibleUserWarning"),
    pytest.mark.filterwarnings("ignore:.*tensorboard.*"),
    pytest.mark.filterwarnings("ignore:.*LeafSpec.*"),
    pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`"),
]

BATCHES = 6
EPOCHS = 3


class Recorder(lightning.LightningModule):
    """Remembers the batches it is trained on."""

    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.seen = []

    def training_step(self, batch, _):
        images, labels = batch
        self.seen.append((self.current_epoch, images.clone(), labels.clone()))
        return self.weight * images.float().mean()

    def validation_step(self, batch, _):
        self.log("val", batch[0].float().mean())

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


def fit(data, tmp_path, *, validate=True, ckpt_path=None, **options):
    module = Recorder()
    trainer = lightning.Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        default_root_dir=tmp_path,
        num_sanity_val_steps=0,
        **options,
    )
    trainer.fit(module, data.train_loader(), data.test_loader() if validate else None, ckpt_path=ckpt_path)
    return module.seen


def assert_same(a, b):
    assert len(a) == len(b)
    for (epoch_a, *batch_a), (epoch_b, *batch_b) in zip(a, b, strict=True):
        assert epoch_a == epoch_b
        assert all(torch.equal(x, y) for x, y in zip(batch_a, batch_b, strict=True))


@pytest.fixture
def data(parquet_config):
    return open_data(parquet_config(augment=AugmentConfig(crop_padding=2, flip=True)), seed=0)


def test_epochs_are_those_of_the_loader(data, tmp_path):
    seen = fit(data, tmp_path, max_epochs=EPOCHS, enable_checkpointing=False)
    loader = data.train_loader()
    expected = []
    for epoch in range(EPOCHS):
        loader.set_epoch(epoch)
        expected += [(epoch, *batch) for batch in loader]
    assert_same(seen, expected)


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("limit", [{"max_epochs": EPOCHS}, {"max_steps": EPOCHS * BATCHES}])
def test_resumes_from_every_step(data, tmp_path, validate, limit):
    every = ModelCheckpoint(dirpath=tmp_path / "checkpoints", filename="{step}", every_n_train_steps=1, save_top_k=-1)
    whole = fit(data, tmp_path, validate=validate, callbacks=[every], **limit)
    assert len(whole) == EPOCHS * BATCHES
    for step in (1, 4, BATCHES - 1, BATCHES, BATCHES + 1, 2 * BATCHES - 1, 2 * BATCHES):
        path = tmp_path / "checkpoints" / f"step={step}.ckpt"
        resumed = fit(data, tmp_path, validate=validate, ckpt_path=path, enable_checkpointing=False, **limit)
        assert_same(resumed, whole[step:])


# Not (steps, on_train_epoch_end): resuming from there, Lightning counts an epoch without batches and skips its number.
@pytest.mark.parametrize(
    ("limit", "on_train_epoch_end"),
    [({"max_epochs": EPOCHS}, True), ({"max_epochs": EPOCHS}, False), ({"max_steps": EPOCHS * BATCHES}, False)],
)
def test_resumes_from_every_epoch(data, tmp_path, limit, on_train_epoch_end):
    every = ModelCheckpoint(
        dirpath=tmp_path / "checkpoints", filename="{epoch}", save_top_k=-1, save_on_train_epoch_end=on_train_epoch_end
    )
    whole = fit(data, tmp_path, callbacks=[every], **limit)
    for epoch in range(EPOCHS - 1):
        path = tmp_path / "checkpoints" / f"epoch={epoch}.ckpt"
        resumed = fit(data, tmp_path, ckpt_path=path, enable_checkpointing=False, **limit)
        assert_same(resumed, whole[(epoch + 1) * BATCHES :])
