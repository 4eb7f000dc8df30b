"""Settings of Prefix-RFT, in RLlib's fluent form."""

from collections.abc import Mapping
from typing import Any, Self

from ray.rllib.algorithms.algorithm_config import AlgorithmConfig, NotProvided
from ray.rllib.utils.annotations import PublicAPI, override
from ray.tune import register_trainable
from ray.util.debug import log_once

from prefix_rft_rllib import methods
from prefix_rft_rllib.engines.sampling_options import refuse_here, refuse_sampling_options
from prefix_rft_rllib.settings.config_checks import check_config, check_ranges
from prefix_rft_rllib.settings.resource_amounts import check_resource_amounts
from prefix_rft_rllib.settings.settings import Settings
from prefix_rft_rllib.settings.unused_settings import check_known, check_used


@PublicAPI
class PrefixRFTConfig(Settings):
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
        from prefix_rft_rllib.prefix_rft import PrefixRFT  # RLlib's own pair, each names the other

        super().__init__(algo_class=algo_class or PrefixRFT)
        # A cluster knows the names that were registered since it started, and no others.
        register_trainable(PrefixRFT.__name__, PrefixRFT)

    @override(AlgorithmConfig)
    def training(
        self,
        *,
        model_path: str | None = NotProvided,
        model_revision: str | None = NotProvided,
        method: str | methods.Method = NotProvided,
        method_config: Mapping[str, Any] = NotProvided,
        group_size: int = NotProvided,
        num_problems_per_iteration: int = NotProvided,
        num_problems_per_minibatch: int = NotProvided,
        max_resampling_rounds: int = NotProvided,
        max_nonfinite_steps: int | None = NotProvided,
        max_weight_staleness: int = NotProvided,
        clip_param: float = NotProvided,
        clip_param_high: float | None = NotProvided,
        dual_clip: float | None = NotProvided,
        entropy_coeff: float = NotProvided,
        kl_coeff: float = NotProvided,
        importance_weight_cap: float | str | None = NotProvided,
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
            model_path: The causal LM in Hugging Face form, with its tokenizer. A directory or a
                name of the Hugging Face hub, "org/name" or "org/name@revision", or None.
            model_revision: Branch, tag or commit of that name; a run reads the commit that it
                stands for at the start. A text, or None for the default branch, or with a
                directory.
            method: What learns from rollouts and demonstrations (docs/methods.md). The name of a
                method, or a `Method`.
            method_config: Settings of the method. A dict of keyword arguments of the method's
                function, as plain data.
            group_size: Rollouts per problem, the prefix rollout included. A whole number in
                [1, 10000].
            num_problems_per_iteration: Problems sampled per iteration, over all env runners. A
                whole number in [1, 10000000].
            num_problems_per_minibatch: Problems per optimizer step, over all learners; divides
                `num_problems_per_iteration`. A whole number in [1, 10000000].
            max_resampling_rounds: How often, in an iteration, groups of equal rewards are replaced
                by groups of other problems (DAPO, arXiv 2503.14476, Sec. 3.2); 0 for never. What is
                still without signal after the last round stays. A whole number of at least 0.
            max_nonfinite_steps: How many optimizer steps may be left out one after the other,
                because loss or gradient is not finite, before the run ends with an error
                (docs/faults.md). A whole number of at least 1, or None for no end.
            max_weight_staleness: Updates between the weights that sample an iteration and those
                that its update starts from; 1 needs remote env runners (docs/pieces.md, "Sampling
                ahead"). 0 (on-policy) or 1 (the next iteration is sampled during the update).
            clip_param: PPO clip: the ratio is clipped to [1 - clip_param, 1 + clip_param]. This and
                the next two are the bounds of methods without bounds of their own; an error where
                the method has some (docs/pieces.md, "Surrogates"). In (0, 1).
            clip_param_high: Upper clip, in the place of `clip_param`. A finite number above 0, or
                None for `clip_param`.
            dual_clip: Bound c > 1 of the loss of tokens with negative weight (3 in the authors'
                code). A finite number above 1, or None for no such bound.
            entropy_coeff: Weight of the entropy bonus on sampled tokens (global token mean). A
                finite number of at least 0.
            kl_coeff: Weight of the KL to the initial model on response tokens. A finite number of
                at least 0.
            importance_weight_cap: Weigh sampled tokens by min(pi_old / pi_engine, cap), against the
                mismatch of sampler and learner. "auto": no such weight, but cap 2 with
                `max_weight_staleness=1`. A finite number of at least 1, None for no importance
                weights, or 'auto'.
            weight_decay: AdamW's decoupled weight decay. A finite number of at least 0.
            adam_betas: AdamW's betas. Two numbers in [0, 1).
            lr_schedule: How the rate goes on after the warm-up; cosine ends at 0. One of
                'constant', 'cosine'.
            lr_warmup_steps: Optimizer steps n over which the rate rises linearly, from lr / n in
                the first one to `lr`; 0 for no warm-up. A whole number of at least 0.
            lr_schedule_steps: Optimizer steps until a cosine schedule reaches 0. A whole number of
                at least 1, or None.
            max_tokens_per_microbatch: Computed tokens of one forward and backward pass, padding
                included. Bounds memory; the result does not depend on it. A whole number of at
                least 1.
            compute_dtype: Precision of forward and backward passes; bfloat16 is autocast over
                float32 weights. One of 'float32', 'bfloat16'.
            **kwargs: RLlib's own, of which `lr`, `num_epochs`, `grad_clip` and `grad_clip_by`
                apply.

        Returns:
            This config.
        """
        refuse_here(kwargs, "config.training()")
        super().training(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def learners(
        self,
        *,
        attn_implementation: str | None = NotProvided,
        packing: bool | None = NotProvided,
        share_prompts: bool | None = NotProvided,
        activation_checkpointing: bool = NotProvided,
        parallelism: str = NotProvided,
        lora: Mapping[str, Any] | None = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set how learners hold and run the model (docs/learners.md).

        Args:
            attn_implementation: Implementation of attention. A name that transformers knows
                ('sdpa', 'flash_attention_2'), or None for the model's own choice.
            packing: Run the rows of a micro-batch as one, without padding. True or False, or None
                for where the attention has kernels for it.
            share_prompts: Compute tokens that rows share, from their beginning on, once per
                micro-batch. True or False, or None for where it saves a fifth of the tokens and
                the attention can.
            activation_checkpointing: Recompute each layer in the backward pass: less memory, more
                time, the same gradients. True or False.
            parallelism: How several learners share the work: with ddp each holds the whole model,
                with fsdp a share of weights, gradients and optimizer state. One of 'ddp', 'fsdp'.
            lora: Train adapters instead of the weights. A dict of keyword arguments of peft's
                LoraConfig, or None to train all weights.
            **kwargs: RLlib's own.

        Returns:
            This config.
        """
        refuse_here(kwargs, "config.learners()")
        super().learners(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def env_runners(
        self,
        *,
        engine: str = NotProvided,
        engine_config: Mapping[str, Any] = NotProvided,
        weight_transfer: str = NotProvided,
        temperature: float = NotProvided,
        top_p: float = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set how responses are sampled.

        Args:
            engine: What generates the responses (docs/engines.md). One of 'transformers', 'vllm'.
            engine_config: Settings of the engine. A dict of keyword arguments of the engine.
            weight_transfer: How new weights reach the engines: object_store through Ray; nccl from
                GPU to GPU, ipc inside one (engine vllm alone); auto directly where learners and env
                runners have GPUs, else through Ray (docs/engines.md). One of 'auto',
                'object_store', 'nccl', 'ipc'.
            temperature: Sampling temperature; also that of the trained policy's log-probabilities.
                A finite number above 0.
            top_p: Nucleus of the sampling distribution; log-probabilities are those before this
                filter (docs/engines.md, "How tokens are drawn"). In (0, 1].
            **kwargs: RLlib's own; `top_k`, `min_p`, stop texts and penalties are refused.
                `num_envs_per_env_runner` is how many responses a runner verifies
                at the same time; generation is one batch whatever it is. `sample_timeout_s`
                (default None: no limit) is how long the driver waits for the runners' answers:
                one that is silent for longer is ended, and its rollouts are sampled again.

        Returns:
            This config.
        """
        refuse_sampling_options(kwargs, "config.env_runners()")
        super().env_runners(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def evaluation(
        self,
        *,
        held_out_num_samples: int = NotProvided,
        evaluation_sets: Mapping[str, Any] | None = NotProvided,
        demonstration_probes: Mapping[str, int] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set what is evaluated every `evaluation_interval` iterations.

        Args:
            held_out_num_samples: k of avg@k and pass@k of held-out sets: samples per problem beside
                the greedy one. A whole number in [1, 2048].
            evaluation_sets: The sets that are evaluated, and how each is asked: attempts,
                temperature, length, a benchmark (docs/evaluation.md#evaluation-during-training). A
                dict of names to settings of sets, or None for all held-out sets, each with
                `held_out_num_samples`.
            demonstration_probes: Of how many problems of these sets the loss on a demonstration is
                watched; the same problems at every evaluation. A dict of 'train' or names of
                held-out sets to whole numbers of at least 1.
            **kwargs: RLlib's own. `evaluation_num_env_runners` are env runners of their own, beside
                which `evaluation_parallel_to_training` may evaluate during the next iteration;
                `evaluation_config` changes what docs/evaluation.md names.

        Returns:
            This config.
        """
        refuse_here(kwargs, "config.evaluation()")
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
            run_dir: Directory of the run (config, metrics, TensorBoard events, rollouts); under
                Tune always the trial's directory. A path, or None for RLlib's default place.
            progress: Print one line per iteration. True or False, or None for yes, except under
                Tune.
            preflight: Grade all answers and demonstrations before training starts. True or False.
            num_logged_groups: Groups per iteration of which all rollouts are logged with their
                per-token values; prefix rollouts always are. A whole number of at least 0.
            **kwargs: RLlib's own.

        Returns:
            This config.
        """
        super().reporting(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def checkpointing(
        self,
        *,
        every: int | None = NotProvided,
        keep_last: int = NotProvided,
        keep_every: int | None = NotProvided,
        accept_changed: tuple[str, ...] = NotProvided,
        **kwargs: Any,
    ) -> Self:
        """Set when checkpoints are written into the run directory, and which stay.

        Args:
            every: Iterations from one checkpoint in the run directory to the next. A whole number
                of at least 1, or None for none.
            keep_last: How many of the newest checkpoints in the run directory stay. A whole number
                of at least 1.
            keep_every: Checkpoints of iterations that are multiples of it stay for ever. A whole
                number of at least 1, or None for none.
            accept_changed: What may differ from a checkpoint that the run goes on from; all else
                that decides draws or rewards must be the same. What differs is said in a warning. A
                list of names, of data, demonstrations, prompts, verifier, verifier_config, rewards,
                max_response_tokens, cut_prefix_before_answer, end_tokens, model, method, seed,
                group_size, num_problems_per_iteration, max_resampling_rounds, max_weight_staleness,
                engine, temperature, top_p.
            **kwargs: RLlib's own.

        Returns:
            This config.
        """
        super().checkpointing(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def resources(self, *, placement_timeout_s: float | None = NotProvided, **kwargs: Any) -> Self:
        """Set what the run asks of a cluster.

        Args:
            placement_timeout_s: How long to wait for nodes that may still join the cluster, and for
                what others use, before that is an error, in seconds; without limit with a message
                each minute. What a Ray that the driver has started itself does not have is an error
                at once (docs/cluster.md). A finite number of at least 0, or None to wait without
                limit.
            **kwargs: RLlib's own.

        Returns:
            This config.
        """
        super().resources(**kwargs)
        return self._set(locals())

    @override(AlgorithmConfig)
    def update_from_dict(self, config_dict: Mapping[str, Any]) -> Self:
        check_known(self, config_dict.keys())
        return super().update_from_dict(config_dict)

    def _set(self, values: Mapping[str, Any]) -> Self:
        """Assign the arguments of a setter that were given."""
        for name, value in values.items():
            if name in ("self", "kwargs", "__class__") or value is NotProvided:
                continue
            setattr(self, name, dict(value) if isinstance(value, Mapping) else value)
        return self

    @override(AlgorithmConfig)
    def validate(self) -> None:
        """Check settings and combinations; derive what follows from others.

        Raises:
            ValueError: Naming the setting, its value, what is allowed and what to try.
        """
        check_resource_amounts(self)
        check_ranges(self)  # before RLlib's, which compares values of any type and allows others
        self.lr = float(self.lr)  # RLlib takes numpy's numbers for schedules
        if not self.in_evaluation:  # RLlib derives evaluation configs itself, greedy ones too
            check_used(self)
        self.create_local_env_runner = self.num_env_runners == 0
        # RLlib advises every user once to switch its new API stack off, which is not possible here.
        log_once(f"{self.algo_class.__name__}_on_new_api_stack")
        super().validate()
        check_config(self)
