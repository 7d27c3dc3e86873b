"""`python -m asrsvc.release.cli`, which bin/swap-model calls."""

import sys

from asrsvc.release.cli.main import main

sys.exit(main())
