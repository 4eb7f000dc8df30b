"""Prefix-RFT for Ray RLlib: fine-tune language models on demonstrations and verified attempts.

Importing the package registers the environments under `PrefixRFT/`, and loads neither Ray nor
torch: its names load at first use. Where the home directory cannot be written, it also gives Ray a
token, without which `ray.init()` would fail there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from prefix_rft_rllib import envs
from prefix_rft_rllib.basics import old_names
from prefix_rft_rllib.basics.lazy_names import lazy_names
from prefix_rft_rllib.basics.ray_token import provide_token

if TYPE_CHECKING:
    from prefix_rft_rllib import methods
    from prefix_rft_rllib.prefix_rft import PrefixRFT
    from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
    from prefix_rft_rllib.settings.ray_start import start_ray

__all__ = ["PrefixRFT", "PrefixRFTConfig", "envs", "methods", "start_ray"]

_ROOMS = ("core", "engines", "evaluation", "methods", "metrics", "reports", "runs")
__getattr__, __dir__ = lazy_names(
    __name__,
    {
        **{room: f"prefix_rft_rllib.{room}" for room in _ROOMS},
        "PrefixRFT": "prefix_rft_rllib.prefix_rft:PrefixRFT",
        "PrefixRFTConfig": "prefix_rft_rllib.prefix_rft_config:PrefixRFTConfig",
        "start_ray": "prefix_rft_rllib.settings.ray_start:start_ray",
    },
)

provide_token()
old_names.install()
