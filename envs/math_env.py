"""Math problems: the token environment with the math verifier."""

from __future__ import annotations

import types

from prefix_rft_rllib.envs.token_env import TokenEnv


class MathEnv(TokenEnv):
    r"""Solve math problems; the answer in the response's final box is compared with the gold one.

    ## Description
    `TokenEnv` with `verifier="math"` unless `env_config` says otherwise. The verifier takes the
    answer from the last `\boxed{}` of the response (`verifier_config={"extract": "last"}`: from its
    last expression), so that a prompt alone earns nothing.

    ## Action Space
    As `TokenEnv`: `Discrete(V)`, the next token id.

    ## Observation Space
    As `TokenEnv`: the tokens so far, right-padded with -1, int32.

    ## Rewards
    At the last step the reward of the verdict: 1 for CORRECT, else 0, unless `rewards` says
    otherwise. 0 before.

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
    `verdict_details` ({}).

    ## Version History
    - v0: first version.
    """

    DEFAULT_SETTINGS = types.MappingProxyType({"verifier": "math"})
