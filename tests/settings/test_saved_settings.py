"""Settings that cannot be read from a checkpoint are an error that names their file."""

import pickle

import pytest

from prefix_rft_rllib.settings.saved_settings import SETTINGS_FILE, saved_settings


@pytest.mark.parametrize(
    ("data", "cause"),
    [
        (b"", "EOFError"),
        (b"text", "UnpicklingError"),
        (b"cprefix_rft_rllib.metrics\nGone\n.", "AttributeError"),
        (b"cprefix_rft_rllib.gone\nGone\n.", "ModuleNotFoundError"),
        (b"\x80\xff.", "ValueError"),
        (pickle.dumps({"ctor_args_and_kwargs": (1, 2, 3)}), "ValueError"),
        (pickle.dumps({}), "KeyError"),
        (pickle.dumps(None), "TypeError"),
    ],
    ids=["empty", "text", "class", "module", "protocol", "arguments", "keys", "none"],
)
def test_what_cannot_be_read_is_named(tmp_path, data, cause):
    (tmp_path / SETTINGS_FILE).write_bytes(data)
    with pytest.raises(ValueError, match=rf"cannot be read from .*{SETTINGS_FILE} \({cause}\("):
        saved_settings(tmp_path)
