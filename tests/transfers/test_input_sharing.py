"""The handle of shared inputs: where it travels, and where it does not."""

import copy
import pickle
import shutil

import pytest
import ray
from safetensors.torch import load_file, save_file

from prefix_rft_rllib.envs.problems import load_problem_set
from prefix_rft_rllib.transfers.input_sharing import with_shared_inputs

pytest_plugins = ("tests.algorithm_fixtures",)


def problem_set_of(config):
    return load_problem_set(config.token_env_config())


def test_a_run_in_this_process_shares_nothing(make_config, monkeypatch):
    monkeypatch.setattr(ray, "put", None)
    config = make_config()
    assert with_shared_inputs(config, problem_set_of(config)) is config


def test_missing_weights_are_found_before_anything_is_shared(
    make_config, tiny_model_dir, tmp_path, monkeypatch
):
    monkeypatch.setattr(ray, "put", None)
    model_copy = tmp_path / "model"
    shutil.copytree(tiny_model_dir, model_copy)
    tensors = load_file(model_copy / "model.safetensors")
    del tensors["model.norm.weight"]
    save_file(tensors, model_copy / "model.safetensors", metadata={"format": "pt"})
    config = make_config(model_path=str(model_copy)).learners(num_learners=1)
    with pytest.raises(ValueError, match=r"lacks weights of its configuration: \['model.norm"):
        with_shared_inputs(config, problem_set_of(config))


@pytest.mark.integration
def test_the_handle_travels_through_ray_and_into_no_file(cluster, make_config):
    env_config = {"data": "tests.envs.row_makers:rows", "data_config": {"num_rows": 4}}
    plain = make_config(env_config).env_runners(num_env_runners=1).learners(num_learners=1)
    problem_set = problem_set_of(plain)
    config = with_shared_inputs(plain, problem_set)
    assert plain.shared_inputs is None
    assert copy.deepcopy(config).shared_inputs is config.shared_inputs

    def sizes(sent):
        shared = sent.shared_inputs
        shared.receive_problem_sets()
        found = load_problem_set(sent.token_env_config())
        again = pickle.loads(ray.cloudpickle.dumps(sent))  # as a checkpoint does
        facts = (dict(found.train[1].extra), shared.model_config().vocab_size)
        return len(found.train), *facts, again.shared_inputs

    columns = {"summands": [1, 3]}
    expected = (len(problem_set.train), columns, plain.load_model_config().vocab_size, None)
    assert ray.get(ray.remote(sizes).remote(config)) == expected
    assert "shared_inputs" not in config.to_dict()
    assert "shared_inputs" not in config.get_state()
    for dumps in (pickle.dumps, ray.cloudpickle.dumps):
        assert pickle.loads(dumps(config)).shared_inputs is None
        # The problems are not in it: the config is copied and pickled many times.
        assert len(dumps(config)) < len(dumps(plain)) + 200
