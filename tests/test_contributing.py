"""The worked example in CONTRIBUTING.md works as it is written."""

import math
import re
from pathlib import Path

import pytest
import torch

from prefix_rft_rllib import methods
from prefix_rft_rllib.core.losses import DEFAULT_CLIP, policy_loss
from prefix_rft_rllib.core.token_weights import prepare_weights
from prefix_rft_rllib.methods import PolicyShaped, build
from prefix_rft_rllib.methods.page import methods_page
from tests.algorithm_runs import weights_of
from tests.token_batches import make_columns

pytest_plugins = ("tests.algorithm_fixtures",)

GUIDE = Path(__file__).parents[1] / "CONTRIBUTING.md"
NAME = "shaped_prefix"


def code_block() -> str:
    section = GUIDE.read_text(encoding="utf-8").split("\n## Adding a method\n")[1]
    return re.search(r"^```python\n(.*?)^```$", section, re.MULTILINE | re.DOTALL).group(1)


@pytest.fixture
def example(monkeypatch):
    """The example's function, registered for one test."""
    known = dict(methods.METHODS)
    # The example adds to the copy; the real registry is never touched.
    monkeypatch.setattr(methods, "METHODS", dict(known))
    namespace = {"__name__": "example"}
    exec(code_block(), namespace)
    assert methods.METHODS.keys() - known.keys() == {NAME}
    return namespace[NAME]


def test_the_example_needs_one_import_of_the_package():
    imports = re.findall(r"^(?:from|import) (\S+)", code_block(), re.MULTILINE)
    assert imports == ["prefix_rft_rllib.methods"]


def test_the_example_leaves_the_registry_as_it_was():
    assert NAME not in methods.METHODS


def test_the_example_is_built_by_name_and_prints(example):
    assert build(NAME) == example()
    method = build(NAME, {"gamma": 0.2, "num_schedule_iterations": 7})
    assert method.rules[1].value == PolicyShaped(0.2)
    text = str(method)
    assert text.startswith(f"{NAME}\n")
    assert "imitation: PolicyShaped(gamma=0.2)" in text
    assert "keep TopEntropy(keep_fraction=0.2), scale ConstantLength()" in text
    assert "num_iterations=7" in text
    with pytest.raises(ValueError, match="Unknown key 'gama'"):
        build(NAME, {"gama": 0.2})


def test_the_example_is_documented_as_the_page_needs_it(example):
    page = methods_page({NAME: example})
    assert "| `gamma` | `0.1` | Probability at which a prefix token weighs most. |" in page


def test_at_the_old_policy_the_gradient_of_the_example_is_minus_its_weights(example):
    method = example()
    # Four rollouts; the entropy is highest at row 0, position 3.
    entropies = [[9, 9, 0.5, 2.5, 1.0, 3], [9, 9, 3, 3], [9, 2.0, 0.1, 3], [9, 3, 3, 3]]
    pictures = ["xxpppr", "xxrr", "xppr", "xrrr"]
    columns = make_columns(pictures, [0.5, -0.5, 0.25, -0.25], entropies)
    prepared = prepare_weights(method.rules, columns, max_response_tokens=10)
    weights = prepared.weights(columns.old_logp)
    logp = columns.old_logp.clone().requires_grad_()
    policy_loss(
        weights, logp, columns.old_logp, method.surrogate.completed_by(DEFAULT_CLIP)
    ).loss.backward()
    assert torch.equal(logp.grad, -(weights.policy + weights.imitation))
    # One of 5 prefix tokens is kept, with A = 0.5; the scale is 1 / (4 rollouts * 10 tokens).
    p = math.exp(columns.old_logp[0, 3].item())
    expected = torch.where(columns.is_response, columns.advantage[:, None] / 40, 0.0)
    expected[0, 3] = 0.5 / 40 * 0.1 * p / (p + 0.1) ** 2
    torch.testing.assert_close(-logp.grad, expected, rtol=1e-6, atol=0)


@pytest.mark.integration
@pytest.mark.usefixtures("cluster")
def test_the_example_trains(example, make_config, tmp_path):
    algo = make_config(method=NAME).reporting(run_dir=str(tmp_path)).build_algo()
    assert algo.method == example(num_schedule_iterations=4)
    before = weights_of(algo)
    result = algo.train()
    learner = result["learners"]["default_policy"]
    assert 0 < learner["num_kept_prefix_tokens"] < learner["num_prefix_tokens"]
    assert learner["grad_norm"] > 0
    assert any((before[name] != value).any() for name, value in weights_of(algo).items())
    algo.stop()
