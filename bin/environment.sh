# What the programs in bin/ share; sourced by them, POSIX sh. Sets up the virtual environment.
#
# In the virtual environment, three files of ours say how far it has come:
#   .python              the Python that it was made with, as called and its file; there once pip works
#   .installing          packages are being installed; if that was interrupted, all is made anew
#   .installed-KIND      a digest of what was installed from; KIND is service or test

# The checkout, also when the program was called through a symbolic link.
checkout=$(cd -P "$(dirname "$(readlink -f "$0")")/.." && pwd)
venv=${ASR_VENV:-$checkout/.venv}
case $venv in /*) ;; *) venv=$PWD/$venv ;; esac

setup_failed=69   # the exit code; EX_UNAVAILABLE of sysexits.h
lock_seconds=1800 # how long another set-up may take, on a slow network

say() { echo "asrsvc: $*" >&2; }

fail() {
    say "$*"
    exit "$setup_failed"
}

# Set $python to a Python that the lock files are made for, and $version to its version.
find_python() {
    if [ -n "${ASR_PYTHON:-}" ]; then set -- "$ASR_PYTHON"
    else set -- python3.14 python3.13 python3.12 python3.11 python3; fi
    rejected=
    for candidate; do
        python=$(command -v "$candidate") || continue
        # a version manager's stand-in may be found and still not run, so ask it
        version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || continue
        case $version in
            3.11 | 3.12 | 3.13 | 3.14) return ;;
            *) rejected="${rejected:+$rejected, }$candidate is $version" ;;
        esac
    done
    fail "no Python from 3.11 to 3.14 found (${rejected:-none of these runs: $*}): install one (on" \
        "Debian: apt-get install python3 python3-venv) or name one (ASR_PYTHON=/path/to/python3.12)"
}

# wanted KIND: a digest of what an install depends on. The tests' packages are the service's, in
# the same versions, and more: a change for the tests alone leaves the service's digest as it is.
wanted() {
    (
        cd "$checkout"
        echo "$checkout"
        cat requirements-build.lock requirements.lock setup.cfg pyproject.toml
        if [ "$1" = test ]; then cat requirements-test.lock; fi
    ) | sha256sum
}

# Whether the virtual environment is whole, made with the Python that was asked for, and still of
# that Python: an upgrade of the system may have put another one behind the same name.
usable() {
    [ -x "$venv/bin/python" ] && [ -e "$venv/.python" ] && [ ! -e "$venv/.installing" ] || return 1
    { read -r made_with && read -r real; } <"$venv/.python" || return 1
    [ "$(readlink -f "$venv/bin/python")" = "$real" ] || return 1
    [ -z "${ASR_PYTHON:-}" ] || [ "$(command -v "$ASR_PYTHON")" = "$made_with" ]
}

# installed KIND: whether the packages are there.
installed() { usable && [ "$(cat "$venv/.installed-$1" 2>/dev/null)" = "$(wanted "$1")" ]; }

# install KIND: have the packages there.
install() {
    if installed "$1"; then return; fi
    command -v flock >/dev/null || fail "flock is needed: install it (on Debian: apt-get install util-linux)"
    if ! { mkdir -p "$venv" && [ -w "$venv" ] && : >>"$venv.lock"; } 2>/dev/null; then
        fail "$venv (for the packages) or $venv.lock cannot be written: name another folder, as in" \
            "ASR_VENV=\$HOME/asrsvc-venv"
    fi
    (
        if ! flock -n 9; then
            say "waiting for another set-up of $venv"
            flock -w "$lock_seconds" 9 || fail "another set-up has held $venv.lock for" \
                "$lock_seconds s: end it, then start again"
        fi
        if ! installed "$1"; then install_now "$1"; fi # lock, then look again
    ) 9>>"$venv.lock" || exit
}

install_now() {
    began=$(date +%s)
    log=$venv.log
    find_python
    usable && "$venv/bin/python" -c '' 2>/dev/null || make_venv
    say "installing packages (a few minutes on a slow network)"
    : >"$venv/.installing"
    rm -f "$venv"/.installed-*
    lock=requirements.lock
    if [ "$1" = test ]; then lock=requirements-test.lock; fi
    # jieba, pure Python, is the only one without a wheel. On a machine for which another has no
    # wheel this fails at once, instead of looking for compilers.
    pip_install --only-binary :all: --no-binary jieba --require-hashes -r "$checkout/$lock"
    pip_install --no-deps --editable "$checkout"
    wanted service >"$venv/.installed-service"
    if [ "$1" = test ]; then wanted test >"$venv/.installed-test"; fi
    sync "$venv" 2>/dev/null || sync # what .installing guards, on disk first
    rm -f "$venv/.installing" "$log"
    say "installed in $(($(date +%s) - began)) s"
}

make_venv() {
    "$python" -c 'import venv, ensurepip' 2>/dev/null ||
        fail "$python has no venv module: install it, on Debian with: apt-get install python$version-venv"
    say "making $venv with Python $version"
    "$python" -m venv --clear "$venv" >"$log" 2>&1 ||
        fail "$venv could not be made ($(tail -n 1 "$log")): see $log"
    pip_install --require-hashes -r "$checkout/requirements-build.lock"
    printf '%s\n' "$python" "$(readlink -f "$venv/bin/python")" >"$venv/.python"
}

pip_install() {
    if ! "$venv/bin/python" -m pip --disable-pip-version-check --no-input --quiet \
        install --no-build-isolation "$@" >"$log" 2>&1; then
        reason=$(sed -n 's/^ERROR: //p' "$log" | tail -n 1)
        if grep -qE 'ConnectionError|NameResolution|ConnectTimeout|ProxyError|ReadTimeout' "$log"; then
            reason="the package index cannot be reached"
        fi
        fail "the packages could not be installed: ${reason:-$(tail -n 1 "$log")}. Behind a proxy set" \
            "HTTPS_PROXY; for a mirror PIP_INDEX_URL; for a folder of wheels PIP_NO_INDEX=1 and" \
            "PIP_FIND_LINKS. What pip said is in $log"
    fi
}
