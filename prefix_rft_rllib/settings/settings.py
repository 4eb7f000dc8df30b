"""The settings of a run: their defaults, and what follows from them."""

import copy
import math
from functools import cache
from typing import TYPE_CHECKING, Any, Protocol, Self

import gymnasium as gym
from gymnasium.envs.registration import load_env_creator
from ray.rllib.algorithms.algorithm_config import DEPRECATED_VALUE, AlgorithmConfig
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.annotations import override

from prefix_rft_rllib import methods
from prefix_rft_rllib.basics.declarations import NEEDED, declarations
from prefix_rft_rllib.basics.hub_models import hub_name, model_directory, pinned, with_revision
from prefix_rft_rllib.basics.ranges import Range
from prefix_rft_rllib.core.surrogates import PPOClip
from prefix_rft_rllib.envs.prompts.end_tokens import declared_end_ids
from prefix_rft_rllib.envs.prompts.prompting import TOKENIZER
from prefix_rft_rllib.envs.settings import ENV_DECLARATIONS, EnvSettings
from prefix_rft_rllib.evaluation.held_out import evaluate_held_out
from prefix_rft_rllib.rollouts.token_env_runner import TokenEnvRunner
from prefix_rft_rllib.settings.running_settings import (
    CheckpointSettings,
    EnvRunnerSettings,
    EvaluationSettings,
    LearnerSettings,
    ReportingSettings,
    ResourceSettings,
)
from prefix_rft_rllib.settings.training_settings import DebuggingSettings, TrainingSettings

if TYPE_CHECKING:
    from ray.rllib.core.learner import Learner
    from ray.rllib.core.learner.learner_group import LearnerGroup
    from transformers import PretrainedConfig


class SharedModelFiles(Protocol):
    """What the driver has read of the model's files, for processes that may not have them."""

    @property
    def eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens that the model's files name."""
        ...

    def model_config(self) -> "PretrainedConfig":
        """The model's configuration."""
        ...


SETTERS: dict[str, type] = {
    "training": TrainingSettings,
    "env_runners": EnvRunnerSettings,
    "learners": LearnerSettings,
    "evaluation": EvaluationSettings,
    "reporting": ReportingSettings,
    "checkpointing": CheckpointSettings,
    "resources": ResourceSettings,
    "debugging": DebuggingSettings,
}
"""What each of RLlib's setters sets beside RLlib's own."""

DECLARATIONS = {
    declaration.name: declaration
    for group in SETTERS.values()
    for declaration in declarations(group)
}
"""All settings of this project, and those of RLlib that have another default or range here."""


class Settings(
    TrainingSettings,
    EnvRunnerSettings,
    LearnerSettings,
    EvaluationSettings,
    ReportingSettings,
    CheckpointSettings,
    ResourceSettings,
    DebuggingSettings,
    AlgorithmConfig,
):
    """All settings with their defaults, and what follows from them; read by the whole package.

    `PrefixRFTConfig` adds what a user needs: setters and `validate`.

    Args:
        algo_class: The algorithm that the settings are for.
    """

    # Set by the algorithm where processes are remote.
    shared_inputs: SharedModelFiles | None = None

    @override(AlgorithmConfig)
    def __init__(self, algo_class: type | None = None) -> None:
        super().__init__(algo_class=algo_class)
        for declaration in DECLARATIONS.values():
            setattr(self, declaration.name, copy.deepcopy(declaration.default))
        self.custom_evaluation_function = evaluate_held_out
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
        self.evaluation_sample_timeout_s = 3600.0
        self.delay_between_env_runner_restarts_s = 1.0

    def check_value(self, what: str, value: Any, allowed: Range) -> None:
        """Refuse a value outside of its range, in RLlib's way.

        Args:
            what: What the value is, as a message begins: "`lr`".
            value: Of whatever type.
            allowed: Its range.

        Raises:
            ValueError: Naming what is allowed.
        """
        complaint = allowed.complaint(value)
        if complaint is not None:
            self._value_error(f"{what} {complaint}")

    def build_method(self) -> methods.Method:
        """The method as a value, built from `method` and `method_config`.

        Raises:
            ValueError: For an unknown name or key, or a value out of range.
        """
        return methods.build(self.method, self.method_config)

    def env_settings(self) -> dict[str, Any]:
        """The environment's settings: its class's and the registered defaults, then `env_config`.

        The tokenizer is the model's unless the settings name another.
        """
        env, registered = self.env, {}
        if isinstance(env, str):
            spec = gym.spec(env)
            env, registered = spec.entry_point, spec.kwargs
        env = load_env_creator(env) if isinstance(env, str) else env
        tokenizer = {"tokenizer": self.model_source} if self.model_path else {}
        own = getattr(env, "DEFAULT_SETTINGS", {})
        return {**own, **registered, **tokenizer, **self.env_config}

    def token_env_config(self) -> dict[str, Any]:
        """`env_settings` with the model's vocabulary size and end tokens.

        What the environment is made from. Reads the model's configuration.
        """
        vocab_size = self.load_model_config().get_text_config(decoder=True).vocab_size
        own = {"vocab_size": vocab_size, "eos_token_ids": self.load_eos_token_ids()}
        return own | self.env_settings()

    @property
    def model_source(self) -> str:
        """`model_path`, with `model_revision` as "org/name@revision" if there is one."""
        return with_revision(str(self.model_path), self.model_revision)

    def with_pinned_names(self) -> Self:
        """Let names of the Hugging Face hub stand for the commits that they stand for now.

        Files that are not in the local cache are fetched.

        Returns:
            A frozen copy; the settings themselves if they name no repository.

        Raises:
            ValueError: If there is no such model, or the hub cannot be reached.
        """
        pinned_model = hub_name(pinned(self.model_source))
        tokenizer = self.env_config.get("tokenizer")
        pinned_tokenizer = tokenizer and pinned(str(tokenizer), TOKENIZER, with_weights=False)
        if pinned_model is None and pinned_tokenizer == tokenizer:
            return self
        config = self.copy(copy_frozen=False)
        if pinned_model is not None:
            config.model_path, config.model_revision = pinned_model.name, pinned_model.revision
        if tokenizer:
            config.env_config = {**config.env_config, "tokenizer": pinned_tokenizer}
        config.freeze()
        return config

    def load_eos_token_ids(self) -> tuple[int, ...]:
        """The end tokens that the model's files name.

        Raises:
            ValueError: If a file names something else than token ids.
        """
        if self.shared_inputs is not None:
            return self.shared_inputs.eos_token_ids
        return declared_end_ids(model_directory(self.model_source))

    def load_model_config(self) -> "PretrainedConfig":
        """The configuration of the model at `model_path`.

        Raises:
            ValueError: If there is none.
        """
        if self.shared_inputs is not None:
            return self.shared_inputs.model_config()
        from transformers import AutoConfig

        directory = model_directory(self.model_source)
        try:
            # Code of the model's author is never run.
            return AutoConfig.from_pretrained(
                directory, local_files_only=True, trust_remote_code=False
            )
        except (OSError, ValueError) as error:
            raise ValueError(
                f"`model_path` ({self.model_path!r}) holds no Hugging Face model: {error} Give the "
                "directory that `save_pretrained` wrote (config.json, weights, tokenizer)."
            ) from error

    @override(AlgorithmConfig)
    def to_dict(self) -> dict[str, Any]:
        settings = super().to_dict()
        settings.pop("shared_inputs", None)
        return settings

    def record(self) -> dict[str, Any]:
        """All settings as `config.json` has them, defaults included.

        Returns:
            The declared settings in their order, then RLlib's; `env_config` with the defaults of
            the environment.
        """
        settings = self.to_dict()
        defaults = {key.name: key.default for key in ENV_DECLARATIONS if key.default is not NEEDED}
        settings["env_config"] = defaults | self.env_settings()
        return {name: settings[name] for name in DECLARATIONS} | settings

    @override(AlgorithmConfig)
    def get_state(self) -> dict[str, Any]:
        state = super().get_state()
        state.pop("shared_inputs", None)
        # RLlib leaves every -1 out, its mark of settings that it has given up: a user's -1 would
        # become the default before anything checks it.
        own = vars(self)
        settings_class: Any = type(self)  # as a class: mypy asks whether its objects have a hash
        lost = _names_in_use(settings_class) & own.keys() - state.keys()
        return state | {name: own[name] for name in lost}

    @property
    def evaluates_sets(self) -> bool:
        """Whether evaluations are this project's, not RLlib's or a function of the user's."""
        return self.custom_evaluation_function is evaluate_held_out

    @property
    def max_response_tokens(self) -> int:
        """T_max: the longest response in tokens, prefix included."""
        return EnvSettings.from_config(self.env_settings()).max_response_tokens

    @property
    def applied_importance_weight_cap(self) -> float | None:
        """`importance_weight_cap` with "auto" resolved: stale rollouts are corrected for."""
        cap = self.importance_weight_cap
        if not isinstance(cap, str):
            return cap
        return 2.0 if self.max_weight_staleness > 0 else None

    @property
    def ppo_clip(self) -> PPOClip:
        """The bounds of every `PPOClip()` of the method that has none of its own."""
        return PPOClip(self.clip_param, self.clip_param_high, self.dual_clip)

    @property
    def engines_sleep(self) -> bool:
        """Whether engines give their GPU's memory to the learners during updates."""
        return self.engine == "vllm" and bool(self.engine_config.get("enable_sleep_mode"))

    @property
    def num_minibatches(self) -> int:
        """Optimizer steps per epoch of one iteration."""
        return self.num_problems_per_iteration // self.num_problems_per_minibatch

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
        from prefix_rft_rllib.learners.torch.default_prefix_rft_torch_rl_module import (
            DefaultPrefixRFTTorchRLModule,
        )

        return RLModuleSpec(module_class=DefaultPrefixRFTTorchRLModule)

    @override(AlgorithmConfig)
    def get_default_learner_class(self) -> "type[Learner]":
        from prefix_rft_rllib.learners.torch.prefix_rft_torch_learner import PrefixRFTTorchLearner

        return PrefixRFTTorchLearner

    @override(AlgorithmConfig)
    def build_learner_group(
        self,
        *,
        env: Any = None,
        spaces: Any = None,
        rl_module_spec: Any = None,
        placement_group: Any = None,
    ) -> "LearnerGroup":
        from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup

        return PrefixRFTLearnerGroup(
            config=self.copy(),
            module_spec=rl_module_spec or self.get_multi_rl_module_spec(env=env, spaces=spaces),
            placement_group=placement_group,
        )

    @property
    @override(AlgorithmConfig)
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | {
            "model_path": self.model_source,
            "temperature": self.temperature,
            "compute_dtype": self.compute_dtype,
            "use_reference": self.kl_coeff > 0,
            "entropy_gradient": self.entropy_coeff > 0,
            "attn_implementation": self.attn_implementation,
            "packing": self.packing,
            "share_prompts": self.share_prompts,
            "activation_checkpointing": self.activation_checkpointing,
            "lora": self.lora,
            "seed": self.seed,
        }


@cache
def _names_in_use(settings_class: type[Settings]) -> frozenset[str]:
    """Names of the settings that RLlib has not given up: those whose default is not its mark."""
    names = vars(settings_class()).items()
    in_use = {name for name, default in names if default != DEPRECATED_VALUE}
    return frozenset(in_use - {"algo_class", "_is_frozen"})
