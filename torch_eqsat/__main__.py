"""``python -m torch_eqsat``: the command ``torch-eqsat``."""

import sys

from torch_eqsat.tools.cli import main

if __name__ == "__main__":
    sys.exit(main())
