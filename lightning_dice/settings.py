"""What each command may be told: names, types and ranges of its settings, checked before anything is written.

Objects that a user may exchange (loss, network, optimiser, layout, transform) keep their own arguments to themselves:
what they are called with is checked by their constructors.
"""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

SEEDS = 2**32 - 1  # the highest that numpy takes

# Descriptions finish the sentence "expected …".
Count = Annotated[int, Field(strict=True, ge=1, description="an integer from 1")]
CountOrZero = Annotated[int, Field(strict=True, ge=0, description="an integer from 0")]
Seed = Annotated[int, Field(strict=True, ge=0, le=SEEDS, description=f"an integer from 0 to {SEEDS}")]
Switch = Annotated[bool, Field(strict=True, description="true or false")]
Text = Annotated[str, Field(min_length=1, description="a text")]
Target = Annotated[str, Field(alias="_target_", min_length=1, description="the dotted name of a class")]
Share = Annotated[float, Field(strict=True, ge=0, lt=1, description="a share from 0 to below 1, such as 0.1")]
Positive = Annotated[float, Field(strict=True, gt=0, allow_inf_nan=False, description="a finite number above 0")]
Finite = Annotated[float, Field(strict=True, allow_inf_nan=False)]
Spacing = Annotated[float, Field(strict=True, ge=0.1, le=100)]
Range = Annotated[list[Finite] | None, Field(min_length=2, max_length=2, description="[low, high], or null")]
PathPart = Annotated[str, Field(pattern=r"^\w[\w .+=,@()-]*$", max_length=100)]
Name = Annotated[
    PathPart | CountOrZero,
    Field(
        description="a folder's name: up to 100 letters, digits, blanks and . + - = , @ ( ), a letter or digit first"
    ),
]
Runs = Annotated[
    Text | Annotated[list[Text], Field(min_length=1)], Field(description="a run's folder, or a list of them")
]
Combine = Annotated[Literal["mean", "organs"], Field(description="mean or organs")]
Devices = Annotated[
    Literal[1] | Annotated[list[CountOrZero], Field(min_length=1, max_length=1)],
    Field(description="1, or a GPU by its index such as [0]: only train works on several"),
]
STRATEGIES = "auto, ddp or ddp_find_unused_parameters_true: others, such as fsdp, leave another checkpoint"
Strategy = Annotated[Literal["auto", "ddp", "ddp_find_unused_parameters_true"], Field(description=STRATEGIES)]
GPUs = Annotated[list[CountOrZero], Field(min_length=1)]
AllDevices = Annotated[Count | GPUs, Field(description="an integer from 1, or GPUs by their indices such as [0,1]")]
Checkpoint = Annotated[Literal["last", "best"], Field(description="last or best")]


class Settings(BaseModel):
    """A group of settings, closed to others."""

    model_config = ConfigDict(extra="forbid")


class OpenSettings(BaseModel):
    """The arguments of an object that a user may exchange."""

    model_config = ConfigDict(extra="allow")

    target: Target


class NetworkSettings(OpenSettings):
    """The two that are ours and not the constructor's: `build.describe_network` says what they are for."""

    classes: Annotated[
        Text, Field(alias="_classes_", description="the name of the constructor's argument for the number of classes")
    ] = "num_classes"
    divisor: Annotated[Count, Field(alias="_divisor_", description="an integer from 1")] = 1


class LossSettings(OpenSettings):
    """The one that is ours and not the constructor's: `losses.AnyLoss` says what it is for."""

    target_format: Annotated[
        Literal["indices", "channel", "one_hot"],
        Field(alias="_target_format_", description="indices, channel or one_hot"),
    ] = "indices"


class Optimizer(OpenSettings):
    partial: Annotated[Literal[True], Field(alias="_partial_", description="true: the parameters come later")]
    lr: Positive


class Schedule(BaseModel):
    """The arguments of a schedule, which a user may exchange."""

    model_config = ConfigDict(extra="allow")

    target: Annotated[
        str | None, Field(alias="_target_", min_length=1, description="the dotted name of a class, or null for none")
    ]


Objects = Annotated[
    dict[str, OpenSettings], Field(description="objects by names of their own, each with its _target_ and arguments")
]


class LayoutSettings(OpenSettings):
    """What the package's own layouts take; one of the user's may take more."""

    partial: Annotated[Literal[True], Field(alias="_partial_", description="true: the folder comes later")]
    images: Text | None = None
    labels: Text | None = None
    ids: Annotated[
        dict[str, int | list[int]] | None, Field(strict=True, description="values by class: {liver: 3, spleen: [7, 8]}")
    ] = None
    highest: Annotated[CountOrZero | None, Field(description="an integer from 0")] = None
    split: Switch = False
    cases: Annotated[Count | None, Field(description="an integer from 1")] = None
    seed: Seed = 0
    tumours: Switch = False


class PreparationSettings(Settings):
    target: Target
    factor: Annotated[Count | None, Field(description="an integer from 1, or null")]
    spacing_mm: Annotated[
        Spacing | Annotated[list[Spacing], Field(min_length=3, max_length=3)] | None,
        Field(description="a length from 0.1 to 100 mm, three of them, or null"),
    ]
    window_hu: Annotated[
        list[Finite], Field(min_length=2, max_length=2, description="[low, high] in HU, such as [-500, 500]")
    ]
    smooth: Switch


class DataSettings(Settings):
    target: Target
    name: Name
    layout: LayoutSettings
    root: Text
    store: Text
    preparation: PreparationSettings
    test: Share
    validation: Share
    folds: Annotated[int | None, Field(strict=True, ge=2, description="an integer from 2, or null")] = None
    fold: Annotated[CountOrZero | None, Field(description="an integer from 0, or null")] = None
    split_seed: Seed
    exclude: Annotated[list[str | int], Field(description="a list of case ids")] = []
    on_error: Annotated[Literal["stop", "skip"], Field(description="stop or skip")] = "stop"
    patch_size: Annotated[
        Count | Annotated[list[Count], Field(min_length=3, max_length=3)],
        Field(description="an integer from 1, or three of them"),
    ]
    batch_size: Count
    samples_per_volume: Count
    transform: Annotated[OpenSettings | None, Field(description="null, or a transform by its _target_")]
    num_workers: CountOrZero
    seed: Seed


class TrainerSettings(Settings):
    """Arguments of Lightning's Trainer that keep what a run promises. Others would be ignored or break it: those that
    stop early or leave out cases make another table."""

    target: Target
    max_steps: Count
    accelerator: Text
    devices: AllDevices
    num_nodes: Count = 1
    strategy: Strategy = "auto"
    sync_batchnorm: Switch = True
    benchmark: Switch
    precision: Annotated[str | int, Field(description="auto or one of Lightning's, such as 32-true")]
    log_every_n_steps: Count
    val_check_interval: Count
    num_sanity_val_steps: CountOrZero
    enable_progress_bar: Switch
    accumulate_grad_batches: Count = 1
    gradient_clip_val: Annotated[Positive | None, Field(description="a finite number above 0, or null")] = None
    gradient_clip_algorithm: Annotated[Literal["norm", "value"], Field(description="norm or value")] = "norm"
    deterministic: Annotated[Switch | Literal["warn"], Field(description="true, false or warn")] = False
    detect_anomaly: Switch = False
    callbacks: Annotated[list[dict[str, Any]], Field(description="a list of objects by their _target_")] = []


class OneDeviceSettings(TrainerSettings):
    devices: Devices
    num_nodes: Annotated[Literal[1], Field(description="1")] = 1


class ClassSettings(Settings):
    colour: Annotated[str | None, Field(pattern="^#[0-9a-fA-F]{6}$", description="a colour such as '#d55e00'")] = None
    synonyms: Annotated[list[str], Field(description="a list of names")] = []
    snomed: Annotated[str | None, Field(description="a SNOMED CT code by pydicom's name, such as Liver")] = None
    volume_ml: Range = None
    hu: Range = None
    largest_piece: Annotated[Share | None, Field(description="a share from 0 to below 1, or null")] = None
    side: Annotated[Literal["left", "right"] | None, Field(description="left, right or null")] = None
    opacity: Annotated[float, Field(strict=True, gt=0, le=1, description="a share above 0 up to 1")] = 1.0


class LabelsSettings(Settings):
    name: Name
    labels: Annotated[
        dict[str, ClassSettings | None] | None,
        Field(description="what is known of each class, by its name; or null, for those that the data set declares"),
    ]
    classes: Annotated[
        list[str | dict[str, str | list[str]]] | None,
        Field(description="a list such as [liver, {kidney: [kidney_left, kidney_right]}], or null for all classes"),
    ]
    outputs: Annotated[Literal["present", "all"], Field(description="present or all")]


class PrepareSettings(Settings):
    cache: Text
    phantoms: Count
    labels: LabelsSettings
    data: DataSettings
    check: Switch


class TrainSettings(Settings):
    cache: Text
    phantoms: Count
    preset: Name
    name: Name
    seed: Seed
    labels: LabelsSettings
    data: DataSettings
    network: NetworkSettings
    loss: LossSettings
    optim: Optimizer
    schedule: Schedule
    trainer: TrainerSettings
    callbacks: Objects = {}
    logger: Objects = {}
    prior: Annotated[Switch | Literal["half"], Field(description="false, true or half")]
    init_from: Annotated[Text | None, Field(description="the file of a checkpoint, or null")]
    overlap: Share
    compile: Switch
    output_dir: Text
    rerun: Switch


class BenchmarkSettings(TrainSettings):
    steps: Count
    rounds: Count
    compare: Switch
    devices: Annotated[list[Count] | None, Field(min_length=1, description="numbers such as [1,2,4], or null")]
    output: Text | None
    trainer: OneDeviceSettings
    logger: Annotated[dict[str, Any], Field(max_length=0, description="none, since a benchmark logs nothing")] = {}
    prior: Annotated[Literal[False], Field(description="false, since a benchmark does not look at what is learnt")]
    init_from: Annotated[None, Field(description="null, since a benchmark does not look at what is learnt")]


class EvaluateSettings(Settings):
    cache: Text
    phantoms: Count
    run: Runs
    combine: Combine
    checkpoint: Checkpoint
    overlap: Annotated[Share | None, Field(description="a share from 0 to below 1, or null")]
    trust: Switch
    data: DataSettings | None = None
    trainer: OneDeviceSettings


class PredictSettings(Settings):
    run: Runs
    combine: Combine
    input: Text
    output: Text
    series: Annotated[str | None, Field(description="a Series Instance UID, or null")]
    ending: Text
    checkpoint: Checkpoint
    overlap: Share
    mirror: Switch
    probabilities: Switch
    overlay: Switch
    dicom_seg: Switch
    trust: Switch
    memory_limit_gb: Positive
    accelerator: Text
    devices: Devices
    precision: Annotated[str | int, Field(description="auto or one of Lightning's, such as 32-true")]


class ExportSettings(Settings):
    cache: Text
    phantoms: Count
    format: Annotated[
        Literal["onnx", "safetensors", "torch_export", "monai_bundle", "nnunet_raw"],
        Field(description="onnx, safetensors, torch_export, monai_bundle or nnunet_raw"),
    ]
    output: Text
    run: Annotated[Text | None, Field(description="the folder of a run, or null")]
    checkpoint: Checkpoint
    trust: Switch
    labels: LabelsSettings | None = None
    data: DataSettings | None = None


class ReportSettings(Settings):
    sweep: Text
    output: Text
