# shellcheck shell=bash
# Shared by the runners of this folder; sourced, not run. A runner answers to
#   start LISTEN_PORT SINK_PORT   prints one JSON line: name, addr, pid, cgroup
#   stop | pids | exec CMD...     (exec: inside its mount namespace)
# and needs root; nothing is installed, everything is in a private mount
# namespace and a cgroup. The caller sets `name` and defines up LISTEN SINK,
# which ends in `launch PORT SCRIPT`.
#   BENCH_DIR, BENCH_SPOOL  work folder; folder on the disk to measure
#   MODE   relay: deliver; queue: accept and hold; defer: accept, next hop down
#   PROCS  concurrency in and out, default 100;  LOG=0  no log
#   KEEP_SPOOL=1  start on the spool of the run before
#   AUTH=1  clients have TLS from the first byte and log in (bench@src.bench.test,
#          password bench); Postern: AUTH to keyd and quota, Postfix: to Dovecot
#   ACCOUNTS=1  Postern: what comes from mynetworks belongs to an account with a plan
#   SHAPING=1  Postern: rules and limits of etc/providers.conf are in use
#   EXTRA  lines added to main.cf
#   SLOW_SYNC=1  every flush of the disk takes 5 ms longer (slow-sync.so of
#          POSTERN_BUILD, preloaded in the namespace)
BENCH_DIR=${BENCH_DIR:-${TMPDIR:-/tmp}/relay-bench}
BENCH_SPOOL=${BENCH_SPOOL:-$BENCH_DIR/spool}
MODE=${MODE:-relay} PROCS=${PROCS:-100} LOG=${LOG:-1}
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
dir=$BENCH_DIR/$name
state=$dir/state
AUTH=${AUTH:-0} ACCOUNTS=${ACCOUNTS:-0} SHAPING=${SHAPING:-0} LOGIN=bench@src.bench.test PASSWORD=bench
export BENCH_DIR BENCH_SPOOL

die() { echo "run-$name: $*" >&2; exit 1; }
value() { sed -n "s/^$1=//p" "$state" 2>/dev/null; }
alive() { [ -n "$1" ] && kill -0 "$1" 2>/dev/null; }
answers() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

tree() { # the process and all below it
    local child
    echo "$1"
    for child in $(cat /proc/"$1"/task/*/children 2>/dev/null); do tree "$child"; done
}

members() {
    local cg pid
    cg=$(value cgroup) pid=$(value pid)
    if [ -n "$cg" ]; then cat "$cg/cgroup.procs" 2>/dev/null
    elif alive "$pid"; then tree "$pid"; fi
}

# accounts DIR NAME...: passwd and group in DIR with these system users added.
accounts() {
    local to=$1 id=64200 user
    shift
    cp /etc/passwd "$to/passwd"
    cp /etc/group "$to/group"
    for user in "$@"; do
        sed -i "/^$user:/d" "$to/passwd" "$to/group"
        echo "$user:x:$id:$id::/nonexistent:/usr/sbin/nologin" >> "$to/passwd"
        echo "$user:x:$id:" >> "$to/group"
        id=$((id + 1))
    done
}

# preload ETC: makes ETC, which is laid over /etc, slow the disk down if SLOW_SYNC
# says so.
preload() {
    local library
    library=$(realpath "${POSTERN_BUILD:-$root/build}")/t/slow-sync.so
    mkdir -p "$1"
    rm -f "$1/ld.so.preload"
    [ "${SLOW_SYNC:-0}" = 1 ] || return 0
    [ -r "$library" ] || die "no $library: build first, or set POSTERN_BUILD"
    echo "$library" > "$1/ld.so.preload"
}

# certificate DIR: DIR/chain.pem, an ECDSA key (P-256) with its certificate.
certificate() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
        -subj /CN=relay.bench.test -addext subjectAltName=DNS:relay.bench.test \
        -keyout "$1/key.pem" -out "$1/cert.pem" 2>/dev/null || die "openssl makes no certificate"
    cat "$1/key.pem" "$1/cert.pem" > "$1/chain.pem"
    chmod 600 "$1/chain.pem" "$1/key.pem"
}

# launch PORT SCRIPT: runs SCRIPT (it ends in exec) in the namespace and the
# cgroup; waits until PORT answers.
launch() {
    local port=$1 script=$2 cg='' top pid i
    top=$(awk '$3 == "cgroup2" { print $2; exit }' /proc/mounts)
    if [ -n "$top" ] && [ -w "$top/cgroup.procs" ]; then
        cg=$top/relay-bench-$name
        rmdir "$cg" 2>/dev/null
        mkdir -p "$cg" || cg=''
    fi
    cg=$cg dir=$dir script=$script setsid unshare -m --propagation private bash -c '
        [ -z "$cg" ] || echo $$ > "$cg/cgroup.procs"
        set -e
        ulimit -n "$(ulimit -Hn)"
        eval "$script"' </dev/null >"$dir/out" 2>&1 &
    pid=$!
    printf 'pid=%s\ncgroup=%s\n' "$pid" "$cg" > "$state"
    for ((i = 0; i < ${START_WAIT:-600}; i++)); do
        if answers "$port"; then
            printf '{"name": "%s", "addr": "127.0.0.1:%s", "pid": %s, "cgroup": "%s"}\n' \
                "$name" "$port" "$pid" "$cg"
            return 0
        fi
        alive "$pid" || break
        sleep 0.1
    done
    tail -5 "$dir/out" >&2
    stop
    die "$name did not come up; see $dir"
}

stop() { # TERM to the first process, then to all, then KILL; by process ID
    local pid cg i p
    pid=$(value pid) cg=$(value cgroup)
    [ -n "$pid" ] || return 0
    kill -TERM "$pid" 2>/dev/null
    for ((i = 0; i < 100; i++)); do
        [ -n "$(members)" ] || break
        if [ "$i" = 50 ]; then for p in $(members); do kill -TERM "$p" 2>/dev/null; done; fi
        if [ "$i" -ge 80 ]; then for p in $(members); do kill -KILL "$p" 2>/dev/null; done; fi
        sleep 0.1
    done
    [ -z "$cg" ] || rmdir "$cg" 2>/dev/null
    rm -f "$state"
}

runner() {
    local p
    case ${1:-} in
    start)
        [ $# = 3 ] || die "usage: run-$name start LISTEN_PORT SINK_PORT"
        [ "$(id -u)" = 0 ] || die "needs root: the services change users"
        ! alive "$(value pid)" || die "$name already runs"
        ! answers "$2" || die "port $2 is taken"
        mkdir -p "$dir"
        [ "${KEEP_SPOOL:-0}" = 1 ] || rm -rf "${BENCH_SPOOL:?}/$name"
        mkdir -p "$BENCH_SPOOL/$name"
        up "$2" "$3" ;;
    stop) stop ;;
    pids) members ;;
    exec)
        shift
        p=$(members | head -1)
        [ -n "$p" ] || die "$name is not running"
        exec nsenter -m -t "$p" -- "$@" ;;
    *) die "usage: run-$name start LISTEN_PORT SINK_PORT | stop | pids | exec CMD..." ;;
    esac
}
