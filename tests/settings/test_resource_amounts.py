"""Counts of processes and amounts of resources that Ray could not count are errors at once."""

import pytest

from tests.small_configs import config, error_of

NO_AMOUNTS = (-1, None, "1", True, float("nan"), float("inf"))
SETTERS = {
    "num_env_runners": "env_runners",
    "num_learners": "learners",
    "evaluation_num_env_runners": "evaluation",
    "local_gpu_idx": "learners",
    "num_cpus_for_main_process": "resources",
    "num_cpus_per_env_runner": "env_runners",
    "num_cpus_per_learner": "learners",
    "num_gpus_per_env_runner": "env_runners",
    "num_gpus_per_learner": "learners",
}
CUSTOM = {
    "custom_resources_for_main_process": "resources",
    "custom_resources_per_env_runner": "env_runners",
    "custom_resources_per_learner": "learners",
}


def with_setting(name, value):
    settings = config()
    getattr(settings, {**SETTERS, **CUSTOM}[name])(**{name: value})
    return settings


@pytest.mark.parametrize("name", SETTERS)
@pytest.mark.parametrize("value", [*NO_AMOUNTS, 1.5, 1e-5])
def test_a_count_or_an_amount_is_a_number_that_ray_can_count(name, value):
    if value == 1.5 and "cpus" in name:
        with_setting(name, value).validate()
        return
    message = error_of(with_setting(name, value))
    assert f"`{name}` " in message and repr(value) in message
    if "pus_" not in name:
        assert "must be a whole number of at least 0" in message


@pytest.mark.parametrize("name", CUSTOM)
def test_custom_resources_are_a_dict_of_such_numbers(name):
    with_setting(name, {}).validate()
    with_setting(name, {"disk": 0.5, "accelerator_type:A100": 0.001, "rack": 0}).validate()
    for value in (*NO_AMOUNTS, 1e-5):
        assert f"`{name}['disk']`" in error_of(with_setting(name, {"disk": value}))
    settings = config()
    for value in ([], "disk", 3):
        setattr(settings, name, value)
        assert f"`{name}` must be a dict of resources' names" in error_of(settings)
    for resource in ("CPU", "GPU"):
        setattr(settings, name, {resource: 1})
        assert f"has {resource!r}: CPUs and GPUs have settings of their own" in error_of(settings)


def test_memory_is_no_custom_resource_of_an_actor():
    settings = with_setting("custom_resources_per_env_runner", {"memory": 2**30})
    assert "has 'memory': Ray takes no memory" in error_of(settings)


def test_cpus_of_a_learner_may_follow_from_its_gpus():
    with_setting("num_cpus_per_learner", "auto").validate()
    assert "`num_cpus_per_env_runner`" in error_of(with_setting("num_cpus_per_env_runner", "auto"))
