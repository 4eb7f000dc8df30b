"""What a learner holds: the module, whole or a share of it, and one optimizer per objective."""

import copy
import logging
from typing import Any

import torch
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.core.rl_module.multi_rl_module import MultiRLModule
from ray.rllib.utils.annotations import DeveloperAPI, override
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.typing import StateDict

from prefix_rft_rllib.core.lr_schedules import lr_at
from prefix_rft_rllib.learners.torch.parallelism import (
    gathered_optimizer_state,
    parallelism_of,
    spread_optimizer_state,
)

logger = logging.getLogger(__name__)


@DeveloperAPI
class ObjectivesLearner(TorchLearner):
    """Part of `PrefixRFTTorchLearner`: module and optimizers, their states, learning rates."""

    _step: int = 0
    """Optimizer steps before this one, over the run; what schedules go by."""

    @override(Learner)
    def build(self) -> None:
        self._parallelism = parallelism_of(self.config.parallelism, self.config.num_learners)
        super().build()

    @override(TorchLearner)
    def _map_module_to_device(self, module: MultiRLModule) -> None:
        self._parallelism.place(module[DEFAULT_MODULE_ID], self._device)

    @override(TorchLearner)
    def _make_modules_ddp_if_necessary(self) -> None:
        if self._parallelism.replicates:
            super()._make_modules_ddp_if_necessary()

    @override(TorchLearner)
    def configure_optimizers_for_module(
        self, module_id: str, config: AlgorithmConfig | None = None
    ) -> None:
        """One AdamW per objective; an optimizer's state takes memory from its first step on."""
        parameters = [p for p in self._module[module_id].parameters() if p.requires_grad]
        self._objectives = {o.name: o for o in self.config.build_method().objectives()}
        for objective in self._objectives.values():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=objective.name,
                optimizer=self._build_optimizer(parameters),
                params=parameters,
            )
        self._begin(next(iter(self._objectives)))

    def _build_optimizer(self, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        return torch.optim.AdamW(parameters, lr=self.config.lr, **self._adamw_settings)

    def _begin(self, name: str) -> None:
        """Make an objective the one that is trained: its rules, its surrogate, its optimizer.

        RLlib then clips for and steps this optimizer alone; all are in the checkpoint. Those of
        earlier stages lose their state, which nothing will read again.
        """
        self._objective = self._objectives[name]
        self._module_optimizers[DEFAULT_MODULE_ID] = [f"{DEFAULT_MODULE_ID}_{name}"]
        for other in self._objectives.values():
            if other.stage < self._objective.stage:
                self.get_optimizer(DEFAULT_MODULE_ID, other.name).state.clear()

    @override(TorchLearner)
    def _get_optimizer_state(self) -> StateDict:
        """Whole optimizer states by name, whatever share of them this learner holds."""
        return {
            name: {
                "module_id": DEFAULT_MODULE_ID,
                "state": convert_to_numpy(
                    gathered_optimizer_state(self._parallelism, optimizer.state_dict())
                ),
            }
            for name, optimizer in self._named_optimizers.items()
        }

    @override(TorchLearner)
    def _set_optimizer_state(self, state: StateDict) -> None:
        """Restore the optimizers of this run's method; those of another method are left out.

        Settings are this run's, which may have been changed (PopulationBasedTraining).
        """
        known = {name: value for name, value in state.items() if name in self._named_optimizers}
        for name in state.keys() - known.keys():
            logger.warning(
                "The checkpoint's optimizer %r belongs to another method than %r and is not "
                "restored.",
                name,
                self.config.build_method().name,
            )
        # A copy: RLlib's tensors share memory with arrays, which in the object store are those of
        # all learners of a node.
        super()._set_optimizer_state(copy.deepcopy(known))
        for optimizer in self._named_optimizers.values():
            spread_optimizer_state(self._parallelism, optimizer)
            for group in optimizer.param_groups:
                group.update(self._adamw_settings)

    @property
    def _adamw_settings(self) -> dict[str, Any]:
        betas = tuple(self.config.adam_betas)
        return {"betas": betas, "weight_decay": self.config.weight_decay}

    def _lr(self) -> float:
        """Learning rate of the next step: the objective's own, or the config's schedule."""
        own, config = self._objective.lr, self.config
        if own is None:
            return lr_at(
                self._step,
                lr=config.lr,
                schedule=config.lr_schedule,
                num_warmup_steps=config.lr_warmup_steps,
                num_steps=config.lr_schedule_steps,
            )
        steps_per_iteration = config.num_minibatches * config.num_epochs
        num_warmup_steps = self._objective.num_warmup_iterations * steps_per_iteration
        return lr_at(
            self._step,
            lr=own,
            schedule="constant",
            num_warmup_steps=num_warmup_steps,
            num_steps=None,
        )
