"""Names that people import before they write a solution, as platforms for code do for them."""

from __future__ import annotations

import importlib
from typing import Any

_MODULES = """
bisect collections copy datetime decimal fractions functools heapq itertools json math operator
os random re statistics string sys time typing
"""
_MEMBERS = {
    "bisect": "bisect_left bisect_right insort",
    "collections": "ChainMap Counter OrderedDict defaultdict deque namedtuple",
    "copy": "deepcopy",
    "dataclasses": "dataclass",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "functools": "cache cmp_to_key lru_cache partial reduce",
    "heapq": "heapify heappop heappush heappushpop heapreplace nlargest nsmallest",
    "itertools": """
        accumulate chain combinations combinations_with_replacement count cycle groupby islice
        pairwise permutations product repeat starmap takewhile zip_longest
    """,
    "math": "ceil comb factorial floor gcd inf isqrt lcm log log2 perm pi sqrt",
    "string": "ascii_lowercase ascii_uppercase",
    "typing": """
        Any Callable DefaultDict Deque Dict FrozenSet Generator Iterable Iterator List Mapping
        NamedTuple Optional Sequence Set Tuple TypeVar Union
    """,
}


def usual_names() -> dict[str, Any]:
    """Return modules and members of the standard library by the names they are used by.

    No name of a builtin is among them; a name that means a module and a member is the module.
    """
    names = {
        name: getattr(importlib.import_module(module), name)
        for module, members in _MEMBERS.items()
        for name in members.split()
    }
    return names | {name: importlib.import_module(name) for name in _MODULES.split()}
