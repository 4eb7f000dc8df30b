"""Prefix-RFT for Ray RLlib: fine-tune language models on demonstrations and verified attempts.

Importing the package registers the environments under `PrefixRFT/`.
"""

from prefix_rft_rllib import envs, methods
from prefix_rft_rllib.prefix_rft import PrefixRFT
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig

__all__ = ["PrefixRFT", "PrefixRFTConfig", "envs", "methods"]
