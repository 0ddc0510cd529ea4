# What the servers' scripts share. State lies in .cluster/ of the project, or where CLUSTER_STATE
# says; logs in its log/. No variable of these scripts begins as the server's settings do.
# shellcheck shell=bash

set -euo pipefail
ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
STATE=${CLUSTER_STATE:-$ROOT/.cluster}
LOG=$STATE/log
mkdir -p "$LOG"
# Sockets, data and logs are for nobody else on this machine.
chmod 0700 "$STATE"

die() {
	echo "cluster: $*" >&2
	exit 1
}

# need COMMAND PACKAGE: installs the Debian package where the command is missing.
need() {
	command -v "$1" >/dev/null && return
	[ "$(id -u)" = 0 ] || die "$1 is missing: install the package $2, as root."
	if [ ! -e "$STATE/.updated" ]; then
		apt-get -qq update >"$LOG/apt.log" 2>&1 || die "apt-get update failed: $LOG/apt.log"
		touch "$STATE/.updated"
	fi
	RUNLEVEL=1 DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends "$2" \
		>>"$LOG/apt.log" 2>&1 || die "$2 could not be installed: $LOG/apt.log"
}

# alive NAME: whether the process that NAME was started as is there.
alive() {
	local file=$STATE/$1.pid
	[ -f "$file" ] && kill -0 "$(cat "$file")" 2>/dev/null
}

# Root gives its servers a user of their own, whom nothing else on the machine belongs to.
# AS is what a command begins with to run as that user, RUNS_AS the user's name.
AS=()
RUNS_AS=$(id -un)
become_own_user() {
	local own=trunkline-local
	[ "$(id -u)" = 0 ] || return 0
	id "$own" >/dev/null 2>&1 ||
		useradd --system --no-create-home --shell /usr/sbin/nologin "$own" 2>>"$LOG/user.log" ||
		die "the user $own could not be made: $LOG/user.log"
	AS=(setpriv "--reuid=$own" "--regid=$own" --clear-groups)
	if "${AS[@]}" test -x "$(dirname "$STATE")"; then
		RUNS_AS=$own
		chown "$own:" "$STATE" "$LOG"
	else
		AS=()
		[ -n "${CLUSTER_TOLD:-}" ] ||
			echo "cluster: $STATE lies where only root may look: its servers run as root" >&2
		export CLUSTER_TOLD=1
	fi
}
become_own_user

# own PATH...: gives files to the user that the servers run as.
own() {
	[ ${#AS[@]} = 0 ] || chown -R "$RUNS_AS:" "$@"
}

# launch NAME COMMAND...: starts a process of its own session; its output is log/NAME.log.
launch() {
	local name=$1
	shift
	setsid nohup "${AS[@]}" "$@" >"$LOG/$name.log" 2>&1 </dev/null &
	echo $! >"$STATE/$name.pid"
}

# wait_until NAME SECONDS COMMAND...: until the command succeeds; the process must stay alive.
wait_until() {
	local name=$1 ticks=$(($2 * 10))
	shift 2
	for ((tick = 0; tick < ticks; tick++)); do
		"$@" >/dev/null 2>&1 && return
		alive "$name" || die "$name ended: $(grep -E 'ERROR|FATAL|Exception' "$LOG/$name.log" | head -1) ($LOG/$name.log)"
		sleep 0.1
	done
	die "$name is not ready after $((ticks / 10)) s: $LOG/$name.log"
}

# end NAME SECONDS: asks the process to end, and makes it after so many seconds.
end() {
	local pid
	alive "$1" || return 0
	pid=$(cat "$STATE/$1.pid")
	kill "$pid"
	for ((tick = 0; tick < $2 * 10; tick++)); do
		kill -0 "$pid" 2>/dev/null || break
		sleep 0.1
	done
	kill -9 "$pid" 2>/dev/null || true
	rm -f "$STATE/$1.pid"
}

listens() {
	(exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null
}
