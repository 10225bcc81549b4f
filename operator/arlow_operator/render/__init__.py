"""What an attempt consists of, as the API reads it. Pure builders."""

from arlow_operator.render.cache_claim import render_cache_claim
from arlow_operator.render.config_map import render_config_map, render_environment
from arlow_operator.render.job import render_job
from arlow_operator.render.service import render_service

__all__ = [
    "render_cache_claim",
    "render_config_map",
    "render_environment",
    "render_job",
    "render_service",
]
