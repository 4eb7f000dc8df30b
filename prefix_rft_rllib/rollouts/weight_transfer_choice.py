"""How new weights reach the engines: what the settings allow, and what the machines allow."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from prefix_rft_rllib.engines.vllm.weight_sender import BACKENDS, Backend

OBJECT_STORE = "object_store"
WEIGHT_TRANSFERS = ("auto", OBJECT_STORE, *BACKENDS)
"""Values of the setting `weight_transfer`."""


@dataclass(frozen=True)
class TransferFacts:
    """What the choice depends on before anything runs.

    Attributes:
        weight_transfer: The setting.
        engine: Name of the engine.
        num_env_runners: Remote env runners; 0 for one in the driver.
        num_learners: Learner actors; 0 for one in the driver.
        gpus_per_env_runner: GPUs of each env runner; may be a fraction.
        gpus_per_learner: GPUs of each learner; may be a fraction.
    """

    weight_transfer: str
    engine: str
    num_env_runners: int
    num_learners: int
    gpus_per_env_runner: float
    gpus_per_learner: float


def choose(settings: TransferFacts) -> Backend | None:
    """The direct transfer that the settings allow.

    Actors that share GPUs (fractions that make at most one) exchange weights inside the GPU's
    memory ("ipc"), others between GPUs ("nccl").

    Args:
        settings: The settings.

    Returns:
        vLLM's backend; None for the way through Ray's object store, which always works.

    Raises:
        ValueError: If the wanted transfer is impossible.
    """
    wanted = settings.weight_transfer
    if wanted == OBJECT_STORE:
        return None
    for is_missing, what in (
        (settings.engine != "vllm", f"engine='vllm', not {settings.engine!r}"),
        (settings.num_env_runners == 0, "`num_env_runners` of at least 1"),
        (settings.num_learners == 0, "`num_learners` of at least 1"),
        (settings.gpus_per_env_runner == 0, "`num_gpus_per_env_runner` above 0"),
        (settings.gpus_per_learner == 0, "`num_gpus_per_learner` above 0"),
    ):
        if is_missing and wanted == "auto":
            return None
        if is_missing:
            raise ValueError(
                f"`weight_transfer={wanted!r}` needs {what}. Use 'auto' or {OBJECT_STORE!r}."
            )
    if wanted != "auto":
        return "ipc" if wanted == "ipc" else "nccl"
    shares_gpus = settings.gpus_per_env_runner + settings.gpus_per_learner <= 1
    return "ipc" if shares_gpus else "nccl"


def planned_transfer(config: Any) -> Backend | None:
    """`choose` for a `PrefixRFTConfig`; None for env runners of RLlib's own evaluation."""
    if config.in_evaluation:
        return None
    return choose(
        TransferFacts(
            weight_transfer=config.weight_transfer,
            engine=config.engine,
            num_env_runners=config.num_env_runners,
            num_learners=config.num_learners,
            gpus_per_env_runner=config.num_gpus_per_env_runner,
            gpus_per_learner=config.num_gpus_per_learner,
        )
    )


def obstacle(
    backend: Backend, learners: Sequence[str], env_runners: Sequence[Sequence[str]]
) -> str | None:
    """Why the GPUs that the actors got do not allow a transfer.

    Args:
        backend: The planned transfer.
        learners: Identifier of each learner's GPU, the first learner's first; empty without one.
        env_runners: Identifiers of each env runner's GPUs.

    Returns:
        The reason; None if all is well.
    """
    used = [gpu for gpus in env_runners for gpu in gpus]
    if not all(learners) or not all(env_runners):
        return "a learner or env runner has no GPU"
    if backend == "ipc":
        away = set(used) - set(learners)
        return f"no learner is on the GPUs {sorted(away)} of env runners" if away else None
    if learners[0] in used:
        return f"the first learner and an env runner are on the same GPU {learners[0]}"
    if len(set(used)) < len(used):
        return "several env runners are on the same GPU"
    return None
