#!/usr/bin/env bash
# One Redis 7 on loopback: redis.sh up|down. It may forget everything: it is a cache.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PORT=${CLUSTER_REDIS_PORT:-26379}

up() {
	alive redis && return
	need redis-server redis-server
	need redis-cli redis-tools
	launch redis redis-server --bind 127.0.0.1 --port "$PORT" --dir "$STATE" --save "" \
		--appendonly no --maxmemory 512mb --maxmemory-policy noeviction
	wait_until redis 20 redis-cli -p "$PORT" ping
}

case ${1:-} in
up) up ;;
down) end redis 10 ;;
*) die "redis.sh up|down" ;;
esac
