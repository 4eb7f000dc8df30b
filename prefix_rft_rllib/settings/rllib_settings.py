"""Every setting of RLlib's `AlgorithmConfig`: used here, RLlib's own bookkeeping, or refused.

A setting that would do nothing is an error, not silence. A test compares the three tables with
RLlib's attributes, so that a new version of RLlib brings no setting that is in none of them.
"""

_USED = (
    # resources
    "placement_strategy num_cpus_for_main_process custom_resources_for_main_process local_gpu_idx "
    # environment, env runners
    "env env_config env_runner_cls num_env_runners num_envs_per_env_runner num_cpus_per_env_runner "
    "num_gpus_per_env_runner custom_resources_per_env_runner sample_timeout_s explore "
    "validate_env_runners_after_construction max_requests_in_flight_per_env_runner "
    # learners, training
    "num_learners num_gpus_per_learner num_cpus_per_learner custom_resources_per_learner "
    "max_requests_in_flight_per_learner lr grad_clip grad_clip_by num_epochs log_gradients "
    "learner_config_dict _learner_class _learner_connector _rl_module_spec torch_ddp_kwargs "
    "torch_skip_nan_gradients "
    # callbacks
    "callbacks_class callbacks_on_algorithm_init callbacks_on_env_runners_recreated "
    "callbacks_on_checkpoint_loaded callbacks_on_environment_created callbacks_on_episode_end "
    "callbacks_on_evaluate_start callbacks_on_evaluate_end callbacks_on_sample_end "
    "callbacks_on_train_result "
    # evaluation; those of RLlib's own evaluation are checked apart (`UNUSED_BY_SETS`)
    "evaluation_interval custom_evaluation_function evaluation_config evaluation_duration "
    "evaluation_duration_unit evaluation_num_env_runners evaluation_parallel_to_training "
    "evaluation_sample_timeout_s evaluation_unhealthy_workers_timeout_s "
    "evaluation_auto_duration_min_env_steps_per_sample "
    "evaluation_auto_duration_max_env_steps_per_sample "
    "evaluation_error_after_n_consecutive_skips evaluation_force_reset_envs_before_iteration "
    # reporting, debugging, checkpoints, failures
    "stats_cls_lookup log_level log_sys_usage seed _use_msgpack_checkpoints "
    "restart_failed_env_runners ignore_env_runner_failures max_num_env_runner_restarts "
    "delay_between_env_runner_restarts_s num_consecutive_env_runner_failures_tolerance "
    "env_runner_health_probe_timeout_s env_runner_restore_timeout_s"
)
USED = frozenset(_USED.split())
"""Settings that this project or the parts of RLlib that it runs read."""

_BOOKKEEPING = (
    "algo_class in_evaluation create_local_env_runner _is_frozen _is_online _is_atari "
    "_validate_config _prior_exploration_config _dont_auto_sync_env_runner_states "
    "simple_optimizer input_ policies"
)
BOOKKEEPING = frozenset(_BOOKKEEPING.split())
"""What RLlib sets by itself; `input_` and `policies` are checked by what they mean."""

NO_OBSERVATIONS = "has no effect: observations and actions are token ids, which nothing changes"
REWARDS_STAY = "has no effect: rewards are the verifier's and are trained on as they are"
NO_CONNECTORS = (
    "has no effect: prompts and responses go between environment and engine as token ids. Change "
    "prompts by env_config (docs/problems.md)"
)
ENGINE_SAMPLES = (
    "has no effect: an engine samples the responses. Use config.env_runners(temperature=..., "
    "top_p=...)"
)
WHOLE_RESPONSES = "has no effect: rollouts are whole responses"
NEW_STACK = "belongs to RLlib's old API stack or to TensorFlow, which this algorithm does not have"
NOT_COMPILED = "has no effect: models are not compiled. Leave it out"
ONE_POLICY = "has no effect: one language model is trained"
ONLINE = (
    "has no effect: rollouts are sampled, and demonstrations come with the problems "
    "(env_config['data'])"
)
NO_RECORDING = "has no effect: the run directory has the rollouts (docs/run_directory.md)"
HELD_OUT = "has no effect: held-out problems are evaluated (env_config['held_out_data'])"
MODEL = "has no effect: the model is the one at `model_path`"
DERIVED = "is derived: set `num_problems_per_iteration` instead"
REPEATS = "would repeat an iteration: set `num_problems_per_iteration`"
SET_HERE = "is set by this algorithm and cannot be changed"
OPTIMIZER = (
    "has no effect: the optimizer is AdamW with `lr`, `lr_schedule`, `adam_betas` and "
    "`weight_decay` (config.training)"
)
ONE_STAT = "has no effect: metrics are those of one iteration (docs/run_directory.md)"
SYNCHRONOUS = "has no effect: the learners get each iteration's rows from the driver"
TOKEN_EPISODES = (
    "is never called: a response is sampled as a whole. Use `on_episode_end`, `on_sample_end` or "
    "`on_environment_created`"
)

_BY_REASON = {
    NO_OBSERVATIONS: "observation_space action_space normalize_actions clip_actions "
    "compress_observations observation_filter observation_fn preprocessor_pref action_mask_key "
    "_disable_preprocessor_api _disable_action_flattening update_worker_filter_stats "
    "use_worker_filter_stats sync_filters_on_rollout_workers_timeout_s episodes_to_numpy "
    "episode_lookback_horizon",
    REWARDS_STAY: "clip_rewards",
    NO_CONNECTORS: "_env_to_module_connector _module_to_env_connector "
    "add_default_connectors_to_env_to_module_pipeline "
    "add_default_connectors_to_module_to_env_pipeline merge_env_runner_states "
    "broadcast_env_runner_states use_env_runner_state_server "
    "env_runner_state_server_max_concurrency",
    ENGINE_SAMPLES: "exploration_config",
    WHOLE_RESPONSES: "rollout_fragment_length batch_mode gym_env_vectorize_mode "
    "remote_worker_envs remote_env_batch_wait_ms restart_failed_sub_environments render_env "
    "disable_env_checking create_env_on_local_worker",
    NEW_STACK: "framework_str enable_rl_module_and_learner enable_env_runner_and_connector_v2 "
    "num_gpus _fake_gpus eager_tracing eager_max_retraces tf_session_args local_tf_session_args "
    "enable_tf1_exec_eagerly sample_collector sampler_perf_stats_ema_coef fake_sampler "
    "export_native_model_files checkpoint_trainable_policies_only "
    "_tf_policy_handles_more_than_one_loss _disable_initialize_loss_from_dummy_batch "
    "extra_python_environs_for_driver extra_python_environs_for_worker",
    NOT_COMPILED: "torch_compile_learner torch_compile_learner_what_to_compile "
    "torch_compile_learner_dynamo_backend torch_compile_learner_dynamo_mode torch_compile_worker "
    "torch_compile_worker_dynamo_backend torch_compile_worker_dynamo_mode",
    ONE_POLICY: "policy_map_capacity policy_mapping_fn policies_to_train "
    "policy_states_are_swappable count_steps_by algorithm_config_overrides_per_module "
    "_per_module_overrides",
    ONLINE: "offline_data_class input_read_method input_read_method_kwargs input_read_schema "
    "input_read_episodes input_read_sample_batches input_read_batch_size input_filesystem "
    "input_filesystem_kwargs input_compress_columns input_spaces_jsonable materialize_data "
    "materialize_mapped_data map_batches_kwargs iter_batches_kwargs ignore_final_observation "
    "prelearner_class prelearner_buffer_class prelearner_buffer_kwargs "
    "prelearner_module_synch_period prelearner_use_recorded_module_states "
    "dataset_num_iters_per_learner input_config actions_in_input_normalized postprocess_inputs "
    "shuffle_buffer_size offline_sampling",
    NO_RECORDING: "output output_config output_compress_columns output_max_file_size "
    "output_max_rows_per_file output_write_remaining_data output_write_method "
    "output_write_method_kwargs output_filesystem output_filesystem_kwargs output_write_episodes",
    HELD_OUT: "off_policy_estimation_methods ope_split_batch_by_episode "
    "offline_evaluation_interval num_offline_eval_runners offline_evaluation_type "
    "offline_eval_runner_class offline_loss_for_module_fn offline_evaluation_duration "
    "offline_evaluation_parallel_to_training offline_evaluation_timeout_s "
    "num_cpus_per_offline_eval_runner num_gpus_per_offline_eval_runner "
    "custom_resources_per_offline_eval_runner restart_failed_offline_eval_runners "
    "ignore_offline_eval_runner_failures max_num_offline_eval_runner_restarts "
    "offline_eval_runner_restore_timeout_s max_requests_in_flight_per_offline_eval_runner "
    "validate_offline_eval_runners_after_construction "
    "offline_eval_runner_health_probe_timeout_s offline_eval_rl_module_inference_only "
    "broadcast_offline_eval_runner_states offline_eval_batch_size_per_runner "
    "dataset_num_iters_per_eval_runner callbacks_on_offline_eval_runners_recreated "
    "callbacks_on_evaluate_offline_start callbacks_on_evaluate_offline_end",
    MODEL: "model _model_config",
    DERIVED: "train_batch_size",
    REPEATS: "min_time_s_per_iteration min_train_timesteps_per_iteration "
    "min_sample_timesteps_per_iteration",
    SET_HERE: "add_default_connectors_to_learner_pipeline",
    OPTIMIZER: "optimizer _torch_grad_scaler_class _torch_lr_scheduler_classes",
    ONE_STAT: "keep_per_episode_custom_metrics metrics_episode_collection_timeout_s "
    "metrics_num_episodes_for_smoothing",
    SYNCHRONOUS: "num_aggregator_actors_per_learner max_requests_in_flight_per_aggregator_actor",
    TOKEN_EPISODES: "callbacks_on_episode_created callbacks_on_episode_start "
    "callbacks_on_episode_step",
    "is derived: set `num_problems_per_iteration` (problems over all learners) and `group_size` "
    "instead": "_train_batch_size_per_learner",
    "is derived: set `num_problems_per_minibatch` (problems over all learners) instead": (
        "minibatch_size"
    ),
    "has no effect: the order of minibatches is drawn from `seed`": "shuffle_batch_per_epoch",
    "has no effect: a response has one reward, at its end": "gamma",
    "is one that RLlib itself has given up": "env_task_fn enable_connectors monitor "
    "evaluation_num_episodes metrics_smoothing_episodes timesteps_per_iteration min_iter_time_s "
    "collect_metrics_timeout min_time_s_per_reporting min_train_timesteps_per_reporting "
    "min_sample_timesteps_per_reporting input_evaluation policy_map_cache worker_cls "
    "synchronize_filters enable_async_evaluation custom_async_evaluation_function "
    "_enable_rl_module_api auto_wrap_old_gym_envs always_attach_evaluation_results buffer_size "
    "prioritized_replay learning_starts replay_batch_size replay_sequence_length replay_mode "
    "prioritized_replay_alpha prioritized_replay_beta prioritized_replay_eps "
    "_disable_execution_plan_api",
}

REFUSED = {name: reason for reason, names in _BY_REASON.items() for name in names.split()}
"""Settings that do nothing here, or harm: why, and what to use instead."""

_HOW_MUCH = (
    "`num_samples` and `num_problems` of `evaluation_sets` say how much is evaluated, and all of "
    "it is, however long it takes"
)
_NEVER_SKIPPED = (
    "an evaluation is never skipped: env runners that fail are started again, their attempts are "
    "sampled again, and what is still missing after three rounds is an error"
)
UNUSED_BY_SETS = {
    "evaluation_duration": _HOW_MUCH,
    "evaluation_duration_unit": _HOW_MUCH,
    "evaluation_auto_duration_min_env_steps_per_sample": _HOW_MUCH,
    "evaluation_auto_duration_max_env_steps_per_sample": _HOW_MUCH,
    "evaluation_sample_timeout_s": "env runners are waited for as long as `sample_timeout_s` says "
    "(config.env_runners, or evaluation_config={'sample_timeout_s': ...} for those of evaluations)",
    "evaluation_unhealthy_workers_timeout_s": _NEVER_SKIPPED,
    "evaluation_error_after_n_consecutive_skips": _NEVER_SKIPPED,
    "evaluation_force_reset_envs_before_iteration": "every attempt is an episode of its own",
}
"""Settings of RLlib's own evaluation that those of sets do not use: why, and what does it."""

SAMPLING_OVERRIDES = ("temperature", "top_p")
"""What `evaluation_config` may change of evaluations of sets, whoever answers."""
ENV_RUNNER_OVERRIDES = (
    *("engine_config", "num_envs_per_env_runner", "num_cpus_per_env_runner"),
    *("num_gpus_per_env_runner", "custom_resources_per_env_runner", "sample_timeout_s"),
    *("restart_failed_env_runners", "max_num_env_runner_restarts"),
    *("delay_between_env_runner_restarts_s", "env_runner_health_probe_timeout_s"),
)
"""What it may change of evaluation env runners beside that."""

OLD_HOOK = "is never called: it belongs to RLlib's old API stack"
OFFLINE_HOOK = "is never called: nothing is evaluated offline. Use `on_evaluate_end`"
UNCALLED_HOOKS = {
    **dict.fromkeys(("on_episode_created", "on_episode_start", "on_episode_step"), TOKEN_EPISODES),
    "on_evaluate_offline_start": OFFLINE_HOOK,
    "on_evaluate_offline_end": OFFLINE_HOOK,
    "on_offline_eval_runners_recreated": OFFLINE_HOOK,
    "on_create_policy": OLD_HOOK,
    "on_learn_on_batch": OLD_HOOK,
    "on_postprocess_trajectory": OLD_HOOK,
    "on_sub_environment_created": OLD_HOOK,
    "on_workers_recreated": "is never called. Use `on_env_runners_recreated`",
}
"""Methods of `RLlibCallback` for which there is no moment here, and why."""

OTHER_NAMES = {
    "learning_rate": "lr",
    "batch_size": "num_problems_per_iteration",
    "train_batch": "num_problems_per_iteration",
    "mini_batch_size": "num_problems_per_minibatch",
    "num_generations": "group_size",
    "beta": "kl_coeff",
    "epsilon": "clip_param",
    "model_name": "model_path",
    "epochs": "num_epochs",
    "max_grad_norm": "grad_clip",
}
"""What other libraries call a setting of this one."""
