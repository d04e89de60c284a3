"""Classes: which there are, and how labels on disk, channels of the network and rows of a table relate."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any

from lightning_dice.errors import InputError

BACKGROUND = 0
BACKGROUND_NAME = "background"
MOST_CLASSES = 256  # background included: label maps are of 8 bits
MOST_NAMED = 10  # classes in a line

# 30 colours. The first are Okabe & Ito's, which readers with the common colour deficiencies can tell apart (Wong 2011,
# Nature Methods 8:441). The others were chosen by computer: any two of the 30 are at least 14 apart in CIELAB, seen
# with normal sight or as by protan-, deuteran- or tritanopes (Machado et al. 2009, IEEE TVCG 15:1291).
PALETTE = (
    "#d55e00", "#0072b2", "#cc79a7", "#56b4e9", "#f0e442", "#009e73", "#e69f00", "#780000", "#c3f0d2", "#2d1e96",
    "#b400ff", "#69ff87", "#96a55a", "#780f78", "#690f2d", "#964b3c", "#f0e1ff", "#d2a5a5", "#d200b4", "#2d4b5a",
    "#0000f0", "#a53c0f", "#875a87", "#9687f0", "#a5ffb4", "#8700c3", "#a569ff", "#96c387", "#696969", "#c3e15a",
)  # fmt: skip


@dataclass(frozen=True)
class Label:
    """One class.

    Attributes:
        name: of the class, which tables, curves and pictures show.
        colour: `#rrggbb`.
        parts: structures that it is made of, each by all names that data sets have for it.
        snomed: its SNOMED CT code, by the name in pydicom's dictionary.
        volume_ml: the smallest and the largest that are plausible.
        hu: the lowest and highest plausible median.
        largest_piece: share of the voxels that the largest connected piece has at least.
        side: "left" or "right", of the patient.
        opacity: of its surface.
    """

    name: str
    colour: str
    parts: tuple[tuple[str, ...], ...] = ()
    snomed: str | None = None
    volume_ml: tuple[float, float] | None = None
    hu: tuple[float, float] | None = None
    largest_piece: float | None = None
    side: str | None = None
    opacity: float = 1.0

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue, 8 bits each."""
        red, green, blue = bytes.fromhex(self.colour.removeprefix("#"))
        return red, green, blue

    def is_in(self, structures: Collection[str]) -> bool:
        """Whether all of its parts are among these structures."""
        return all(any(name in structures for name in part) for part in self.parts)


@dataclass(frozen=True)
class LabelSet:
    """The classes of a run, background first. A class's index is its place here: in the store, in label maps, in tables
    and among the channels of the network.

    Attributes:
        name: of the set; "paper" is the paper's.
        labels: the classes.

    Raises:
        InputError: no organ, two classes of one name or with a part in common, or more classes than a label map holds.
    """

    name: str
    labels: tuple[Label, ...]

    def __post_init__(self) -> None:
        if not 2 <= len(self) <= MOST_CLASSES:
            raise InputError(
                f"labels={self.name}: {len(self) - 1} classes beside background; expected 1 to {MOST_CLASSES - 1}"
            )
        if self.names[BACKGROUND] != BACKGROUND_NAME or BACKGROUND_NAME in self.names[1:]:
            raise InputError(f"labels={self.name}: expected background once, as the first of the classes")
        parts = [name for label in self.labels for names in label.parts for name in set(names)]
        for what, names in (("class", self.names), ("structure", parts)):
            if double := sorted({name for name in names if names.count(name) > 1}):
                raise InputError(f"labels={self.name}: {', '.join(double)} is in it twice; expected each {what} once")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(label.name for label in self.labels)

    @property
    def organs(self) -> tuple[Label, ...]:
        """All but background."""
        return self.labels[1:]

    def index(self, structures: Iterable[str]) -> int:
        """The class of a label value that stands for these structures, the last of those that the set knows: a tumour
        in its organ is the tumour where there is such a class, and else the organ. Background if it knows none."""
        return next((self._of_part[name] for name in reversed(tuple(structures)) if name in self._of_part), BACKGROUND)

    @cached_property
    def _of_part(self) -> dict[str, int]:
        return {name: index for index, label in enumerate(self.labels) for part in label.parts for name in part}

    def annotated(self, structures: Collection[str]) -> tuple[str, ...]:
        """Names of the classes that labels of these structures tell apart, background first. Not annotated is not
        background: an organ that is missing here may be anywhere in what the files call background."""
        return (BACKGROUND_NAME, *(label.name for label in self.organs if label.is_in(structures)))

    def indices(self, names: Sequence[str]) -> list[int]:
        """Of these classes, in their order."""
        return [self.names.index(name) for name in names]

    def places(self, names: Sequence[str]) -> list[int]:
        """For each class of the set its place among these names; background's for a class that is not one of them."""
        return [names.index(name) if name in names else BACKGROUND for name in self.names]

    def select(self, classes: Sequence[str | Mapping[str, Sequence[str]]]) -> "LabelSet":
        """Some of the classes, in this order; `{name: [class, class]}` merges several into one.

        Raises:
            InputError: one that the set does not have, or that is named twice.
        """
        merged: dict[str, list[str]] = {}
        for item in classes:
            for name, members in (item if isinstance(item, Mapping) else {item: item}).items():
                listed = [members] if isinstance(members, str) else members
                merged.setdefault(normalized(name), []).extend(map(normalized, listed))
        merged.pop(BACKGROUND_NAME, None)  # it is always there
        known = {label.name: label for label in self.organs}
        if unknown := {member for members in merged.values() for member in members if member not in known}:
            raise InputError(
                f"labels.classes: {told_names(unknown)} is not among the classes of labels={self.name}; expected some "
                f"of {told_names(known)}"
            )
        organs = [_merged(name, [known[member] for member in members]) for name, members in merged.items()]
        return LabelSet(self.name, (self.labels[BACKGROUND], *organs))

    def to_plain(self) -> dict[str, Any]:
        """Plain types, for a checkpoint or a JSON file."""
        return {"name": self.name, "labels": [_plain(asdict(label)) for label in self.labels]}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> "LabelSet":
        """What `to_plain` gave.

        Raises:
            KeyError, TypeError, ValueError, AttributeError, InputError: something else.
        """
        return cls(str(plain["name"]), tuple(_label(**fields) for fields in plain["labels"]))


def label_set(name: str, labels: Mapping[str, Mapping[str, Any] | None]) -> LabelSet:
    """A set as its YAML file describes it.

    Args:
        labels: of each class but background what is known of it, by the names of `Label`'s attributes; `synonyms` are
            the names that data sets have for it beside its own. Without a colour it gets the next of PALETTE.

    Raises:
        InputError: as `LabelSet`.
    """
    given = {fields["colour"] for fields in labels.values() if fields and fields.get("colour")}
    free = [colour for colour in PALETTE if colour not in given] or PALETTE
    found, taken = [Label(BACKGROUND_NAME, "#000000")], 0
    for title, fields in labels.items():
        known = {key: value for key, value in (fields or {}).items() if value is not None}
        own = normalized(title)
        names = dict.fromkeys([own, *map(normalized, known.pop("synonyms", ()))])
        if "colour" not in known:
            known["colour"] = free[taken % len(free)]
            taken += 1
        found.append(_label(name=own, parts=[tuple(names)], **known))
    return LabelSet(name, tuple(found))


@dataclass(frozen=True)
class LabelChoice:
    """Which classes a run is to have, said before its data set is read.

    Attributes:
        known: the set to choose from; of a set that the data declare, what is known of the structures by their names.
        is_declared: the classes are those that the data set declares, in its order.
        classes: some of them, as for `LabelSet.select`; None for all.
        outputs: "present" for a network with those classes only that the data set annotates, or "all".
    """

    known: LabelSet
    is_declared: bool = False
    classes: tuple[str | Mapping[str, Sequence[str]], ...] | None = None
    outputs: str = "present"

    def wanted(self, declared: Sequence[Sequence[str]]) -> LabelSet:
        """All classes that are asked for, annotated or not; `declared` as for `of`.

        Raises:
            InputError: one that is none of the set's.
        """
        labels = self.known
        if self.is_declared:
            labels = self._from(dict.fromkeys(name for names in declared for name in names))
        return labels if self.classes is None else labels.select(self.classes)

    def of(self, declared: Sequence[Sequence[str]], root: object) -> LabelSet:
        """The classes for a data set.

        Args:
            declared: of each case the structures that its label files declare.
            root: of the data set, for what is told of it.

        Raises:
            InputError: no class is annotated in all cases, or one that is asked for is not.
        """
        everywhere = set(declared[0]).intersection(*declared[1:]) if declared else set()
        labels = self.wanted(declared)
        annotated = labels.annotated(everywhere)
        missing = [name for name in labels.names if name not in annotated]
        is_lacking = self.classes is not None and self.outputs == "present" and missing
        if is_lacking or len(annotated) == 1:
            raise InputError(
                f"labels={self.known.name}: {root} does not annotate {told_names(missing)} in all of its cases, only "
                f"{told_names(everywhere) or 'nothing'}; choose from these by labels.classes=[…], or take them all by "
                "labels=dataset"
            )
        return labels if self.outputs == "all" else labels.select(annotated[1:])

    def _from(self, structures: Iterable[str]) -> LabelSet:
        by_part = {name: label for label in self.known.organs if len(label.parts) == 1 for name in label.parts[0]}
        described: dict[str, dict[str, Any]] = {}
        colours: set[str] = set()
        for name in structures:
            if not (label := by_part.get(name)):
                described[name] = {}
                continue
            fields = {key: value for key, value in asdict(label).items() if key not in ("name", "parts")}
            if fields["colour"] in colours:  # two names of one structure
                del fields["colour"]
            colours.add(label.colour)
            described[name] = fields
        return label_set(self.known.name, described)


def normalized(name: object) -> str:
    """A name as tables and files can hold it, by which names of different data sets are matched: small letters, and
    underscores for all but letters, digits, dots and pluses.

    Raises:
        InputError: nothing is left.
    """
    found = re.sub(r"[^\w.+]+", "_", str(name).strip().lower()).strip("_")
    if not found:
        raise InputError(f"label {str(name)!r}: expected a name with a letter or a digit in it")
    return found


def told_names(names: Collection[str], others: Sequence[str] = ()) -> str:
    """As a line has room for; where others differ from them, from the line on that has the first unlike one."""
    listed = sorted(names) if isinstance(names, set) else list(names)
    unlike = next((place for place, (a, b) in enumerate(zip(listed, others, strict=False)) if a != b), 0)
    rest = listed[unlike // MOST_NAMED * MOST_NAMED :]
    return ", ".join(rest[:MOST_NAMED]) + (f" and {len(rest) - MOST_NAMED} more" if len(rest) > MOST_NAMED else "")


def _merged(name: str, members: Sequence[Label]) -> Label:
    """One class of several, of which no more is known than the first one's colour."""
    if len(members) == 1:
        return replace(members[0], name=name)
    return Label(name, members[0].colour, tuple(part for label in members for part in label.parts))


def _label(name: str, colour: str, **fields: Any) -> Label:
    """With tuples where YAML and JSON have lists."""
    if not re.fullmatch(r"#[0-9a-fA-F]{6}", str(colour)):
        raise InputError(f"label {name}: colour={colour}: expected red, green and blue as '#rrggbb'")
    parts = tuple(tuple(map(str, names)) for names in fields.pop("parts", ()))
    ranges: dict[str, Any] = {
        key: tuple(map(float, fields.pop(key))) for key in ("volume_ml", "hu") if fields.get(key) is not None
    }
    for key, (low, high) in ranges.items():
        if low > high:
            raise InputError(f"label {name}: {key}=[{low:g},{high:g}]: expected [low, high]")
    return Label(str(name), colour, parts, **ranges, **fields)


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, tuple | list) else value
