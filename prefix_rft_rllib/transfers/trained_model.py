"""The trained model in the driver's hands: as an RLModule, or as Hugging Face files."""

from pathlib import Path
from typing import Any

from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModule

from prefix_rft_rllib.basics.hub_models import model_directory
from prefix_rft_rllib.envs.problems import ProblemSet
from prefix_rft_rllib.envs.prompts.prompting import TOKENIZER
from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup
from prefix_rft_rllib.models.export import save_adapter, save_pretrained
from prefix_rft_rllib.transfers.weight_sync import weights


def copy_of_module(learner_group: PrefixRFTLearnerGroup) -> RLModule:
    """Build the learners' RLModule on the CPU of this process, with the weights as they are now.

    Args:
        learner_group: The learners.

    Returns:
        The module, `inference_only`.
    """
    module_class, settings, state = learner_group.first_learner(_module_parts)
    module = module_class(**{**settings, "inference_only": True})
    module.set_state(state)
    return module


def save_trained_model(
    learner_group: PrefixRFTLearnerGroup, problem_set: ProblemSet, path: str | Path
) -> Path:
    """Write the learners' model in Hugging Face form; see `PrefixRFT.save_pretrained`.

    Args:
        learner_group: The learners.
        problem_set: The run's problems, with the tokenizer and the end tokens.
        path: Directory to write to; made if missing.

    Returns:
        The directory.
    """
    state = learner_group.first_learner(weights)[COMPONENT_RL_MODULE]
    directory = save_pretrained(
        model_directory(learner_group.config.model_source),
        state[DEFAULT_MODULE_ID],
        model_directory(problem_set.settings.tokenizer, TOKENIZER, with_weights=False),
        problem_set.end_tokens.ids,
        path,
    )
    if learner_group.config.lora is not None:
        lora_config, adapter = learner_group.first_learner(_adapter)
        save_adapter(lora_config, adapter, directory)
    return directory


def _module_parts(learner: Learner) -> tuple[type[RLModule], dict[str, Any], dict[str, Any]]:
    """Class, constructor's arguments and weights of a learner's RLModule."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return type(module), module.get_ctor_args_and_kwargs()[1], module.get_state()


def _adapter(learner: Learner) -> tuple[Any, dict[str, Any]]:
    """Configuration and weights of a learner's adapter."""
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    return module.weights.config, module.get_state()
