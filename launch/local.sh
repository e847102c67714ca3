#!/usr/bin/env bash
# Trains on this machine, which needs nothing but Python 3.11 or later and a package index.
#
#     ./launch/local.sh [-n RANKS] CONFIG [section.key=value ...] [--resume] [--overwrite]
#     ./launch/local.sh -n 4 configs/digits.toml train.epochs=5
#
# The first run makes .venv, and the data file where it is missing; later ones start at once.
# RANKS is 1 by default.  Paths in a config or an override start from the repository root.
# PYTHON=python3.12 chooses the Python.
set -euo pipefail

unset CDPATH
script=$0
while [[ -L $script ]]; do # behind a link; macOS has no realpath
    target=$(readlink "$script")
    [[ $target == /* ]] || target=$(dirname "$script")/$target
    script=$target
done
root=$(cd -P "$(dirname "$script")/.." && pwd)
ranks=1
if [[ ${1:-} == -n ]]; then
    ranks=${2:-}
    shift $(($# < 2 ? 1 : 2))
fi
config=${1:-}
[[ $ranks =~ ^[1-9][0-9]*$ ]] || echo "-n $ranks, expected a number of ranks from 1 on" >&2
if [[ ! $ranks =~ ^[1-9][0-9]*$ || -z $config || $config == -* ]]; then
    sed -n '2,/^set/s/^# \{0,1\}//p' "$0" >&2
    exit 2
fi
shift
if [[ -f $config ]]; then # from the root, where the job runs
    config=$(cd -P "$(dirname "$config")" && pwd)/$(basename "$config")
    config=${config#"$root/"}
fi

here=$PWD entered=${VIRTUAL_ENV:-}
# shellcheck source=launch/setup.sh
source "$root/launch/setup.sh" mpich

# What a run says last begins with this, for a shell in which there is no dpedf yet.
if [[ $entered != "$VIRTUAL_ENV" ]]; then
    DPEDF_ENTER="source .venv/bin/activate"
    [[ $here -ef $root ]] || DPEDF_ENTER="cd $(printf %q "$root"); $DPEDF_ENTER"
    export DPEDF_ENTER
fi

# The data file that dpedf.train would read; it is the one to tell what is wrong with a config.
data=$(
    python - "$config" "$@" 2>/dev/null <<'END' || true
import sys
from dpedf.run.command_line import from_command_line
print(from_command_line(sys.argv[1:])[1].data.file)
END
)
recipe=${data%.h5}.py
if [[ $data == data/*.h5 && ! -e $data && -f $recipe ]]; then
    say "python $recipe"
    python "$recipe"
fi

job=(mpirun -n "$ranks" python -m dpedf.train "$config" "$@")
say "${job[@]}"
exec "${job[@]}"
