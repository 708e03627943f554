"""`python -m gazetteer` is the `gazetteer` command."""

import sys

from gazetteer.jobs.cli.main import main

if __name__ == "__main__":
    sys.exit(main())
