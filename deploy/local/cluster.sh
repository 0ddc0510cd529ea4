#!/usr/bin/env bash
# Redis, two MariaDB and HBase with Thrift, on loopback, on a bare machine:
# cluster.sh up|down|status|wipe. deploy/cluster.toml describes what `up` starts.
# cluster.sh with COMMAND...: what tests need is up while the command runs; what was up stays up.
# Data and logs lie in .cluster/.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
HERE=$ROOT/deploy/local
SERVERS=(redis mariadb hbase)
TESTED=(redis mariadb mysql8 hbase)
declare -A PROCESSES=([redis]="redis" [mariadb]="mariadb1 mariadb2" [hbase]="hbase thrift"
	[mysql8]="mysql8")

is_up() { # SERVER
	for process in ${PROCESSES[$1]}; do alive "$process" || return 1; done
}

STARTED=()
end_started() {
	for server in "${STARTED[@]}"; do "$HERE/$server.sh" down; done
}

# Runs a command among the servers of the tests. One that cannot be started is said aloud, and
# where CI runs it is an error.
with_servers() {
	local began=$SECONDS code=0
	trap end_started EXIT
	for server in "${TESTED[@]}"; do
		is_up "$server" && continue
		STARTED+=("$server")
		"$HERE/$server.sh" up && continue
		[ "${CI:-}" = true ] && code=1
		echo "cluster: NOT TESTED: everything that needs $server" >&2
	done
	[ ${#STARTED[@]} = 0 ] || echo "cluster: ${STARTED[*]} up after $((SECONDS - began)) s"
	[ $code != 0 ] || "$@" || code=$?
	exit $code
}

case ${1:-} in
up)
	began=$SECONDS
	for server in "${SERVERS[@]}"; do "$HERE/$server.sh" up; done
	echo "cluster: up after $((SECONDS - began)) s; logs in $LOG"
	;;
down) for server in "${SERVERS[@]}"; do "$HERE/$server.sh" down; done ;;
status)
	for file in "$STATE"/*.pid; do
		[ -e "$file" ] || die "nothing was started"
		name=$(basename "$file" .pid)
		alive "$name" && echo "$name up" || echo "$name down"
	done
	;;
wipe)
	for server in "${SERVERS[@]}"; do "$HERE/$server.sh" down; done
	rm -rf "${STATE:?}"/{mariadb?,mariadb?.*,hbase/data,log}
	;;
with)
	shift
	with_servers "$@"
	;;
*) die "cluster.sh up|down|status|wipe|with COMMAND..." ;;
esac
