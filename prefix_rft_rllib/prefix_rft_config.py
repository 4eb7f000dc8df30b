"""Settings of Prefix-RFT, in RLlib's fluent form."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import gymnasium as gym
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override
from ray.util.debug import log_once

from prefix_rft_rllib import methods
from prefix_rft_rllib.config_checks import check_config
from prefix_rft_rllib.envs.settings import EnvSettings
from prefix_rft_rllib.token_env_runner import TokenEnvRunner

if TYPE_CHECKING:
    from ray.rllib.core.learner import Learner
    from transformers import PretrainedConfig


class PrefixRFTConfig(AlgorithmConfig):
    """Configures `PrefixRFT`: problems, rollouts, method and optimizer.

    Defaults are the paper's (arXiv 2507.01679, App. A.2, LUFFY's recipe). Batch settings count
    problems over all learners.

    Example:
        >>> config = (
        ...     PrefixRFTConfig()
        ...     .environment("PrefixRFT/ToyArithmetic-v0")
        ...     .env_runners(num_env_runners=2)
        ...     .training(model_path="model/", method="prefix_rft", lr=1e-6)
        ... )
        >>> config.method_config
        {}
    """

    @override(AlgorithmConfig)
    def __init__(self, algo_class: type | None = None) -> None:
        from prefix_rft_rllib.evaluation import evaluate_held_out
        from prefix_rft_rllib.prefix_rft import PrefixRFT

        super().__init__(algo_class=algo_class or PrefixRFT)
        # What is trained, and by which method.
        self.model_path: str | None = None
        self.method: str | methods.Method = "prefix_rft"
        self.method_config: dict[str, Any] = {}
        self.group_size = 8
        self.num_problems_per_iteration = 128
        self.num_problems_per_minibatch = 64
        self.max_resampling_rounds = 0
        # Loss.
        self.clip_param = 0.2
        self.clip_param_high: float | None = None
        self.dual_clip: float | None = None
        self.entropy_coeff = 0.0
        self.kl_coeff = 0.0
        self.importance_weight_cap: float | None = None
        # Optimizer.
        self.lr = 1e-6
        self.num_epochs = 1
        self.grad_clip = 1.0
        self.grad_clip_by = "global_norm"
        self.weight_decay = 0.0
        self.adam_betas = (0.9, 0.999)
        self.lr_schedule = "constant"
        self.lr_warmup_steps = 0
        self.lr_schedule_steps: int | None = None
        # Memory and precision of the learner.
        self.max_tokens_per_microbatch = 16384
        self.compute_dtype = "float32"
        # Rollouts.
        self.engine = "transformers"
        self.engine_config: dict[str, Any] = {}
        self.temperature = 1.0
        self.top_p = 1.0
        self.num_envs_per_env_runner = 4
        # Held-out problems.
        self.custom_evaluation_function = evaluate_held_out
        self.held_out_num_samples = 8
        # Run directory.
        self.run_dir: str | None = None
        self.progress: bool | None = None
        self.preflight = True
        self.num_logged_groups = 2
        # Draws are functions of the seed, so there is always one.
        self.seed = 0
        # What RLlib's machinery needs for episodes of this kind.
        self.env_runner_cls = TokenEnvRunner
        self.batch_mode = "complete_episodes"
        self.add_default_connectors_to_learner_pipeline = False
        self.add_default_connectors_to_env_to_module_pipeline = False
        self.add_default_connectors_to_module_to_env_pipeline = False
        self.merge_env_runner_states = False
        self.broadcast_env_runner_states = False
        self._dont_auto_sync_env_runner_states = True
        self.max_requests_in_flight_per_env_runner = 2
        self.sample_timeout_s = None
        self.evaluation_sample_timeout_s = 3600.0
        self.delay_between_env_runner_restarts_s = 1.0

    @override(AlgorithmConfig)
    def training(
        self,
        *,
        model_path: str = NotProvided,
        method: str | methods.Method = NotProvided,
        method_config: Mapping[str, Any] = NotProvided,
        group_size: int = NotProvided,
        num_problems_per_iteration: int = NotProvided,
        num_problems_per_minibatch: int = NotProvided,
        max_resampling_rounds: int = NotProvided,
        clip_param: float = NotProvided,
        clip_param_high: float | None = NotProvided,
        dual_clip: float | None = NotProvided,
        entropy_coeff: float = NotProvided,
        kl_coeff: float = NotProvided,
        importance_weight_cap: float | None = NotProvided,
        weight_decay: float = NotProvided,
        adam_betas: tuple[float, float] = NotProvided,
        lr_schedule: str = NotProvided,
        lr_warmup_steps: int = NotProvided,
        lr_schedule_steps: int | None = NotProvided,
        max_tokens_per_microbatch: int = NotProvided,
        compute_dtype: str = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set what is trained and how.

        Args:
            model_path: Directory of a causal LM and its tokenizer in Hugging Face form.
            method: Name of a method in `prefix_rft_rllib.methods` (or a `Method`).
            method_config: Keyword arguments of that method's function, as plain data.
            group_size: Rollouts per problem, hybrid ones included.
            num_problems_per_iteration: Problems sampled per iteration, over all env runners.
            num_problems_per_minibatch: Problems per optimizer step, over all learners. Must
                divide `num_problems_per_iteration`.
            max_resampling_rounds: How often, in an iteration, groups of equal rewards are replaced
                by groups of other problems (DAPO, arXiv 2503.14476, Sec. 3.2); 0 for never. What
                is still without signal after the last round stays.
            clip_param: PPO clip: the ratio is clipped to [1 - clip_param, 1 + clip_param].
            clip_param_high: Upper clip; default `clip_param`.
            dual_clip: Bound c > 1 of the loss of tokens with negative weight (3 in the authors'
                code); None for none.
            entropy_coeff: Weight of the entropy bonus on sampled tokens (global token mean).
            kl_coeff: Weight of the KL to the initial model on response tokens.
            importance_weight_cap: Weigh sampled tokens by min(pi_old / pi_engine, cap), against the
                mismatch of sampler and learner (2 is usual); None for no such weight.
            weight_decay: AdamW's decoupled weight decay.
            adam_betas: AdamW's betas.
            lr_schedule: "constant" or "cosine" (to 0), after the warm-up.
            lr_warmup_steps: Optimizer steps n over which the rate rises linearly, from lr / n in
                the first one to `lr`; 0 for no warm-up.
            lr_schedule_steps: Optimizer steps until a cosine schedule reaches 0.
            max_tokens_per_microbatch: Padded tokens of one forward and backward pass. Bounds
                memory; the result does not depend on it.
            compute_dtype: "float32", or "bfloat16" for autocast over float32 weights.
            **kwargs: RLlib's own, of which `lr`, `num_epochs`, `grad_clip` apply.

        Returns:
            This config.
        """
        super().training(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def env_runners(
        self,
        *,
        engine: str = NotProvided,
        engine_config: Mapping[str, Any] = NotProvided,
        temperature: float = NotProvided,
        top_p: float = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set how responses are sampled.

        Args:
            engine: Name of a generation engine ("transformers").
            engine_config: Keyword arguments of the engine.
            temperature: Sampling temperature; also that of the trained policy's log-probabilities.
            top_p: Nucleus of the sampling distribution, in (0, 1].
            **kwargs: RLlib's own. `num_envs_per_env_runner` is how many responses a runner verifies
                at the same time; generation is one batch whatever it is.

        Returns:
            This config.
        """
        super().env_runners(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def evaluation(self, *, held_out_num_samples: int = NotProvided, **kwargs: Any) -> Self:
        """Set how held-out problems are evaluated every `evaluation_interval` iterations.

        Args:
            held_out_num_samples: k of avg@k and pass@k: samples per problem beside the greedy one.
            **kwargs: RLlib's own.

        Returns:
            This config.
        """
        super().evaluation(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def reporting(
        self,
        *,
        run_dir: str | None = NotProvided,
        progress: bool | None = NotProvided,
        preflight: bool = NotProvided,
        num_logged_groups: int = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set what a run shows and writes.

        Args:
            run_dir: Directory of the run (config, metrics, TensorBoard events, rollouts). None:
                RLlib's default place; under Tune always the trial's directory.
            progress: Print one line per iteration. None: yes, except under Tune.
            preflight: Grade all answers and demonstrations before training starts.
            num_logged_groups: Groups per iteration of which all rollouts are logged with their
                per-token values; prefix rollouts always are.
            **kwargs: RLlib's own.

        Returns:
            This config.
        """
        super().reporting(**kwargs)
        return self._set(locals())

    def _set(self, values: Mapping[str, Any]) -> Self:
        """Assign the arguments of a setter that were given."""
        for name, value in values.items():
            if name in ("self", "kwargs", "__class__") or value is NotProvided:
                continue
            setattr(self, name, dict(value) if isinstance(value, Mapping) else value)
        return self

    def build_method(self) -> methods.Method:
        """The method as a value, built from `method` and `method_config`.

        Raises:
            ValueError: For an unknown name or key, or a value out of range.
        """
        return methods.build(self.method, self.method_config)

    def env_settings(self) -> dict[str, Any]:
        """The environment's settings: the registered defaults, then `env_config`.

        The tokenizer is the model's unless the settings name another.
        """
        registered = dict(gym.spec(self.env).kwargs) if isinstance(self.env, str) else {}
        tokenizer = {"tokenizer": self.model_path} if self.model_path else {}
        return registered | tokenizer | dict(self.env_config)

    def token_env_config(self) -> dict[str, Any]:
        """`env_settings` with the model's vocabulary size: what the environment is made from.

        Reads the model's configuration.
        """
        vocab_size = self.load_model_config().get_text_config(decoder=True).vocab_size
        return {"vocab_size": vocab_size} | self.env_settings()

    def load_model_config(self) -> "PretrainedConfig":
        """The configuration of the model at `model_path`.

        Raises:
            ValueError: If there is none.
        """
        from transformers import AutoConfig

        try:
            # Without this a mistyped directory is looked up in the hub, with many retries.
            return AutoConfig.from_pretrained(str(self.model_path), local_files_only=True)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`model_path` ({self.model_path!r}) holds no Hugging Face model: {error} Give the "
                "directory that `save_pretrained` wrote (config.json, weights, tokenizer)."
            ) from error

    @property
    def max_response_tokens(self) -> int:
        """T_max: the longest response in tokens, prefix included."""
        return EnvSettings.from_config(self.env_settings()).max_response_tokens

    @property
    def num_minibatches(self) -> int:
        """Optimizer steps per epoch of one iteration."""
        return self.num_problems_per_iteration // self.num_problems_per_minibatch

    @override(AlgorithmConfig)
    def validate(self) -> None:
        """Check settings and combinations; derive what follows from others.

        Raises:
            ValueError: Naming the setting, its value, what is allowed and what to try.
        """
        self.create_local_env_runner = self.num_env_runners == 0
        # RLlib advises every user once to switch its new API stack off, which is not possible here.
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")
        super().validate()
        check_config(self)

    @property
    @override(AlgorithmConfig)
    def train_batch_size_per_learner(self) -> int:
        """Rows per learner and iteration; derived, cannot be set."""
        rows = self.num_problems_per_iteration * self.group_size
        return math.ceil(rows / (self.num_learners or 1))

    @train_batch_size_per_learner.setter
    def train_batch_size_per_learner(self, value: int | None) -> None:
        # Kept for `validate`, which names the right setting.
        self._train_batch_size_per_learner = value

    @override(AlgorithmConfig)
    def get_default_rl_module_spec(self) -> RLModuleSpec:
        from prefix_rft_rllib.torch.default_prefix_rft_torch_rl_module import (
            DefaultPrefixRFTTorchRLModule,
        )

        return RLModuleSpec(module_class=DefaultPrefixRFTTorchRLModule)

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> "type[Learner]":
        from prefix_rft_rllib.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner

        return PrefixRFTTorchLearner

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {
            "model_path": self.model_path,
            "temperature": self.temperature,
            "compute_dtype": self.compute_dtype,
            "use_reference": self.kl_coeff > 0,
            "entropy_gradient": self.entropy_coeff > 0,
        }
