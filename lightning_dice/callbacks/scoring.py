"""Scores of the test, its predictions and its picture."""

from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import Any

import nibabel as nib
import numpy as np
import pandas as pd
import pytorch_lightning as pl
import torch

from lightning_dice.callbacks.overlays import pictured
from lightning_dice.data.datamodule import CTDataModule
from lightning_dice.data.labels import BACKGROUND, LabelSet
from lightning_dice.data.patches import Batch
from lightning_dice.data.store import PreparedCase
from lightning_dice.data.volumes import prepared_step, read_case, spacing_mm, to_ras
from lightning_dice.files import atomic_write
from lightning_dice.inference import to_native
from lightning_dice.metrics import score_case, summarize
from lightning_dice.module import SegmentationModule
from lightning_dice.pictures.slices import Pictured, slices_figure
from lightning_dice.ranks import in_order
from lightning_dice.runs import SCORE_COLUMNS, Run, write_json, write_table

PICTURED_CASES = 3  # in the picture of the test
TEST_MEANS = {"test/dice": "avg_without_background", "test/AVG": "avg"}  # the loggers' keys of the summary's means


class Scoring(pl.Callback):
    """Scores a test case while the next one is segmented; one at a time, so that cases do not pile up in memory.

    Attributes:
        summary: what `summary.json` is to hold of it, once the test is over.
    """

    def __init__(self, run: Run, datamodule: CTDataModule):
        self.run = run
        self.data = datamodule
        self.summary: dict[str, Any] = {}

    def on_test_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        self._thread = ThreadPoolExecutor(1)
        self._rows: list[tuple[str, Future[list[dict[str, Any]]]]] = []

    def score(
        self, case: str, prediction: np.ndarray, truth: np.ndarray, spacing_mm: Sequence[float], taught: Sequence[str]
    ) -> None:
        """Begin to score a case when the one before is done; see `score_rows`."""
        if self._rows:
            self._rows[-1][1].result()
        rows = self._thread.submit(score_rows, case, prediction, truth, spacing_mm, self.data.labels, taught)
        self._rows.append((case, rows))

    def scores(self) -> pd.DataFrame:
        """Of all cases, those of other ranks too, in their order."""
        self._thread.shutdown()
        cases = dict(in_order([(case, rows.result()) for case, rows in self._rows]))  # each once, see `CTDataModule`
        return pd.DataFrame([row for rows in cases.values() for row in rows], columns=SCORE_COLUMNS)


class TestResults(Scoring):
    """Writes each test case's prediction and, at the end, all scores and a picture into the folder.

    On several devices each rank writes the predictions of its own cases, and rank zero the rest.
    """

    __test__ = False  # not a test of ours, whatever pytest makes of the name

    def on_test_batch_end(  # type: ignore[override]  # of our own module, which gives a tensor
        self, trainer: pl.Trainer, module: SegmentationModule, outputs: torch.Tensor, batch: Batch, *args: Any
    ) -> None:
        case = self.data.cases[batch.ids[0]]
        prediction = module.label_map(outputs).cpu().numpy()
        with atomic_write(self.run.prediction(case.id)) as path:
            nib.save(nib.Nifti1Image(prediction, np.array(case.affine)), path)
        self.score(case.id, prediction, batch.label[0].cpu().numpy(), case.spacing_mm, module.taught)

    def on_test_end(  # type: ignore[override]  # of our own module
        self, trainer: pl.Trainer, module: SegmentationModule
    ) -> None:
        scores = self.scores()
        if not trainer.is_global_zero:
            return
        scored = scores["case"].drop_duplicates().tolist()
        if scored != list(self.data.split.test):
            raise RuntimeError(f"scored {scored} instead of the test cases {list(self.data.split.test)}")
        write_table(self.run.scores, scores)
        self.summary = summarize(scores)
        dice = {key: self.summary[mean]["dice"] for key, mean in TEST_MEANS.items()}
        dice |= {f"test/dice/{name}": means["dice"] for name, means in self.summary["classes"].items()}
        for logger in trainer.loggers:
            logger.log_metrics({key: value for key, value in dice.items() if value is not None}, trainer.global_step)
        cases = self.data.cases
        files = {i: {"image": str(cases[i].image), "label": str(cases[i].label)} for i in scored}
        write_json(self.run.cases, files)
        with atomic_write(self.run.slices) as path:
            slices_figure([self._pictured(cases[i], module) for i in scored[:PICTURED_CASES]]).savefig(path, dpi=150)

    def _pictured(self, case: PreparedCase, module: SegmentationModule) -> Pictured:
        prediction = np.asarray(nib.load(self.run.prediction(case.id)).dataobj)  # type: ignore[attr-defined]  # of a NIfTI
        return pictured(case, prediction, module.recipe)


class NativeScores(Scoring):
    """Scores the test cases on their scans' own grids too: a table, and `native` in the summary."""

    def on_test_batch_end(  # type: ignore[override]  # of our own module, which gives a tensor
        self, trainer: pl.Trainer, module: SegmentationModule, outputs: torch.Tensor, batch: Batch, *args: Any
    ) -> None:
        case = batch.ids[0]
        scan, _ = read_case(self.data.sources[case], self.data.labels)
        assert scan is not None  # its case was sound when it was prepared
        truth, affine = to_ras(scan.label, scan.affine)
        step = prepared_step(affine, self.data.preparation)
        places = to_native([outputs[0].float().cpu()], outputs.shape[-1], truth.shape, step)
        prediction = np.array(self.data.labels.indices(module.taught), np.uint8)[places]
        self.score(case, prediction, truth, spacing_mm(affine), module.taught)

    def on_test_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:
        scores = self.scores()
        write_table(self.run.native_scores, scores)
        self.summary = {"native": summarize(scores)}


def score_rows(
    case: str,
    prediction: np.ndarray,
    truth: np.ndarray,
    spacing_mm: Sequence[float],
    labels: LabelSet,
    taught: Sequence[str],
) -> list[dict[str, Any]]:
    """Rows of `scores.csv` of a case, one per class. What is not taught counts as background in the truth."""
    truth = np.where(np.isin(truth, labels.indices(taught)), truth, BACKGROUND).astype(np.uint8)
    scores = score_case(prediction, truth, spacing_mm, len(labels))
    return [{"case": case, "name": labels.names[score.label], **asdict(score)} for score in scores]
