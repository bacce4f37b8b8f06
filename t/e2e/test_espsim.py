"""The measurements against simulated mailbox providers, where the simulator is not there."""
import os
import subprocess

import pytest

BENCH = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "bench")


@pytest.mark.parametrize("command", [["espsim-run", "x.json"], ["espsim-all"], ["espsim-all", "--postfix"],
                                     ["espsim-vary", "1", "out"]])
def test_without_the_simulator_they_say_what_is_missing(tmp_path, command):
    environment = {k: v for k, v in os.environ.items() if k != "ESPSIM_DIR"}
    done = subprocess.run([os.path.join(BENCH, command[0]), *command[1:]], cwd=tmp_path, env=environment,
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=60, check=False)
    assert done.returncode != 0 and done.stdout == ""
    assert "set ESPSIM_DIR to its folder" in done.stderr and "Traceback" not in done.stderr
    assert not os.listdir(tmp_path)
