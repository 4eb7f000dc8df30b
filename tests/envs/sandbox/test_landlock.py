"""Files are kept from a process that has restricted itself."""

import os
from pathlib import Path

import pytest

from prefix_rft_rllib.envs.sandbox import landlock, linux

pytestmark = pytest.mark.skipif(landlock.version() == 0, reason="this kernel has no Landlock")


def restricted(tmp_path, action):
    """Run an action in a restricted child; return None or the name of the error it met."""
    (tmp_path / "own").mkdir()
    (tmp_path / "library").mkdir()
    (tmp_path / "library" / "file").write_text("1")
    (tmp_path / "other").write_text("1")
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        outcome = "setup failed"
        try:
            paths = [str(tmp_path / "library"), str(tmp_path / "missing")]
            rules = landlock.make_rules(paths, ["/dev/null"], str(tmp_path / "own"))
            linux.give_up_privileges()
            landlock.restrict(rules)
            try:
                action()
                outcome = ""
            except OSError as error:
                outcome = type(error).__name__
        finally:
            os.write(writer, outcome.encode())
            os._exit(0)
    os.waitpid(child, 0)
    os.close(writer)
    with open(reader) as answer:
        return answer.read() or None


@pytest.mark.parametrize(
    ("action", "expected"),
    [
        (lambda top: (top / "own" / "new").write_text("1"), None),
        (lambda top: (top / "library" / "file").read_text(), None),
        (lambda top: os.listdir(top / "library"), None),
        (lambda top: Path("/dev/null").write_text("1"), None),
        (lambda top: (top / "library" / "file").write_text("2"), "PermissionError"),
        (lambda top: (top / "library" / "new").write_text("1"), "PermissionError"),
        (lambda top: (top / "library" / "file").unlink(), "PermissionError"),
        (lambda top: (top / "other").read_text(), "PermissionError"),
        (lambda top: os.link(top / "other", top / "own" / "link"), "OSError"),
        (lambda top: os.listdir(top), "PermissionError"),
        (lambda top: os.listdir("/proc"), "PermissionError"),
        (lambda top: Path("/dev/shm/landlock_test").touch(), "PermissionError"),
    ],
)
def test_only_what_is_named_can_be_read_and_only_the_own_directory_written(
    tmp_path, action, expected
):
    assert restricted(tmp_path, lambda: action(tmp_path)) == expected


@pytest.mark.parametrize("version", range(1, landlock.version() + 1))
def test_rules_have_the_form_of_every_version(tmp_path, monkeypatch, version):
    monkeypatch.setattr(landlock, "version", lambda: version)
    os.close(landlock.make_rules([str(tmp_path)], ["/dev/null"], str(tmp_path)))
