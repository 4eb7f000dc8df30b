"""Imports of the package, read from the source: rooms, modules, circles.

An import inside a function and one for types alone count too: they bind readers as much.
"""

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from prefix_rft_rllib.basics.old_names import MOVED

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = "prefix_rft_rllib"
LOADERS = {"__import__", "import_module", "resolve_name"}


@dataclass(frozen=True)
class House:
    """A source tree with the package in it; `envs/` lies beside the package.

    Attributes:
        root: Folder that holds `prefix_rft_rllib/` and `envs/`.
    """

    root: Path = ROOT

    def files(self) -> list[Path]:
        """All source files of the package; `envs/` once, not through its symlink."""
        link = self.root / PACKAGE / "envs"
        own = [p for p in self.files_of(PACKAGE) if link not in p.parents]
        return own + self.files_of("envs")

    def files_of(self, folder: str) -> list[Path]:
        """Source files of a folder."""
        paths = sorted((self.root / folder).rglob("*.py"))
        assert paths, f"no source in {folder}"
        return paths

    def file_of(self, module: str) -> Path | None:
        """Source file of a module of this package."""
        parts = module.split(".")[1:]
        base = self.root if parts[:1] == ["envs"] else self.root / PACKAGE
        init, flat = base.joinpath(*parts, "__init__.py"), base.joinpath(*parts).with_suffix(".py")
        return next((path for path in (init, flat) if path.is_file()), None)

    def module_of(self, path: Path) -> str:
        """Import path of a source file of the package."""
        parts = path.relative_to(self.root).with_suffix("").parts
        parts = (PACKAGE, *parts) if parts[0] == "envs" else parts
        return ".".join(parts).removesuffix(".__init__")

    def imports_of(self, path: Path, *, executed_only: bool = False) -> frozenset[str]:
        """Modules that a file imports, names of this package resolved to modules."""
        found = set()
        for node in statements(path, executed_only=executed_only):
            if isinstance(node, ast.Import):
                found |= {alias.name for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import, import absolutely"
                names = {f"{node.module}.{alias.name}" for alias in node.names}
                # An old import path counts as the module that it is, so that its use is seen.
                inner = {name for name in names if self.file_of(name) or name in MOVED}
                is_own = node.module.split(".")[0] == PACKAGE
                if not is_own:
                    found.add(node.module)
                    continue
                found |= inner
                if inner != names:
                    found.add(node.module)
            elif not executed_only:
                found |= named_in_calls(node)
        return frozenset(found)

    def graph(self) -> dict[str, set[str]]:
        """By module: the modules of this package that it imports."""
        return {self.module_of(path): own(self.imports_of(path)) for path in self.files()}


def named_in_calls(statement: ast.stmt) -> set[str]:
    """Modules that `import_module("...")` and its like load, where the text stands in the call."""
    found = set()
    for node in expressions(statement):
        if isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = ast.unparse(node.func).rpartition(".")[2]
            if function in LOADERS and isinstance(node.args[0].value, str):
                found.add(node.args[0].value.partition(":")[0])
    return found


def expressions(statement: ast.stmt) -> Iterator[ast.AST]:
    """All nodes of a statement, without the statements in it."""
    waiting: list[ast.AST] = [statement]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += [n for n in ast.iter_child_nodes(node) if not isinstance(n, ast.stmt)]


def is_type_checking(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")


@cache
def parsed(text: str) -> ast.Module:
    """The tree of a source text; files that a test has copied are parsed once."""
    return ast.parse(text)


def statements(path: Path, *, executed_only: bool) -> Iterator[ast.stmt]:
    """All statements of a file; `executed_only`: those that importing it runs."""
    waiting: list[ast.AST] = [parsed(path.read_text(encoding="utf-8"))]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.stmt):
            yield node
        is_function = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if executed_only and (is_function or is_type_checking(node)):
            continue
        waiting += ast.iter_child_nodes(node)


def own(modules: Iterable[str]) -> set[str]:
    """Those of this package."""
    return {module for module in modules if f"{module}.".startswith(f"{PACKAGE}.")}


def third_party(modules: Iterable[str]) -> set[str]:
    """Libraries that the modules belong to, the standard library and this package excepted."""
    tops = {module.split(".")[0] for module in modules}
    return tops - set(sys.stdlib_module_names) - {PACKAGE}


def room_of(module: str) -> str:
    """The room that a module lies in: the first name below the package."""
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else ""


def circles(graph: Mapping[str, set[str]]) -> list[set[str]]:
    """Strongly connected components of more than one module (Tarjan, 1972)."""
    numbers: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: list[set[str]] = []

    def visit(module: str) -> None:
        numbers[module] = lowest[module] = len(numbers)
        path.append(module)
        for other in graph[module]:
            if other not in graph:
                continue
            if other not in numbers:
                visit(other)
                lowest[module] = min(lowest[module], lowest[other])
            elif other in path:
                lowest[module] = min(lowest[module], numbers[other])
        if lowest[module] == numbers[module]:
            component = path[path.index(module) :]
            del path[path.index(module) :]
            if len(component) > 1:
                found.append(set(component))

    for module in graph:
        if module not in numbers:
            visit(module)
    return found
