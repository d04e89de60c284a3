"""What only a CUDA device shows; `make gpu` runs these."""

import json

import numpy as np
import pandas as pd
import pytest
import pytorch_lightning as pl
import torch

from lightning_dice.build import build_datamodule, build_module, build_trainer
from lightning_dice.train import train
from tests.test_train import config_of

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
STEPS = 20


def test_a_gpu_trains_as_a_cpu_does(nnunet_root, tmp_path):
    runs = [
        train(config_of(tmp_path / device, nnunet_root, f"trainer.accelerator={device}")) for device in ("cuda", "cpu")
    ]
    losses = [pd.read_csv(run.metrics)["train/loss"].dropna().to_numpy() for run in runs]
    assert np.allclose(*losses, rtol=0.05)
    assert json.loads(runs[0].summary.read_text())["peak_device_memory_gb"] > 0


class Strict(pl.Callback):
    """Any operation that waits for the GPU is an error, from the fourth to the last step but one."""

    def on_train_batch_start(self, trainer, module, batch, batch_idx):
        torch.cuda.set_sync_debug_mode("error" if 3 <= batch_idx < STEPS - 1 else "default")


def test_no_step_between_two_points_of_the_curves_waits_for_the_gpu(nnunet_root, tmp_path):
    config = config_of(
        tmp_path, nnunet_root, "trainer.accelerator=cuda", "trainer.precision=auto", f"trainer.max_steps={STEPS}",
        f"trainer.log_every_n_steps={STEPS}",
    )  # fmt: skip
    data = build_datamodule(config)
    data.setup()
    trainer = build_trainer(config, callbacks=[Strict()], logger=False, enable_checkpointing=False, limit_val_batches=0)
    trainer.fit(build_module(config, data), datamodule=data)
    assert trainer.global_step == STEPS
