# shellcheck shell=bash
# The set-up that the scripts beside it share: `source launch/setup.sh EXTRAS` goes to the repository
# root, makes .venv there, with dpedf and these extras in it, and puts .venv/bin first on PATH.
#
# What is there already is kept until pyproject.toml changes.  A .venv whose making was interrupted,
# that was moved, or that is of another Python than $PYTHON asks for, is made again.

say() { echo "dpedf: $*" >&2; }
stop() { say "$@" && exit 2; }
recent() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
has() { "$python" -c "import $1" 2>/dev/null; }

there_is() { command -v "$1" >/dev/null; } # macOS has neither timeout nor flock
within() { if there_is timeout; then timeout "$@"; else "${@:2}"; fi; } # SECONDS COMMAND ...

quietly() { # what the command says, only where it fails
    local said
    said=$(DEBIAN_FRONTEND=noninteractive "$@" 2>&1) || { echo "$said" >&2 && exit 1; }
}

choose_python() {
    local candidates=(python3 python3.14 python3.13 python3.12 python3.11)
    [[ -z ${PYTHON:-} ]] || candidates=("$PYTHON")
    for python in "${candidates[@]}"; do
        ! recent "$python" || return 0
    done
    python=${candidates[0]}
    stop "needs Python 3.11 or later; $python is $("$python" -V 2>/dev/null || echo not found)." \
        "Install one, or name it: PYTHON=python3.12 $0"
}

make_venv() {
    choose_python
    if ! has ensurepip && ! has pip; then # as on Debian, which packs both apart from Python
        local package
        package=$("$python" -c 'import sys; print("python%d.%d-venv" % sys.version_info[:2])')
        ((EUID == 0)) || stop "$python has neither ensurepip nor pip: sudo apt-get install $package"
        say "installing $package"
        quietly apt-get update
        quietly apt-get install --yes --no-install-recommends "$package"
    fi
    say "making .venv with $("$python" -V)"
    if has ensurepip; then
        "$python" -m venv --clear .venv
    else
        "$python" -m venv --clear --without-pip .venv
        "$python" -m pip install -qq --target .venv/lib/python3*/site-packages pip
    fi
}

venv_is_whole() {
    [[ $(cat .venv/whole 2>/dev/null) == "$PWD" ]] &&
        .venv/bin/python -c 'import pip' 2>/dev/null &&
        [[ -z ${PYTHON:-} || $("$PYTHON" -V) == $(.venv/bin/python -V) ]]
}

install() {
    local status=0
    say "installing dpedf[$1] into .venv"
    rm -f .venv/whole
    .venv/bin/python -m pip install -qq --editable ".[$1]" || status=$?
    ((status > 1)) || echo "$PWD" >.venv/whole # where pip was killed, it may not be
    ((status == 0)) || exit 1
    cp pyproject.toml ".venv/installed-$1"
}

unset CDPATH
cd -P "$(dirname "${BASH_SOURCE[0]}")/.." || exit
extras=$1

# What another environment left behind would shadow .venv, or send packages elsewhere.
unset PYTHONHOME PYTHONPATH MPI4PY_LIBMPI MPI4PY_MPIABI
export PIP_USER=0 PIP_TARGET='' PIP_PREFIX='' PIP_ROOT='' PIP_DISABLE_PIP_VERSION_CHECK=1

if [[ $(within 30 nvidia-smi 2>/dev/null) =~ CUDA[A-Z\ ]*\ Version:\ *([0-9]+) ]]; then
    case ${BASH_REMATCH[1]} in
        1[3-9]) extras+=,cuda13 ;;
        12) extras+=,cuda12 ;;
        *) say "without GPUs: the driver is for CUDA ${BASH_REMATCH[1]}, expected 12 or later" ;;
    esac
fi

trap 'exit 130' INT
exec 9<.
! there_is flock || flock 9 || true # one at a time, where the file system can tell
venv_is_whole || make_venv
cmp -s pyproject.toml ".venv/installed-$extras" || install "$extras"
exec 9<&-
trap - INT

export VIRTUAL_ENV=$PWD/.venv PATH=$PWD/.venv/bin:$PATH
