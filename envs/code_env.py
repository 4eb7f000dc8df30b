"""Code problems: the token environment with the code verifier."""

from __future__ import annotations

import types

from prefix_rft_rllib.envs.token_env import TokenEnv


class CodeEnv(TokenEnv):
    """Write programs; they are graded by running the problem's tests in a sandbox.

    ## Description
    `TokenEnv` with `verifier="code"` unless `env_config` says otherwise. The code is the last
    fenced block of the response (`verifier_config={"extract": "whole"}`: the response itself).
    Problems are rows with `tests` and, where the tests need one, `entry_point`. For data that mix
    mathematics and code take `TokenEnv` with `verifier="domain"`.

    ## Action Space
    As `TokenEnv`: `Discrete(V)`, the next token id.

    ## Observation Space
    As `TokenEnv`: the tokens so far, right-padded with -1, int32.

    ## Rewards
    At the last step the reward of the verdict: 1 for CORRECT, else 0, unless `rewards` says
    otherwise; with `verifier_config={"share_reward": True}` the share of tests passed. 0 before.

    ## Starting State
    As `TokenEnv`: the prompt of a problem, and a prefix of a demonstration if a reset asks for one.

    ## Episode End
    Termination: the end token was written. Truncation: the response budget is spent.

    ## Arguments
    As `TokenEnv`. Required: `data` and `tokenizer`.

    ## Reset Options
    As `TokenEnv`: `problem_id`, `demonstration_index`, `num_prefix_tokens`.

    ## Info Keys
    As `TokenEnv`. At reset: `problem_id`, `prompt_ids`, `num_prefix_tokens`. At the end: `verdict`,
    `verdict_details`: those of a `CodeResult`.

    ## Version History
    - v0: first version.
    """

    DEFAULT_SETTINGS = types.MappingProxyType({"verifier": "code"})
