"""A labelled data set: its cases, what is wrong with them, their prepared copies, and the split."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import astuple
from pathlib import Path
from statistics import median_low

from lightning_dice.data.cases import Case, Split, given_split, split_cases, with_fold
from lightning_dice.data.integrity import ERROR, CaseCheck, Finding, check_copies, findings_frame
from lightning_dice.data.labels import LabelChoice, LabelSet, told_names
from lightning_dice.data.store import PreparedCase, check_cases, fingerprint, prepare_cases
from lightning_dice.data.volumes import Preparation
from lightning_dice.errors import InputError
from lightning_dice.files import atomic_write

ALL_CASES = 1  # as data.test: every case is a test case
VALIDATION = 0.1  # share, unless it is told otherwise
ON_ERROR = ("stop", "skip")


class CTDataset:
    """Labelled CTs of one data set.

    Args:
        name: of the data set; it names folders.
        layout: finds the cases below a folder, such as `lightning_dice.data.layouts.nnunet.nnunet_cases`.
        root: that folder.
        store: folder for the prepared copies of all data sets.
        preparation: orientation, downsampling and window.
        labels: the choice of classes.
        test: share of the cases to test on, drawn by `seed`; 1 for all of them, with none to train on. A data set's own
            split, which its layout gives on request, goes before this and `validation`.
        validation: share of the remaining cases for the curves and the best checkpoint; may be 0.
        folds: cut the remaining cases into so many instead, of which `fold` validates; see `cases.with_fold`.
        fold: from 0.
        split_seed: of these draws, apart from `seed`, so that runs with several seeds share their test cases.
        exclude: ids of cases to leave out.
        on_error: what to do with cases in which `integrity` finds an error: "stop", or "skip" to leave them out.

    Attributes:
        labels: the classes, those of the network; once the data set is set up.
        taught: names of those that the data set annotates; whatever else its labels hold counts as background.
        untaught: names of those that were asked for and that it does not annotate.
        findings: what `integrity` found in the cases.
        excluded: the cases that are left out, with the reason.

    Raises:
        InputError: an unknown `on_error`, a fold without folds or folds without a fold, or a share for validation
            beside them.
    """

    def __init__(
        self,
        name: str,
        layout: Callable[[Path], list[Case]],
        root: Path | str,
        store: Path | str,
        preparation: Preparation,
        labels: LabelChoice,
        test: float = 0.1,
        validation: float = VALIDATION,
        folds: int | None = None,
        fold: int | None = None,
        split_seed: int = 0,
        exclude: Sequence[str] = (),
        on_error: str = "stop",
    ):
        if on_error not in ON_ERROR:
            raise InputError(f"data.on_error={on_error}: no such choice; expected one of {', '.join(ON_ERROR)}")
        if (folds is None) != (fold is None):
            given = f"data.fold={fold}" if folds is None else f"data.folds={folds}"
            raise InputError(f"{given}: expected both or none of them, such as data.fold=0 data.folds=5")
        if folds is not None and validation != VALIDATION:
            raise InputError(
                f"data.validation={validation}: with data.folds={folds} it is a fold that validates; leave one out"
            )
        self.name = str(name)  # a YAML file may hold a number
        self.layout = layout
        self.root = Path(root).expanduser()
        self.store = Path(store).expanduser()
        self.preparation = preparation
        self.choice = labels
        self.test, self.validation, self.split_seed = test, validation, split_seed
        self.folds, self.fold = folds, fold
        self.labels: LabelSet = self.choice.known
        self.taught: tuple[str, ...] = ()
        self.untaught: tuple[str, ...] = ()
        self.exclude, self.on_error = [str(i) for i in exclude], on_error
        self.findings: list[Finding] = []
        self.excluded: dict[str, str] = {}
        self.sources: dict[str, Case] = {}
        self.cases: dict[str, PreparedCase] = {}
        self.split = Split((), (), ())

    def setup(self, stage: str | None = None) -> None:
        """Prepare the data set as far as needed, and split it.

        Afterwards `cases` holds the prepared ones by id, `sources` their files, and `labels` and `taught` the classes.

        Raises:
            InputError: cases with errors, all at once, unless they are to be skipped; an unknown one to exclude; too
                few cases; or classes that the data set does not have.
        """
        if self.cases:
            return
        chosen = self.choose()
        prepared, checks = prepare_cases(chosen, self.labels, self.preparation, self.store / self.name)
        self.record(checks)
        self.cases = {case.id: case for case in prepared if case.id not in self.excluded}
        self.sources = {case.id: case for case in chosen if case.id in self.cases}
        kept = [tuple(i for i in part if i in self.cases) for part in astuple(self.split)]
        if not self.cases or (self.split.train and not kept[0]):
            left_out = f"{len(self.excluded)} cases left out, such as {next(iter(self.excluded))}"
            raise InputError(f"{self.root}: {left_out}, leave none to train or test on; fix or add some")
        self.split = Split(*kept)

    def check(self) -> None:
        """Look for what `setup` would find, into `findings`, and prepare nothing.

        Raises:
            InputError: as `setup`.
        """
        self.record(check_cases(self.choose(), self.labels, self.preparation, self.store / self.name))

    def choose(self) -> list[Case]:
        """Split all cases, so that leaving one out moves no other from part to part, and leave out the excluded."""
        cases = self.layout(self.root)
        ids = [case.id for case in cases]
        if doubled := [one for one, count in Counter(ids).items() if count > 1]:
            files = ", ".join(str(case.image) for case in cases if case.id in doubled)
            raise InputError(
                f"{self.root}: the id {', '.join(doubled)} is of several scans: {files}; expected an id for each, "
                "which is what stands for the wildcards of data.layout.images; rename files or folders"
            )
        unknown = [i for i in self.exclude if i not in ids]
        if unknown:
            raise InputError(f"data.exclude={unknown}: no such case in {self.root}; expected ids such as {ids[0]}")
        self.excluded = dict.fromkeys(self.exclude, "data.exclude")
        chosen = [case for case in cases if case.id not in self.excluded]
        declared = [case.structures for case in cases]
        self.labels = self.choice.of(declared, self.root)
        self.taught = self.labels.annotated(set(declared[0]).intersection(*declared[1:]))
        self.untaught = tuple(n for n in self.choice.wanted(declared).names if n not in self.taught)
        self._tell_left_over(cases)
        if any(case.part for case in cases):
            self.split = given_split(cases)
        elif self.test == ALL_CASES:
            self.split = Split((), (), tuple(ids))
        else:
            self.split = split_cases(ids, self.test, self.validation, self.split_seed)
        if self.folds is not None and self.fold is not None:
            self.split = with_fold(self.split, ids, self.folds, self.fold, self.split_seed)
        return chosen

    def _tell_left_over(self, cases: Sequence[Case]) -> None:
        """Name what becomes background because it is in none of the classes."""
        found = [case.left_over(self.labels) for case in cases]
        names = list(dict.fromkeys(name for of_case, _ in found for name in of_case))
        values = sorted({value for _, of_case in found for value in of_case})
        if names or values:
            told = [told_names(names)] if names else []
            told += [f"{len(values)} values without a name, from {values[0]} to {values[-1]}"] if values else []
            advice = (
                "" if self.choice.is_declared or not names else "; labels=dataset makes classes of all that is named"
            )
            print(f"{self.root}: declares {' and '.join(told)}: none of the classes, counted as background{advice}")

    def record(self, checks: Sequence[CaseCheck]) -> None:
        """Record all findings, and end with the errors among them or skip their cases."""
        found = [finding for one in checks for finding in one.findings]
        self.findings = found + check_copies(checks, self.split)
        with atomic_write(self.integrity) as path:
            findings_frame(self.findings).to_csv(path, index=False)
        errors = [finding for finding in self.findings if finding.level == ERROR]
        if errors and self.on_error == "stop":
            cases = {error.case: None for error in errors}
            raise InputError(
                f"{len(errors)} errors in {len(cases)} of {len(checks)} cases, see {self.integrity}; fix them, "
                "leave cases out by data.exclude=[…], or those with errors by data.on_error=skip:\n"
                + "\n".join(sorted(map(str, errors)))
            )
        for error in errors:
            self.excluded.setdefault(error.case, str(error))

    @property
    def integrity(self) -> Path:
        """CSV of the findings."""
        return self.store / self.name / "integrity.csv"

    @property
    def fingerprint(self) -> str:
        """Of the prepared data."""
        return fingerprint(list(self.cases.values()))

    @property
    def class_voxels(self) -> tuple[int, ...]:
        """Voxels of each of `taught` over all training cases: what Eq. 3 to 5 weigh by."""
        totals = map(sum, zip(*(case.voxels for case in self.part("train")), strict=True))
        counts = dict(zip(self.labels.names, totals, strict=True))
        organs = [counts[name] for name in self.taught[1:]]
        return sum(counts.values()) - sum(organs), *organs

    @property
    def spacing_mm(self) -> tuple[float, float, float]:
        """Median voxel size of the training cases."""
        x, y, z = map(median_low, zip(*(case.spacing_mm for case in self.part("train")), strict=True))
        return x, y, z

    def part(self, name: str) -> list[PreparedCase]:
        """The prepared cases of a part of the split: `train`, `validation` or `test`."""
        return [self.cases[i] for i in getattr(self.split, name)]
