#!/usr/bin/env bash
# Runs the tests on this machine, which needs nothing but Python 3.11 or later and a package index.
#
#     ./launch/test.sh [pytest arguments]
#     ./launch/test.sh -m slow
#
# The first run makes .venv.  Paths start from the repository root.  PYTHON=python3.12 chooses the
# Python.
set -euo pipefail

# shellcheck source=launch/setup.sh
source "$(dirname "$0")/setup.sh" mpich,dev
# A file of tests runs as a whole on one core, so that what its tests share is made once.
exec python -m pytest -n auto --dist loadfile "$@"
