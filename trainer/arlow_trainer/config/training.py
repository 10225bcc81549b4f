"""`spec.training`: the tower, masked autoencoding, the data, the batch and the optimiser.

The defaults are those of the `arlow-vision-3072` run, which an empty section therefore describes in
full.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from decimal import Decimal
from typing import Annotated, Literal

from pydantic import Field, model_validator

from arlow_trainer.config.mismatch import Mismatch, refuse
from arlow_trainer.config.section import (
    MAX_BATCH,
    MAX_INTEGER,
    BatchSize,
    Count,
    CountOrNone,
    CountOrShare,
    Depth,
    Fraction,
    Frames,
    Heads,
    NonNegativeFloat,
    Pixels,
    PositiveFloat,
    Section,
    Text,
    Width,
    credentials_mismatch,
)
from arlow_trainer.config.store_options import StoreOptions

Precision = Literal["fp16", "bf16", "fp32"]
MAX_FP16 = 65_504
Modality = Literal["image", "video"]
Compile = Literal["auto", "always", "never"]


class ModelSection(Section):
    """The tower, `ArlowVLVisionModel`."""

    depth: Depth = 48
    """Transformer blocks."""
    embed_dim: Width = 1536
    """Width of the blocks."""
    hidden_size: Width = 3072
    """Output width after merging 2x2 patches."""
    num_heads: Heads = 24
    """Attention heads; embedDim must be a multiple of it, with an even width per head."""
    hidden_act: Literal["gelu_pytorch_tanh", "gelu", "quick_gelu", "silu", "relu"] = (
        "gelu_pytorch_tanh"
    )
    """Activation function of the blocks' MLP."""
    mlp_ratio: Annotated[float, Field(gt=0, le=256)] = 4.0
    """Width of the blocks' MLP, as a multiple of embedDim."""
    patch_size: Pixels = 14
    """Side of a patch in pixels."""
    temporal_patch_size: Frames = 2
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
    deepstack_visual_indexes: (
        Annotated[list[Annotated[int, Field(ge=0, le=1000)]], Field(max_length=64)] | None
    ) = None
    """Blocks whose outputs become DeepStack features; unset: depth//4, depth//2 and depth-4, from a
    depth of 6 on."""
    mrope_sections: Annotated[list[Width], Field(min_length=3, max_length=3)] | None = None
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
    decoder_dim: Width = 512
    """Width of the decoder."""
    decoder_depth: Depth = 8
    """Blocks of the decoder."""
    decoder_heads: Heads = 8
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


class SetSection(Section):
    """A set of images or videos."""

    path: Text
    """A Hugging Face data set's name; or a folder: a URL (s3://, gs://, az://, file://), or a
    local path that starts with /, ./, ../ or ~. A folder may hold media files, parquet files, arrow
    files, or a data set saved by `save_to_disk`. Also a list of paths or URLs (.txt, .csv, .tsv,
    .jsonl, .parquet); relative ones are meant from its folder."""
    name: Text | None = None
    """Configuration of the data set, where it has several."""
    split: Text = "train"
    """Split of the data set. In a folder, the subfolders or files that are named after it, whatever
    their case, with other words for the same (`training`, `val`) and numbers (`train2017`); all
    files for `train` where none are."""
    column: Text | None = None
    """Column of the images or videos; unset: `image` or `video`, or the only such column."""

    @model_validator(mode="after")
    def _holds_no_credentials(self) -> SetSection:
        refuse(credentials_mismatch("path", self.path))
        return self


class SourceSection(SetSection):
    """A set of images or videos to train on."""

    options: StoreOptions | None = None
    """How the store of `path` is reached, and others of its scheme that a list or table names."""

    @model_validator(mode="after")
    def _options_have_a_store(self) -> SourceSection:
        if self.options is not None and "://" not in self.path:
            allowed = "unset where path is not a store's URL (s3://, gs://, az://)"
            refuse([Mismatch("options", "set", allowed, reads=("path",))])
        return self


class DataSection(Section):
    """The data: images, with video clips mixed in."""

    images: SourceSection = SourceSection(path="ILSVRC/imagenet-1k")
    """Images; not opened where videoProbability is 1."""
    videos: SourceSection = SourceSection(path="ucf101")
    """Videos; not opened where videoProbability is 0. The default is a loading script, which no
    longer loads; `arlow data prepare ucf101` makes a folder from the original archive."""
    video_probability: Fraction = 0.25
    """Probability of each sample to be a video clip; 0 for images only, 1 for videos only."""
    repeat: bool = False
    """Repeat the images until an epoch has maxStepsPerEpoch steps; false: an epoch is one pass, of
    as many samples as there are images. Clips are among these samples, so that a pass shows about
    1 - videoProbability of the images."""
    image_size: Pixels = 224
    """Side of the square crop in pixels, for images and clips."""
    min_crop_scale: Annotated[float, Field(gt=0, le=1)] = 0.2
    """Minimum share of the image's area in a random resized crop."""
    flip: bool = True
    """Mirror half of the samples horizontally."""
    clip_frames: Frames = 16
    """Frames of a clip; a multiple of model.temporalPatchSize."""
    frame_stride: Frames = 4
    """Distance between a clip's frames, in frames of the video; smaller in a short video."""
    workers: Annotated[int, Field(ge=0, le=512)] | None = None
    """Decoding processes per rank; unset: its cores but one, an eighth of them on a CPU."""
    max_skipped: CountOrShare = 100
    """Maximum number of broken files, or their maximum share of all samples, such as `0.1%`; each
    is skipped and logged, and more of them end the run."""

    @property
    def drawn(self) -> dict[Modality, SourceSection]:
        """The sets that samples are drawn from; an epoch is a pass over the first."""
        sets: dict[Modality, SourceSection] = {}
        if self.video_probability < 1:
            sets["image"] = self.images
        if self.video_probability > 0:
            sets["video"] = self.videos
        return sets

    def most_skipped(self, samples: int) -> int:
        """Returns how many broken files `max_skipped` allows in sets of so many samples."""
        if isinstance(self.max_skipped, int):
            return self.max_skipped
        return math.ceil(Decimal(self.max_skipped.removesuffix("%")) * samples / 100)


class BatchSection(Section):
    """Batch sizes."""

    per_device: BatchSize = 2
    """Samples per device and accumulation step, on the declared devices."""
    accumulation: BatchSize = 16
    """Accumulation steps, on the declared devices."""
    global_size: Annotated[int, Field(ge=0, le=MAX_BATCH)] = 0
    """Samples of one optimisation step over all devices; 0 for perDevice x accumulation x the
    devices of spec.nodes when the run starts. It is the same on any number of ranks, and a run that
    is resumed on other nodes keeps it."""
    micro_batch: BatchSize | None = None
    """Images that a device processes at once (a clip counts by its tokens); unset: as many as fit,
    by the memory model. It affects the speed only, not the training."""


class OptimizerSection(Section):
    """AdamW with linear warm-up and cosine decay."""

    learning_rate: PositiveFloat = 1.5e-4
    """Peak learning rate."""
    weight_decay: NonNegativeFloat = 0.05
    """Decoupled weight decay; not applied to biases and norms."""
    betas: list[Annotated[float, Field(ge=0, lt=1)]] = Field(
        [0.9, 0.95], min_length=2, max_length=2
    )
    """Decay rates of AdamW's moments."""
    warmup_steps: CountOrNone = 40_000
    """Steps of linear warm-up."""
    max_grad_norm: Annotated[float, Field(gt=0, le=10**18)] = 1.0
    """Maximum global gradient norm; larger gradients are clipped to it."""


class ProbeSection(Section):
    """Accuracy of the tower's frozen features on a labelled set, compared with random weights.

    During training, checkpoints are probed on one CPU thread, at the lowest priority.
    """

    data: SetSection
    """The labelled set: a Hugging Face data set's name, or a local folder. `split` names the
    training samples, `column` the images."""
    test_split: Text = "test"
    """Split to measure accuracy on."""
    label: Text | None = None
    """Column of the labels; unset: `label`, or the only column of class labels."""
    limit: CountOrNone = 2000
    """Maximum samples of each split; 0 for all."""
    every_steps: Count | None = None
    """Minimum steps between two probed checkpoints; unset: every checkpoint is probed."""


class TrainingSection(Section):
    """The training run."""

    preset: Literal["arlow-vision-3072", "tiny"] = "arlow-vision-3072"
    """The set of defaults: the full run, or a tower for CPUs on the full run's data."""
    seed: Annotated[int, Field(ge=0, le=MAX_INTEGER)] = 0
    """Seed of all random numbers."""
    init: Text | None = None
    """Weights to start from: URL or folder of another run, of one of its checkpoints or of an
    export, with the same model; unset: random ones. A run that is resumed keeps its own."""
    epochs: Count = 1
    """Number of epochs."""
    max_steps_per_epoch: Count = 2_621_440
    """Maximum steps of an epoch."""
    precision: Precision = "fp16"
    """Parameters and activations; fp16 needs a GPU, and a CPU run falls back to fp32."""
    attention: Literal["sdpa"] = "sdpa"
    """Attention implementation, always `sdpa`: PyTorch's scaled dot-product attention."""
    compile: Compile = "auto"
    """Whether the blocks of tower and decoder are compiled by torch.compile: `auto` on GPUs from
    Ampere on, `always` also on CPUs and older GPUs, `never` nowhere. Where compiling fails, a
    warning says why, and the run goes on without. It affects the speed, and results by rounding."""
    zero_stage: Literal[2] = 2
    """DeepSpeed ZeRO stage, always 2: gradients and optimizer state are partitioned."""
    gradient_checkpointing: bool = False
    """Recompute the blocks in the backward pass: less memory, about a third more time."""
    log_every_steps: Count = 10
    """Steps between two logged losses."""
    pictures_every_steps: CountOrNone = 1000
    """Steps between two reconstructions of fixed samples, stored as PNG in the run's `pictures/`;
    0 for none."""
    probe: ProbeSection | None = None
    """Probe checkpoints on a labelled set during training; unset: no probes."""
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
        if self.init is not None:
            yield from credentials_mismatch("init", self.init)
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
        model = self.model
        # The largest distance in the unit cube, and what is added beyond the window.
        reach = 3**0.5 + (100 if model.deformable_attention_window else 0)
        if (
            self.precision == "fp16"
            and model.use_deformable_attention
            and reach * model.deformable_attention_strength > MAX_FP16
        ):
            yield Mismatch(
                "model.deformableAttentionStrength",
                model.deformable_attention_strength,
                f"at most {MAX_FP16 / reach:,.0f}, beyond which the bias is -inf in fp16",
                reads=("model.deformableAttentionWindow", "precision"),
            )
        if self.data.clip_frames % self.model.temporal_patch_size:
            yield Mismatch(
                "data.clipFrames",
                self.data.clip_frames,
                f"a multiple of model.temporalPatchSize = {self.model.temporal_patch_size}",
                reads=("model.temporalPatchSize",),
            )
