"""Who may import whom: the layers of the package, read from the source.

An import inside a function counts for the layers too; only the test of heavy imports looks at what
importing the package executes.
"""

import ast
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "prefix_rft_rllib"
FOLDERS = ("core", "methods", "engines", "envs", "connectors", "torch")
RUNNER = (
    "token_env_runner",
    "runner_engine",
    "runner_device",
    "engine_failures",
    "weight_transfer_choice",
)
VERIFIER_LIBRARIES = {"math_verify", "latex2sympy2_extended", "sympy", "mpmath"}
HEAVY = {"transformers", "tokenizers", "datasets", "vllm", "peft", *VERIFIER_LIBRARIES}


def files_of(folder: str) -> list[Path]:
    paths = sorted((ROOT / folder).rglob("*.py"))
    assert paths, f"no source in {folder}"
    return paths


def file_of(module: str) -> Path | None:
    """Source file of a module of this package; `envs/` lies beside the package."""
    parts = module.split(".")[1:]
    base = ROOT if parts[:1] == ["envs"] else ROOT / PACKAGE
    for path in (base.joinpath(*parts, "__init__.py"), base.joinpath(*parts).with_suffix(".py")):
        if path.is_file():
            return path
    return None


def is_type_checking(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


def statements(path: Path, *, executed_only: bool) -> Iterator[ast.stmt]:
    """All statements of a file; `executed_only`: those that importing it runs."""
    waiting: list[ast.AST] = [ast.parse(path.read_text())]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if executed_only and (is_function or is_type_checking(node)):
            continue
        waiting += ast.iter_child_nodes(node)


@cache
def imports_of(path: Path, executed_only: bool = False) -> frozenset[str]:
    """Modules that a file imports, names of this package resolved to modules."""
    found = set()
    for node in statements(path, executed_only=executed_only):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import, import absolutely"
            found.add(node.module)
            if node.module.split(".")[0] == PACKAGE:
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                found |= {name for name in names if file_of(name)}
    return frozenset(found)


def third_party(modules: frozenset[str]) -> set[str]:
    tops = {module.split(".")[0] for module in modules}
    return tops - set(sys.stdlib_module_names) - {PACKAGE}


def own(modules: frozenset[str]) -> set[str]:
    return {module for module in modules if module.startswith(f"{PACKAGE}.")}


def is_in(module: str, names: set[str]) -> bool:
    return any(f"{module}.".startswith(f"{PACKAGE}.{name}.") for name in names)


def assert_layer(paths: list[Path], *, libraries: set[str], rooms: set[str]) -> None:
    """Every import of the files is one of the libraries or rooms of this package."""
    for path in paths:
        modules = imports_of(path)
        foreign = third_party(modules) - libraries
        assert not foreign, f"{path.relative_to(ROOT)} imports {sorted(foreign)}"
        outside = {module for module in own(modules) if not is_in(module, rooms)}
        assert not outside, f"{path.relative_to(ROOT)} imports {sorted(outside)}"


def test_core_imports_torch_and_numpy_only():
    assert_layer(files_of(f"{PACKAGE}/core"), libraries={"torch", "numpy"}, rooms={"core"})


def test_engines_import_no_other_room_and_no_ray():
    libraries = {"torch", "numpy", "transformers", "vllm"}
    assert_layer(files_of(f"{PACKAGE}/engines"), libraries=libraries, rooms={"engines"})


def test_environments_import_no_ray_no_torch_and_no_other_room():
    libraries = {"gymnasium", "jinja2", "numpy", "pyarrow", "tqdm", *HEAVY} - {"vllm"}
    assert_layer(files_of("envs"), libraries=libraries, rooms={"envs", "hub_models"})


@pytest.mark.parametrize("folder", ["connectors", "torch"])
def test_learner_side_knows_no_environment_engine_or_method(folder):
    rooms = {"core", "connectors", "torch", "metrics", "prefix_rft_learner", "hub_models"}
    libraries = {"torch", "numpy", "ray", "pyarrow", "peft", "safetensors", "transformers"}
    libraries |= {"huggingface_hub"}
    assert_layer(files_of(f"{PACKAGE}/{folder}"), libraries=libraries, rooms=rooms)


def test_framework_free_learner_knows_connectors_only():
    path = ROOT / PACKAGE / "prefix_rft_learner.py"
    assert_layer([path], libraries={"ray"}, rooms={"core", "connectors"})


def test_env_runner_knows_neither_learner_nor_methods():
    paths = [ROOT / PACKAGE / f"{name}.py" for name in RUNNER]
    rooms = {"core", "engines", "envs", "connectors", "metrics", *RUNNER}
    assert_layer(paths, libraries={"gymnasium", "numpy", "ray"}, rooms=rooms)


def test_statistics_are_numpy_and_scipy_alone():
    names = {"evaluation_statistics", "paired_tests", "score_checks"}
    paths = [ROOT / PACKAGE / f"{name}.py" for name in sorted(names)]
    assert_layer(paths, libraries={"numpy", "scipy"}, rooms=names)


def test_methods_are_made_of_core_pieces_only():
    assert_layer(files_of(f"{PACKAGE}/methods"), libraries=set(), rooms={"core", "methods"})


def test_the_package_imports_no_example_benchmark_or_test():
    for folder in (PACKAGE, "envs"):
        for path in files_of(folder):
            tops = {module.split(".")[0] for module in imports_of(path)}
            assert not tops & {"tuned_examples", "benchmarks", "tests"}, path


@pytest.mark.parametrize("folder", ["tuned_examples", "benchmarks"])
def test_examples_and_benchmarks_use_no_private_names(folder):
    inner = {"connectors", "torch", "groups", "rollout_report", "setup_checks", "user_view"}
    if folder == "tuned_examples":
        inner.add("core")  # benchmarks measure single functions of it
    # The rows of an update, for the benchmark of the learner.
    allowed = {f"{PACKAGE}.connectors.episodes"} if folder == "benchmarks" else set()
    for path in files_of(folder):
        private = [m for m in own(imports_of(path)) if is_in(m, inner) and m not in allowed]
        assert not private, f"{path.relative_to(ROOT)} imports {private}"
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
        if name.split(".")[0] == PACKAGE and (path := file_of(name)):
            waiting += imports_of(path, executed_only=True)
            waiting += [name.rsplit(".", 1)[0]] if "." in name else []
    return loaded


def test_importing_the_package_loads_no_heavy_library():
    loaded = modules_loaded_by(PACKAGE)
    assert f"{PACKAGE}.envs.token_env" in loaded, "the walk must follow imports"
    assert not {module for module in loaded if module.split(".")[0] in HEAVY}


def test_every_folder_of_the_package_has_a_rule():
    folders = {path.parent.name for path in (ROOT / PACKAGE).glob("*/__init__.py")}
    assert folders == set(FOLDERS)


def test_importing_the_package_loads_none_of_its_commands():
    # Python warns about `python -m` of a module that its package has imported.
    paths = [path for folder in (PACKAGE, "envs") for path in files_of(folder)]
    commands = [path for path in paths if 'if __name__ == "__main__"' in path.read_text()]
    assert len(commands) >= 3
    loaded = {file_of(module) for module in own(frozenset(modules_loaded_by(PACKAGE)))}
    assert not loaded & set(commands)
