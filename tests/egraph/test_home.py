"""Users without a home folder."""

import os
import subprocess
import sys

PROGRAM = """
import os, pwd
before = dict(os.environ)
pwd.getpwuid = lambda user: {}[user]  # a container whose user has no name
import torch_eqsat.egraph.engine
assert "egglog" in __import__("sys").modules and dict(os.environ) == before
"""


def test_egglog_is_imported():
    """black, which it imports, raised RuntimeError."""
    environment = {k: v for k, v in os.environ.items() if k not in ("HOME", "XDG_CACHE_HOME")}
    environment["PYTHONPATH"] = os.pathsep.join(p for p in sys.path if p)
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
