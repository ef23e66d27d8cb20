# What the scripts that start private servers share; sourced, not run.

fail() {
    echo "tests/$(basename "$0"): $*" >&2
    exit 1
}

answers() { # PORT: does anything listen there?
    (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}

free_port() { # below the range the kernel gives to outgoing connections
    local port tries
    for tries in {1..100}; do
        port=$((18000 + RANDOM % 14000))
        answers "$port" || { echo "$port"; return; }
    done
    fail "found no free port in $tries tries"
}

# A process is ours when it is alive and its command line has this word, which names the server: a pid may have been given away since.
is_ours() { # PID WORD
    [ -n "$1" ] && kill -0 "$1" 2>/dev/null || return 1
    [ -r "/proc/$1/cmdline" ] || return 0 # no /proc here: the pid has to do
    tr '\0' ' ' <"/proc/$1/cmdline" | grep -qF -- "$2"
}

# Signals the server whose pid is in a file, with SIGKILL when it has not gone after a while, and waits until it is gone.
end_server() { # FILE WORD SIGNAL
    local pid tries
    pid=$(cat "$1" 2>/dev/null || true)
    for ((tries = 0; tries < 2400; tries++)); do
        is_ours "$pid" "$2" || { rm -f "$1"; return 0; }
        [ "$tries" != 0 ] || kill -s "$3" "$pid" 2>/dev/null || true
        [ "$tries" != 1200 ] || kill -s KILL "$pid" 2>/dev/null || true
        sleep 0.05
    done
    fail "$2 does not end"
}
