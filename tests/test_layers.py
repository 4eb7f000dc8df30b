"""Who may import whom: one rule per room, read from the source.

An import inside a function or for types counts for the layers too; only the test of heavy imports
looks at what importing the package executes.
"""

import ast
import shutil
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.layers import PACKAGE, House, circles, own, room_of, statements, third_party

HOUSE = House()
ALGORITHM, CONFIG = f"{PACKAGE}.prefix_rft", f"{PACKAGE}.prefix_rft_config"
VERIFIER_LIBRARIES = {"math_verify", "latex2sympy2_extended", "sympy", "mpmath"}
HEAVY = {"ray", "torch", "transformers", "tokenizers", "datasets", "vllm", "peft", "scipy"}
HEAVY |= {"huggingface_hub", "pyarrow", *VERIFIER_LIBRARIES}
COMMANDS = {"preflight", "verify", "evaluate", "resume"}


class Rule(NamedTuple):
    """What a room may import.

    Attributes:
        rooms: Other rooms, all of them below it.
        libraries: Beside the standard library.
    """

    rooms: set[str]
    libraries: set[str]


# From the bottom up: a room may name rooms above this line of its own only.
RULES = {
    "basics": Rule(set(), {"huggingface_hub"}),
    "metrics": Rule(set(), set()),
    "processes": Rule(set(), {"ray"}),
    "engines": Rule({"basics"}, {"numpy", "torch", "transformers", "vllm"}),
    "envs": Rule(
        {"basics"},
        {"gymnasium", "jinja2", "numpy", "pyarrow", "tqdm", "datasets"}
        | {"tokenizers", "transformers", *VERIFIER_LIBRARIES},
    ),
    "core": Rule({"basics"}, {"numpy", "torch"}),
    "methods": Rule({"basics", "core"}, set()),
    "models": Rule(
        {"basics", "engines", "core", "envs"},
        {"huggingface_hub", "numpy", "peft", "safetensors", "torch", "transformers"},
    ),
    "rollouts": Rule(
        {"basics", "metrics", "processes", "engines", "envs", "core", "models"},
        {"gymnasium", "numpy", "ray"},
    ),
    "learners": Rule(
        {"basics", "metrics", "processes", "core", "models", "rollouts"},
        {"numpy", "pyarrow", "ray", "torch"},
    ),
    "evaluation": Rule(
        {"basics", "metrics", "engines", "envs", "core", "models", "rollouts"},
        {"lm_eval", "numpy", "ray", "scipy", "tqdm"},
    ),
    "settings": Rule(
        {"basics", "engines", "envs", "core", "methods", "models", "rollouts", "learners"}
        | {"evaluation"},
        {"gymnasium", "numpy", "ray", "transformers"},
    ),
    "iterations": Rule(
        {"basics", "metrics", "envs", "core", "methods", "rollouts", "settings"}, {"ray"}
    ),
    "transfers": Rule(
        {"basics", "processes", "engines", "envs", "methods", "models", "rollouts", "learners"}
        | {"settings", "evaluation"},
        {"ray", "torch"},
    ),
    "runs": Rule(
        {"basics", "metrics", "processes", "envs", "core", "methods", "rollouts", "settings"}
        | {"iterations"},
        {"numpy", "pyarrow", "ray", "tensorboard", "torch"},
    ),
    "reports": Rule({"basics", "metrics", "runs"}, set()),
    "preflight": Rule({"basics", "envs"}, set()),
    "verify": Rule({"basics", "envs"}, {"tqdm"}),
    "prefix_rft_config": Rule({"engines", "methods", "settings", "prefix_rft"}, {"ray"}),
    "prefix_rft": Rule(
        {"metrics", "core", "envs", "rollouts", "settings", "iterations", "transfers", "runs"}
        | {"preflight", "prefix_rft_config"},
        {"ray"},
    ),
    "resume": Rule({"basics", "prefix_rft"}, set()),
    "evaluate": Rule(
        {"basics", "envs", "evaluation", "settings", "transfers", "prefix_rft_config"}, set()
    ),
}


def faults_of(house: House) -> list[str]:
    """What is wrong with the imports of a house."""
    faults = []
    for path in house.files():
        module, imports = house.module_of(path), house.imports_of(path)
        if module == PACKAGE:
            continue  # its names load at first use
        room = room_of(module)
        if room not in RULES:
            faults.append(f"{module}: no rule for the room {room!r}")
            continue
        rule = RULES[room]
        outside = {m for m in own(imports) if room_of(m) not in rule.rooms | {room}}
        foreign = third_party(imports) - rule.libraries
        unknown = {m for m in own(imports) if house.file_of(m) is None}
        faults += [f"{module} imports {m}" for m in sorted(outside | foreign | unknown)]
    for circle in circles(house.graph()):
        if circle != {ALGORITHM, CONFIG}:
            faults.append(f"circle: {sorted(circle)}")
    return faults


def test_every_import_follows_the_rule_of_its_room():
    assert faults_of(HOUSE) == []


def test_the_rules_run_downwards():
    rooms = list(RULES)
    for number, (room, rule) in enumerate(RULES.items()):
        above = rule.rooms - set(rooms[:number])
        # RLlib's own pair: an algorithm's class and the class of its settings name each other.
        assert above == ({"prefix_rft"} if room == "prefix_rft_config" else set()), room


def test_rules_allow_no_more_than_is_used():
    for room, rule in RULES.items():
        imports = {
            module
            for path in HOUSE.files()
            if room_of(HOUSE.module_of(path)) == room
            for module in HOUSE.imports_of(path)
        }
        assert rule.rooms == {room_of(m) for m in own(imports)} - {room}, room
        assert rule.libraries == third_party(imports), room


@pytest.fixture
def copy(tmp_path) -> House:
    """A copy of the source that a test may spoil."""
    shutil.copytree(HOUSE.root / PACKAGE, tmp_path / PACKAGE, symlinks=True)
    shutil.copytree(HOUSE.root / "envs", tmp_path / "envs")
    return House(tmp_path)


PLANTED = {
    "up": ("core/advantages.py", "from prefix_rft_rllib.methods import Method"),
    "up in a function": ("models/lora.py", "def f():\n    import prefix_rft_rllib.prefix_rft"),
    "up for types": (
        "rollouts/runner_engine.py",
        "if TYPE_CHECKING:\n    from prefix_rft_rllib.prefix_rft_config import PrefixRFTConfig",
    ),
    "to a lower room that it has no use for": (
        "reports/rollout_log.py",
        "from prefix_rft_rllib.core import losses",
    ),
    "up by the package": (
        "core/advantages.py",
        "def f():\n    from prefix_rft_rllib import PrefixRFT",
    ),
    "up by a star": ("core/advantages.py", "from prefix_rft_rllib.methods import *"),
    "up where it may fail": (
        "core/advantages.py",
        "try:\n    import prefix_rft_rllib.methods\nexcept ImportError:\n    pass",
    ),
    "up unless for types": (
        "core/advantages.py",
        "if TYPE_CHECKING:\n    pass\nelse:\n    import prefix_rft_rllib.methods",
    ),
    "up by name": (
        "core/advantages.py",
        'def f():\n    return importlib.import_module("prefix_rft_rllib.methods.method")',
    ),
    "up by __import__": ("core/advantages.py", 'x = [__import__("prefix_rft_rllib.methods")]'),
    "an old path": (
        "rollouts/runner_engine.py",
        "def f():\n    from prefix_rft_rllib.engines import weights",
    ),
    "a library": ("core/advantages.py", "import ray"),
    "a library by name": ("core/advantages.py", 'ray = import_module("ray")'),
    "a circle in a room": (
        "basics/text.py",
        "def f():\n    from prefix_rft_rllib.basics import text_of_planted_circle",
    ),
    "a module without a rule": ("planted.py", "import os"),
    "a room without a rule": ("planted/inner.py", "import os"),
}


@pytest.mark.parametrize("kind", PLANTED)
def test_a_planted_violation_is_found(kind, copy):
    name, line = PLANTED[kind]
    path = copy.root / PACKAGE / name
    path.parent.mkdir(exist_ok=True)
    text = path.read_text() if path.exists() else ""
    path.write_text(f"{text}\n{line}\n")
    other = copy.root / PACKAGE / "basics" / "text_of_planted_circle.py"
    other.write_text("from prefix_rft_rllib.basics import text\n")
    faults = faults_of(copy)
    assert len(faults) >= 1
    module = f"{PACKAGE}.{name.removesuffix('.py').replace('/', '.')}"
    assert any(module in fault for fault in faults), faults


def test_a_planted_circle_between_environments_is_found(copy):
    path = copy.root / "envs" / "rows" / "messages.py"
    path.write_text(f"{path.read_text()}\nimport prefix_rft_rllib.envs.rows.row_forms\n")
    assert any("circle" in fault and "row_forms" in fault for fault in faults_of(copy))


def test_the_sandbox_needs_its_worker_processes_and_nothing_else():
    for folder, allowed in (
        ("envs/sandbox", {f"{PACKAGE}.envs.sandbox", f"{PACKAGE}.envs.workers.worker_pool"}),
        ("envs/workers", set()),
    ):
        for path in HOUSE.files_of(folder):
            imports = HOUSE.imports_of(path)
            others = {m for m in own(imports) if not m.startswith(tuple(allowed))}
            assert not others | third_party(imports), path


def test_the_package_imports_no_example_benchmark_or_test():
    for path in HOUSE.files():
        tops = {module.split(".")[0] for module in HOUSE.imports_of(path)}
        assert not tops & {"tuned_examples", "benchmarks", "tests"}, path


# Rooms that what a user writes may import; the others may change at any time.
PUBLIC = {"", "envs", "engines", "evaluation", "methods", "metrics", "prefix_rft"}
PUBLIC |= {"prefix_rft_config", "preflight", "reports", "runs", "verify", "evaluate", "core"}


@pytest.mark.parametrize("folder", ["tuned_examples", "benchmarks"])
def test_examples_and_benchmarks_use_no_private_names(folder):
    # Benchmarks measure single functions, those of inner rooms too.
    allowed = PUBLIC - {"core"} if folder == "tuned_examples" else PUBLIC | set(RULES)
    for path in HOUSE.files_of(folder):
        private = [m for m in own(HOUSE.imports_of(path)) if room_of(m) not in allowed]
        assert not private, f"{path.relative_to(HOUSE.root)} imports {private}"
        for node in statements(path, executed_only=False):
            if isinstance(node, ast.ImportFrom) and node.module.startswith(PACKAGE):
                assert not [a.name for a in node.names if a.name.startswith("_")], path


def modules_loaded_by(module: str) -> set[str]:
    """Modules that importing one module loads, as far as the source of this package tells."""
    loaded: set[str] = set()
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in loaded:
            continue
        loaded.add(name)
        if name.split(".")[0] == PACKAGE and (path := HOUSE.file_of(name)):
            waiting += HOUSE.imports_of(path, executed_only=True)
            waiting += [name.rsplit(".", 1)[0]] if "." in name else []
    return loaded


@pytest.mark.parametrize("name", ["", "envs", "reports", *COMMANDS])
def test_importing_the_doors_loads_no_heavy_library(name):
    module = f"{PACKAGE}.{name}" if name else PACKAGE
    loaded = modules_loaded_by(module)
    assert f"{PACKAGE}.envs.token_env" in loaded, "the walk must follow imports"
    heavy = {m for m in loaded if m.split(".")[0] in HEAVY}
    assert not heavy


def test_importing_the_package_loads_none_of_its_commands():
    # Python warns about `python -m` of a module that its package has imported.
    commands = [p for p in HOUSE.files() if 'if __name__ == "__main__"' in p.read_text()]
    assert len(commands) >= 3
    loaded = {HOUSE.file_of(module) for module in own(modules_loaded_by(PACKAGE))}
    assert not loaded & set(commands)


def test_the_doors_are_all_that_lies_at_the_top():
    doors = {path.stem for path in (HOUSE.root / PACKAGE).glob("*.py")} - {"__init__"}
    assert doors == {"metrics", "prefix_rft", "prefix_rft_config", *COMMANDS}
    assert all(Path(path).suffix == ".py" for path in HOUSE.files())
