"""The benchmark of peak memory, at a smaller size."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "head_logprobs_memory.py"
LOGITS_MIB = 2048 * 40_000 * 4 / 2**20  # 312


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="resident memory is read there")
def test_peak_memory_is_a_few_chunks_instead_of_all_logits():
    def peak_mib(name):
        sizes = ["--num-tokens", "2048", "--vocab-size", "40000", "--hidden-size", "32"]
        command = [sys.executable, str(SCRIPT), "--only", name, *sizes]
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        return float(output.split(",")[4])

    # The plain computation holds logits, their logarithms and both gradients; a chunk has 64 MiB.
    assert peak_mib("plain") > 3 * LOGITS_MIB
    assert peak_mib("chunked") < 7 * 64
