"""The schema of an `ArlowPretrain` manifest, the configuration of a run.

Fields are camelCase in YAML and snake_case in Python; unknown fields are refused. The defaults are
those of the `arlow-vision-3072` run, which an empty training section therefore describes in full.
The docstrings below fields are their descriptions in docs/configuration.md and the JSON schema.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from arlow_trainer.config.mismatch import Mismatch, refuse
from arlow_trainer.config.shown_text import has_credentials, redact_urls

API_VERSION = "arlow.dev/v1alpha1"
KIND = "ArlowPretrain"

# The largest integer that Kubernetes and safetensors' metadata hold.
INT64_MAX = 2**63 - 1

PositiveInt = Annotated[int, Field(ge=1, le=INT64_MAX)]
NonNegativeInt = Annotated[int, Field(ge=0, le=INT64_MAX)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegativeFloat = Annotated[float, Field(ge=0)]


Precision = Literal["fp16", "bf16", "fp32"]


class Section(BaseModel):
    """Base of every section: frozen, strict about fields and types, described by its docstrings."""

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


def credentials_mismatch(field: str, url: str) -> Iterator[Mismatch]:
    """Yields the mistake of a URL that holds credentials: cards, checkpoints and logs repeat it."""
    if has_credentials(url):
        allowed = (
            "a URL without credentials; give them in the environment (docs/configuration.md, "
            "Credentials), in a cluster by a Secret"
        )
        yield Mismatch(field, redact_urls(url), allowed)


class ModelSection(Section):
    """The tower, `ArlowVLVisionModel`."""

    depth: PositiveInt = 48
    """Transformer blocks."""
    embed_dim: PositiveInt = 1536
    """Width of the blocks."""
    hidden_size: PositiveInt = 3072
    """Output width after merging 2x2 patches."""
    num_heads: PositiveInt = 24
    """Attention heads; embedDim must be a multiple of it, with an even width per head."""
    hidden_act: Literal["gelu_pytorch_tanh", "gelu", "quick_gelu", "silu", "relu"] = (
        "gelu_pytorch_tanh"
    )
    """Activation function of the blocks' MLP."""
    mlp_ratio: PositiveFloat = 4.0
    """Width of the blocks' MLP, as a multiple of embedDim."""
    patch_size: PositiveInt = 14
    """Side of a patch in pixels."""
    temporal_patch_size: PositiveInt = 2
    """Frames of a patch; an image is repeated to fill it."""
    spatial_merge_size: Literal[2] = 2
    """Side of a merge unit in patches, always 2; masks hide whole merge units."""
    use_deformable_attention: bool = True
    """Bias attention by the distance between tokens."""
    deformable_attention_window: NonNegativeFloat = 0.25
    """Distance, in the unit square, beyond which attention is cut off; 0 for no cut-off."""
    deformable_attention_strength: NonNegativeFloat = 4.0
    """Slope of the distance bias."""
    use_progressive_patches: bool = True
    """Refine patch embeddings with the mean of their 2x2 neighbourhood."""
    deepstack_visual_indexes: list[NonNegativeInt] | None = None
    """Blocks whose outputs become DeepStack features; unset: depth//4, depth//2 and depth-4, from a
    depth of 6 on."""
    mrope_sections: Annotated[list[PositiveInt], Field(min_length=3, max_length=3)] | None = None
    """Rotary slots of a head for time, height and width; unset: a third each."""
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
    """Share of merge units hidden from the tower; in videos, the same ones in all frames."""
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
            allowed = f"a number that divides {dim} into even parts"
            refuse([Mismatch("decoderHeads", self.decoder_heads, allowed, reads=("decoderDim",))])
        return self

    def hidden_unit_count(self, units: int) -> int:
        """Returns how many of the merge units of a temporal step are hidden."""
        return round(units * self.mask_ratio)


class SourceSection(Section):
    """A set of images or videos."""

    path: Annotated[str, Field(min_length=1)]
    """A Hugging Face data set's name; or a folder: a URL (s3://, gs://, az://, file://), or a
    local path that starts with /, ./, ../ or ~. A folder may hold media files, parquet files, arrow
    files, or a data set saved by `save_to_disk`."""
    name: str | None = None
    """Configuration of the data set, where it has several."""
    split: str = "train"
    """Split of the data set; in a folder of media files, its subfolder of this name, if there is
    one."""
    column: str | None = None
    """Column of the images or videos; unset: `image` or `video`, or the only such column."""

    @model_validator(mode="after")
    def _holds_no_credentials(self) -> SourceSection:
        refuse(credentials_mismatch("path", self.path))
        return self


class DataSection(Section):
    """The data: images, with video clips mixed in."""

    images: SourceSection | None = SourceSection(path="ILSVRC/imagenet-1k")
    """Images; null for videos only."""
    videos: SourceSection | None = SourceSection(path="ucf101")
    """Videos; null for images only. The default, a data set with a loading script, no longer loads;
    `arlow data prepare ucf101` makes a folder from the original archive."""
    video_probability: Fraction = 0.25
    """Probability of each sample to be a video clip."""
    repeat: bool = False
    """Repeat the images until an epoch has maxStepsPerEpoch steps; false: an epoch is one pass, of
    as many samples as there are images. Clips are among these samples, so that a pass shows about
    1 - videoProbability of the images."""
    image_size: PositiveInt = 224
    """Side of the square crop in pixels, for images and clips."""
    min_crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Minimum share of the image's area in a random resized crop."""
    flip: bool = True
    """Mirror half of the samples horizontally."""
    clip_frames: PositiveInt = 16
    """Frames of a clip; a multiple of model.temporalPatchSize."""
    frame_stride: PositiveInt = 4
    """Distance between a clip's frames, in frames of the video; smaller in a short video."""
    workers: NonNegativeInt | None = None
    """Decoding processes per rank; unset: the machine's cores divided among the ranks."""
    max_skipped: NonNegativeInt = 100
    """Maximum number of broken files; each is skipped and logged, and more of them end the run."""

    @model_validator(mode="after")
    def _has_what_it_draws(self) -> DataSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        if self.images is None and self.videos is None:
            yield Mismatch("images", None, "a set of images, since videos is null", ("videos",))
        elif self.videos is None and self.video_probability > 0:
            allowed = "0, since videos is null"
            yield Mismatch("videoProbability", self.video_probability, allowed, ("videos",))
        elif self.images is None and self.video_probability < 1:
            allowed = "1, since images is null"
            yield Mismatch("videoProbability", self.video_probability, allowed, ("images",))


class BatchSection(Section):
    """Batch sizes."""

    per_device: PositiveInt = 2
    """Samples per device and accumulation step, on the declared devices."""
    accumulation: PositiveInt = 16
    """Accumulation steps, on the declared devices."""
    global_size: PositiveInt | None = None
    """Samples of one optimisation step over all devices; unset: perDevice x accumulation x the
    devices of spec.resources. It is the same on any number of ranks."""
    micro_batch: PositiveInt | None = None
    """Images that a device processes at once (a clip counts by its tokens); unset: as many as fit,
    by the memory model. It affects the speed only, not the training."""


class OptimizerSection(Section):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: PositiveFloat = 1.5e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled weight decay; not applied to biases and norms."""
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
    """Maximum global gradient norm; larger gradients are clipped to it."""


class ProbeSection(Section):
    """Accuracy of the tower's frozen features on a labelled set, compared with random weights.

    During training, checkpoints are probed on one CPU thread, at the lowest priority.
    """

    data: SourceSection
    """The labelled set: a Hugging Face data set's name, or a local folder. `split` names the
    training samples, `column` the images."""
    test_split: str = "test"
    """Split to measure accuracy on."""
    label: str | None = None
    """Column of the labels; unset: `label`, or the only column of class labels."""
    limit: PositiveInt | None = 2000
    """Maximum samples of each split; null for all."""
    every_steps: PositiveInt | None = None
    """Minimum steps between two probed checkpoints; unset: every checkpoint is probed."""


class TrainingSection(Section):
    """The training run."""

    preset: Literal["arlow-vision-3072", "tiny"] = "arlow-vision-3072"
    """The set of defaults: the full run, or a tower for CPUs on the full run's data."""
    seed: NonNegativeInt = 0
    """Seed of all random numbers."""
    epochs: PositiveInt = 1
    """Number of epochs."""
    max_steps_per_epoch: PositiveInt = 2_621_440
    """Maximum steps of an epoch."""
    precision: Precision = "fp16"
    """Parameters and activations; fp16 needs a GPU, and a CPU run falls back to fp32."""
    attention: Literal["sdpa"] = "sdpa"
    """Attention implementation, always `sdpa`: PyTorch's scaled dot-product attention."""
    zero_stage: Literal[2] = 2
    """DeepSpeed ZeRO stage, always 2: gradients and optimizer state are partitioned."""
    gradient_checkpointing: bool = False
    """Recompute the blocks in the backward pass: less memory, about a third more time."""
    log_every_steps: PositiveInt = 10
    """Steps between two logged losses."""
    pictures_every_steps: PositiveInt | None = 1000
    """Steps between two reconstructions of fixed samples, stored as PNG in the run's `pictures/`;
    null for none."""
    probe: ProbeSection | None = None
    """Probe checkpoints on a labelled set during training; null for no probes."""
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
                    f"a share that hides some but not all of an image's {units} merge units; "
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
"""Schemes of a checkpoint URL; all except file and memory are followed by a bucket."""


class CheckpointSection(Section):
    """Where and how often checkpoints are saved."""

    url: Annotated[str, Field(min_length=1)] = "runs"
    """Local folder, or URL of a folder (s3://BUCKET/FOLDER, gs://, gcs://, az://, abfs://,
    file://, memory://); the run is stored at <url>/<metadata.name>/."""
    every_steps: PositiveInt = 1000
    """Steps between checkpoints."""
    keep_last: PositiveInt = 3
    """Number of newest checkpoints to keep."""
    keep_every: PositiveInt | None = None
    """Also keep every checkpoint whose step is a multiple of this."""

    @model_validator(mode="after")
    def _names_a_folder(self) -> CheckpointSection:
        refuse(self._mismatches())
        return self

    def _mismatches(self) -> Iterator[Mismatch]:
        yield from credentials_mismatch("url", self.url)
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
            allowed = f"a URL that names a bucket, {scheme}://BUCKET/FOLDER"
            yield Mismatch("url", self.url, allowed)


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
    """The machines that the run is declared for."""

    nodes: PositiveInt = 1
    """Nodes, one pod each."""
    gpus_per_node: PositiveInt = 8
    """GPUs of a node, one rank each."""
    gpu: Gpu = "rtx-8000"
    """GPU model of the nodes, by its name in the hardware table."""

    @property
    def devices(self) -> int:
        """Devices over all nodes."""
        return self.nodes * self.gpus_per_node


class RunSpec(Section):
    """The desired state of the run."""

    training: TrainingSection = TrainingSection()
    checkpoint: CheckpointSection = CheckpointSection()
    resources: ResourcesSection = ResourcesSection()

    @property
    def global_batch_size(self) -> int:
        """Samples of one optimisation step over all devices."""
        batch = self.training.batch
        declared = batch.per_device * batch.accumulation * self.resources.devices
        return batch.global_size or declared


class Metadata(BaseModel):
    """Kubernetes object metadata; other fields than the name are set by the cluster."""

    model_config = ConfigDict(
        extra="allow", frozen=True, strict=True, use_attribute_docstrings=True
    )

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=52)] = (
        "arlow-vision-3072"
    )
    """Name of the run, and of its folder below spec.checkpoint.url."""


class ArlowPretrain(BaseModel):
    """An `ArlowPretrain` object: a run, in a Kubernetes cluster or not."""

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
        """URL of the folder that the run writes to."""
        # Strip slashes of the path only: file:/// is the root, but file: a folder of that name.
        scheme, separator, path = self.spec.checkpoint.url.rpartition("://")
        return f"{scheme}{separator}{path.rstrip('/')}/{self.metadata.name}"
