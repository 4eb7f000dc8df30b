"""Token-level Gymnasium environments, their problems and verifiers; ids under "PrefixRFT/"."""

from __future__ import annotations

from pathlib import Path

import gymnasium as gym

from prefix_rft_rllib.envs.code_env import CodeEnv
from prefix_rft_rllib.envs.demonstrations.answer_cut import answer_cut
from prefix_rft_rllib.envs.demonstrations.demonstration_rewards import demonstration_reward
from prefix_rft_rllib.envs.demonstrations.facts import DemonstrationFacts
from prefix_rft_rllib.envs.demonstrations.solution_steps import step_ends
from prefix_rft_rllib.envs.math_env import MathEnv
from prefix_rft_rllib.envs.problems import ProblemSet, load_problem_set, receive_problem_set
from prefix_rft_rllib.envs.problems.problem import Problem
from prefix_rft_rllib.envs.token_env import TokenEnv
from prefix_rft_rllib.envs.verifiers.verdict import Graded, Verdict

__all__ = [
    "TOY_BASE_MODEL",
    "TOY_CODE_BASE_MODEL",
    "CodeEnv",
    "DemonstrationFacts",
    "Graded",
    "MathEnv",
    "Problem",
    "ProblemSet",
    "TokenEnv",
    "Verdict",
    "answer_cut",
    "demonstration_reward",
    "load_problem_set",
    "receive_problem_set",
    "step_ends",
]

TOY_BASE_MODEL = Path(__file__).resolve().parent / "toy_base_model"
"""Directory of the small model that is shipped with the package, with its tokenizer."""

TOY_CODE_BASE_MODEL = TOY_BASE_MODEL.with_name("toy_code_base_model")
"""The same model after it learned to write programs too; the tokenizer is the same."""

_ENTRY_POINT = "prefix_rft_rllib.envs.math_env:MathEnv"

gym.register(id="PrefixRFT/Math-v0", entry_point=_ENTRY_POINT)
gym.register(id="PrefixRFT/Code-v0", entry_point="prefix_rft_rllib.envs.code_env:CodeEnv")
gym.register(
    id="PrefixRFT/ToyArithmetic-v0",
    entry_point=_ENTRY_POINT,
    kwargs={
        "data": "toy_arithmetic",
        "data_config": {"num_problems": 2000, "min_clauses": 2, "max_clauses": 6, "seed": 0},
        "tokenizer": str(TOY_BASE_MODEL),
        "max_prompt_tokens": 64,
        "max_response_tokens": 96,
    },
)
gym.register(
    id="PrefixRFT/ToyCode-v0",
    entry_point="prefix_rft_rllib.envs.code_env:CodeEnv",
    kwargs={
        "data": "toy_code",
        "data_config": {"num_problems": 2000, "seed": 0},
        "tokenizer": str(TOY_CODE_BASE_MODEL),
        "max_prompt_tokens": 64,
        "max_response_tokens": 96,
        "verifier_config": {"extract": "whole", "timeout_s": 5.0},
    },
)
