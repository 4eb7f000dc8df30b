"""New weights for the env runners: through Ray's object store, or directly from GPU to GPU."""

import abc
import contextlib
import logging
import socket
import uuid
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import ray
import torch
from ray.exceptions import ActorDiedError, ActorUnavailableError, RayActorError
from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.core.learner import Learner
from ray.rllib.utils.annotations import override
from ray.rllib.utils.metrics import WEIGHTS_SEQ_NO

from prefix_rft_rllib.engines.vllm import weight_sender as vllm_weight_sender
from prefix_rft_rllib.engines.vllm.weight_sender import Backend, Meeting
from prefix_rft_rllib.learners.learner_group import PrefixRFTLearnerGroup, first_answer
from prefix_rft_rllib.models.state_arrays import state_views
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.weight_transfer_choice import obstacle, planned_transfer
from prefix_rft_rllib.settings.settings import Settings
from prefix_rft_rllib.transfers.env_runner_client import EnvRunnerClient
from prefix_rft_rllib.transfers.learner_weights import LearnerWeights

logger = logging.getLogger(__name__)


class WeightSync(abc.ABC):
    """Gives the learners' weights to all env runners.

    Args:
        learners: They train the weights.
        env_runners: They sample with them.
    """

    def __init__(self, learners: PrefixRFTLearnerGroup, env_runners: EnvRunners) -> None:
        self._learners = learners
        self._env_runners = env_runners

    @abc.abstractmethod
    def send(self) -> int:
        """Send the weights and wait until the env runners have them; returns their number."""


class ThroughObjectStore(WeightSync):
    """The first learner puts its weights into Ray's object store; each node reads them once."""

    @override(WeightSync)
    def send(self) -> int:
        is_local = self._env_runners.is_local
        state = self._learners.first_learner(weights if is_local else put_weights)
        self._env_runners.set_state(state)
        return state[WEIGHTS_SEQ_NO]


class Direct(WeightSync):
    """The learners send to the engines through vLLM's weight transfer.

    Learners and engines meet at the first transfer, and again whenever an env runner has come or
    gone. An env runner that was started again has its weights through the object store until then.

    Args:
        learners: They train the weights.
        env_runners: Remote ones; they sample with them.
        backend: How weights go.
    """

    def __init__(
        self, learners: PrefixRFTLearnerGroup, env_runners: EnvRunners, backend: Backend
    ) -> None:
        super().__init__(learners, env_runners)
        self._backend = backend
        self._connection: str | None = None
        self._members: list[int] = []
        self._has_failed = False

    @override(WeightSync)
    def send(self) -> int:
        connections = self._env_runners.call(_connection_of)
        members = self._env_runners.healthy_ids
        if not members:  # those that come back get weights through Ray first
            return self._learners.first_learner(_number_of)
        try:
            if members != self._members or set(connections) != {self._connection}:
                self._connect(members)
            number = self._on_learners(_send)
        except (RayActorError, ActorDiedError, ActorUnavailableError) as error:
            return self._give_up(members, error)
        self._has_failed = False
        return number

    def _connect(self, members: list[int]) -> None:
        connection = uuid.uuid4().hex
        handles = self._env_runners.handles(members)
        self._on_learners(partial(_connect, self._backend, handles, connection))
        self._connection, self._members = connection, members

    def _give_up(self, members: list[int], error: Exception) -> int:
        """An env runner was lost on the way: the engines may hold parts of two versions."""
        self._members = []  # they meet again at the next transfer
        if self._has_failed:
            raise RuntimeError(
                f"The transfer of weights by {self._backend!r} has failed twice in a row. The env "
                "runners' logs have the reason; config.env_runners(weight_transfer='object_store') "
                "does without it."
            ) from error
        self._has_failed = True
        logger.error("An env runner was lost while it received weights; all are started again.")
        self._env_runners.end(members)
        return self._learners.first_learner(_number_of)

    def _on_learners(self, function: Callable[[Learner], Any]) -> Any:
        """Call all learners at the same time; the first one's answer.

        Raises:
            Exception: What any of them came upon.
        """
        return first_answer(self._learners.foreach_learner(partial(_caught, function)))


def weight_sync(
    config: Settings, learners: PrefixRFTLearnerGroup, env_runners: EnvRunners
) -> WeightSync:
    """The way of the weights that the settings and the actors' GPUs allow.

    Args:
        config: Validated settings.
        learners: The run's learners.
        env_runners: Its env runners.

    Raises:
        ValueError: If `weight_transfer` asks for one that they do not allow.
    """
    backend = planned_transfer(config)
    if backend is None:
        return ThroughObjectStore(learners, env_runners)
    trained_on = [result.get() for result in learners.foreach_learner(_gpu_of_learner)]
    reason = obstacle(backend, trained_on, env_runners.call(_gpus_of_env_runner))
    if reason is None:
        return Direct(learners, env_runners, backend)
    if config.weight_transfer != "auto":
        raise ValueError(f"`weight_transfer={backend!r}` is not possible here: {reason}.")
    logger.warning("Weights go through Ray's object store, not by %r: %s.", backend, reason)
    return ThroughObjectStore(learners, env_runners)


def weights(learner: Learner) -> dict[str, Any]:
    """A learner's weights as an env runner's state."""
    state = learner.module[DEFAULT_MODULE_ID].unwrapped().get_state(inference_only=True)
    return {
        COMPONENT_RL_MODULE: {DEFAULT_MODULE_ID: state},
        WEIGHTS_SEQ_NO: learner._weights_seq_no,
    }


def put_weights(learner: Learner) -> dict[str, Any]:
    """The same with the weights in the object store: they cross Ray once per node.

    `ray.put` copies them before it returns, so they are not copied before.
    """
    module = learner.module[DEFAULT_MODULE_ID].unwrapped()
    state = state_views(module.parallelism.gathered(module.weights.merged()))
    return {
        COMPONENT_RL_MODULE: ray.put({DEFAULT_MODULE_ID: state}),
        WEIGHTS_SEQ_NO: learner._weights_seq_no,
    }


def _number_of(learner: Learner) -> int:
    return learner._weights_seq_no


def _caught(function: Callable[[Learner], Any], learner: Learner) -> Any:
    """The function's result or exception; RLlib would end a learner that raises."""
    try:
        return function(learner)
    except Exception as error:
        return error


def _connect(
    backend: Backend, env_runners: Sequence[Any], connection: str, learner: Learner
) -> None:
    """Let a learner and the env runners meet."""
    sender = learner.__dict__.pop("weight_sender", None)
    if sender is not None:
        sender.shutdown()
    source = LearnerWeights(learner.module[DEFAULT_MODULE_ID].unwrapped())
    rank = torch.distributed.get_rank() if torch.distributed.is_initialized() else 0
    client = EnvRunnerClient(env_runners, connection)
    num_workers = 0
    if rank == 0:
        num_workers = client.check({meta.name: meta.shape for meta in source.metadata()})
    meeting = Meeting(rank, ray.util.get_node_ip_address(), _free_port(), num_workers)
    learner.weight_sender = vllm_weight_sender.open_sender(backend, meeting, client, source)
    learner.weight_client = client


def _send(learner: Learner) -> int:
    learner.weight_client.version = learner._weights_seq_no
    with torch.no_grad():
        learner.weight_sender.send_weights()
    return learner._weights_seq_no


def _connection_of(env_runner: Any) -> str | None:
    return env_runner.connection


def _gpu_of_learner(learner: Learner) -> str:
    device = learner._device
    is_gpu = isinstance(device, torch.device) and device.type == "cuda"
    return str(torch.cuda.get_device_properties(device).uuid) if is_gpu else ""


def _gpus_of_env_runner(env_runner: Any) -> list[str]:
    numbers = range(torch.cuda.device_count())
    return [str(torch.cuda.get_device_properties(number).uuid) for number in numbers]


def _free_port() -> int:
    with contextlib.closing(socket.socket()) as found:
        found.bind(("", 0))
        return found.getsockname()[1]
