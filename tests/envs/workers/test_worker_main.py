"""Where worker processes find what they do."""

import subprocess
import sys
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.workers.worker_pool import PoolWork, WorkerPool

WORKER_MAIN = Path(sys.modules[WorkerPool.__module__].__file__).with_name("worker_main.py")
# A module of the standard library is hidden by one of the same name in the script's folder.
WORK = """
import colorsys
from project.basics.text import WORD


def warm_up(settings):
    assert WORD == "found"


def start_worker(settings):
    return lambda job: {"from": colorsys.__file__, "word": WORD}
"""
FAILING = "raise RuntimeError('the package is not to be imported')"


@pytest.fixture(params=["installed", "source tree"])
def layout(request, tmp_path) -> Path:
    """A project's `envs` among its rooms, or beside them; returns the script in it."""
    package = tmp_path / "project"
    envs = (package if request.param == "installed" else tmp_path) / "envs"
    files = {
        package / "__init__.py": FAILING,
        package / "basics" / "__init__.py": "",
        package / "basics" / "text.py": "WORD = 'found'",
        envs / "__init__.py": FAILING,
        envs / "work.py": WORK,
        envs / "workers" / "worker_main.py": WORKER_MAIN.read_text(),
        envs / "workers" / "colorsys.py": FAILING,
    }
    for path, text in files.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return envs / "workers" / "worker_main.py"


@pytest.mark.parametrize("options", [(), ("-I", "-S")])
def test_work_is_found_in_every_layout_without_the_packages_around_it(layout, options, monkeypatch):
    name = f"{WorkerPool.__module__}._WORKER_MAIN"
    monkeypatch.setattr(name, layout)
    work = PoolWork(module="project.envs.work", settings={}, interpreter_options=options)
    pool = WorkerPool(num_workers=1, work=work)
    try:
        answer = pool.run({}, timeout_s=10.0)
    finally:
        pool.close()
    assert answer.status == "done"
    assert answer.value["word"] == "found"
    assert Path(answer.value["from"]).parent == Path(subprocess.__file__).parent
