"""The Arlow vision tower's configuration."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedConfig
from transformers.activations import ACT2FN


def default_deepstack_indexes(depth: int) -> list[int]:
    """Blocks whose output feeds a DeepStack merger when none are named: three, from depth 6 on."""
    return sorted({depth // 4, depth // 2, depth - 4}) if depth >= 6 else []


def default_mrope_sections(head_dim: int) -> list[int]:
    """How `head_dim` is shared between time, height and width when no sections are given."""
    time = max(1, head_dim // 3)
    height = max(1, (head_dim - time) // 2)
    return [time, height, head_dim - time - height]


class ArlowVisionConfig(PreTrainedConfig):
    """Configuration of `ArlowVLVisionModel`; the defaults are the `arlow-vision-3072` tower.

    Args:
        depth: number of transformer blocks.
        embed_dim: width of the blocks.
        hidden_size: width of the visual tokens after merging, that of the language model.
        hidden_act: activation of the blocks' MLP, a name in transformers' `ACT2FN`.
        mlp_ratio: width of the blocks' MLP over `embed_dim`.
        num_heads: attention heads; `embed_dim / num_heads` must be even.
        in_channels: channels of a frame.
        patch_size: side of a patch, in pixels.
        temporal_patch_size: frames of a patch.
        spatial_merge_size: side of a merge unit, in patches.
        use_deformable_attention: add the distance bias to the attention scores.
        deformable_attention_window: distance, in coordinates normalised to [0, 1] per axis, beyond
            which a token is not attended to; 0 for no limit.
        deformable_attention_strength: bias per unit of that distance.
        use_progressive_patches: add a coarser scale to the patch embeddings.
        deepstack_visual_indexes: blocks whose output is also merged and returned; unset for
            `default_deepstack_indexes(depth)`.
        mrope_sections: shares of the head dimension for time, height and width, adding up to it;
            unset for `default_mrope_sections(head_dim)`.
        token_pruning_ratio: kept for interchange with published configurations; only 0.0.
        initializer_range: standard deviation of new weights.
        max_position_embeddings: kept for interchange; the tower itself has no such limit.

    Raises:
        ValueError: a field is out of range, or fields contradict each other.
    """

    model_type = "arlow"
    base_config_key = "vision_config"
    attribute_map = {"num_attention_heads": "num_heads"}

    depth: int = 48
    embed_dim: int = 1536
    hidden_size: int = 3072
    hidden_act: str = "gelu_pytorch_tanh"
    mlp_ratio: float = 4
    num_heads: int = 24
    in_channels: int = 3
    patch_size: int = 14
    temporal_patch_size: int = 2
    spatial_merge_size: int = 2
    use_deformable_attention: bool = True
    deformable_attention_window: float = 0.25
    deformable_attention_strength: float = 4.0
    use_progressive_patches: bool = True
    deepstack_visual_indexes: list[int] | None = None
    mrope_sections: list[int] | None = None
    token_pruning_ratio: float = 0.0
    initializer_range: float = 0.02
    max_position_embeddings: int = 32768

    def __post_init__(self, **kwargs: Any) -> None:
        # A published config.json also carries the mapped name: the tower's own name wins.
        kwargs.pop("num_attention_heads", None)
        super().__post_init__(**kwargs)  # type: ignore[no-untyped-call]
        self._check_sizes()
        if self.deepstack_visual_indexes is None:
            self.deepstack_visual_indexes = default_deepstack_indexes(self.depth)
        if self.mrope_sections is None:
            self.mrope_sections = default_mrope_sections(self.head_dim)
        self._check_lists(self.deepstack_visual_indexes, self.mrope_sections)

    @property
    def head_dim(self) -> int:
        """Width of one attention head."""
        return self.embed_dim // self.num_heads

    @property
    def patch_features(self) -> int:
        """Numbers in one patch: channels x frames x rows x columns."""
        return self.in_channels * self.temporal_patch_size * self.patch_size**2

    def _check_sizes(self) -> None:
        for name in (
            "depth",
            "embed_dim",
            "hidden_size",
            "num_heads",
            "in_channels",
            "patch_size",
            "temporal_patch_size",
            "spatial_merge_size",
            "max_position_embeddings",
        ):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{name} is {value!r}: it must be a whole number of at least 1.")
        if self.embed_dim % self.num_heads or self.head_dim % 2:
            raise ValueError(
                f"embed_dim {self.embed_dim} over num_heads {self.num_heads} must be an even whole "
                "number, the head dimension that rotary positions need."
            )
        if self.head_dim < 4:
            raise ValueError(f"the head dimension is {self.head_dim}: M-RoPE needs at least 4.")
        if self.mlp_ratio <= 0 or int(self.embed_dim * self.mlp_ratio) < 1:
            raise ValueError(f"mlp_ratio is {self.mlp_ratio!r}: it must be above 0.")
        if self.hidden_act not in ACT2FN:
            raise ValueError(
                f"hidden_act is {self.hidden_act!r}: it must be one of {', '.join(sorted(ACT2FN))}."
            )
        for name in (
            "deformable_attention_window",
            "deformable_attention_strength",
            "initializer_range",
        ):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} is {getattr(self, name)!r}: it must not be negative.")
        if self.token_pruning_ratio != 0.0:
            raise ValueError(
                f"token_pruning_ratio is {self.token_pruning_ratio!r}: this tower keeps every "
                "token, so only 0.0 is possible."
            )

    def _check_lists(self, deepstack: list[int], sections: list[int]) -> None:
        if sorted(set(deepstack)) != deepstack or any(not 0 <= i < self.depth for i in deepstack):
            raise ValueError(
                f"deepstack_visual_indexes is {deepstack}: it must be distinct block numbers "
                f"between 0 and {self.depth - 1}, in ascending order."
            )
        if len(sections) != 3 or min(sections) < 0 or sum(sections) != self.head_dim:
            raise ValueError(
                f"mrope_sections is {sections}: it must be three numbers (time, height, width) "
                f"that add up to the head dimension {self.head_dim}."
            )
