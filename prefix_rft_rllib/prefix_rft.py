"""Prefix-RFT (arXiv 2507.01679) as an RLlib algorithm.

One iteration, and the process in which each stop lies (docs/data_path.md has the table of them):

    driver          plan ─────────┐                    ┌──► credit ───────┐
                                  ▼                    │                  ▼
    env runners             reset ──► roll out ──► verify                 │
                                        ▲                                 │
    learners                            └── new weights ◄── step ◄── weigh, loss
"""

import contextlib
import time
from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from ray.rllib.algorithms.algorithm import Algorithm
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner import Learner
from ray.rllib.core.rl_module.rl_module import RLModule
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from ray.rllib.utils.annotations import PublicAPI, override
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    ENV_RUNNER_SAMPLING_TIMER,
    LEARNER_RESULTS,
    LEARNER_UPDATE_TIMER,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    SYNCH_WORKER_WEIGHTS_TIMER,
    TIMERS,
)
from ray.tune import register_trainable

from prefix_rft_rllib import metrics
from prefix_rft_rllib.core.prefix_sampling import PlannedRollout
from prefix_rft_rllib.envs.demonstrations.facts import DemonstrationFacts
from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.iterations.carried_over import CarriedOver
from prefix_rft_rllib.iterations.credit import imitation_rows, learner_rows
from prefix_rft_rllib.iterations.finite_steps import FiniteSteps
from prefix_rft_rllib.iterations.groups import Group
from prefix_rft_rllib.iterations.planning import IterationPlan
from prefix_rft_rllib.iterations.sampling_ahead import GROUP_SOURCES, resampled
from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig
from prefix_rft_rllib.rollouts import row_data
from prefix_rft_rllib.rollouts.env_runners import EnvRunners
from prefix_rft_rllib.rollouts.row_data import WholeSequences
from prefix_rft_rllib.rollouts.sampling import Sampling
from prefix_rft_rllib.runs.checkpointed_algorithm import CheckpointedAlgorithm
from prefix_rft_rllib.runs.rollout_report import (
    episode_means,
    imitation_metrics,
    rollout_metrics,
    rollout_records,
)
from prefix_rft_rllib.runs.run_recorder import RunRecorder, run_path
from prefix_rft_rllib.settings.placement_checks import (
    check_known_placement,
    check_placement,
    check_trial,
    pending_said,
)
from prefix_rft_rllib.settings.ray_start import start_ray
from prefix_rft_rllib.settings.setup_checks import check_setup, trainable_problems
from prefix_rft_rllib.transfers.evaluating_algorithm import EvaluatingAlgorithm
from prefix_rft_rllib.transfers.input_sharing import with_shared_inputs
from prefix_rft_rllib.transfers.shared_gpus import (
    check_gpu_places,
    check_present_gpus,
    engines_asleep,
)
from prefix_rft_rllib.transfers.trained_model import copy_of_module, save_trained_model
from prefix_rft_rllib.transfers.weight_sync import weight_sync

TRAINING_STEP_TIMER = "prefix_rft_training_step"
FEEDBACK = "feedback"
"""Key of what earlier iterations have left, in the algorithm's state."""
SAMPLED_AHEAD = "sampled_ahead"
"""Key of the next iteration's rollouts, if they were sampled during the last update."""


@PublicAPI
class PrefixRFT(CheckpointedAlgorithm, EvaluatingAlgorithm):
    """Fine-tunes a causal LM on demonstrations and its own verified attempts at once.

    `training_step` is the path of the data: plan, sample, update, sync. Everything method-specific
    is in the `Method` value that `config.build_method()` returns.
    """

    config: PrefixRFTConfig

    @classmethod
    @override(Algorithm)
    def get_default_config(cls) -> PrefixRFTConfig:
        return PrefixRFTConfig()

    @classmethod
    @override(Algorithm)
    def default_resource_request(cls, config: Any) -> Any:
        """What a trial reserves; an error or a message if the cluster does not have it."""
        request = super().default_resource_request(config)
        check_trial(cls.get_default_config().update_from_dict(config))
        return request

    @override(Algorithm)
    def setup(self, config: PrefixRFTConfig) -> None:
        """Check machines, data, model and tokenizer; only then start env runners and learners."""
        self.config = self.config.with_pinned_names()
        self.method = self.config.build_method()
        check_known_placement(self.config)
        self.problem_set = load_problem_set(self.config.token_env_config())
        check_setup(self.config, self.method, self.problem_set)
        self.load_sets()
        check_placement(self.config)
        check_present_gpus(self.config, self.method)
        self._facts = DemonstrationFacts(self.problem_set)
        self._feedback = CarriedOver(self.method.stage_at(0))
        self._finite_steps = FiniteSteps(self.config.max_nonfinite_steps)
        is_trial = self._storage is not None  # Tune's; `_trial_info` is lost in RLlib's configs
        directory = run_path(self.logdir, self._storage)
        self._recorder = RunRecorder(self.config, directory, self.problem_set, is_trial=is_trial)
        if self.config.preflight:
            self._preflight()
        start_ray()
        self.config = with_shared_inputs(self.config, *self.problem_sets)
        try:
            with pending_said(self.config):
                super().setup(self.config)
            check_gpu_places(self.config, self.learner_group, self.env_runners)
            self._sampler = GROUP_SOURCES[self.config.max_weight_staleness](self.env_runners)
            self._weight_sync = weight_sync(self.config, self.learner_group, self.env_runners)
            self.sync_weights()
        except BaseException:
            self.cleanup()  # else env runners and learners keep what they hold
            raise

    def _preflight(self) -> None:
        """Grade answers and demonstrations, and show what the model will see; faults are errors."""
        # Imported here: Python warns about `python -m` of a module that its package has imported.
        from prefix_rft_rllib.preflight import preflight

        report = preflight(self.problem_set, progress=self._recorder.prints)
        self._recorder.show(report.render())

    @cached_property
    def env_runners(self) -> EnvRunners:
        """The training env runners: they sample planned rollouts, and are replaced if they fail."""
        return self._handle_of(self.env_runner_group, self.config, self.sync_weights)

    @override(Algorithm)
    def training_step(self) -> None:
        """One iteration; the stops of docs/data_path.md, in their order."""
        with self._timed(TRAINING_STEP_TIMER, metrics.ITERATION_TIME):
            plan = self._plan(self.iteration)  # stage, problems, prefixes, demonstration rows
            self._feedback = plan.feedback
            groups = self._sample_groups(plan)  # reset, roll out, reward
            self._sampler.start(self._plan(self.iteration + 1))  # sampled meanwhile, if at all
            with engines_asleep(self.config, self.learner_group, self.env_runners):
                self._update_learners(plan, groups)  # credit, columns, look back, weigh, loss, step
            self._sampler.finish()
            self.sync_weights()  # new weights to the env runners

    def _plan(self, iteration: int) -> IterationPlan:
        """The plan of an iteration after the rewards that are known; a new stage starts anew."""
        stage = self.method.stage_at(iteration)
        is_new = stage.number != self._feedback.stage
        feedback = CarriedOver(stage) if is_new else self._feedback
        return IterationPlan(
            config=self.config,
            stage=stage,
            problems=trainable_problems(stage.method, self.problem_set),
            facts=self._facts,
            feedback=feedback,
            schedule_state=feedback.schedule_state,
            iteration=iteration,
        )

    def _sample_groups(self, plan: IterationPlan) -> list[Group]:
        """Sample all planned rollouts; returns the complete groups to train on."""
        with self._timed(ENV_RUNNER_SAMPLING_TIMER, metrics.SAMPLING_TIME):
            groups, sampled = resampled(self.env_runners, plan, self._sampler.groups(plan))
        self._begin_update()  # what follows is remembered: a signal waits for the iteration's end
        self._feedback.observe(sampled)
        episodes = [episode for group in sampled for episode in group.episodes]
        for episode in episodes:
            staleness = self._weights_seq_no - episode.custom_data[row_data.WEIGHTS_SEQ_NO]
            episode.custom_data[row_data.WEIGHT_STALENESS] = staleness
        counts = {metrics.NUM_GROUPS_REPLACED: len(sampled) - len(groups)}
        for name, value in (rollout_metrics(sampled, plan.window) | counts).items():
            self.metrics.log_value((metrics.ROLLOUTS, *name.split("/")), value, reduce="mean")
        for name, mean in episode_means(episodes).items():
            self.metrics.log_value((ENV_RUNNER_RESULTS, name), mean, reduce="mean")
        return groups

    @PublicAPI
    def sample_rollouts(
        self,
        rollouts: Sequence[PlannedRollout],
        *,
        temperature: float | None = None,
        key: str | tuple[str, ...] | None = None,
    ) -> list[SingleAgentEpisode]:
        """Sample planned rollouts on all env runners; see `EnvRunners.sample`."""
        return self.env_runners.sample(
            rollouts, sampling=Sampling(temperature=temperature), key=key
        )

    def _update_learners(self, plan: IterationPlan, groups: list[Group]) -> None:
        """Credit the groups and take the optimizer steps; last, that on failed problems if due."""
        rows = learner_rows(self.config, plan.stage.method, groups, self.iteration)
        failed = imitation_rows(self.config, plan.imitation_groups(), self.iteration)
        with self._timed(LEARNER_UPDATE_TIMER, metrics.LEARNING_TIME):
            results, reports = self._update(
                rows, plan, objective=plan.stage.objective, num_epochs=self.config.num_epochs
            )
            self.metrics.aggregate(results, key=LEARNER_RESULTS)
            steps = reports[0][0]
            if failed:
                _, [(imitation_steps, _), *_] = self._update(
                    failed, plan, objective=plan.stage.imitation, num_epochs=1
                )
                steps += imitation_steps
                for name, value in imitation_metrics(failed, imitation_steps).items():
                    self.metrics.log_value((metrics.IMITATION_STEP, name), value, reduce="mean")
        token_values = {i: values for _, by_row in reports for i, values in by_row.items()}
        records = rollout_records(rows, token_values, iteration=self.iteration + 1)
        self._recorder.add_update(self.iteration + 1, records, minibatches=steps)
        self._finite_steps.observe(self.iteration + 1, steps)

    def _update(
        self,
        rows: list[SingleAgentEpisode],
        plan: IterationPlan,
        *,
        objective: str,
        num_epochs: int,
    ) -> tuple[list[Any], list[Any]]:
        """Train one objective on rows; returns the learners' metrics and reports."""
        results = self.learner_group.update(
            training_data=WholeSequences(
                episodes=rows, keeps_groups=self.config.share_prompts is not False
            ),
            timesteps={
                NUM_ENV_STEPS_SAMPLED_LIFETIME: self.metrics.peek(
                    (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0
                )
            },
            num_epochs=num_epochs,
            iteration=self.iteration,
            schedule_iteration=self.iteration - plan.stage.start,
            objective=objective,
        )
        return results, [r.get() for r in self.learner_group.foreach_learner(_take_report)]

    def sync_weights(self) -> None:
        """Give the learners' weights to all env runners and wait until they have them.

        RLlib's own sync returns before the runners have the weights and drops an update while an
        earlier one is in flight.
        """
        with self._timed(SYNCH_WORKER_WEIGHTS_TIMER, metrics.SYNC_TIME):
            self._weights_seq_no = self._weight_sync.send()

    @override(Algorithm)
    def get_state(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        return {
            **super().get_state(*args, **kwargs),
            FEEDBACK: self._feedback.get_state(),
            SAMPLED_AHEAD: self._sampler.get_state(),
        }

    @override(Algorithm)
    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        if FEEDBACK in state:
            self._feedback = CarriedOver(self.method.stage_at(self.iteration - 1))
            self._feedback.set_state(state[FEEDBACK])
        self._sampler.set_state(state.get(SAMPLED_AHEAD))

    @override(CheckpointedAlgorithm)
    def restore_from_path(self, path: str | Path, *args: Any, **kwargs: Any) -> None:
        """Check, restore, then give the runners the restored weights, older ones too."""
        super().restore_from_path(path, *args, **kwargs)
        if kwargs.get("component"):
            self._sampler.set_state(None)  # rollouts of the weights before the restore
        self._finite_steps = FiniteSteps(self.config.max_nonfinite_steps)  # of other weights
        self.sync_weights()
        self._recorder.reopen(self.iteration)

    @override(Algorithm)
    def get_module(self, module_id: str = DEFAULT_MODULE_ID) -> RLModule | None:
        """A copy of the trained model as it is now, `inference_only`; None for another id.

        Env runners have engines instead. What an observation is: `DefaultPrefixRFTTorchRLModule`.
        """
        is_known = module_id == DEFAULT_MODULE_ID
        return copy_of_module(self.learner_group) if is_known else None

    @PublicAPI
    def save_pretrained(self, path: str | Path) -> Path:
        """Write the trained model and its tokenizer in Hugging Face form.

        With `lora` this is the merged model, and the folder `adapter` has the adapter in PEFT form.

        Args:
            path: Directory to write to; made if missing.

        Returns:
            The directory, for `AutoModelForCausalLM.from_pretrained` and
            `AutoTokenizer.from_pretrained`.
        """
        return save_trained_model(self.learner_group, self.problem_set, path)

    @contextlib.contextmanager
    def _timed(self, timer: str, name: str) -> Iterator[None]:
        """Log a wall time twice: RLlib's smoothed timer, and this iteration's seconds."""
        started = time.perf_counter()
        with self.metrics.log_time((TIMERS, timer)):
            yield
        seconds = time.perf_counter() - started
        self.metrics.log_value((metrics.TIME, name), seconds, reduce="sum")


def _take_report(learner: Learner) -> Any:
    return learner.take_report()


# RLlib registers its own algorithms in the same way, when it is imported.
register_trainable(PrefixRFT.__name__, PrefixRFT)
