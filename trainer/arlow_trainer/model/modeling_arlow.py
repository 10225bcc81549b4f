"""The Arlow vision tower.

Names and numbers follow the public `ArlowVLVisionModel` (yuchenxie4645/transformers, branch
ArlowVL): weights are interchangeable with it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.utils.generic import ModelOutput

from .configuration_arlow import ArlowVisionConfig
from .geometry import (
    Grid,
    aligned_bias,
    coarser_scale,
    distance_bias,
    grid_coordinates,
    in_merge_order,
    merge_order,
    normalised_coordinates,
    patchify,
    repeat_last_frame,
    rope_tables,
)
from .layers import ArlowVLBlock, ArlowVLPatchEmbed, ArlowVLPatchMerger, rotary_tables


@dataclass
class ArlowVisionOutput(ModelOutput):
    """What the tower makes of images and videos, the items one after another."""

    last_hidden_state: Tensor | None = None
    """Visual tokens of all items [sum of t * h * w / m^2, hidden_size]."""
    pooler_output: Tensor | None = None
    """The mean of each item's visual tokens [items, hidden_size]."""
    deepstack_features: tuple[Tensor, ...] | None = None
    """Features of the shape of the visual tokens, one for each tapped block; none without taps."""
    hidden_states: tuple[Tensor, ...] | None = None
    """Where asked for: the patches' embeddings and every block's output, in merge order, before
    merging [sum of t * h * w, embed_dim]."""


class ArlowVLVisionModel(PreTrainedModel):
    """The vision tower of the Arlow models: images and videos to visual tokens.

    Whatever the weights' dtype, LayerNorm's statistics are computed in float32 (torch's kernels do
    so by themselves), and queries and keys are rotated by float32 tables, each operation rounded to
    their own dtype.
    """

    config_class = ArlowVisionConfig
    config: ArlowVisionConfig
    main_input_name = "pixel_values"
    input_modalities = ["image", "video"]
    supports_gradient_checkpointing = True
    _supports_sdpa = True
    _no_split_modules = ["ArlowVLBlock"]

    def __init__(self, config: ArlowVisionConfig) -> None:
        super().__init__(config)
        self.patch_embed = ArlowVLPatchEmbed(config)
        self.progressive_proj = (
            nn.Linear(config.embed_dim, config.embed_dim)
            if config.use_progressive_patches
            else None
        )
        self.blocks = nn.ModuleList(ArlowVLBlock(config) for _ in range(config.depth))
        self.merger = ArlowVLPatchMerger(config)
        self.deepstack_mergers = nn.ModuleList(
            ArlowVLPatchMerger(config) for _ in config.deepstack_visual_indexes or ()
        )
        self.post_init()  # type: ignore[no-untyped-call]

    def forward(
        self,
        pixel_values: Tensor | None = None,
        grid_thw: Tensor | None = None,
        *,
        image_grid_thw: Tensor | None = None,
        pixel_values_videos: Tensor | None = None,
        video_grid_thw: Tensor | None = None,
        num_crops: Any = None,
        output_hidden_states: bool | None = None,
        return_dict: bool | None = None,
    ) -> Tensor | tuple[Tensor, list[Tensor]] | ArlowVisionOutput:
        """Encode images and videos, each within itself.

        Takes what the processors return, `tower(**processor(images=..., return_tensors="pt"))`,
        images before videos; or pixels of either with `grid_thw`, as the public fork's callers do.

        Args:
            pixel_values: normalised pixels, one of
                patches of all items one after another [tokens, C * t * p * p], row-major in time,
                height, width, features in the order channel, frame, row, column;
                the same padded at the end of each item [items, length, C * t * p * p];
                frames [items, C, T, H, W], the last repeated where T is not a multiple of t;
                images [items, C, H, W], repeated over the t frames of a patch.
            grid_thw: patches of each item in time, height and width, before merging [items, 3].
                May be left out for frames and images.
            image_grid_thw: `grid_thw` by the image processor's name.
            pixel_values_videos, video_grid_thw: the same of videos.
            num_crops: of the image processor; not read.
            output_hidden_states: return `hidden_states` as well; needs `return_dict`.
            return_dict: return an `ArlowVisionOutput`; unset: where the processors' names are used
                or hidden states are asked for.

        Returns:
            An `ArlowVisionOutput`; or, as the public fork, the visual tokens of all items
            [sum of t * h * w / m^2, hidden_size], and with DeepStack a pair of these and the list
            of features of the same shape, one for each tapped block.

        Raises:
            ValueError: shapes, grids and the configuration do not fit each other, or pixels are
                whole numbers.
        """
        if grid_thw is not None and image_grid_thw is not None:
            raise ValueError("grid_thw and image_grid_thw are both given: give one of them.")
        if pixel_values is None and pixel_values_videos is None:
            raise ValueError("pixel_values and pixel_values_videos are missing: give one or both.")
        named = image_grid_thw is not None or pixel_values_videos is not None
        items: list[Tensor] = []
        grids: list[Grid] = []
        first_grid = grid_thw if grid_thw is not None else image_grid_thw
        for pixels, grid in ((pixel_values, first_grid), (pixel_values_videos, video_grid_thw)):
            if pixels is not None:
                more, theirs = self._items(pixels, grid)
                items, grids = items + more, grids + theirs
        outputs: list[list[Tensor]] = [[] for _ in items]
        for each in dict.fromkeys(grids):
            chosen = [index for index, other in enumerate(grids) if other == each]
            stacked = torch.stack([items[index] for index in chosen])
            batch = self.encode(stacked, each, bool(output_hidden_states))
            for row, index in enumerate(chosen):
                outputs[index] = [output[row] for output in batch]
        taps = len(self.deepstack_mergers)
        if not items:
            empty = self.patch_embed.proj.weight.new_empty(0, self.config.hidden_size)
            outputs = [[empty] * (1 + taps)]
        visual, *others = (torch.cat(parts) for parts in zip(*outputs, strict=True))
        deepstack = others[:taps]
        if not (named or output_hidden_states if return_dict is None else return_dict):
            return (visual, deepstack) if deepstack else visual
        return ArlowVisionOutput(
            last_hidden_state=visual,
            pooler_output=torch.stack([each[0].mean(dim=0) for each in outputs])
            if items
            else visual,
            deepstack_features=tuple(deepstack) or None,
            hidden_states=tuple(others[taps:]) or None,
        )

    @classmethod
    def _can_set_attn_implementation(cls) -> bool:
        # The layers read the configuration; transformers looks for its own functions in the source.
        return True

    def _check_and_adjust_attn_implementation(
        self, attn_implementation: str | None, *args: Any, **kwargs: Any
    ) -> str:
        # Every request passes here.
        if attn_implementation not in (None, "sdpa", "eager"):
            raise ValueError(
                f"attn_implementation is {attn_implementation!r}: the tower computes attention "
                "with a bias of its own; leave it out or give 'sdpa' or 'eager'."
            )
        checked: str = super()._check_and_adjust_attn_implementation(
            attn_implementation, *args, **kwargs
        )
        return checked

    def encode(self, features: Tensor, grid: Grid, with_states: bool = False) -> list[Tensor]:
        """Patches of items of one grid [n, t * h * w, features] to their tokens.

        Nothing in it depends on the numbers of a tensor, so that it can be exported as a program
        of one grid (`torch.export`).

        Returns:
            The visual tokens [n, t * h * w / m^2, hidden_size], and those of each tapped block;
            with `with_states`, the embeddings and every block's output [n, t * h * w, E] follow.
        """
        config = self.config
        size = config.spatial_merge_size
        tokens = in_merge_order(self.refine(self.patch_embed(features), grid), grid, size)
        order = merge_order(*grid, size, tokens.device)
        coords = grid_coordinates(*grid, tokens.device)[order]
        cos, sin = rope_tables(coords, config.head_dim, config.mrope_sections or ())
        bias = None
        if config.use_deformable_attention:
            distances = distance_bias(
                normalised_coordinates(*grid, tokens.device)[order],
                config.deformable_attention_window,
                config.deformable_attention_strength,
            )
            bias = aligned_bias(distances, tokens.dtype)[None, None]
        states = [tokens] if with_states else None
        merged = self.merge(*self.run_blocks(tokens, cos[None], sin[None], bias, states))
        return merged + (states or [])

    def refine(self, tokens: Tensor, grid: Grid) -> Tensor:
        """Add the coarser scale to row-major embeddings [n, t * h * w, E], where it is used."""
        if self.progressive_proj is None:
            return tokens
        coarse = coarser_scale(tokens.unflatten(1, grid)).flatten(1, 3)
        return torch.add(tokens, self.progressive_proj(coarse))

    def run_blocks(
        self,
        tokens: Tensor,
        cos: Tensor,
        sin: Tensor,
        bias: Tensor | None,
        states: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """Run all blocks, gradient checkpointing honoured.

        Args:
            tokens: [B, L, E] in any order that the tables and the bias share.
            cos, sin: `rope_tables` of the tokens, float32 [B or 1, L, head_dim].
            bias: additive attention bias in the tokens' dtype [B or 1, 1, L, L] (`aligned_bias`),
                or of a band [B * blocks, 1, rows, span] (`ArlowVLAttention`).
            states: where given, every block's output is appended to it.

        Returns:
            The last block's output and those of the blocks in `deepstack_visual_indexes`, from
            which DeepStack taps the tower (`merge`).
        """
        first, second = rotary_tables(cos, sin)
        if bias is not None:
            # As a program, for any number of items.
            items = tokens.shape[0] if bias.shape[0] == 1 else bias.shape[0]
            bias = bias.expand(items, self.config.num_heads, -1, -1)
        tapped = set(self.config.deepstack_visual_indexes or ())
        taps = []
        for index, block in enumerate(self.blocks):
            tokens = block(tokens, first, second, bias)
            if index in tapped:
                taps.append(tokens)
            if states is not None:
                states.append(tokens)
        return tokens, taps

    def merge(self, tokens: Tensor, taps: Iterable[Tensor]) -> list[Tensor]:
        """`run_blocks`' results in merge order to [B, L / m^2, hidden_size]: visual, DeepStack.

        DeepStack hands a language model features of several depths, each through a merger of its
        own, for its first layers to add (Meng et al., 2024, arXiv:2406.04334).
        """
        mergers = zip(self.deepstack_mergers, taps, strict=True)
        return [self.merger(tokens), *(merger(tap) for merger, tap in mergers)]

    def _items(
        self, pixel_values: Tensor, grid_thw: Tensor | None
    ) -> tuple[list[Tensor], list[Grid]]:
        """Each item's patches [t * h * w, features] and its grid."""
        config = self.config
        raw = None
        if not pixel_values.is_floating_point():
            raise ValueError(
                f"pixels are {pixel_values.dtype}: the tower takes normalised ones, as the "
                "processor returns them."
            )
        if pixel_values.dim() in (4, 5):
            pixel_values, raw = self._patches_of_raw(pixel_values)
        if grid_thw is not None:
            grids = _read_grids(grid_thw)
        elif raw is not None:
            grids = [raw] * len(pixel_values)
        else:
            raise ValueError("grid_thw is missing: only frames and images can do without it.")
        size = config.spatial_merge_size
        for index, (t, h, w) in enumerate(grids):
            if min(t, h, w) < 1 or h % size or w % size:
                raise ValueError(
                    f"grid_thw[{index}] is {t} x {h} x {w}: all must be at least 1, and height "
                    f"and width multiples of spatial_merge_size {size}."
                )
            if raw is not None and raw != (t, h, w):
                raise ValueError(
                    f"grid_thw[{index}] is {t} x {h} x {w}, but the pixels given make "
                    f"{raw[0]} x {raw[1]} x {raw[2]} patches."
                )
        if pixel_values.dim() not in (2, 3):
            raise ValueError(
                f"pixel_values has {pixel_values.dim()} dimensions: give 2 (packed patches), "
                "3 (padded patches), 4 (images) or 5 (frames)."
            )
        if pixel_values.shape[-1] != config.patch_features:
            raise ValueError(
                f"pixel_values has {pixel_values.shape[-1]} features a patch: this tower takes "
                f"{config.patch_features} ({config.in_channels} channels x "
                f"{config.temporal_patch_size} frames x {config.patch_size} x "
                f"{config.patch_size} pixels)."
            )
        return _split(pixel_values, [t * h * w for t, h, w in grids]), grids

    def _patches_of_raw(self, pixels: Tensor) -> tuple[Tensor, Grid]:
        """Frames [n, C, T, H, W] or images [n, C, H, W] to patches [n, L, features] and a grid."""
        config = self.config
        if pixels.dim() == 4:
            pixels = pixels.unsqueeze(2)
        frames = pixels.permute(0, 2, 3, 4, 1)
        if frames.shape[-1] != config.in_channels:
            raise ValueError(
                f"pixel_values has {frames.shape[-1]} channels on axis 1: this tower takes "
                f"{config.in_channels}."
            )
        frames = repeat_last_frame(frames, config.temporal_patch_size)
        patches = patchify(frames, config.patch_size, config.temporal_patch_size)
        _, time, height, width, _ = frames.shape
        grid = (
            time // config.temporal_patch_size,
            height // config.patch_size,
            width // config.patch_size,
        )
        return patches, grid


def _read_grids(grid_thw: Tensor) -> list[Grid]:
    """The grids as numbers: the one place where the host waits for the device."""
    if grid_thw.dim() != 2 or grid_thw.shape[1] != 3:
        raise ValueError(f"grid_thw has shape {tuple(grid_thw.shape)}: it must be [items, 3].")
    return [(int(t), int(h), int(w)) for t, h, w in grid_thw.tolist()]


def _split(pixel_values: Tensor, lengths: list[int]) -> list[Tensor]:
    """Packed [tokens, features] or padded [items, length, features] patches, item by item."""
    if pixel_values.dim() == 2:
        if len(pixel_values) != sum(lengths):
            raise ValueError(
                f"pixel_values has {len(pixel_values)} patches, grid_thw counts {sum(lengths)}."
            )
        return list(pixel_values.split(lengths))
    items, length, _ = pixel_values.shape
    if items != len(lengths) or length < max(lengths):
        raise ValueError(
            f"pixel_values has {items} items of at most {length} patches, grid_thw counts "
            f"{len(lengths)} items of at most {max(lengths)}."
        )
    return [item[:count] for item, count in zip(pixel_values, lengths, strict=True)]
