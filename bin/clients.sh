# Clients of other makers that the tests run as they are, each with its own packages in $venv/clients.
# Sourced after environment.sh, POSIX sh. What is installed is told by tests/clients/NAME.

# client_wanted NAME: a digest of what its install depends on.
client_wanted() {
    (
        cd "$checkout/tests/clients/$1"
        case $1 in
            ai) cat package.json package-lock.json ;;
            litellm) cat requirements.lock "$venv/.python" ;;
        esac
    ) | sha256sum
}

client_installed() { [ "$(cat "$venv/clients/$1/.installed" 2>/dev/null)" = "$(client_wanted "$1")" ]; }

# install_client NAME: have it there.
install_client() {
    if client_installed "$1"; then return; fi
    (
        flock -w "$lock_seconds" 9 || fail "another set-up has held $venv.lock for $lock_seconds s: end it, then" \
            "start again"
        if ! client_installed "$1"; then install_client_now "$1"; fi # lock, then look again
    ) 9>>"$venv.lock" || exit
}

install_client_now() {
    say "installing the client $1, which the tests run"
    folder=$venv/clients/$1
    log=$venv.log
    rm -rf "$folder"
    mkdir -p "$folder"
    "fill_$1" >"$log" 2>&1 ||
        fail "the client $1 could not be installed: $(grep -v '^$' "$log" | tail -n 1); see $log"
    client_wanted "$1" >"$folder/.installed" # last: what was interrupted is made anew
    rm -f "$log"
}

fill_ai() {
    cp "$checkout"/tests/clients/ai/package*.json "$folder" &&
        npm ci --prefix "$folder" --ignore-scripts --no-audit --no-fund
}

fill_litellm() {
    "$venv/bin/python" -m venv --without-pip "$folder" &&
        "$venv/bin/python" -m pip --python "$folder/bin/python" --disable-pip-version-check --no-input --quiet \
            install --require-hashes --only-binary :all: -r "$checkout/tests/clients/litellm/requirements.lock"
}
