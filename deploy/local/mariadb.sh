#!/usr/bin/env bash
# Two MariaDB servers on loopback, each with the database `trunkline`: mariadb.sh up|down.
# Binlog on, everything synced, as the guarantees need it. Only who started them is let in as
# administrator, over the socket and without a password.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PORTS=(${CLUSTER_MARIADB_PORTS:-33061 33062})
ADMINISTRATOR=$(id -un)

sql() { # NUMBER STATEMENTS
	mariadb --no-defaults -u"$ADMINISTRATOR" -S "$STATE/mariadb$1.sock" -N -e "$2"
}

configure() { # NUMBER PORT
	cat >"$STATE/mariadb$1.cnf" <<-C
		[mysqld]
		user=$RUNS_AS
		datadir=$STATE/mariadb$1
		socket=$STATE/mariadb$1.sock
		pid-file=$STATE/mariadb$1.mysqld
		port=$2
		bind-address=127.0.0.1
		secure_file_priv=$STATE/mariadb$1.files
		local_infile=0
		server_id=$1
		log_bin=bin
		binlog_format=ROW
		expire_logs_days=1
		sync_binlog=1
		innodb_flush_log_at_trx_commit=1
		innodb_buffer_pool_size=256M
		innodb_log_file_size=192M
		max_connections=200
		performance_schema=0
		skip_name_resolve=1
	C
}

up() { # NUMBER PORT
	local name=mariadb$1
	alive "$name" && return
	configure "$1" "$2"
	mkdir -p "$STATE/$name" "$STATE/$name.files"
	chmod 0700 "$STATE/$name" "$STATE/$name.files"
	own "$STATE/$name" "$STATE/$name.files" "$STATE/$name.cnf"
	if [ ! -d "$STATE/$name/mysql" ]; then
		"${AS[@]}" mariadb-install-db --defaults-file="$STATE/$name.cnf" --skip-test-db \
			--auth-root-authentication-method=socket --auth-root-socket-user="$ADMINISTRATOR" \
			>"$LOG/$name.install.log" 2>&1 ||
			die "$name could not be installed: $LOG/$name.install.log"
	fi
	launch "$name" mariadbd --defaults-file="$STATE/$name.cnf"
	wait_until "$name" 30 sql "$1" "SELECT 1"
	# A directory of an earlier version has administrators without a password.
	sql "$1" "DELETE FROM mysql.global_priv WHERE User = 'root' AND Host <> 'localhost';
		FLUSH PRIVILEGES;
		ALTER USER '$ADMINISTRATOR'@localhost IDENTIFIED VIA unix_socket;"
	sql "$1" "CREATE DATABASE IF NOT EXISTS trunkline CHARACTER SET binary;
		CREATE USER IF NOT EXISTS trunkline@'127.0.0.1' IDENTIFIED BY 'trunkline';
		GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX
			ON \`trunkline%\`.* TO trunkline@'127.0.0.1';"
}

case ${1:-} in
up)
	need mariadbd mariadb-server
	need mariadb mariadb-client
	for number in "${!PORTS[@]}"; do up $((number + 1)) "${PORTS[$number]}"; done
	;;
down) for number in "${!PORTS[@]}"; do end "mariadb$((number + 1))" 30; done ;;
*) die "mariadb.sh up|down" ;;
esac
