"""Prefix-RFT for Ray RLlib: fine-tune language models on demonstrations and verified attempts.

Importing the package registers the environments under `PrefixRFT/`. Where the home directory cannot
be written, it also gives Ray a token, without which `ray.init()` would fail there.
"""

from prefix_rft_rllib import envs, methods
from prefix_rft_rllib.prefix_rft import PrefixRFT
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
from prefix_rft_rllib.settings.ray_start import provide_token

__all__ = ["PrefixRFT", "PrefixRFTConfig", "envs", "methods"]

provide_token()
