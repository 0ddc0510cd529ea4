#!/usr/bin/env bash
# Redis, two MariaDB and HBase with Thrift, on loopback, on a bare machine: cluster.sh up|down|status|wipe.
# deploy/cluster.toml describes what `up` starts. Data and logs lie in .cluster/.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
HERE=$ROOT/deploy/local
SERVERS=(redis mariadb hbase)

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
*) die "cluster.sh up|down|status|wipe" ;;
esac
