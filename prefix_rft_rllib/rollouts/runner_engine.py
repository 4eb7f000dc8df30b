"""The engine of an env runner, with the weights that it was given."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prefix_rft_rllib.engines import Engine, build_engine
from prefix_rft_rllib.engines.engine import WeightReceiver
from prefix_rft_rllib.models.state_arrays import state_to_tensors
from prefix_rft_rllib.rollouts.runner_device import device_option
from prefix_rft_rllib.rollouts.weight_transfer_choice import planned_transfer


class RunnerEngine:
    """Builds the engine at its first use, and keeps track of its weights.

    Args:
        config: A `PrefixRFTConfig`.
        eos_token_ids: Ids that end a sequence.
    """

    def __init__(self, config: Any, *, eos_token_ids: Sequence[int]) -> None:
        self._config = config
        self._eos_token_ids = list(eos_token_ids)
        self._engine: Engine | None = None
        self._receiver: WeightReceiver | None = None
        self._waiting: Mapping[str, np.ndarray] | None = None
        self.weights_seq_no = -1
        """Number of the newest weights; -1 before the first."""

    @property
    def is_built(self) -> bool:
        """Whether there is an engine already."""
        return self._engine is not None

    @property
    def loaded(self) -> Engine:
        """The engine with the newest weights.

        Raises:
            RuntimeError: If there were none yet.
        """
        if self.weights_seq_no < 0:
            raise RuntimeError("no weights yet: `set_state` must come before `sample`")
        engine = self._built()
        if self._waiting is not None:
            # Engines copy weights into memory of their own, so what the object store shares need
            # not be copied before.
            tensors = state_to_tensors(self._waiting, copy=False)
            engine.load_weights(tensors, self.weights_seq_no)
            self._waiting = None
        return engine

    def take(self, arrays: Mapping[str, np.ndarray], number: int) -> None:
        """Take weights, whatever their number; an engine that is not built loads them later.

        Args:
            arrays: The model's state dict, as `state_to_arrays` returned it.
            number: Its number, at least 0.
        """
        self._waiting, self.weights_seq_no = arrays, number
        if self._engine is not None:
            _ = self.loaded

    @property
    def connection(self) -> str | None:
        """Name of the sender that the engine is connected with, if any."""
        return None if self._receiver is None else self._receiver.connection

    @property
    def receiver(self) -> WeightReceiver:
        """The engine's end of a direct transfer of weights; `finish_weights` ends one."""
        if self._receiver is None:
            self._receiver = self._built().weight_receiver
        return self._receiver

    def finish_weights(self, number: int) -> None:
        """Use the weights that the receiver has taken.

        Args:
            number: Their number, at least 0.
        """
        self.receiver.finish(number)
        self._waiting, self.weights_seq_no = None, number

    def sleep(self) -> None:
        """Let the engine give its memory to others until the next weights come."""
        if self._engine is not None:
            self._engine.sleep()

    def close(self) -> None:
        """Free the engine."""
        if self._engine is not None:
            self._engine.close()

    def _built(self) -> Engine:
        if self._engine is None:
            transfer = planned_transfer(self._config)
            self._engine = build_engine(
                self._config.engine,
                self._config.load_model_config(),
                eos_token_ids=self._eos_token_ids,
                **(device_option(self._config) | self._config.engine_config),
                **({} if transfer is None else {"weight_transfer": transfer}),
            )
        return self._engine
