"""What a run is: the one schema of an `ArlowPretrain` object, in a cluster or not.

camelCase in YAML, snake_case in Python; unknown keys are refused. The defaults are the
`arlow-vision-3072` run, so an empty training section describes it in full.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from arlow_trainer.config.mismatch import Mismatch, refuse

API_VERSION = "arlow.dev/v1alpha1"
KIND = "ArlowPretrain"

# Kubernetes and safetensors' metadata hold no larger whole number.
INT64_MAX = 2**63 - 1

PositiveInt = Annotated[int, Field(ge=1, le=INT64_MAX)]
NonNegativeInt = Annotated[int, Field(ge=0, le=INT64_MAX)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


Precision = Literal["fp16", "bf16", "fp32"]


class Section(BaseModel):
    """Base of every section: frozen, strict about keys and types, described by its docstrings."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,
        validate_by_alias=True,
        extra="forbid",
        frozen=True,
        strict=True,
        allow_inf_nan=False,
        use_attribute_docstrings=True,
    )


class ModelSection(Section):
    """The tower, `ArlowVLVisionModel`."""

    depth: PositiveInt = 48
    """Transformer blocks."""
    embed_dim: PositiveInt = 1536
    """Width of the blocks."""
    hidden_size: PositiveInt = 3072
    """Output width after merging 2x2 patches."""
    num_heads: PositiveInt = 24
    """Attention heads; embedDim must be a multiple of it, and the head's width even."""
    hidden_act: Literal["gelu_pytorch_tanh", "gelu", "quick_gelu", "silu", "relu"] = (
        "gelu_pytorch_tanh"
    )
    """Activation of the blocks' MLP."""
    mlp_ratio: PositiveFloat = 4.0
    """Width of the blocks' MLP over embedDim."""
    patch_size: PositiveInt = 14
    """Side of a patch in pixels."""
    temporal_patch_size: PositiveInt = 2
    """Frames of a patch; a picture is repeated to fill it."""
    spatial_merge_size: Literal[2] = 2
    """Side of a merge unit in patches: masks are drawn over merge units."""
    use_deformable_attention: bool = True
    """Bias attention by the distance of tokens."""
    deformable_attention_window: NonNegativeFloat = 0.25
    """Distance, in the unit square, past which attention is cut off; 0 never cuts."""
    deformable_attention_strength: NonNegativeFloat = 4.0
    """Slope of the distance bias."""
    use_progressive_patches: bool = True
    """Refine patch embeddings with their 2x2 neighbourhood's mean."""
    deepstack_visual_indexes: list[NonNegativeInt] | None = None
    """Blocks tapped for DeepStack; unset: depth//4, depth//2 and depth-4 from depth 6 on."""
    mrope_sections: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | None = None
    """Temporal, height and width share of a head's rotary slots; unset: thirds."""
    initializer_range: PositiveFloat = 0.02
    """Standard deviation of the initial linear weights."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> ModelSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        head_dim, rest = divmod(self.embed_dim, self.num_heads)
        if rest or head_dim % 2 or head_dim < 4:
            yield Mismatch(
                "numHeads",
                self.num_heads,
                f"a number that divides embedDim {self.embed_dim} into even parts of at least 4",
                reads=("embedDim",),
            )
        elif self.mrope_sections is not None and sum(self.mrope_sections) != head_dim:
            yield Mismatch(
                "mropeSections",
                self.mrope_sections,
                f"three numbers that sum to embedDim / numHeads = {head_dim}",
                reads=("embedDim", "numHeads"),
            )
        taps = self.deepstack_visual_indexes or []
        if taps != sorted(set(taps)) or any(tap >= self.depth for tap in taps):
            yield Mismatch(
                "deepstackVisualIndexes",
                taps,
                f"different blocks in ascending order, each below depth {self.depth}",
                reads=("depth",),
            )
        if self.embed_dim * self.mlp_ratio < 1:
            yield Mismatch(
                "mlpRatio", self.mlp_ratio, "a number of at least 1 / embedDim", ("embedDim",)
            )


class MaeSection(Section):
    """Masked autoencoding (He et al., 2022, arXiv:2111.06377)."""

    mask_ratio: Annotated[float, Field(gt=0, lt=1)] = 0.75
    """Share of merge units hidden from the tower; tubes through time on video."""
    decoder_dim: PositiveInt = 512
    """Width of the decoder."""
    decoder_depth: PositiveInt = 8
    """Blocks of the decoder."""
    decoder_heads: PositiveInt = 8
    """Attention heads of the decoder."""
    normalized_pixel_loss: bool = True
    """Normalise each target patch by its own mean and variance."""

    @model_validator(mode="after")
    def _shapes_fit(self) -> MaeSection:
        if self.decoder_dim % self.decoder_heads or (self.decoder_dim // self.decoder_heads) % 2:
            dim = f"decoderDim {self.decoder_dim}"
            words = f"a number that divides {dim} into even parts"
            refuse([Mismatch("decoderHeads", self.decoder_heads, words, reads=("decoderDim",))])
        return self

    def hidden_unit_count(self, units: int) -> int:
        """Returns how many of the merge units of a temporal step are hidden."""
        return round(units * self.mask_ratio)


class SourceSection(Section):
    """A set of images or videos."""

    path: Annotated[str, Field(min_length=1)]
    """A Hugging Face data set's name; or a folder: a URL (s3://, gs://, az://, file://), or a
    local path that starts with /, ./, ../ or ~. A folder may hold media files, parquet, arrow,
    or a data set saved by `save_to_disk`."""
    name: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Split of the data set; in a folder of media, its subfolder of this name, if it has one."""
    column: str | None = None
    """Column that holds the image or video; unset: `image`, `video`, or the only such column."""


class DataSection(Section):
    """What the tower sees: images with video mixed in."""

    images: SourceSection | None = SourceSection(path="ILSVRC/imagenet-1k")
    """Images; null for video alone."""
    videos: SourceSection | None = SourceSection(path="ucf101")
    """Videos; null for images alone. `arlow data prepare ucf101` makes the default's folder from
    the original archive, since its script no longer loads."""
    video_probability: Fraction = 0.25
    """Probability that a sample is a video clip, drawn per sample."""
    repeat: bool = False
    """Go through the images again and again until an epoch has maxStepsPerEpoch steps; false: an
    epoch is one pass, of as many samples as there are images; clips count among them, so it shows
    about 1 - videoProbability of the images."""
    image_size: PositiveInt = 224
    """Side of the square crop in pixels, for images and clips."""
    min_crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Smallest share of the picture's area that a random resized crop keeps."""
    flip: bool = True
    """Mirror half of the samples."""
    clip_frames: PositiveInt = 16
    """Frames of a clip; a multiple of model.temporalPatchSize."""
    frame_stride: PositiveInt = 4
    """Distance of a clip's frames in the video's own frames; shorter where a film is short."""
    workers: NonNegativeInt | None = None
    """Decoding processes per rank; unset: the machine's cores shared among the ranks."""
    max_skipped: NonNegativeInt = 100
    """Broken files skipped, counted and named, before the run stops."""

    @model_validator(mode="after")
    def _has_what_it_draws(self) -> DataSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        if self.images is None and self.videos is None:
            yield Mismatch("images", None, "a set of images, since videos is null", ("videos",))
        elif self.videos is None and self.video_probability > 0:
            words = "0, since videos is null"
            yield Mismatch("videoProbability", self.video_probability, words, ("videos",))
        elif self.images is None and self.video_probability < 1:
            words = "1, since images is null"
            yield Mismatch("videoProbability", self.video_probability, words, ("images",))


class BatchSection(Section):
    """How many samples make a step."""

    per_device: PositiveInt = 2
    """Samples per device and accumulation step, as the run is declared."""
    accumulation: PositiveInt = 16
    """Accumulation steps, as the run is declared."""
    global_size: PositiveInt | None = None
    """Samples of one optimisation step over all devices; unset: perDevice x accumulation x
    devices of spec.resources. It stays what it is on any number of ranks."""
    micro_batch: PositiveInt | None = None
    """Images a device computes at once (clips count by their tokens); unset: the most that fit by
    the memory model. Changes speed, never the training."""


class OptimizerSection(Section):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: PositiveFloat = 1.5e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled weight decay; none on biases and norms."""
    betas: Annotated[
        list[Annotated[float, Field(ge=0, lt=1)]], Field(min_length=2, max_length=2)
    ] = [
        0.9,
        0.95,
    ]
    """Decay rates of AdamW's moments."""
    warmup_steps: NonNegativeInt = 40_000
    """Steps of linear warm-up."""
    max_grad_norm: PositiveFloat = 1.0
    """Global gradient norm that gradients are clipped to."""


class ProbeSection(Section):
    """Accuracy of the tower's frozen features on a labelled set, beside that of random weights.

    During training, checkpoints are probed on a CPU core of their own, at the lowest priority.
    """

    data: SourceSection
    """The labelled set: a Hugging Face data set's name, or a local folder. `split` holds the
    samples to learn from, `column` the images."""
    test_split: str = "test"
    """Split to test on."""
    label: str | None = None
    """Column that holds the labels; unset: `label`, or the only column of class labels."""
    limit: PositiveInt | None = 2000
    """Most samples taken of each split; null for all."""
    every_steps: PositiveInt | None = None
    """Fewest steps between two probes, each of a checkpoint; unset: every checkpoint."""


class TrainingSection(Section):
    """The training run."""

    preset: Literal["arlow-vision-3072", "tiny"] = "arlow-vision-3072"
    """Where the defaults come from: the full run, or a tower for CPUs on the full run's data."""
    seed: NonNegativeInt = 0
    """Seed of every random choice."""
    epochs: PositiveInt = 1
    """Epochs."""
    max_steps_per_epoch: PositiveInt = 2_621_440
    """Most steps of an epoch."""
    precision: Precision = "fp16"
    """Parameters and activations; fp16 needs a GPU, and a CPU run falls back to fp32."""
    attention: Literal["sdpa"] = "sdpa"
    """Attention implementation."""
    zero_stage: Literal[2] = 2
    """DeepSpeed ZeRO stage."""
    gradient_checkpointing: bool = False
    """Recompute the blocks in the backward pass: less memory, a third more time."""
    log_every_steps: PositiveInt = 10
    """Steps between two read-outs of the loss."""
    pictures_every_steps: PositiveInt | None = 1000
    """Steps between two reconstructions of fixed samples, kept as PNG in the run's `pictures/`;
    null for none."""
    probe: ProbeSection | None = None
    """Whether checkpoints are probed on a labelled set while training goes on; null for not."""
    model: ModelSection = ModelSection()
    mae: MaeSection = MaeSection()
    data: DataSection = DataSection()
    batch: BatchSection = BatchSection()
    optimizer: OptimizerSection = OptimizerSection()

    @model_validator(mode="after")
    def _grids_fit(self) -> TrainingSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        unit = self.model.patch_size * self.model.spatial_merge_size
        if self.data.image_size % unit:
            yield Mismatch(
                "data.imageSize",
                self.data.image_size,
                f"a multiple of model.patchSize x model.spatialMergeSize = {unit}",
                reads=("model.patchSize",),
            )
        else:
            units = (self.data.image_size // unit) ** 2
            hidden = self.mae.hidden_unit_count(units)
            if not 0 < hidden < units:
                yield Mismatch(
                    "mae.maskRatio",
                    self.mae.mask_ratio,
                    f"a share that hides some and not all of a picture's {units} merge units; "
                    f"this one hides {hidden}",
                    reads=("data.imageSize", "model.patchSize"),
                )
        if self.data.clip_frames % self.model.temporal_patch_size:
            yield Mismatch(
                "data.clipFrames",
                self.data.clip_frames,
                f"a multiple of model.temporalPatchSize = {self.model.temporal_patch_size}",
                reads=("model.temporalPatchSize",),
            )


STORE_SCHEMES = ("file", "s3", "gs", "gcs", "az", "abfs", "memory")
"""What a checkpoint's URL may begin with; all but file and memory go on with a bucket."""


class CheckpointSection(Section):
    """Where and how often the run is saved."""

    url: Annotated[str, Field(min_length=1)] = "runs"
    """Local folder, or URL of a folder (s3://BUCKET/FOLDER, gs://, gcs://, az://, abfs://,
    file://, memory://); the run lives at <url>/<metadata.name>/."""
    every_steps: PositiveInt = 1000
    """Steps between checkpoints."""
    keep_last: PositiveInt = 3
    """Newest checkpoints kept."""
    keep_every: PositiveInt | None = None
    """Also keep every checkpoint whose step is a multiple of this."""

    @model_validator(mode="after")
    def _names_a_folder(self) -> CheckpointSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        scheme, separator, path = self.url.partition("://")
        bucket = path.partition("/")[0]
        if not separator:
            scheme = self.url.partition(":")[0]
            if scheme != self.url and scheme in STORE_SCHEMES:
                yield Mismatch("url", self.url, f"two slashes after {scheme}:, as in {scheme}://")
        elif scheme not in STORE_SCHEMES:
            known = ", ".join(f"{scheme}://" for scheme in STORE_SCHEMES)
            yield Mismatch("url", self.url, f"a local folder, or a URL that begins with {known}")
        elif scheme == "file" and not path:
            yield Mismatch("url", self.url, "a URL that names a folder, file:///FOLDER")
        elif scheme not in ("file", "memory") and not bucket:
            words = f"a URL that names a bucket, {scheme}://BUCKET/FOLDER"
            yield Mismatch("url", self.url, words)


Gpu = Literal[
    "rtx-8000",
    "v100-16gb",
    "v100-32gb",
    "a100-40gb",
    "a100-80gb",
    "a100-40gb-pcie",
    "a100-80gb-pcie",
    "h100",
    "h200",
]


class ResourcesSection(Section):
    """The machines the run is declared for."""

    nodes: PositiveInt = 1
    """Nodes, one pod each."""
    gpus_per_node: PositiveInt = 8
    """GPUs of a node, one rank each."""
    gpu: Gpu = "rtx-8000"
    """GPU of the nodes, by its name in the hardware table."""

    @property
    def devices(self) -> int:
        """Devices over all nodes."""
        return self.nodes * self.gpus_per_node


class RunSpec(Section):
    """The desired run."""

    training: TrainingSection = TrainingSection()
    checkpoint: CheckpointSection = CheckpointSection()
    resources: ResourcesSection = ResourcesSection()

    @property
    def global_batch_size(self) -> int:
        """Samples of one optimisation step."""
        batch = self.training.batch
        declared = batch.per_device * batch.accumulation * self.resources.devices
        return batch.global_size or declared


class Metadata(BaseModel):
    """Kubernetes' object metadata; fields beyond the name are the cluster's."""

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, use_attribute_docstrings=True
    )

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=52)] = (
        "arlow-vision-3072"
    )
    """Name of the run, and of its folder at spec.checkpoint.url."""


class ArlowPretrain(BaseModel):
    """An `ArlowPretrain` object: a run, in a cluster or not."""

    model_config = ConfigDict(
        alias_generator=to_camel,
        extra="forbid",
        frozen=True,
        strict=True,
        use_attribute_docstrings=True,
    )

    api_version: Literal["arlow.dev/v1alpha1"]
    kind: Literal["ArlowPretrain"]
    metadata: Metadata
    spec: RunSpec = RunSpec()
    status: dict[str, Any] | None = None

    @property
    def run_url(self) -> str:
        """URL of everything the run writes."""
        # The scheme is kept from rstrip: file:/// is the root, and file: a folder of that name.
        scheme, separator, path = self.spec.checkpoint.url.rpartition("://")
        return f"{scheme}{separator}{path.rstrip('/')}/{self.metadata.name}"
